"""The certificates that SNS signs with: fetched from SNS's own host, checked, and kept for a day.

What a certificate proves here, and what it doesn't. The file is fetched over TLS from a host that was worked out from an
allowed topic (`sns_topics.py`), and that connection is the anchor of trust: its certificate is checked against the
authorities this machine trusts. The file itself usually holds the signing certificate alone, without the intermediate that
would lead to such an authority, so a chain can't be built from it without trusting further downloads. Checked all the same:

- it is valid now (looked at again at each use), and of RSA with 2,048 bits or more;
- it was issued to SNS in that region, is no authority, and is not signed by its own key;
- further certificates in the file, if there are any, are each the issuer of the one before.

Another certificate than SNS would sign with is refused for good. A file that is no certificate, and dates that exclude this
moment, may be the fault of whatever stands between SNS and us, or of our clock: those are a matter of trying again.

A certificate is fetched at most once a day. Failures are kept for a minute. Certificates never seen before, which a forger
can name at will on the right host, are fetched at most twenty times a minute; one that has been good is exempt from that,
and stays in use while it is valid when a later fetch fails or brings anything else.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    DNSName,
    ExtensionNotFound,
    SubjectAlternativeName,
    load_pem_x509_certificates,
)
from cryptography.x509.oid import NameOID

from gateways.mail_in.sns_http import Fetches, Unreachable
from gateways.mail_in.sns_topics import Topic
from gateways.single_flight import SingleFlight

KEPT_FOR = timedelta(days=1)
FAILURES_KEPT_FOR = timedelta(minutes=1)
UNKNOWN_A_MINUTE = 20
_MOST_IN_A_FILE = 5


class CertificateRefused(Exception):
    """What was fetched is no certificate that SNS would sign with."""


class CertificateUnreachable(Exception):
    """The certificate can't be had or used now; try again later."""


_Outcome = Certificate | CertificateRefused | CertificateUnreachable


@dataclass(frozen=True, slots=True)
class _Kept:
    outcome: _Outcome
    until: datetime


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


class Certificates:
    """Public keys of SNS by the URL of their certificate."""

    def __init__(self, http: Fetches, *, now: Callable[[], datetime] = utc_now) -> None:
        self._http = http
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._one_at_a_time = SingleFlight()
        self._unknown_fetched_at: deque[datetime] = deque(maxlen=UNKNOWN_A_MINUTE)

    async def key(self, url: str, topic: Topic) -> RSAPublicKey:
        """The key of the certificate at `url`, which must have been found to be of `topic`'s host.

        Raises CertificateRefused or CertificateUnreachable.
        """
        kept = self._fresh(url)
        if kept is None:
            async with self._one_at_a_time(url):
                kept = self._fresh(url) or await self._fetch(url, topic)
        if not isinstance(kept.outcome, Certificate):
            raise type(kept.outcome)(*kept.outcome.args)
        return _key_now(kept.outcome, self._now())

    def _fresh(self, url: str) -> _Kept | None:
        kept = self._kept.get(url)
        return kept if kept is not None and self._now() < kept.until else None

    async def _fetch(self, url: str, topic: Topic) -> _Kept:
        known = self._kept.get(url)
        was_good = known is not None and isinstance(known.outcome, Certificate)
        if not was_good:
            self._count_unknown()
        outcome = await self._fetched(url, topic)
        until = self._now() + (KEPT_FOR if isinstance(outcome, Certificate) else FAILURES_KEPT_FOR)
        if known is not None and was_good and not isinstance(outcome, Certificate):
            outcome = known.outcome
        self._forget_old_failures()
        self._kept[url] = _Kept(outcome, until)
        return self._kept[url]

    async def _fetched(self, url: str, topic: Topic) -> _Outcome:
        try:
            return signing_certificate(await self._http.fetch(url), topic)
        except Unreachable as error:
            return CertificateUnreachable(f"The certificate of SNS can't be fetched: {error}.")
        except (CertificateRefused, CertificateUnreachable) as error:
            return error

    def _count_unknown(self) -> None:
        now, times = self._now(), self._unknown_fetched_at
        if len(times) == UNKNOWN_A_MINUTE and now - times[0] < timedelta(minutes=1):
            raise CertificateUnreachable("Too many unknown certificates were named within a minute.")
        times.append(now)

    def _forget_old_failures(self) -> None:
        now = self._now()
        for url, kept in list(self._kept.items()):
            if kept.until <= now and not isinstance(kept.outcome, Certificate):
                del self._kept[url]


def signing_certificate(pem: bytes, topic: Topic) -> Certificate:
    """The certificate in a file fetched from SNS, once everything but its dates has been checked.

    Raises CertificateRefused, and CertificateUnreachable where the file is none.
    """
    try:
        chain = load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateUnreachable("The file named as certificate can't be read as one.") from None
    try:
        _check(chain, topic)
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateRefused("The certificate is not one that SNS would sign with.") from None
    return chain[0]


def _check(chain: list[Certificate], topic: Topic) -> None:
    leaf = chain[0]
    if len(chain) > _MOST_IN_A_FILE or not all(_issued(issuer, issued) for issued, issuer in pairwise(chain)):
        raise CertificateRefused("The certificates in the file are no chain.")
    if _is_authority(leaf) or leaf.issuer == leaf.subject or _signed_by_itself(leaf):
        raise CertificateRefused("The certificate was not issued by an authority.")
    if not _names(leaf) & _names_of_signers(topic):
        raise CertificateRefused("The certificate was not issued to SNS in this region.")
    _rsa_key(leaf)


def _key_now(certificate: Certificate, now: datetime) -> RSAPublicKey:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise CertificateUnreachable("The certificate is not valid now, by the clock of this machine.")
    return _rsa_key(certificate)


def _rsa_key(certificate: Certificate) -> RSAPublicKey:
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size < 2048:
        raise CertificateRefused("The certificate has no RSA key of 2,048 bits or more.")
    return key


def _issued(issuer: Certificate, certificate: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _signed_by_itself(certificate: Certificate) -> bool:
    """Whether its own key signed it, whatever name it gives for its issuer."""
    key, hashed_by = certificate.public_key(), certificate.signature_hash_algorithm
    if not isinstance(key, RSAPublicKey) or hashed_by is None:
        return False
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, PKCS1v15(), hashed_by)
    except InvalidSignature:
        return False
    return True


def _is_authority(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        return False


def _names(certificate: Certificate) -> set[str]:
    """The DNS names the certificate was issued to; its common name only where it has none (RFC 9525 2)."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        return set(alternatives.get_values_for_type(DNSName))
    except ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return {str(name.value) for name in common}


def _names_of_signers(topic: Topic) -> set[str]:
    """What SNS calls itself when it signs: one name for the old regions, others for opt-in ones, GovCloud and China.

    Both GovCloud regions sign as the western one. The list is that of the AWS SDK for Java (SnsHostProvider).
    """
    region = "us-gov-west-1" if topic.region.startswith("us-gov-") else topic.region
    regional = {f"{name}{region}.{topic.domain}" for name in ("sns.", "sns-", "sns-signing.")}
    return regional | {f"sns.{topic.domain}", topic.host}
