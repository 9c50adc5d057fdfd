"""Keeps connections connected: refreshes tokens before they expire, and at once when a provider refuses one (DESIGN 5).

One refresh at a time for a connection, over all processes: whoever refreshes has claimed a lease on the vault's row first,
and only the holder of the lease may switch to new tokens. A lease outlives the longest call, so a refresh that was cut
short is begun again by somebody else, with what the vault then holds.

What a refresh costs: a lease and a switch in the vault, one call to the provider, one command.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from domain.connection_commands import ReportRefresh
from domain.connection_events import ReauthCode, Token
from domain.tokens import NotRefreshed, Refreshed, Secrets
from handlers.reporting import Reports

log = logging.getLogger(__name__)

#: Refreshes under way at once, in this process.
AT_ONCE: Final = 64
#: Seconds to the next look where nothing is due.
LOOK_SECONDS: Final = 0.5
#: Seconds that a lease outlives the longest call.
SPARE_SECONDS: Final = 10.0
#: Seconds until what was reported is surely in the tables, or is reported again.
REPORTED_SECONDS: Final = 5.0
#: Seconds between looks at a vault row that somebody else refreshes.
GLANCE_SECONDS: Final = 0.1

AskedBy = Literal["timer", "call"]


class Held(Protocol):
    """What the vault holds of one connection, opened. `previous` is the refresh token before, until the newest is proved."""

    @property
    def connection(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def previous(self) -> str | None: ...


class KeepsTokens(Protocol):
    """The vault. Everything raises where it can't be reached."""

    async def get(self, connection: str) -> Any: ...

    async def lease(self, connections: Sequence[str], *, seconds: float, holder: str) -> Sequence[Any]:
        """Those of them whose lease was free or has lapsed, leased to the holder now."""
        ...

    async def switch(self, held: Any, *, holder: str, secrets: Secrets, fingerprint: str) -> int | None:
        """Writes new tokens beside the old and switches to them: the new version, or None where the lease was lost."""
        ...

    async def release(self, connection: str, *, holder: str, seconds: float = 0) -> None:
        """Ends the lease, or has it end so much later."""
        ...

    def fingerprint_of(self, secrets: Secrets) -> str: ...


class Refreshes(Protocol):
    async def refresh(self, secrets: Secrets) -> Refreshed | NotRefreshed: ...


@dataclass(frozen=True, slots=True)
class Due:
    """A connection whose token is due, with the version of it that the tables know."""

    connection: str
    user: str
    version: int


class FindsDue(Protocol):
    async def due(self, limit: int) -> Sequence[Due]:
        """Connections that are due and that nobody holds a lease on, the longest overdue first."""
        ...


class Measures(Protocol):
    def refreshed(self, provider: str, outcome: str) -> None: ...


