"""`main.py rotate-keys`: every data key wrapped anew, under a new key-encryption key, while everything runs.

The answer goes to standard output, progress to standard error. Exit status 0: everything is wrapped by the new key, and that
is in the log; any other: it is not, and the same command goes on from there.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from gateways.command_line.failures import TIMED_OUT, Failed
from gateways.command_line.installation import Installation, tables_of
from gateways.command_line.output import Form, advise, show_one
from gateways.command_line.progress import Bar
from gateways.log.command_log import CommandLog, NotPromised, OutcomeUnknown
from gateways.log.rotation_reports import rotation_reports
from gateways.stores.key_rotation import NotAllWrapped, Rotated, RotationUnderWay, forget_unused, rotate
from gateways.stores.keyset import Keyset, open_keyset
from gateways.stores.kms import KeyKeeper, KeysUnreachable
from gateways.stores.kms_chosen import key_encryption
from gateways.stores.one_keyset import check_keyset
from gateways.stores.postgres import Pool

BACKUP = "Back up the keyset file now: what is wrapped from here on opens with no earlier copy of it."
AGAIN = "Run it again when that is mended: it goes on from where it is."
UNTOLD = "Every data key is wrapped by the new key, but the log has not taken that yet"


async def rotate_keys_of(installation: Installation, *, forget: bool, output: Form | None) -> None:
    """Rotates the keys of an installation. Raises Failed and KeysetError, and what its servers raise."""
    keyset = open_keyset(installation.keyset)
    keys = key_encryption(installation.kms, keyset)
    log = CommandLog(installation.kafka, prefix=installation.topic_prefix)
    try:
        async with tables_of(installation) as pool:
            await check_keyset(pool, keyset, installation.keyset)
            report = rotation_reports(log)
            await rotate_keys(pool, keys, keyset, report=report, forget=forget, output=output)
    finally:
        await keys.close()
        await log.close()


async def rotate_keys(
    pool: Pool,
    keys: KeyKeeper,
    keyset: Keyset,
    *,
    report: Callable[[Rotated], Awaitable[None]],
    forget: bool = False,
    output: Form | None = None,
) -> None:
    """Rotates and prints what came of it; `forget` destroys keys that have only opened for a day and are not needed.

    Raises Failed, KeysetError, and what Postgres and `report` raise.
    """
    began, before = time.monotonic(), keyset.primary
    try:
        with Bar("rotate-keys") as bar:
            rotated = await rotate(pool, keys, report=report, progress=bar.at)
        forgotten = await forget_unused(pool, keyset) if forget else []
    except Exception as error:
        if keyset.primary != before or keyset.is_between_keys:
            advise(BACKUP)
        if failed := _told(error):
            raise failed from error
        raise
    seconds = time.monotonic() - began
    show_one(_row(rotated, forgotten, seconds), _sentences(rotated, forgotten, seconds), output)
    if rotated.key == keyset.primary:
        advise(BACKUP)


def _told(error: Exception) -> Failed | None:
    match error:
        case RotationUnderWay():
            return Failed(str(error))
        case NotAllWrapped() | KeysUnreachable():
            return Failed(f"{str(error).rstrip('.')}. {AGAIN}")
        case OutcomeUnknown():
            return Failed(f"{UNTOLD}: Kafka does not confirm in time. {AGAIN}", code=TIMED_OUT)
        case NotPromised():
            return Failed(f"{UNTOLD}: {str(error).rstrip('.')}. {AGAIN}")
    return None


def _row(rotated: Rotated, forgotten: list[str], seconds: float) -> dict[str, Any]:
    return {
        "key": rotated.key,
        "rows": rotated.rows,
        "began_at": rotated.began_at.isoformat(),
        "finished_at": rotated.finished_at.isoformat(),
        "seconds": round(seconds, 3),
        "forgotten": forgotten,
    }


def _sentences(rotated: Rotated, forgotten: list[str], seconds: float) -> str:
    rows = f"{rotated.rows} data key{'' if rotated.rows == 1 else 's'}"
    destroyed = f"\nDestroyed, as nothing needs them: {', '.join(forgotten)}." if forgotten else ""
    return f"{rows} wrapped anew by {rotated.key} in {seconds:.1f} s.{destroyed}"
