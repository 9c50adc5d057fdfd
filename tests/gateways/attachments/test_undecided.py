"""What a command names that waits in the log is kept until it has been decided, however long that takes."""

import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from domain.account import CreateAccount
from domain.attachments import DeleteAttachment, StoreAttachment
from domain.fields import Digest
from domain.send_commands import KnownConnection, RequestSend
from gateways.caught_up import CaughtUp
from gateways.local_servers import Servers
from gateways.stores.due_attachments import DueAttachments
from gateways.stores.sealing import place, seal
from handlers import accounts, connections
from handlers import attachments as ends
from main import assembled
from projections import attachments, sends
from schemas import commands, topics
from schemas.ids import new_id
from schemas.send_message import BLOB_FIELD, MESSAGE, File, Person, SendMessage
from tests.support.deciding import deciding
from tests.support.send_house import OWNER, Mailbox, SendHouse, send_house
from tests.support.user_history import create_user
from tests.support.waiting import until

HOUR = 3600.0
BYTES = b"what is to be sent"


class Pending:
    """A house in which commands are acknowledged and nobody decides, but for a while at the beginning: one user is there."""

    def __init__(self, house: SendHouse, mailbox: Mailbox, data_key: bytes) -> None:
        self.sends, self.house, self.mailbox, self.user = house, house.house, mailbox, mailbox.user
        self._data_key = data_key
        tables = [
            CaughtUp(house.log, self.house.pool, projection=found.name, topic=found.topic)
            for found in (attachments.PROJECTION, sends.PROJECTION)
        ]
        self.known = DueAttachments(self.house.pool, *tables)

    async def account_command(self, command: Any, subject: str) -> None:
        log, name = self.house.command_log, topics.ACCOUNT_COMMANDS.name
        await log.command(name, OWNER, command, vocabulary=commands.ACCOUNT, subject=subject)

    async def put(self, name: str, content: bytes, at: bytes) -> str:
        """A blob of the user's; its name."""
        blob = f"{self.user}/{name}"
        await self.house.blobs.put(blob, BytesIO(content), self._data_key, at)
        return blob

    async def read(self, file: File) -> bytes:
        return await self.house.blobs.read(file.blob, self._data_key, place("attachment", file.id, "content"))

    async def upload(self) -> File:
        """As the route does it: a blob, and the command that names it."""
        attachment = new_id("att")
        blob = await self.put(f"{attachment}.bin", BYTES, place("attachment", attachment, "content"))
        name = seal(self._data_key, b"a.txt", place("attachment", attachment, "name"))
        week = datetime.now(UTC) + timedelta(days=7)
        command = StoreAttachment(OWNER, self.user, attachment, blob, len(BYTES), "ab" * 32, "text/plain", name, week)
        await self.account_command(command, attachment)
        return File(attachment, "a.txt", "text/plain", len(BYTES), blob)

    async def delete(self, file: File) -> None:
        await self.account_command(DeleteAttachment(OWNER, self.user, file.id, "caller"), file.id)

    async def send(self, file: File) -> str:
        """A send whose body is so large that it is in a blob; it takes the file along."""
        send, mailbox = new_id("snd"), self.mailbox
        message = SendMessage("Tea", "It is served.", "text", "It is served.", [Person("b@x.test")], attachments=[file])
        blob = await self.put(f"{send}.message", MESSAGE.dump_json(message), place("send", send, BLOB_FIELD))
        known = KnownConnection(mailbox.connection, mailbox.provider, mailbox.digest, "active")
        await self.sends.tell(
            RequestSend(
                send=send,
                user=self.user,
                owner=OWNER,
                message_id=f"<{send}@mail.localhost>",
                body=Digest("body"),
                recipients=1,
                attachments=[file.id],
                size=100,
                connections=[known],
                blob=blob,
                scale=self.sends.scale,
            )
        )
        return send

    async def deleted(self, file: File) -> Any:
        query = "select deleted_at from attachments where attachment = $1"
        return await self.house.pool.fetchval(query, file.id)

    async def stored(self, file: File) -> bool:
        return await attachments.by_id(self.house.pool, OWNER, file.id) is not None

    async def effect_at_end(self) -> bool:
        """Whether the effect that destroys bytes has acted on every event of accounts."""
        topic = topics.ACCOUNT_EVENTS.name
        end = (await self.sends.log.bounds(topic, 0))[1]
        query = "select position from checkpoints where name = $1 and topic = $2"
        return bool(await self.house.pool.fetchval(query, f"effect.{ends.NAME}", topic) == end)

    async def tables_at_end(self) -> bool:
        """Whether the tables hold every event there is."""
        for found in (attachments.PROJECTION, sends.PROJECTION):
            end = (await self.sends.log.bounds(found.topic, 0))[1]
            query = "select position from checkpoints where name = $1 and topic = $2"
            if await self.house.pool.fetchval(query, found.name, found.topic) != end:
                return False
        return True

    def grow_old(self) -> None:
        """Every blob was written 25 hours ago."""
        moment = time.time() - 25 * HOUR
        for path in self.house.settings.data.rglob(f"{self.user}/*"):
            os.utime(path, (moment, moment))

    def blobs(self) -> set[str]:
        return {name for name in self.house.blobs.names() if name.startswith(self.user)}


