"""Load as mail servers make it: every mail is sent again, with its Message-ID, until somebody has said 250."""

import asyncio
import hashlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from domain.mailbox_commands import DeleteMessage, ExtendMailbox, ReadMessage
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.stores.postgres import UNREACHABLE
from schemas.ids import new_id
from tests.faults.installation import FLEETING, Installation, OpenMailbox

#: Bytes of a mail that goes through the blob store.
LARGE = 300_000


@dataclass
class Load:
    """Senders and askers that go on until they are told to finish; what is under way is then brought to its end."""

    house: Installation
    seed: int
    pause: float = 0.05
    finishing: asyncio.Event = field(default_factory=asyncio.Event)
    kept: int = 0
    refused: int = 0
    slowest_answer: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)

    async def run(self, senders: int = 4) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(senders):
                group.create_task(self._send(Random(f"{self.seed}/{number}"), number))
            group.create_task(self._ask(Random(f"{self.seed}/ask")))

    # ── mail ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _send(self, random: Random, sender: int) -> None:
        number = 0
        while not self.finishing.is_set():
            await asyncio.sleep(self.pause * random.random() * 2)
            number += 1
            box = random.choice(self.house.mailboxes)
            await self._until_kept(box, self._text(random, f"{sender}.{number}.{self.seed}"))

    @staticmethod
    def _text(random: Random, name: str) -> bytes:
        body = b"hello\r\n"
        if random.random() < 0.15:
            body = b"".join(random.randbytes(35).hex().encode() + b"\r\n" for _ in range(LARGE // 72))
        return f"From: a@example.org\r\nSubject: {name}\r\nMessage-ID: <{name}@example.org>\r\n\r\n".encode() + body

    async def _until_kept(self, box: OpenMailbox, text: bytes) -> None:
        digest = hashlib.sha256(text).hexdigest()
        while True:
            kept = False
            with suppress(OSError, EOFError, TimeoutError):
                kept = await self._try(box, text, digest)
            if kept:
                self.kept += 1
                return
            self.refused += 1
            await asyncio.sleep(0.1)

    async def _try(self, box: OpenMailbox, text: bytes, digest: str) -> bool:
        """One session. What was refused before its data was sent leaves no trace; after that only 250 is an answer."""
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.house.smtp_port)
            try:
                for said, expected in (
                    (b"", b"220"), (b"EHLO load\r\n", b"250"), (b"MAIL FROM:<a@example.org>\r\n", b"250"),
                    (b"RCPT TO:<" + box.address.encode() + b">\r\n", b"250"), (b"DATA\r\n", b"354"),
                ):  # fmt: skip
                    writer.write(said)
                    if not (await self._reply(reader)).startswith(expected):
                        return False
                operation = new_id("op")
                self.house.ledger.sent(operation, box.mailbox, digest)
                writer.write(text + b".\r\n")
                if not (await self._reply(reader)).startswith(b"250"):
                    return False
                self.house.ledger.answered(operation, "ok")
                return True
            finally:
                writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        began = asyncio.get_running_loop().time()
        line = b"250-"
        try:
            while line[3:4] == b"-":
                line = await reader.readuntil(b"\n")
        finally:
            self.slowest_answer = max(self.slowest_answer, asyncio.get_running_loop().time() - began)
        self.answers[line[:3].decode()] += 1
        return line

    # ── everything else ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, random: Random) -> None:
        """Messages are read and deleted, lives extended, short-lived mailboxes made: timers and effects have work."""
        while not self.finishing.is_set():
            await asyncio.sleep(self.pause * 4)
            box = random.choice(self.house.mailboxes)
            with suppress(NotPromised, OutcomeUnknown, *UNREACHABLE):
                found = await self._some_message(box)
                asked = [
                    ReadMessage(box.mailbox, found),
                    DeleteMessage(box.mailbox, found, "caller"),
                    ExtendMailbox(box.mailbox, 90),
                ]
                command = random.choice(asked)
                await self.house.ask(command, box.owner)
                if random.random() < 0.5:
                    await self.house.open_mailbox(box.owner, FLEETING)
                    self.house.mailboxes.pop()

    async def _some_message(self, box: OpenMailbox) -> str:
        found = await self.house.pool.fetchval(
            "select message from messages where mailbox = $1 order by random() limit 1", box.mailbox
        )
        return found or "msg_none"
