"""Gmail's API as far as sending needs it, in a child process: as unkind as Gmail, and failing as it is told.

    async with GmailFake(oauth=oauth_server.issuer) as gmail:      # or tokens={"t": Token("bob@gmail.test", SEND)}
        await gmail.fail("drafts.send", status=504, when="after")  # sent, but the caller hears of a 504
        …                                                          # the product's API address is gmail.url
        assert len(gmail.receipts()) == 1                          # also when the fake is dead by then

Settings: `SETTINGS` in methods.py; `KIND` there are those of a kind one. Kinds of refusals: `KINDS` in errors.py.
"""

import base64
from dataclasses import dataclass
from typing import Any

from tests.support.api_double import ApiDouble
from tests.support.gmail.receipts import Receipt, read_receipts

MAIL = "https://mail.google.com/"
SEND, COMPOSE, MODIFY, READONLY, METADATA, LABELS = (
    f"https://www.googleapis.com/auth/gmail.{name}"
    for name in ("send", "compose", "modify", "readonly", "metadata", "labels")
)


@dataclass(frozen=True)
class Token:
    """Whose it is, and the scopes it has, separated by spaces."""

    login: str
    scope: str = MAIL


@dataclass(frozen=True)
class SentMail:
    """One mail that was sent: as the caller gave it, as it stands in Sent, and as its recipients got it."""

    id: str
    thread_id: str
    labels: tuple[str, ...]
    draft_id: str | None
    recipients: tuple[str, ...]
    given: bytes
    sent: bytes
    delivered: bytes


class GmailFake(ApiDouble):
    """The fake, on a port of 127.0.0.1: `url` is what stands in the place of https://gmail.googleapis.com.

    Tokens are good when they are among `tokens`, or alive at `oauth` (the issuer of an OAuthServer), asked each time.
    """

    NAME = "gmail"

    async def fail(self, match: str = "*", **failure: Any) -> None:
        """The next `times` (one) calls of methods like `match` fail, after `skip` (none) of them.

        Which: `match` is a pattern of names (`drafts.send`, `drafts.*`; the pieces of an upload before its last are
        upload.start, upload.chunk and upload.query); `user`, and `containing`, a text in the mail.
        What is said: `kind`, or `status` and `body` (text, or anything JSON can say); `headers`, `retryAfter` (as it
        stands), `until` (seconds from now, in a message that names a time). `when`: "before" the call does anything
        (then it does nothing), or "after" it has done all.
        How it is said, also without an answer of its own: `delay` (seconds, before anything is done; what is to be
        done is done even if the caller has gone), `delayAfter`; `drop`: an RST "before" anything is done, "after" all
        is, or "inside" the answer; `truncate` (bytes of the body that are left); `drip` (bytes a second); instead of
        an answer `huge` (bytes), `bomb` (bytes, before gzip), `endlessHeaders` (seconds between two).
        """
        await self._order("fail", match=match, **failure)

    async def token(self, token: str, login: str | None = None, scope: str = MAIL) -> None:
        """From now on this token is good for that user, or, without one, for nothing."""
        await self._order("token", token=token, login=login, scope=scope)

    async def put(self, address: str, raw: bytes, *labels: str) -> str:
        """A mail that came from somewhere else (INBOX, unless labels are named); its id."""
        words = {"address": address, "raw": base64.b64encode(raw).decode(), "labels": labels or ("UNREAD", "INBOX")}
        return (await self._order("put", **words))["id"]

    async def told(self) -> dict[str, Any]:
        """What it saw: `requests`, `injected` and `answers` (by status; 0 is one that was cut), each by method.

        `calls`: method, user, at, ended, status, and how many of its user were open `beside` it when it came. Further
        the `failures` that are left, requests that are `open` and were `mostOpen` by user, `units` of the last minute
        by user, the number of mails `sent`, and the `drafts` there are by user.
        """
        return await self._order("told")

    async def mails(self) -> list[SentMail]:
        """What was sent since the reset, whole."""
        return [
            SentMail(
                one["id"],
                one["threadId"],
                tuple(one["labelIds"]),
                one["draftId"],
                tuple(one["recipients"]),
                *(base64.b64decode(one[name]) for name in ("given", "sent", "delivered")),
            )
            for one in await self._order("mails")
        ]

    def receipts(self) -> list[Receipt]:
        """What was really sent, read from the file, whether or not the fake still lives."""
        return read_receipts(self.receipts_path)
