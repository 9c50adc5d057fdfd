"""The decider of sends."""

from typing import Any, Final

from pydantic import TypeAdapter

from domain import send, send_state
from handlers.context import Context, json_commands
from schemas import commands, events, topics

FOLD_VERSION: Final = 2
DOCUMENTS: Final[dict[str, TypeAdapter[Any]]] = {
    "send": TypeAdapter(send_state.Send),
    "key": TypeAdapter(send_state.Taken),
    "sequence": TypeAdapter(int),
}


def context() -> Context:
    return Context(
        name="send",
        version=FOLD_VERSION,
        events=topics.SEND_EVENTS.name,
        inputs={topics.SEND_COMMANDS.name: json_commands(commands.SEND)},
        vocabulary=events.SEND,
        needs=send.needs,
        decide=send.decide,
        touches=send_state.touches,
        evolve=send_state.evolve,
        subject=lambda command: command.send,
        read_document=lambda kind, body: DOCUMENTS[kind].validate_json(body),
    )
