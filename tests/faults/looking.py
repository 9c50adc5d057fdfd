"""What is seen of an installation once it is quiet: its log, its inputs, its tables, its snapshots and its blobs."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any, Protocol

from gateways.stores.mail_store import MailStore
from handlers import connections, mailboxes, sends
from projections import messages
from schemas.envelope import Record
from schemas.snapshots import Checkpoint
from tests.faults import checker, ledger
from tests.faults.installation import COMMANDS, EVENTS, MAIL, Installation
from tests.faults.observed import Observed, Shown, Snapshot, Violation

SHOWN = (
    "select message, mailbox, content, content_blob, raw_partition, raw_offset, raw_blob from messages "
    "where shown_at is not null"
)
assert "shown_at" in messages.DDL
DOCUMENTS = {"mailbox": mailboxes.DOCUMENTS, "connection": connections.DOCUMENTS, "send": sends.DOCUMENTS}


@dataclass
class Scanned:
    """`mail.raw` as it was read, by place."""

    records: dict[tuple[int, int], Record]

    async def value(self, partition: int, offset: int) -> bytes:
        return self.records[partition, offset].value


@dataclass
class Row:
    message: str
    mailbox: str
    content: str | None
    content_blob: str | None
    raw_partition: int
    raw_offset: int
    raw_blob: str | None


async def violations(house: Installation) -> list[Violation]:
    """What the checker has to say."""
    return checker.check(await observed(house))


async def observed(house: Installation) -> Observed:
    log, mail = await house.records(EVENTS), await house.records(MAIL)
    return Observed(
        operations=ledger.read(house.ledger_path),
        log=log,
        inputs=[*await house.records(COMMANDS), *mail],
        shown=await _shown(house, mail),
        blobs=_blobs(house),
        snapshots=await snapshots(house),
    )


async def _shown(house: Installation, mail: list[Record]) -> dict[str, list[Shown]]:
    store = MailStore(house.keyring, Scanned({(r.partition, r.offset): r for r in mail}), house.blobs)
    rows = await house.pool.fetch("select mailbox from mailboxes where ended is null and expires_at > now()")
    shown: dict[str, list[Shown]] = {row["mailbox"]: [] for row in rows}
    for row in await house.pool.fetch(SHOWN):
        if row["mailbox"] in shown:
            raw = await store.raw(Row(**row))
            shown[row["mailbox"]].append(Shown(row["message"], hashlib.sha256(raw).hexdigest()))
    return shown


def _blobs(house: Installation) -> dict[str, float]:
    found = {name: house.settings.blobs_path / name.split("/")[0][-2:] / name for name in house.blobs.names()}
    return {name: time.time() - path.stat().st_mtime for name, path in found.items()}


class HasPool(Protocol):
    @property
    def pool(self) -> Any: ...


async def snapshots(house: HasPool, context: str = f"mailbox.v{mailboxes.FOLD_VERSION}") -> list[Snapshot]:
    """The snapshot of every partition that the decider of this context has taken."""
    import orjson

    rows = await house.pool.fetch("select * from decider_checkpoints where context = $1", context)
    return [
        Snapshot(
            row["partition"],
            Checkpoint(row["events_end"], orjson.loads(row["inputs"]), row["now_ms"]),
            await _documents(house, context, row["partition"]),
        )
        for row in rows
    ]


async def _documents(house: HasPool, context: str, partition: int) -> dict[tuple[str, str], Any]:
    rows = await house.pool.fetch(
        "select kind, id, document from decider_state where context = $1 and partition = $2", context, partition
    )
    readers = DOCUMENTS[context.partition(".")[0]]
    return {(row["kind"], row["id"]): readers[row["kind"]].validate_json(row["document"]) for row in rows}
