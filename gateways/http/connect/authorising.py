"""From a grant to a connection: the vault first, then the command, then what was decided.

The tokens must be in the vault before the log says that there is a connection. Where nothing came of it for certain, the
vault is as it was before; where the outcome is unknown they stay, and what no connection names is swept some time later.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request

from domain import provider_scopes
from domain.connection_commands import AuthoriseConnection
from domain.connection_events import Auth, Call, ConnectionAuthorised, ConnectionRefused, Provider, Token
from domain.fields import Digest
from domain.tokens import Secrets
from gateways.http.asking import settled
from gateways.http.connect.parts import Connecting
from gateways.http.connect.words import NotConnected
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.log.decisions import Asked, Decision
from gateways.providers.connector import Granted
from gateways.stores.keyset_file import KeysetError
from gateways.stores.postgres import UNREACHABLE
from gateways.stores.sealing import Unsealable, place, seal
from gateways.stores.vault import Held
from projections import connections, users
from projections.connections import ConnectionRow
from schemas import topics
from schemas.ids import new_id

log = logging.getLogger(__name__)

#: Connections that may turn out to be in the way, each a moment after the other.
MOST_MOVES: Final = 3
#: Looks at a row of the vault that is being refreshed, and the seconds between them.
LOOKS: Final = 50
LOOK_SECONDS: Final = 0.1
#: Seconds that a row is kept from being refreshed while new tokens take its place.
LEASE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """For whom, and where, a mailbox is to be connected. `connection` is one that is to be renewed, and no other."""

    owner: str
    user: str
    provider: Provider
    connection: str | None = None
    auth: Auth = "oauth"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Which mailbox it is, in the forms that commands name it by."""

    address: str
    account_digest: Digest
    subject_digest: Digest | None
    data_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection there is now."""

    connection: str
    log_position: str


@dataclass(frozen=True, slots=True)
class Try:
    """One grant on its way to become a connection."""

    wanted: Wanted
    granted: Granted
    mailbox: Mailbox

    def command(self, connection: str, token: Token) -> AuthoriseConnection:
        wanted, mailbox = self.wanted, self.mailbox
        return AuthoriseConnection(
            connection=connection,
            user=wanted.user,
            owner=wanted.owner,
            provider=wanted.provider,
            auth=wanted.auth,
            account=seal(mailbox.data_key, mailbox.address.encode(), place("connection", connection, "account")),
            account_digest=mailbox.account_digest,
            subject_digest=mailbox.subject_digest,
            scopes=self.granted.scopes,
            asked_scopes=self.granted.asked_scopes,
            token=token,
            reconnects=wanted.connection is not None,
        )


class Authorising:
    """Makes connections of grants."""

    def __init__(self, services: Services, connecting: Connecting) -> None:
        self._services = services
        self._connecting = connecting

    async def connect(self, request: Request, wanted: Wanted, granted: Granted) -> Connected:
        """The connection of this grant, new or renewed. Raises NotConnected, and what Decisions.ask or Postgres raise."""
        try:
            mailbox = await self._mailbox(wanted, granted)
            connected = await self._placed(request, Try(wanted, granted, mailbox))
        except NotConnected as failure:
            if failure.code not in {"unavailable", "already_connected"}:
                await self._give_back(wanted.provider, granted)
            raise
        for operation in granted.calls:
            self._note(connected.connection, wanted.user, operation)
        return connected

    def _note(self, connection: str, user: str, operation: str) -> None:
        """A call with fresh tokens that went well."""
        call = Call(datetime.now(UTC), operation, "connect", connection, "ok")
        self._connecting.uses.note(connection, user, call)

    async def _mailbox(self, wanted: Wanted, granted: Granted) -> Mailbox:
        services, identity = self._services, granted.identity
        data_key = (await services.keyring.get([wanted.user])).get(wanted.user)
        # Their connections are ended a little later than they are deleted: none is begun in between.
        if data_key is None or await users.by_id(services.pool, wanted.owner, wanted.user) is None:
            raise NotConnected("user_deleted")
        if not provider_scopes.may_send(wanted.provider, granted.scopes):
            raise NotConnected("scopes_missing")
        subject = services.keyset.digest("connection-subject", identity.subject) if identity.subject else None
        return Mailbox(identity.address, self._digest(wanted.provider, identity.address), subject, data_key)

    def _digest(self, provider: Provider, address: str) -> Digest:
        return self._services.keyset.digest("connection-account", provider, address.lower())

    async def _placed(self, request: Request, this: Try) -> Connected:
        connection = await self._renewed(this.wanted, this.mailbox)
        for _ in range(MOST_MOVES):
            found = await self._tried(request, this, connection)
            if isinstance(found, Connected):
                return found
            if found.reason == "unknown_connection" and this.wanted.connection is None:
                connection = None  # revoked since we looked: the mailbox gets a new one
            elif found.reason == "already_connected" and found.of is not None:
                connection = found.of
            else:
                raise NotConnected(found.reason)
        raise NotConnected("already_connected")

    async def _renewed(self, wanted: Wanted, mailbox: Mailbox) -> str | None:
        """The connection that this grant renews, None where it makes a new one. Raises NotConnected."""
        pool = self._services.pool
        if wanted.connection is None:
            row = await connections.of_mailbox(pool, wanted.user, wanted.provider, mailbox.account_digest)
        else:
            row = await connections.by_id(pool, wanted.owner, wanted.connection)
            if row is None or row.user != wanted.user or row.state == "revoked":
                raise NotConnected("unknown_connection")
        # The decision rests on more, but by then the tokens of this mailbox would be in place of the other's.
        if row is not None and not _is_of(row, wanted, mailbox):
            raise NotConnected("another_mailbox")
        return row.connection if row else None

    async def _tried(self, request: Request, this: Try, renewed: str | None) -> Connected | ConnectionRefused:
        """What was decided of this try as this connection. Raises NotConnected where it can't be decided now."""
        connection = renewed or new_id("con")
        before = await self._before(connection) if renewed else None
        token = await self._kept(connection, this.wanted, this.granted.secrets)
        try:
            decision = await self._decided(request, this.command(connection, token))
        except (NotPromised, Problem):
            await self._put_back(connection, this.wanted, token, before)
            raise NotConnected("unavailable") from None
        if isinstance(decision.event, ConnectionAuthorised):
            return Connected(connection, decision.log_position)
        refused: ConnectionRefused = decision.event
        # Of what has been revoked meanwhile nothing comes back, whether or not its tokens were destroyed by now.
        over = refused.reason in {"unknown_connection", "user_deleted"}
        await self._put_back(connection, this.wanted, token, None if over else before)
        return refused

    async def _decided(self, request: Request, command: AuthoriseConnection) -> Decision:
        projection = connections.PROJECTION.name
        asked = Asked(topics.CONNECTION_COMMANDS.name, command.user, command.connection, command, projection)
        try:
            return await settled(self._services.connection_decisions, request, asked)
        except UNREACHABLE as error:
            raise OutcomeUnknown("decided, perhaps, and not to be read now") from error

    async def _before(self, connection: str) -> Held | None:
        """What the vault holds, once nobody is refreshing it: a token that is on its way there must not get lost.

        What can't be opened any more is what connecting again is to mend. Nobody waits for longer than a few seconds.
        """
        vault, holder = self._connecting.vault, new_id("lea")
        for _ in range(LOOKS):
            leased = await vault.lease([connection], seconds=LEASE_SECONDS, holder=holder)
            if leased:
                return leased[0]
            try:
                held = await vault.get(connection)
            except (KeysetError, Unsealable):
                return None
            if held is None:
                return None
            await asyncio.sleep(LOOK_SECONDS)
        return held

    async def _kept(self, connection: str, wanted: Wanted, secrets: Secrets) -> Token:
        vault = self._connecting.vault
        fingerprint = vault.fingerprint_of(secrets)
        version = await vault.put(connection, wanted.user, wanted.provider, secrets, fingerprint)
        return Token(fingerprint, version, secrets.expires_at)

    async def _put_back(self, connection: str, wanted: Wanted, token: Token, before: Held | None) -> None:
        """What the vault held before: nothing of a refused grant is ever used. What somebody put there since stays."""
        held = await self._connecting.vault.get(connection)
        if held is None or held.version != token.version:
            return
        if before is None:
            await self._connecting.vault.destroy(connection)
        else:
            await self._kept(connection, wanted, before.secrets)

    async def _give_back(self, provider: Provider, granted: Granted) -> None:
        """Has the provider end a grant that nothing came of, unless it would end that of a connection as well.

        Google ends all that one person granted us at once, whichever token is named.
        """
        digest = self._digest(provider, granted.identity.address)
        try:
            if await connections.is_connected(self._services.pool, provider, digest):
                return
        except UNREACHABLE:
            return  # it lapses by itself, as whatever nobody uses
        answer = await self._connecting.connectors.by_provider[provider].revoke(granted.secrets)
        if answer.at_provider == "failed":
            log.warning("a grant of no use could not be ended at its provider", extra={"provider": provider})


def _is_of(row: ConnectionRow, wanted: Wanted, mailbox: Mailbox) -> bool:
    """Whether the connection is of this mailbox: the address, and the identity behind it where both are known."""
    subjects = {row.subject_digest, mailbox.subject_digest} - {None}
    same_address = row.provider == wanted.provider and row.account_digest == mailbox.account_digest
    return same_address and len(subjects) < 2
