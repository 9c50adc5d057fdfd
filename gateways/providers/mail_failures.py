"""How a login to a mail server can fail, in words for its user and none of the server's."""

import ssl
from typing import Final

from gateways.providers.connector import ConnectCode

UNREACHABLE: Final = "could not be reached"
NOT_TRUSTED: Final = "has a certificate that is not valid for its name"
NO_TLS: Final = "does not speak TLS on that port"
NO_STARTTLS: Final = "does not offer STARTTLS"
NOT_UNDERSTOOD: Final = "did not answer as a mail server does"
HUNG_UP: Final = "ended the connection before the login was done"
BUSY: Final = "would not let anybody log in just now"
NO_PASSWORDS: Final = "does not offer to log in by password"
NO_XOAUTH2: Final = "does not offer to log in by XOAUTH2"
PASSWORD_REFUSED: Final = "did not accept the user name and password"  # noqa: S105 - a sentence
TOKEN_REFUSED: Final = "did not accept the user name and access token"  # noqa: S105 - a sentence


class MailFailure(Exception):
    """A server was not logged in to. `what` completes a sentence that begins with the server."""

    def __init__(self, code: ConnectCode, what: str) -> None:
        super().__init__(what)
        self.code = code
        self.what = what


def refused(access_token: str | None) -> MailFailure:
    """The server does not take what was presented to it."""
    return MailFailure("login_failed", PASSWORD_REFUSED if access_token is None else TOKEN_REFUSED)


def unavailable(what: str) -> MailFailure:
    """No login this time."""
    return MailFailure("provider_unavailable", what)


def of_network(error: BaseException) -> MailFailure:
    """What an OSError, TLS's among them, means for a login."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return unavailable(NOT_TRUSTED)
    if isinstance(error, ssl.SSLError):
        return unavailable(NO_TLS)
    return unavailable(HUNG_UP if isinstance(error, ConnectionError) else UNREACHABLE)
