"""Somebody who uses an installation from outside: HTTP, SMTP, the two live streams, and nothing else."""

import asyncio
import smtplib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import aiohttp

from tests.support.sse_client import SseReader, sse


@dataclass(frozen=True)
class Inbox:
    """An inbox as its creator knows it."""

    address: str
    expires_at: str
    session_token: str

    @property
    def path(self) -> str:
        return f"/api/v1/mailboxes/{self.address}"

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.session_token}"}


@dataclass(frozen=True)
class Visitor:
    """`url` is where HTTP listens, `smtp` where SMTP does."""

    http: aiohttp.ClientSession
    url: str
    smtp: tuple[str, int]

    async def open_inbox(self, minutes: int, key: str | None = None) -> Inbox:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self.http.post(f"{self.url}/api/v1/mailboxes?ttl_minutes={minutes}", headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            return Inbox(**await answer.json())

    async def extend(self, inbox: Inbox, minutes: int) -> Any:
        async with self.http.post(
            f"{self.url}{inbox.path}/extend?ttl_minutes={minutes}", headers=inbox.bearer
        ) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def get(self, path: str, inbox: Inbox) -> tuple[int, bytes]:
        """Status and body."""
        async with self.http.get(f"{self.url}{path}", headers=inbox.bearer) as answer:
            return answer.status, await answer.read()

    async def list_of(self, inbox: Inbox) -> Any:
        async with self.http.get(f"{self.url}{inbox.path}/messages", headers=inbox.bearer) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def send(self, inbox: Inbox, subject: str, attachment: bytes | None = None) -> None:
        """A mail is accepted for the inbox."""
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "Ann <ann@sender.example>", inbox.address, subject
        mail.set_content(f"{subject}, and good day.")
        if attachment is not None:
            mail.add_attachment(attachment, maintype="application", subtype="octet-stream", filename="seat.bin")
        await asyncio.to_thread(self._send, mail)

    def _send(self, mail: EmailMessage) -> None:
        with smtplib.SMTP(*self.smtp, local_hostname="sender.example", timeout=30) as client:
            assert client.send_message(mail) == {}

    def streamed(self, inbox: Inbox) -> AbstractAsyncContextManager[SseReader]:
        return sse(f"{self.url}{inbox.path}/events", inbox.bearer)

    @asynccontextmanager
    async def socket(self, inbox: Inbox) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        url = f"{self.url}/ws/inbox/{inbox.address}?token={inbox.session_token}"
        async with self.http.ws_connect(url) as socket:
            yield socket

    async def list_once(self, inbox: Inbox, holds: Callable[[list[Any]], bool]) -> list[Any]:
        """The list, once this is so; raises TimeoutError."""
        async with asyncio.timeout(20):
            while not holds(rows := await self.list_of(inbox)):
                await asyncio.sleep(0.05)
        return rows

    async def seen(self, inbox: Inbox) -> dict[str, tuple[int, bytes]]:
        """Everything there is to read in an inbox, by path: each message, its raw text and attachments, the list, itself.

        Reading a message marks it, a moment later; the list is looked at when all are.
        """
        paths: list[str] = []
        for row in await self.list_of(inbox):
            here = f"{inbox.path}/messages/{row['id']}"
            paths += [here, f"{here}/raw"] + ([f"{here}/attachments/0"] if row["has_attachments"] else [])
        found = {path: await self.get(path, inbox) for path in paths}
        await self.list_once(inbox, lambda rows: all(row["is_read"] for row in rows))
        return found | {path: await self.get(path, inbox) for path in (inbox.path, f"{inbox.path}/messages")}


@asynccontextmanager
async def visiting(url: str, smtp: tuple[str, int]) -> AsyncIterator[Visitor]:
    async with aiohttp.ClientSession() as http:
        yield Visitor(http, url, smtp)
