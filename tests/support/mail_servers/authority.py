"""A certificate authority of the tests, for servers on 127.0.0.1 and localhost."""

import ssl
from datetime import datetime
from functools import cached_property
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificates

HERE = ("127.0.0.1", "localhost")


class Authority:
    """Issues certificates; whoever is to believe them gets `trusting`, or the file that `write` makes."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    @property
    def pem(self) -> bytes:
        return self._authority.cert_pem.bytes()

    def write(self, folder: Path) -> Path:
        """The authority's certificate as a file, for those who want to be told by name."""
        file = folder / "authority.pem"
        file.write_bytes(self.pem)
        return file

    @cached_property
    def trusting(self) -> ssl.SSLContext:
        """What a client needs to believe our servers, and nobody else."""
        return ssl.create_default_context(cadata=self.pem.decode())

    def issue(self, *names: str, not_after: datetime | None = None) -> str:
        """A key and its certificates, as PEM, for these names (ours without any)."""
        return self._issued(names, not_after).private_key_and_cert_chain_pem.bytes().decode()

    def issue_pkcs12(self, file: Path, password: bytes, *names: str) -> Path:
        """The same as a file of the kind that Java reads."""
        issued = self._issued(names, None)
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        chain = [one for blob in issued.cert_chain_pems for one in load_pem_x509_certificates(blob.bytes())]
        assert isinstance(key, pkcs12.PKCS12PrivateKeyTypes)
        file.write_bytes(
            pkcs12.serialize_key_and_certificates(b"tests", key, chain[0], chain[1:], BestAvailableEncryption(password))
        )
        return file

    def _issued(self, names: tuple[str, ...], not_after: datetime | None) -> trustme.LeafCert:
        return self._authority.issue_cert(*(names or HERE), not_after=not_after)
