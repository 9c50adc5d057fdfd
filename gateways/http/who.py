"""Who is asking, and what is theirs.

An API key (`pl_live_…`) sees the mailboxes of its account, a session token (`uct_…`) the one mailbox it was made for. What is
not yours is not there (404), whether or not it exists; what was yours and has ended is gone (410), by the clock, whether or
not the event has been written yet.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from domain.mailbox_events import Digest
from domain.scopes import KeyScope, allows
from gateways.http import problems
from gateways.http.problems import Problem
from gateways.http.rate_headers import refused_by
from gateways.http.services import Services
from gateways.stores.keyset import TOKEN_PREFIX
from projections import mailboxes
from projections.accounts import Holder
from projections.mailboxes import MailboxRow

KEY_PREFIX: Final = "pl_live_"
#: The version of session tokens that `caller` takes for genuine.
TOKEN_VERSION: Final = 1
NEEDED: Final = (
    "Send `Authorization: Bearer` with an API key or the mailbox's session token; the query counts for streams only."
)
NOT_VALID: Final = (
    "The API key or session token is not valid: look whether it is whole, of this installation, and not revoked."
)
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="postledger"'}


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose credentials are genuine: the holder of an API key, or of a mailbox's session token."""

    holder: Holder | None = None
    mailbox: str | None = None

    @property
    def owner(self) -> str:
        """The account, or the mailbox itself."""
        return self.holder.account if self.holder else self.mailbox or ""

    @property
    def by(self) -> str:
        """Who acts, as events record it: the id of the key, or the mailbox."""
        return self.holder.key if self.holder else self.mailbox or ""

    def assert_scope(self, wanted: KeyScope) -> None:
        """Raises a Problem (403) where the API key is narrowed to other things; a session token is no key."""
        if self.holder is not None and not allows(self.holder.scopes, wanted):
            raise Problem("scope_missing", f"This API key has not the scope `{wanted}`.", more={"scope": wanted})

    def may_see(self, row: MailboxRow) -> bool:
        if self.mailbox is not None:
            return row.mailbox == self.mailbox and row.token_version == TOKEN_VERSION
        return row.owner == self.owner


async def caller(
    services: Services, authorization: str | None, token: str | None = None, api_key: str | None = None
) -> Caller:
    """Who these credentials belong to. Raises a Problem: 401, or 429 where an API key asks too often."""
    secret = _bearer(authorization) if authorization is not None else token or api_key
    if not secret:
        raise Problem("credentials_missing", NEEDED, CHALLENGE)
    if secret.startswith(TOKEN_PREFIX):
        mailbox = services.keyset.mailbox_of_token(secret, TOKEN_VERSION)
        if mailbox is not None:
            return Caller(mailbox=mailbox)
    elif secret.startswith(KEY_PREFIX):
        holder = await services.api_keys.holder(services.pool, sha256(secret.encode()).hexdigest())
        if holder is not None:
            return Caller(holder=holder)
    raise Problem("credentials_invalid", NOT_VALID, CHALLENGE)


async def caller_of(services: Services, request: Request, scope: KeyScope) -> Caller:
    """Who sends this request. Raises a Problem: 401, 403 for a page of a foreign origin or a missing scope, 429."""
    found = await caller(services, request.headers.get("authorization"))
    if found.holder is not None:
        _refuse_foreign_origin(request)
        found.assert_scope(scope)
        if services.rates_on:
            standing = await services.rates.admit(services.request_limit, found.holder.key)
            request.scope["rate"] = standing
            if standing.refused:
                raise refused_by(standing)
    return found


async def mailbox_for(services: Services, caller: Caller, address: str) -> MailboxRow:
    """The caller's open mailbox of this address. Raises a Problem: 404, or 410 where it has ended."""
    return allowed(caller, await mailboxes.by_address(services.pool, address_digest(services, address)))


def address_digest(services: Services, address: str) -> Digest:
    return services.keyset.digest("address", address.lower())


def allowed(caller: Caller, row: MailboxRow | None) -> MailboxRow:
    """The row, where it is the caller's and open. Raises a Problem: 404 or 410."""
    if row is None or not caller.may_see(row):
        raise problems.not_found()
    if not row.open_at(datetime.now(UTC)):
        raise problems.mailbox_ended()
    return row


def _bearer(authorization: str) -> str:
    """The credentials of `Authorization: Bearer …` (RFC 6750 2.1). Raises a Problem where it is anything else."""
    scheme, _, secret = authorization.strip().partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret or not secret.isascii() or " " in secret:
        raise Problem(
            "credentials_invalid",
            "`Authorization` has to be `Bearer`, a space, and an API key or session token.",
            CHALLENGE,
        )
    return secret


def _refuse_foreign_origin(request: Request) -> None:
    """A browser says where a page comes from; a page from elsewhere has no business with a server's secret."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Problem("foreign_origin", "Pages of another origin must not use API keys.")
