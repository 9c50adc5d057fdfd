"""One refresh of one connection: ask the provider, keep what it gave, report. The lease on the vault's row is ours.

What a provider gave must not be lost: where it takes a refresh token once only, the new one is nowhere else. So whoever runs
this lets it end (see `refresh.py`), and keeping is tried for as long as nobody has newer tokens.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from domain.connection_commands import ReportRefresh
from domain.connection_events import Provider, ReauthCode, Token
from domain.tokens import NotRefreshed, Refreshed, Secrets
from handlers.refresh_parts import AccessToken, AskedBy, Held, KeepsTokens, Lease, LeaseOver, Measures, Refreshes
from handlers.reporting import Reports

log = logging.getLogger(__name__)

#: Seconds that a lease outlives the longest call.
SPARE_SECONDS: Final = 10.0
#: Seconds until what was reported is surely in the tables, or is reported again.
REPORTED_SECONDS: Final = 5.0
#: Seconds between looks at a vault row that somebody else refreshes.
GLANCE_SECONDS: Final = 0.1
#: Seconds for which tokens that can't be kept now are held in memory, and between the tries.
KEEP_SECONDS: Final = 60.0
TRY_SECONDS: Final = 0.5


class OneRefresh:
    """Refreshes what it has claimed. `timeout` are the seconds that one call to a provider may take."""

    def __init__(
        self,
        vault: KeepsTokens,
        connectors: Mapping[Provider, Refreshes],
        reports: Reports,
        measures: Measures,
        *,
        holder: str,
        timeout: float,
        scale: float = 1.0,
    ) -> None:
        self._vault = vault
        self._connectors = connectors
        self._reports = reports
        self._measures = measures
        self._holder = holder
        self._timeout = timeout
        self._scale = scale
        self._number = 0

    async def claim(self, connections: Sequence[str]) -> tuple[Lease, Sequence[Any]]:
        """Those of them that nobody held. Each claim has a name of its own: one that was lost is not taken for another."""
        self._number += 1
        lease = Lease(f"{self._holder}/{self._number}", asyncio.get_running_loop().time() + SPARE_SECONDS / 2)
        if not connections:
            return lease, []
        seconds = self._timeout + SPARE_SECONDS
        return lease, await self._vault.lease(connections, seconds=seconds, holder=lease.holder)

    async def refresh(self, held: Held, lease: Lease, asked_by: AskedBy) -> AccessToken | NotRefreshed | None:
        """The new token, or why there is none; None where somebody else was quicker, or this process too slow."""
        try:
            answer = await self._ask(held, lease)
        except LeaseOver:
            log.warning("a lease may be over: nothing was asked", extra={"connection": held.connection})
            await self._vault.release(held.connection, holder=lease.holder)
            return None
        self._measures.refreshed(held.provider, "refreshed" if isinstance(answer, Refreshed) else answer.failure)
        if isinstance(answer, NotRefreshed):
            return await self._fail(held, lease, answer, asked_by)
        return await self._switch(held, lease, answer, asked_by)

    # ── the provider ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, held: Held, lease: Lease) -> Refreshed | NotRefreshed:
        """By the newest refresh token, and by the one before where that was never proved and the newest is refused."""
        answer = await self._call(held, held.secrets, lease)
        if isinstance(answer, NotRefreshed) and answer.failure == "invalid_grant" and held.previous:
            before = Secrets(refresh_token=held.previous, servers=held.secrets.servers)
            return await self._call(held, before, await self._extended(held, lease))
        return answer

    async def _call(self, held: Held, secrets: Secrets, lease: Lease) -> Refreshed | NotRefreshed:
        """Begins in time or not at all: past the lease somebody else may be asking, and a provider takes a token once."""
        if asyncio.get_running_loop().time() > lease.begin_before:
            raise LeaseOver(held.connection)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._connectors[held.provider].refresh(secrets)
        except TimeoutError:
            return NotRefreshed("transient", "timed_out")

    async def _extended(self, held: Held, lease: Lease) -> Lease:
        """The lease, long enough for one call more: a provider that is slow to refuse must not keep us from the other."""
        now = asyncio.get_running_loop().time()
        if now > lease.begin_before + self._timeout:
            raise LeaseOver(held.connection)
        await self._vault.release(held.connection, holder=lease.holder, seconds=self._timeout + SPARE_SECONDS)
        return Lease(lease.holder, now + SPARE_SECONDS / 2)

    # ── tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _switch(self, held: Held, lease: Lease, answer: Refreshed, asked_by: AskedBy) -> AccessToken | None:
        fingerprint = self._vault.fingerprint_of(answer.secrets)
        async with asyncio.timeout(KEEP_SECONDS):
            version = await self._keep(held, lease, answer.secrets, fingerprint)
        if version is None:
            log.warning("a lease was lost to somebody else", extra={"connection": held.connection})
            return None
        token = Token(fingerprint, version, answer.secrets.expires_at)
        await self.tell(
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
        return AccessToken(answer.secrets.access_token or "", version, answer.secrets.expires_at)

    async def _keep(self, held: Held, lease: Lease, secrets: Secrets, fingerprint: str) -> int | None:
        """The version under which they are in the vault; None where it has newer ones, or none may be there any more.

        A lease that lapsed before is claimed again: whoever had it meanwhile and gained nothing may have spoilt nothing.
        """
        while True:
            try:
                version = await self._vault.switch(held, holder=lease.holder, secrets=secrets, fingerprint=fingerprint)
                if version is not None:
                    return version
                claimed = await self._claim_again(held)
                if claimed is None:
                    return None
                lease = claimed
            except Exception:
                log.exception("new tokens wait for the vault", extra={"connection": held.connection})
                await asyncio.sleep(TRY_SECONDS)

    async def _claim_again(self, held: Held) -> Lease | None:
        """None where the row is not as it was."""
        while True:
            lease, leased = await self.claim([held.connection])
            if leased and leased[0].version == held.version:
                return lease
            if leased:
                await self._vault.release(held.connection, holder=lease.holder)
                return None
            now = await self._vault.get(held.connection)
            if now is None or now.version != held.version:
                return None
            await asyncio.sleep(GLANCE_SECONDS)

    # ── no tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _fail(self, held: Held, lease: Lease, answer: NotRefreshed, asked_by: AskedBy) -> NotRefreshed | None:
        """The vault is read again before a connection is given up: whoever else refreshed it may have been right."""
        if answer.failure == "invalid_grant":
            now = await self._vault.get(held.connection)
            if now is None or now.version != held.version:
                return None
            report = lost(held.connection, held.user, held.version, "invalid_grant", asked_by)
        else:
            report = ReportRefresh(
                held.connection,
                held.user,
                held.version,
                answer.failure,
                asked_by,
                code=answer.code,
                retry_after=answer.retry_after,
                scale=self._scale,
            )
        # Where it can't be told, the lease lapses by itself: nobody asks a provider at the pace of a log that is down.
        if await self.tell(report):
            await self._vault.release(held.connection, holder=lease.holder, seconds=REPORTED_SECONDS)
        return answer

    async def tell(self, report: ReportRefresh) -> bool:
        """Whether it is in the log. Of what is not the vault tells: the timer finds it further on than the tables."""
        try:
            await self._reports.refresh(report)
        except Exception:
            log.exception("a refresh is reported later", extra={"connection": report.connection})
            return False
        return True


def lost(connection: str, user: str, version: int, code: ReauthCode, asked_by: AskedBy) -> ReportRefresh:
    """The report that only the user can mend this connection."""
    return ReportRefresh(connection, user, version, "reauth_required", asked_by, code=code)
