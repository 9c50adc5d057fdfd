"""What `POST /v1/connections/smtp` takes: a mailbox on servers of somebody's own, read member by member.

Whatever is wrong is told in one answer, and no answer repeats a password.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from domain.tokens import MailServer, OAuthClient, OwnServers
from gateways.http.parameters import USER_ID
from gateways.http.v1.bodies import Faults, Members, pointer

MEMBERS: Final = ("userId", "email", "smtp", "imap", "auth", "password", "oauth")
OF_SERVER: Final = ("host", "port", "security", "username", "password")
OF_OAUTH: Final = ("authorizeUrl", "tokenUrl", "clientId", "clientSecret", "scopes")
SECURITY: Final = ("tls", "starttls", "none")
AUTH: Final = ("password", "xoauth2")
LONGEST_HOST: Final = 253
LONGEST_NAME: Final = 320
LONGEST_SECRET: Final = 1024
LONGEST_URL: Final = 2000
MOST_SCOPES: Final = 50
#: RFC 6749 3.3.
SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,300}")


@dataclass(frozen=True, slots=True)
class MailAccount:
    """A mailbox to be connected; with `servers.oauth` its user has yet to consent."""

    user: str
    email: str
    servers: OwnServers = field(repr=False)


class Within(Faults):
    """Faults of a member's own members."""

    def __init__(self, faults: Faults, name: str) -> None:
        super().__init__()
        self._faults = faults
        self._name = name

    def add(self, pointer: str, message: str) -> None:
        self._faults.add(f"/{self._name}{pointer}", message)


def mail_account(body: Mapping[str, Any], *, unencrypted: bool) -> MailAccount:
    """The mailbox of a body; `unencrypted`: whether servers may do without TLS. Raises a Problem (400)."""
    faults = Faults()
    members = Members(dict(body), MEMBERS, faults)
    user = members.text("userId", most=30)
    if user and not USER_ID.fullmatch(user):
        faults.add("/userId", "`userId` has to be a user's id, `usr_…`.")
    email = members.address("email")
    auth = _one_of(body, "auth", AUTH, faults)
    by_password = auth == "password"
    password = members.text("password", most=LONGEST_SECRET, required=False)
    smtp, imap = (_server(body, name, faults, unencrypted=unencrypted) for name in ("smtp", "imap"))
    oauth = _oauth(body, faults) if auth == "xoauth2" else None
    if auth == "password" and body.get("oauth") is not None:
        faults.add("/oauth", "`oauth` goes with `auth` `xoauth2`.")
    servers = OwnServers(
        smtp=_with_password(smtp, "smtp", password, faults, wanted=by_password),
        imap=_with_password(imap, "imap", password, faults, wanted=by_password),
        oauth=oauth,
    )
    if auth == "xoauth2" and password:
        faults.add("/password", "`password` goes with `auth` `password`.")
    faults.refuse()
    return MailAccount(user, email, servers)


def _server(body: Mapping[str, Any], name: str, faults: Faults, *, unencrypted: bool) -> MailServer:
    within, said = Within(faults, name), _object(body, name, faults)
    if said is None:
        return MailServer("", 0, "tls", "")
    members = Members(said, OF_SERVER, within)
    security = _one_of(said, "security", SECURITY, within)
    if security == "none" and not unencrypted:
        within.add("/security", "`none` would send a password in the open: use `tls` or `starttls`.")
    kind: Literal["tls", "starttls", "none"] = "none" if security == "none" else "starttls"
    return MailServer(
        host=members.text("host", most=LONGEST_HOST).strip(),
        port=_port(said, within),
        security="tls" if security == "tls" else kind,
        username=members.text("username", most=LONGEST_NAME),
        password=members.text("password", most=LONGEST_SECRET, required=False) or None,
    )


def _with_password(server: MailServer, name: str, shared: str, faults: Faults, *, wanted: bool) -> MailServer:
    """Its own password where it has one, that of both where not."""
    password = server.password or shared or None
    if wanted and password is None and server.host:
        faults.add("/password", f"`password` is missing, and `{name}` has none of its own.")
    if not wanted and server.password:
        faults.add(f"/{name}/password", "`password` goes with `auth` `password`.")
    return MailServer(server.host, server.port, server.security, server.username, password if wanted else None)


def _oauth(body: Mapping[str, Any], faults: Faults) -> OAuthClient | None:
    within, said = Within(faults, "oauth"), _object(body, "oauth", faults)
    if said is None:
        return None
    members = Members(said, OF_OAUTH, within)
    return OAuthClient(
        authorize_url=members.text("authorizeUrl", most=LONGEST_URL),
        token_url=members.text("tokenUrl", most=LONGEST_URL),
        client_id=members.text("clientId", most=LONGEST_SECRET),
        client_secret=members.text("clientSecret", most=LONGEST_SECRET, required=False) or None,
        scopes=_scopes(said.get("scopes"), within),
    )


def _scopes(said: object, faults: Faults) -> list[str]:
    if isinstance(said, list) and 0 < len(said) <= MOST_SCOPES:
        scopes = [scope for scope in said if isinstance(scope, str) and SCOPE.fullmatch(scope)]
        if len(scopes) == len(said):
            return list(dict.fromkeys(scopes))
    faults.add("/scopes", f"`scopes` has to be a list of 1 to {MOST_SCOPES} scopes, strings without spaces.")
    return []


def _object(body: Mapping[str, Any], name: str, faults: Faults) -> dict[str, Any] | None:
    found = body.get(name)
    if isinstance(found, dict):
        return found
    said = "has to be an object" if found is not None else "is missing"
    faults.add(pointer(name), f"`{name}` {said}.")
    return None


def _one_of(body: Mapping[str, Any], name: str, values: Sequence[str], faults: Faults) -> str:
    found = body.get(name)
    if isinstance(found, str) and found in values:
        return found
    faults.add(pointer(name), f"`{name}` has to be one of {', '.join(values)}.")
    return ""


def _port(said: Mapping[str, Any], faults: Faults) -> int:
    found = said.get("port")
    if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 65536:
        return found
    faults.add("/port", "`port` has to be a whole number from 1 to 65535.")
    return 0
