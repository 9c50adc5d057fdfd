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

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.support.api_double import ApiDouble

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


class GraphFake(ApiDouble):
    """The fake, on a port of 127.0.0.1: `url` is what stands in the place of https://graph.microsoft.com/v1.0.

    Tokens are good when they are among `tokens`, or alive at `oauth` (the issuer of an OAuthServer), asked each time.
    """

    NAME = "graph"
    BELOW = "/v1.0"

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
