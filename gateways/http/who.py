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

from domain.fields import Digest
from domain.scopes import KeyScope, allows
from gateways.http import problems
from gateways.http.problems import Problem
from gateways.http.rate_headers import GUESSES, origin_of, refused_by
from gateways.http.services import Services
from gateways.stores.keyset import TOKEN_PREFIX
from gateways.stores.rates import Limit, Standing
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
#: Where a request's scope has the account whose API key it brought.
ACCOUNT: Final = "account"
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


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brings along to say who sends it. `origin` is whose allowance is used where they are not valid."""

    origin: str
    authorization: str | None
    token: str | None = None
    api_key: str | None = None


async def caller(services: Services, brought: Credentials) -> Caller:
    """Who these credentials belong to. Raises a Problem: 401, or 429 where an address brings wrong ones too often."""
    try:
        return await _holder_of(services, brought)
    except Problem as problem:
        if problem.code == "credentials_invalid":
            await _permit(services, GUESSES, brought.origin)
        raise


async def _holder_of(services: Services, brought: Credentials) -> Caller:
    """Raises a Problem (401)."""
    authorization = brought.authorization
    secret = _bearer(authorization) if authorization is not None else brought.token or brought.api_key
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
    found = await caller(services, Credentials(origin_of(request.scope), request.headers.get("authorization")))
    if found.holder is not None:
        _refuse_foreign_origin(request)
        found.assert_scope(scope)
    request.scope["rate"] = await request_permit(services, found)
    return found


async def account_caller(services: Services, request: Request, scope: KeyScope) -> Caller:
    """The holder of an API key who sends this request. Raises a Problem, as `caller_of` does: 403 for session tokens, too."""
    found = await caller_of(services, request, scope)
    if found.holder is None:
        raise Problem("api_key_required", "A session token is good for its own mailbox only: use an API key.")
    request.scope[ACCOUNT] = found.owner
    return found


async def request_permit(services: Services, found: Caller) -> Standing | None:
    """Takes one of the requests that this caller has; None where rates are off. Raises a Problem (429)."""
    return await _permit(services, services.request_limit, found.by)


async def link_permit(services: Services, account: str) -> Standing | None:
    """Takes one of the requests that links of this account have, all of them together; None where rates are off.

    Raises a Problem (429).
    """
    return await _permit(services, services.request_limit, account)


async def _permit(services: Services, limit: Limit, who: str) -> Standing | None:
    if not services.rates_on:
        return None
    standing = await services.rates.admit(limit, who)
    if standing.refused:
        raise refused_by(standing)
    return standing


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


def is_foreign(origin: str | None, host: str | None) -> bool:
    """Whether a page of another site asks; a browser says where a page comes from, and none says what can't be read."""
    if origin is None:
        return False
    try:
        site = urlsplit(origin).netloc.lower()
    except ValueError:
        return True
    return not site or site != (host or "").lower()


def foreign_origin() -> Problem:
    """A page from elsewhere has no business with a server's secret."""
    return Problem("foreign_origin", "Pages of another origin must not use API keys.")


def _refuse_foreign_origin(request: Request) -> None:
    if is_foreign(request.headers.get("origin"), request.headers.get("host")):
        raise foreign_origin()
