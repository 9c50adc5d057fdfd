"""Microsoft Graph as far as sending mail needs it, in a child process: as unkind as Graph, and failing as it is told.

    async with GraphFake({"t": Token("bob@outlook.test")}) as graph:   # or oauth=oauth_server.issuer
        await graph.fail("messages.send", status=504, when="after")    # sent, but the caller hears of a 504
        …                                                              # the product's setting is graph.url
        assert len(graph.receipts()) == 1                              # also when the fake is dead by then

Settings: `SETTINGS` in state.py. Names of operations: `_ROUTES` in routes.py, and `batch`.

A mailbox has four requests at once, 10,000 in ten minutes and 30 mails a minute, or hears 429. A mail that was sent is
in the Outbox (there it is `isDraft` still), and only `sentLag` later in Sent Items. An immutable id is known only to
requests that prefer immutable ids; the other kind changes with every move. Graph loses answers: `**UNKIND`.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from tests.support.own_child import OwnChild

_ROOT = Path(__file__).parents[3]
ALL: Final = "User.Read Mail.ReadWrite Mail.Send"
#: One 202 in five never arrives, though the mail went out; its copy comes late.
UNKIND: Final[Mapping[str, Any]] = {"lostAnswers": 0.2, "sentLag": 1.0}
#: For measuring: no limits, no lag, no sync to the disk, no bytes of mails.
KIND: Final[Mapping[str, Any]] = {
    "concurrent": 10_000, "requests": 1 << 30, "mailsPerMinute": 1 << 30, "sentLag": 0.0, "sync": False, "keptBytes": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Token:
    """Whose it is, and the scopes it has, separated by spaces."""

    login: str
    scope: str = ALL


class GraphFake:
    """The fake, on a port of 127.0.0.1: `url` is what stands in the place of https://graph.microsoft.com/v1.0.

    Tokens are good when they are among `tokens`, or alive at `oauth` (the issuer of an OAuthServer), asked each time.
    """

    def __init__(
        self,
        tokens: Mapping[str, Token] | None = None,
        *,
        receipts: Path | None = None,
        port: int = 0,
        **settings: Any,
    ) -> None:
        self.url = self.origin = ""
        self._kept = receipts is not None
        self.receipts_path = receipts or _own_file()
        self._told = {
            "tokens": {token: asdict(one) for token, one in (tokens or {}).items()},
            "receipts": str(self.receipts_path),
            "port": port,
            "settings": settings,
        }
        self._child: OwnChild | None = None
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", "tests.support.graph.child"]
        self._child = await OwnChild.start("graph", command, environment={"PYTHONPATH": str(_ROOT)}, told=self._told)
        self.origin = f"http://127.0.0.1:{self._child.word['port']}"
        self.url = f"{self.origin}/v1.0"
        self._http = aiohttp.ClientSession(self.origin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        assert self._child is not None
        assert self._http is not None
        await self._http.close()
        await self._child.stop()
        if not self._kept:
            self.receipts_path.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def said(self) -> str:
        """What it wrote on its standard error."""
        assert self._child is not None
        return self._child.said

    async def kill(self) -> None:
        """As a power cut does it: mailboxes are gone. The receipts stay until the `async with` ends."""
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            self._child.process.kill()
        await self._child.process.wait()

    async def fail(self, match: str = "*", **failure: Any) -> None:
        """The next `times` (one) requests of operations like `match` fail, after `skip` (none) of them.

        Which: `match` is a pattern of names (`messages.send`, `messages.*`, `upload.put`); `user`, and `containing`, a
        text in the request's body.
        What is said: `status`, `code`, `message` (Graph's own error), or `body` (text, or anything JSON can say);
        `headers`, `retryAfter` (as it stands), `retryAt` (seconds from now, said as a date). `when`: "before" the
        request does anything (then it does nothing), or "after" it has done all.
        How it is said, also without an answer of its own: `delay` (seconds, before anything is done; what is to be
        done is done even if the caller has gone), `delayAfter`; `drop`: an RST "before" anything is done, "after" all
        is, or "inside" the answer; `truncate` (bytes of the body that are left); `drip` (bytes a second); instead of
        an answer `huge` (bytes), `bomb` (bytes, before gzip), `endlessHeaders` (seconds between two).
        """
        await self._order("fail", match=match, **failure)

    async def set(self, **settings: Any) -> None:
        """Change settings while it runs."""
        await self._order("set", **settings)

    async def token(self, token: str, login: str | None = None, scope: str = ALL) -> None:
        """From now on this token is good for that user, or, without one, for nothing."""
        await self._order("token", token=token, login=login, scope=scope)

    async def told(self) -> dict[str, Any]:
        """What it saw: `counts` and `injected` by operation, `calls` (operation, user, at, ended, status; 0 was cut).

        Further `users` (running, maxConcurrent, requests, throttled), the `failures` that are left, how many `mails`
        went out and how many of their answers were `lost` by the share, and `mailboxes`: every message there is.
        """
        return await self._order("told")

    def receipts(self) -> list[dict[str, Any]]:
        """What was really sent, a document a mail, read from the file, whether or not the fake still lives.

        login, how (send, sendMail), id (the immutable one), draftId, from, to, cc, bcc, replyTo, at, internetMessageId,
        subject, headers (pairs), attachments (name, contentType, size, sha256), size, sha256, content (base64; null
        above `keptBytes`).
        """
        lines = self.receipts_path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1]]

    async def reset(self) -> None:
        """Everything as at the start, no mails, no receipts. A send that is still open sends nothing any more."""
        await self._order("reset")

    async def _order(self, order: str, **words: Any) -> Any:
        assert self._http is not None
        async with self._http.post(f"/_control/{order}", json=words) as answer:
            told = await answer.json()
        if answer.status != 200:
            raise ValueError(told["error"])
        return told


def _own_file() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="graph-receipts-", suffix=".jsonl")
    os.close(descriptor)
    return Path(name)
