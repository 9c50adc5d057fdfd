"""Keeps connections connected: refreshes tokens before they expire, and at once when a provider refuses one (DESIGN 5).

One refresh at a time for a connection, over all processes: whoever refreshes has claimed a lease on the vault's row first,
and only the holder of the lease may switch to new tokens. A lease outlives the longest call, so a refresh that was cut
short is begun again by somebody else, with what the vault then holds.

A refresh that has begun is not cut short by us: whoever asked may have gone, and a process that ends waits for it a while.

What a refresh costs: a lease and a switch in the vault, one call to the provider, one command.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from domain.connection_commands import ReportRefresh
from domain.connection_events import Provider, ReauthCode, Token
from domain.tokens import NotRefreshed, Secrets
from handlers.one_refresh import GLANCE_SECONDS, REPORTED_SECONDS, SPARE_SECONDS, OneRefresh, lost
from handlers.patience import Patience
from handlers.refresh_parts import (
    AccessToken,
    Due,
    FindsDue,
    Held,
    KeepsTokens,
    Lease,
    Measures,
    Refreshes,
    TokenUnavailable,
)
from handlers.reporting import Reports

__all__ = ["AccessToken", "Refreshing", "TokenUnavailable"]

log = logging.getLogger(__name__)

#: Refreshes under way at once in this process, for each provider: one that hangs holds up no other.
AT_ONCE: Final = 64
#: Seconds to the next look where nothing is due.
LOOK_SECONDS: Final = 0.5
#: Seconds after which at the latest what nobody seems to hear is reported again.
LONGEST_PATIENCE: Final = 600.0
#: Seconds that refreshes under way are waited for at the end.
END_SECONDS: Final = 15.0
#: Seconds for which a refusal stands at the most; and how many are remembered.
LONGEST_REFUSAL: Final = 60.0
REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """No new token for this version, until then by the loop's clock."""

    version: int
    until: float
    reauth: bool


