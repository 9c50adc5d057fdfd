"""`demo`: what an inbox can do, shown on a running installation through its public doors alone: HTTP, SSE and SMTP."""

import asyncio
import json
import smtplib
import time
from email.message import EmailMessage
from hashlib import sha256
from typing import Any, Final

from gateways.command_line.demo_reader import Reader, Stream
from gateways.command_line.failures import TIMED_OUT, Failed
from gateways.command_line.output import Form, show_one

SENDER: Final = "Demo <demo@sender.example>"
ATTACHMENT: Final = ("ticket.txt", b"Seat 12A, window. Bring this.\n" * 40)
#: Seconds until a mail that was accepted must have been seen.
SEEN_SECONDS: Final = 15.0
#: No plan that people begin with holds more; a tour need not go on for longer.
MOST_MAILS: Final = 1_000
ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where a server listens, told to a client

Listening = tuple[str, int]


async def take_the_tour(http: Listening, smtp: Listening, *, output: Form | None = None) -> None:
    """Walks through everything and prints each step. Raises Failed at the first that does not go as it should."""
    told = Told(output)
    async with Reader.opened(_client(http[0]), http[1]) as reader:
        told.step("Opened an inbox", f"{reader.address}, until {reader.expires_at}")
        post = Post(smtp, reader.address)
        async with reader.watching(f"{reader.here}/events") as stream:
            await _see_it_arrive(reader, stream, post, told)
        async with reader.watching("/v1/events") as log:
            await _fill_it(log, post, told)
    told.step("Deleted the inbox", "its key is destroyed seven days later, and then nobody can read its mails again")


class Told:
    """Prints the steps, and how long each took."""

    def __init__(self, output: Form | None) -> None:
        self._output: Form = output or "table"
        self._number = 0
        self._since = time.perf_counter()

    def step(self, did: str, said: str, **facts: Any) -> None:
        self._number += 1
        now = time.perf_counter()
        took, self._since = (now - self._since) * 1000, now
        row = {"step": self._number, "did": did, "said": said, "took_ms": round(took, 1), **facts}
        show_one(row, f"{self._number:>2}. {did}  ({took:.0f} ms)\n    {said}", self._output)


class Post:
    """Whoever writes to the inbox, by SMTP."""

    def __init__(self, smtp: Listening, address: str) -> None:
        self._smtp = (_client(smtp[0]), smtp[1])
        self._address = address
        self._number = 0

    async def send(self, *, attached: bool = False) -> float:
        """Sends one mail; the moment at which the server said that it has it. Raises Failed."""
        try:
            return await asyncio.to_thread(self._send, self._written(attached=attached))
        except (smtplib.SMTPException, OSError) as error:
            host, port = self._smtp
            raise Failed(f"The SMTP server at {host}:{port} did not take the mail: {error}") from error

    def _written(self, *, attached: bool) -> EmailMessage:
        self._number += 1
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = SENDER, self._address, f"Your code is 4{self._number:03}71"
        mail["Message-ID"] = f"<{self._number}.{time.time_ns()}@sender.example>"
        mail.set_content(f"Good day,\n\nthis is mail number {self._number}.\n")
        if attached:
            name, content = ATTACHMENT
            mail.add_attachment(content, maintype="text", subtype="plain", filename=name)
        return mail

    def _send(self, mail: EmailMessage) -> float:
        with smtplib.SMTP(*self._smtp, local_hostname="sender.example", timeout=30) as client:
            client.send_message(mail)
            return time.perf_counter()


async def _see_it_arrive(reader: Reader, stream: Stream, post: Post, told: Told) -> None:
    _, new, pushed_ms = await _pushed(stream, {"new_message"}, post, attached=True)
    told.step(
        "Sent a mail with an attachment and saw it arrive",
        f"{new['from_address']}: {new['subject']}; pushed {pushed_ms:.1f} ms after SMTP said 250",
        pushed_ms=round(pushed_ms, 1),
    )
    listed = json.loads(await reader.get(f"{reader.here}/messages"))
    told.step("Listed the inbox", f"{len(listed)} message, {listed[0]['subject']}")
    here = f"{reader.here}/messages/{new['message_id']}"
    message = json.loads(await reader.get(here))
    told.step("Read it", " ".join(message["body_text"].split()))
    for found in message["attachments"]:
        content = await reader.get(f"{here}/attachments/{found['index']}")
        if sha256(content).digest() != sha256(ATTACHMENT[1]).digest():
            raise Failed(f"The attachment {found['filename']} is not what was sent.")
        told.step("Downloaded its attachment", f"{found['filename']}, {len(content):,} bytes, the same as were sent")


async def _fill_it(log: Stream, post: Post, told: Told) -> None:
    waits: list[float] = []
    for number in range(MOST_MAILS):
        name, event, pushed_ms = await _pushed(log, {"message.received", "message.rejected"}, post)
        if name == "message.rejected":
            median = sorted(waits)[len(waits) // 2] if waits else 0.0
            told.step(
                "Filled it until the plan's quota was reached",
                f"{number} more had room; each was pushed {median:.1f} ms (median) after SMTP said 250",
                median_ms=round(median, 1),
            )
            told.step("The log says of the next one", json.dumps(event))
            return
        waits.append(pushed_ms)
    raise Failed(f"After {MOST_MAILS} mails the inbox was not full; the plan allows more than a tour can show.")


async def _pushed(
    stream: Stream, names: set[str], post: Post, *, attached: bool = False
) -> tuple[str, dict[str, Any], float]:
    """Sends a mail; the event that tells of it, and how many milliseconds after the server's 250 it was seen."""
    seeing = asyncio.create_task(_first_of(stream, names))
    try:
        accepted = await post.send(attached=attached)
        async with asyncio.timeout(SEEN_SECONDS):
            name, event, seen = await seeing
    except TimeoutError as error:
        raise Failed(
            f"The mail was accepted, but not seen within {SEEN_SECONDS:.0f} s: are the roles `work` and `project` running?",
            code=TIMED_OUT,
        ) from error
    finally:
        seeing.cancel()
    return name, event, max(0.0, (seen - accepted) * 1000)


async def _first_of(stream: Stream, names: set[str]) -> tuple[str, dict[str, Any], float]:
    while True:
        name, event = await stream.event()
        if name in names:
            return name, event, time.perf_counter()


def _client(host: str) -> str:
    return ANYWHERE.get(host, host)