class TokenUnavailable(Exception):
    """No usable access token can be had. `reauth`: only the user can mend that; otherwise `retry_after` seconds may."""

    def __init__(self, sentence: str, *, reauth: bool = False, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.reauth = reauth
        self.retry_after = retry_after


class LeaseOver(Exception):
    """This process stood still for so long that its lease may be over: nothing was asked of the provider."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on rows of the vault, under a name used once. A call may begin before `begin_before`, by the loop's clock."""

    holder: str
    begin_before: float


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a provider is called with, and its version: name it when the provider refuses the token."""

    token: str = field(repr=False)
    version: int
    expires_at: datetime | None


class Refreshing:
    """Refreshes tokens, by the clock and on demand. `timeout` are the seconds that one call to a provider may take."""

    def __init__(
        self,
        vault: KeepsTokens,
        connectors: Mapping[str, Refreshes],
        due: FindsDue,
        reports: Reports,
        measures: Measures,
        *,
        holder: str,
        timeout: float,
        scale: float = 1.0,
    ) -> None:
        self._vault = vault
        self._connectors = connectors
        self._due = due
        self._reports = reports
        self._measures = measures
        self._holder = holder
        self._timeout = timeout
        self._scale = scale
        self._number = 0

    # ── by the clock ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Until cancelled; an unreachable Postgres, log or provider is waited for."""
        busy: set[asyncio.Task[None]] = set()
        try:
            while True:
                started = await self._start_due(busy)
                if busy and (started or len(busy) >= AT_ONCE):
                    _, busy = await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(LOOK_SECONDS)
                    busy = {task for task in busy if not task.done()}
        finally:
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    async def _start_due(self, busy: set[asyncio.Task[None]]) -> bool:
        """Begins as many refreshes as there is room for; whether there may be more."""
        room = AT_ONCE - len(busy)
        if room < AT_ONCE // 4:
            return True
        try:
            due = await self._due.due(room)
            lease = self._new_lease()
            leased = {held.connection: held for held in await self._claim([each.connection for each in due], lease)}
        except Exception:
            log.exception("refreshing waits for Postgres")
            await asyncio.sleep(1)
            return False
        for each in due:
            held = leased.get(each.connection)
            work = self._refresh_due(each, held, lease) if held else self._look_after(each)
            busy.add(asyncio.create_task(work))
        return len(due) == room

    async def _refresh_due(self, due: Due, held: Held, lease: Lease) -> None:
        try:
            if held.version > due.version:
                await self._report_held(held, lease)
            else:
                await self._refresh(held, lease, "timer")
        except Exception:
            log.exception("a refresh is tried again", extra={"connection": due.connection})

    async def _report_held(self, held: Held, lease: Lease) -> None:
        """It was refreshed and not reported, or not folded yet."""
        await self._reports.refresh(_refreshed(held, "timer", rotated=held.previous is not None))
        await self._vault.release(held.connection, holder=lease.holder, seconds=REPORTED_SECONDS)

    async def _look_after(self, due: Due) -> None:
        """Somebody else has it; or there is nothing in the vault, and never will be."""
        try:
            if await self._vault.get(due.connection) is None:
                await self._reports.refresh(_lost(due.connection, due.user, due.version, "tokens_missing", "timer"))
        except Exception:
            log.exception("a refresh is tried again", extra={"connection": due.connection})

    # ── on demand ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def access_token(self, connection: str, *, refused: int | None = None) -> AccessToken:
        """An access token that no provider has refused: `refused` is the version of one that a provider did.

        Raises TokenUnavailable, and what the vault raises where it can't be reached.
        """
        async with asyncio.timeout(2 * (self._timeout + SPARE_SECONDS)):
            while True:
                held = await self._vault.get(connection)
                if held is None:
                    raise TokenUnavailable("The connection has no tokens: it was revoked.", reauth=True)
                if held.version != refused and held.secrets.access_token and not _has_expired(held.secrets):
                    return AccessToken(held.secrets.access_token, held.version, held.secrets.expires_at)
                lease = self._new_lease()
                leased = await self._claim([connection], lease)
                if leased and leased[0].version == held.version:
                    await self._refresh_for_call(leased[0], lease)
                elif leased:
                    await self._vault.release(connection, holder=lease.holder)
                else:
                    await asyncio.sleep(GLANCE_SECONDS)  # somebody else refreshes it: the row says when it is done

    async def _refresh_for_call(self, held: Held, lease: Lease) -> None:
        answer = await self._refresh(held, lease, "call")
        if isinstance(answer, NotRefreshed):
            if answer.failure == "invalid_grant":
                raise TokenUnavailable("The provider no longer accepts the consent.", reauth=True)
            raise TokenUnavailable("The provider gave no new token.", retry_after=answer.retry_after)

    # ── one refresh ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _new_lease(self) -> Lease:
        """Each claim has a name of its own: a lease that was lost is not taken for one that came after it."""
        self._number += 1
        return Lease(f"{self._holder}/{self._number}", asyncio.get_running_loop().time() + SPARE_SECONDS / 2)

    async def _claim(self, connections: Sequence[str], lease: Lease) -> Sequence[Held]:
        if not connections:
            return []
        return await self._vault.lease(connections, seconds=self._timeout + SPARE_SECONDS, holder=lease.holder)

    async def _refresh(self, held: Held, lease: Lease, asked_by: AskedBy) -> Refreshed | NotRefreshed:
        """Asks the provider, keeps what it gave, and reports; the lease is ours."""
        answer = await self._ask(held, lease)
        self._measures.refreshed(held.provider, _outcome(answer))
        if isinstance(answer, Refreshed):
            await self._switch(held, lease, answer, asked_by)
        else:
            await self._fail(held, lease, answer, asked_by)
        return answer

    async def _ask(self, held: Held, lease: Lease) -> Refreshed | NotRefreshed:
        """By the newest refresh token, and by the one before where that was never proved and the newest is refused."""
        answer = await self._call(held, held.secrets, lease)
        if isinstance(answer, NotRefreshed) and answer.failure == "invalid_grant" and held.previous:
            before = Secrets(refresh_token=held.previous, servers=held.secrets.servers)
            return await self._call(held, before, lease)
        return answer

    async def _call(self, held: Held, secrets: Secrets, lease: Lease) -> Refreshed | NotRefreshed:
        """Begins in time or not at all: past the lease somebody else may be asking, and a provider takes a token once."""
        if asyncio.get_running_loop().time() > lease.begin_before:
            raise LeaseOver(held.connection)
        async with asyncio.timeout(self._timeout):
            return await self._connectors[held.provider].refresh(secrets)

    async def _switch(self, held: Held, lease: Lease, answer: Refreshed, asked_by: AskedBy) -> None:
        fingerprint = self._vault.fingerprint_of(answer.secrets)
        version = await self._vault.switch(held, holder=lease.holder, secrets=answer.secrets, fingerprint=fingerprint)
        if version is None:
            log.warning("a lease was lost to somebody else", extra={"connection": held.connection})
            return
        token = Token(fingerprint, version, answer.secrets.expires_at)
        await self._reports.refresh(
            ReportRefresh(
                held.connection,
                held.user,
                held.version,
                "refreshed",
                asked_by,
                token,
                answer.rotated,
                scale=self._scale,
            )
        )

    async def _fail(self, held: Held, lease: Lease, answer: NotRefreshed, asked_by: AskedBy) -> None:
        """The vault is read again before a connection is given up: whoever else refreshed it may have been right."""
        if answer.failure == "invalid_grant":
            now = await self._vault.get(held.connection)
            if now is not None and now.version == held.version:
                code: ReauthCode = "invalid_grant"
                await self._reports.refresh(_lost(held.connection, held.user, held.version, code, asked_by))
        else:
            await self._reports.refresh(
                ReportRefresh(
                    held.connection,
                    held.user,
                    held.version,
                    answer.failure,
                    asked_by,
                    code=answer.code,
                    retry_after=answer.retry_after,
                    scale=self._scale,
                )
            )
        await self._vault.release(held.connection, holder=lease.holder, seconds=REPORTED_SECONDS)


def _refreshed(held: Held, asked_by: AskedBy, *, rotated: bool) -> ReportRefresh:
    token = Token(held.fingerprint, held.version, held.secrets.expires_at)
    return ReportRefresh(held.connection, held.user, held.version, "refreshed", asked_by, token, rotated)


def _lost(connection: str, user: str, version: int, code: ReauthCode, asked_by: AskedBy) -> ReportRefresh:
    return ReportRefresh(connection, user, version, "reauth_required", asked_by, code=code)


def _has_expired(secrets: Secrets) -> bool:
    return secrets.expires_at is not None and secrets.expires_at <= datetime.now(secrets.expires_at.tzinfo)


def _outcome(answer: Refreshed | NotRefreshed) -> str:
    return "refreshed" if isinstance(answer, Refreshed) else answer.failure