class Refreshing:
    """Refreshes tokens, by the clock and on demand. `timeout` are the seconds that one call to a provider may take."""

    def __init__(
        self,
        vault: KeepsTokens,
        connectors: Mapping[Provider, Refreshes],
        due: FindsDue,
        reports: Reports,
        measures: Measures,
        *,
        holder: str,
        timeout: float,
        scale: float = 1.0,
    ) -> None:
        self._one = OneRefresh(vault, connectors, reports, measures, holder=holder, timeout=timeout, scale=scale)
        self._vault = vault
        self._providers = list(connectors)
        self._due = due
        self._reports = reports
        self._timeout = timeout
        self._ending = False
        self._under_way: set[asyncio.Task[Any]] = set()
        self._asked: dict[tuple[str, int | None], asyncio.Task[AccessToken]] = {}
        self._refusals: OrderedDict[str, Refusal] = OrderedDict()
        self._unheard = Patience(first=REPORTED_SECONDS, longest=LONGEST_PATIENCE)
        self._missing = Patience(first=REPORTED_SECONDS, longest=LONGEST_PATIENCE)

    # ── by the clock ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Until cancelled; an unreachable Postgres, log or provider is waited for. Then lets end what is under way."""
        try:
            await asyncio.gather(*[self._run_of(provider) for provider in self._providers])
        finally:
            await self._end()

    async def _run_of(self, provider: Provider) -> None:
        busy: set[asyncio.Task[None]] = set()
        while True:
            started = await asyncio.shield(self._begin(self._start_due(provider, busy)))
            if busy and (started or len(busy) >= AT_ONCE):
                await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(LOOK_SECONDS)
            busy = {task for task in busy if not task.done()}

    async def _end(self) -> None:
        """Nothing begins any more; what has begun has some time left, for a provider may have answered already."""
        self._ending = True
        loop = asyncio.get_running_loop()
        until = loop.time() + END_SECONDS
        while self._under_way and loop.time() < until:
            await asyncio.wait(self._under_way, timeout=until - loop.time())
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _start_due(self, provider: Provider, busy: set[asyncio.Task[None]]) -> bool:
        """Begins as many refreshes as there is room for; whether there may be more."""
        room = AT_ONCE - len(busy)
        if room < AT_ONCE // 4:
            return True
        try:
            found = await self._due.due(provider, room + len(self._missing))
            due = [each for each in found if not self._missing.waiting(_token_of(each))][:room]
            lease, claimed = await self._one.claim([each.connection for each in due])
        except Exception:
            log.exception("refreshing waits for Postgres")
            await asyncio.sleep(1)
            return False
        leased = {held.connection: held for held in claimed}
        for each in due:
            held = leased.get(each.connection)
            work = self._refresh_due(each, held, lease) if held else self._look_after(each)
            busy.add(self._begin(work))
        return len(due) == room

    async def _refresh_due(self, due: Due, held: Held, lease: Lease) -> None:
        try:
            if self._ending:
                await self._vault.release(held.connection, holder=lease.holder)
            elif held.version > due.version:
                await self._report_held(held, lease)
            else:
                self._remember(held, await self._one.refresh(held, lease, "timer"))
        except Exception:
            log.exception("a refresh is tried again", extra={"connection": due.connection})

    async def _report_held(self, held: Held, lease: Lease) -> None:
        """It was refreshed and not reported, or not folded yet: told again, and less and less often."""
        token = Token(held.fingerprint, held.version, held.secrets.expires_at)
        rotated = held.previous is not None
        await self._reports.refresh(
            ReportRefresh(held.connection, held.user, held.version, "refreshed", "timer", token, rotated)
        )
        seconds = self._unheard.said(_token_of(held))
        await self._vault.release(held.connection, holder=lease.holder, seconds=seconds)

    async def _look_after(self, due: Due) -> None:
        """Somebody else has it; or there is nothing in the vault, and never will be."""
        try:
            if await self._vault.get(due.connection) is None:
                self._missing.said(_token_of(due))
                await self._reports.refresh(lost(due.connection, due.user, due.version, "tokens_missing", "timer"))
        except Exception:
            log.exception("a refresh is tried again", extra={"connection": due.connection})

    # ── on demand ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def access_token(
        self, connection: str, *, refused: int | None = None, held: Held | None = None
    ) -> AccessToken:
        """An access token that no provider has refused: `refused` is the version of one that a provider did.

        `held` is what the vault has just shown, for those who have looked: it is not asked again while that will do. All who
        ask at once share one answer. Raises TokenUnavailable, and what the vault raises where it can't be reached.
        """
        if held is not None and (token := _standing(held, refused)) is not None:
            return token
        asked = connection, refused
        task = self._asked.get(asked)
        if task is None:
            self._asked[asked] = task = self._begin(self._in_time(connection, refused))
            task.add_done_callback(lambda _: self._asked.pop(asked, None))
        return await asyncio.shield(task)

    async def _in_time(self, connection: str, refused: int | None) -> AccessToken:
        try:
            async with asyncio.timeout(2 * (self._timeout + SPARE_SECONDS)) as bound:
                return await self._usable(connection, refused)
        except TimeoutError:
            if not bound.expired():
                raise
            raise TokenUnavailable("Nobody got a new token in time.", retry_after=REPORTED_SECONDS) from None

    async def _usable(self, connection: str, refused: int | None) -> AccessToken:
        seen: int | None = None
        while True:
            held = await self._vault.get(connection)
            if held is None:
                raise TokenUnavailable("The connection has no tokens: it was revoked.", reauth=True)
            if _has_password(held.secrets):
                raise TokenUnavailable("The connection has a password, and no token.", reauth=True)
            # One that others got while we waited is as new as can be, whatever its provider says of its end.
            is_new = seen is not None and held.version > seen
            if (token := _access_token(held) if is_new else _standing(held, refused)) is not None:
                return token
            seen = held.version if seen is None else seen
            self._raise_refusal(held)
            if (token := await self._refreshed_for_call(held)) is not None:
                return token

    async def _refreshed_for_call(self, held: Held) -> AccessToken | None:
        """The new token; None where the vault has to be looked at again."""
        if self._ending:
            raise TokenUnavailable("This process ends.", retry_after=REPORTED_SECONDS)
        lease, leased = await self._one.claim([held.connection])
        if not leased:
            await asyncio.sleep(GLANCE_SECONDS)  # somebody else refreshes it: the row says when it is done
        elif leased[0].version != held.version:
            await self._vault.release(held.connection, holder=lease.holder)
        else:
            # In a task of its own: it goes on where we are out of time.
            answer = await asyncio.shield(self._begin(self._one.refresh(leased[0], lease, "call")))
            self._remember(held, answer)
            self._raise_refusal(held)
            return answer if isinstance(answer, AccessToken) else None
        return None

    async def refused(self, connection: str, user: str, version: int, code: ReauthCode) -> None:
        """Tells that a provider does not take what has this version; where it can't be told, the next refusal does."""
        await self._one.tell(lost(connection, user, version, code, "call"))

    # ── refusals, and what is under way ───────────────────────────────────────────────────────────────────────────────

    def _remember(self, held: Held, answer: AccessToken | NotRefreshed | None) -> None:
        """So that a provider that has just refused is not asked again by each of many calls."""
        self._refusals.pop(held.connection, None)
        if isinstance(answer, NotRefreshed):
            reauth = answer.failure == "invalid_grant"
            seconds = (
                LONGEST_REFUSAL if reauth else min(max(answer.retry_after or 0, REPORTED_SECONDS), LONGEST_REFUSAL)
            )
            until = asyncio.get_running_loop().time() + seconds
            self._refusals[held.connection] = Refusal(held.version, until, reauth)
            if len(self._refusals) > REMEMBERED:
                self._refusals.popitem(last=False)

    def _raise_refusal(self, held: Held) -> None:
        refusal, now = self._refusals.get(held.connection), asyncio.get_running_loop().time()
        if refusal is None or refusal.version != held.version or refusal.until <= now:
            return
        if refusal.reauth:
            raise TokenUnavailable("The provider no longer accepts the consent.", reauth=True)
        raise TokenUnavailable("The provider gave no new token.", retry_after=refusal.until - now)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has heard of it, or has gone


def _token_of(found: Due | Held) -> str:
    return f"{found.connection}/{found.version}"


def _access_token(held: Held) -> AccessToken | None:
    """The access token there is; None for a password."""
    secrets = held.secrets
    if _has_password(secrets) or not secrets.access_token:
        return None
    return AccessToken(secrets.access_token, held.version, secrets.expires_at)


def _standing(held: Held, refused: int | None) -> AccessToken | None:
    """The token there is, where nothing speaks against it."""
    return None if held.version == refused or _has_expired(held.secrets) else _access_token(held)


def _has_password(secrets: Secrets) -> bool:
    return secrets.servers is not None and secrets.servers.oauth is None


def _has_expired(secrets: Secrets) -> bool:
    return secrets.expires_at is not None and secrets.expires_at <= datetime.now(secrets.expires_at.tzinfo)
