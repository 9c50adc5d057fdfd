"""Which blob store there is, by a setting: a folder, or a bucket in a cloud."""

from pathlib import Path

from gateways.stores.blobs import Blobs, LocalBlobs


def open_blobs(place: str, folder: Path, *, endpoint: str = "") -> Blobs:
    """`s3://…` and `az://…` name a bucket; for anything else it is the local folder. Raises ValueError for a wrong place.

    `endpoint`: another server that stands in for the cloud's.
    """
    if "://" not in place:
        return LocalBlobs(folder)
    from gateways.stores.blobs_cloud import CloudBlobs, bucket  # noqa: PLC0415 - obstore starts threads of its own

    return CloudBlobs(bucket(place, endpoint=endpoint))
