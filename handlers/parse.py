"""Parses under the full limits what was received before there was time for it, and reports by command (DESIGN 4, rule 6)."""

from typing import Any, Final, Literal, Protocol

from domain.mailbox_commands import ReportParsed
from domain.mailbox_events import MessageReceived
from handlers.command_log import AppendsCommands
from handlers.effector import Effect
from handlers.mailboxes import KeepsKeys, ParsesMail, PreparesMail
from schemas import commands, events, topics
from schemas.envelope import Record
from schemas.raw_mail import RawMail

NAME: Final = "parse"


ParsedState = Literal["whole", "unparsed"]


class ReadsRawMail(Protocol):
    async def value(self, partition: int, offset: int) -> bytes:
        """A record of `mail.raw`; LookupError where it is no longer kept, any other error where it can't be read now."""
        ...


class ParsesLater:
    """What the effect needs: keys, the raw mail, the parser, and a way to report."""

    def __init__(
        self,
        prepares: PreparesMail,
        keys: KeepsKeys,
        raw_mail: ReadsRawMail,
        parser: ParsesMail,
        log: AppendsCommands,
    ) -> None:
        self._prepares = prepares
        self._keys = keys
        self._raw_mail = raw_mail
        self._parser = parser
        self._log = log

    async def act(self, event: MessageReceived, record: Record) -> None:
        """Parses one message that was received as `parsing`; others are whole already."""
        if event.state != "parsing":
            return
        data_key = (await self._keys.get([event.mailbox])).get(event.mailbox)
        if data_key is None:
            return
        found, state = await self._parsed(event, data_key)
        await self._log.command(
            topics.MAILBOX_COMMANDS.name,
            record.key,
            ReportParsed(event.mailbox, event.message, state, **found),
            vocabulary=commands.MAILBOX,
            subject=event.mailbox,
            command_id=f"{event.message}.parsed",
        )

    async def _parsed(self, event: MessageReceived, data_key: bytes) -> tuple[dict[str, Any], ParsedState]:
        """What the report says. A mail that is no longer there, or can't be opened, will not be parsed another time."""
        mail = RawMail(
            event.message, event.mailbox, event.via, event.size, event.sha256, event.envelope, blob=event.raw.blob
        )
        try:
            value = b"" if event.raw.blob else await self._raw_mail.value(event.raw.partition, event.raw.offset)
            raw = await self._prepares.raw(value, mail, data_key)
        except (LookupError, ValueError):
            return {"cause": "missing"}, "unparsed"
        parsed = await self._parser.parse(raw, full=True)
        found = await self._prepares.sealed(event.mailbox, event.message, parsed, data_key)
        return found, "whole" if parsed.state == "whole" else "unparsed"


def effect(parses: ParsesLater) -> Effect:
    return Effect(NAME, topics.MAILBOX_EVENTS.name, events.MAILBOX, MessageReceived, parses.act, concurrency=2)
