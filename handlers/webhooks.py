"""The decider of webhooks' deliveries."""

from typing import Any, Final

from pydantic import TypeAdapter

from domain import callbacks
from handlers.context import Context, json_commands
from schemas import commands, events, topics

FOLD_VERSION: Final = 1
DOCUMENTS: Final[dict[str, TypeAdapter[Any]]] = {
    "delivery": TypeAdapter(callbacks.Delivery),
    "sequence": TypeAdapter(int),
}


def _subject(command: callbacks.CallbackCommand) -> str:
    return command.delivery if isinstance(command, callbacks.ReportCallback) else command.callback.delivery


def context() -> Context:
    return Context(
        name="webhook",
        version=FOLD_VERSION,
        events=topics.WEBHOOK_EVENTS.name,
        inputs={topics.WEBHOOK_COMMANDS.name: json_commands(commands.WEBHOOK)},
        vocabulary=events.WEBHOOK,
        needs=callbacks.needs,
        decide=callbacks.decide,
        touches=callbacks.touches,
        evolve=callbacks.evolve,
        subject=_subject,
        read_document=lambda kind, body: DOCUMENTS[kind].validate_json(body),
    )