@pytest.fixture
async def pending(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Pending]:
    async with send_house(servers, database, topic_prefix, tmp_path, roles=("project",)) as house:
        await house.house.connect()
        async with deciding(house.house, accounts.context(), connections.context()):
            mailbox = await house.connect()
            found = Pending(house, mailbox, (await house.house.keyring.get([mailbox.user]))[mailbox.user])
            await found.account_command(CreateAccount(OWNER, "pro"), OWNER)
            await found.account_command(create_user(mailbox.user, "ada@a", OWNER), mailbox.user)
            await house.found("select 1 from users where user_id = $1", mailbox.user)
        yield found


async def test_no_blob_is_swept_that_a_command_names_which_waits_to_be_decided(pending: Pending) -> None:
    """The tables hold every event there is, and the blobs are a day old."""
    file = await pending.upload()
    send = await pending.send(file)
    waiting = pending.blobs()
    assert len(waiting) == 2
    pending.grow_old()
    await until(pending.tables_at_end)
    ending = ends.Ending(pending.known, pending.house.blobs, pending.house.command_log)
    assert await ending.sweep() == 0
    assert pending.blobs() == waiting
    async with assembled(pending.house.settings, ["work"]):
        await until(lambda: pending.stored(file))
        await pending.sends.becomes(send, "sent")
        orphan = await pending.put("att_orphan.bin", b"x", b"")
        pending.grow_old()
        await until(lambda: _swept(ending))
    assert pending.blobs() == waiting, f"all but {orphan}"
    assert await pending.read(file) == BYTES


async def _swept(ending: ends.Ending) -> bool:
    return await ending.sweep() == 1


async def test_what_was_deleted_is_kept_until_every_send_before_is_decided_and_then_for_those_that_name_it(
    pending: Pending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The send is promised and waits; accounts are decided, and their effect is at work."""
    monkeypatch.setattr("gateways.stores.due_attachments.DECIDE_SECONDS", 0.3)
    effect, house = ends.effect(pending.house.blobs, pending.known), pending.house
    async with deciding(house, accounts.context(), effects=[effect]):
        named, other = await pending.upload(), await pending.upload()
        for file in (named, other):
            await until(lambda file=file: pending.stored(file))  # type: ignore[misc]  # one for each
        send = await pending.send(named)
        for file in (named, other):
            await pending.delete(file)
            await until(lambda file=file: pending.deleted(file))  # type: ignore[misc]  # one for each
        await until(pending.effect_at_end)
    assert {named.blob, other.blob} <= pending.blobs()
    async with assembled(house.settings, ["work"]):
        await pending.sends.becomes(send, "sent")
        ending = ends.Ending(pending.known, house.blobs, house.command_log, old_seconds=0)
        await until(lambda: _swept(ending))
    assert pending.blobs() == {named.blob, f"{pending.user}/{send}.message"}
