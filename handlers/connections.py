"""The decider of users' connections."""

from typing import Any, Final

from pydantic import TypeAdapter

from domain import connection, connection_state
from domain.connection_commands import CloseUser, ConnectionCommand, ReportRotation
from handlers.context import Context, json_commands
from schemas import commands, events, topics

FOLD_VERSION: Final = 2
DOCUMENTS: Final[dict[str, TypeAdapter[Any]]] = {
    "user": TypeAdapter(connection_state.User),
    "sequence": TypeAdapter(int),
}


def _subject(command: ConnectionCommand) -> str:
    if isinstance(command, ReportRotation):
        return command.key
    return command.user if isinstance(command, CloseUser) else command.connection


def context() -> Context:
    return Context(
        name="connection",
        version=FOLD_VERSION,
        events=topics.CONNECTION_EVENTS.name,
        inputs={topics.CONNECTION_COMMANDS.name: json_commands(commands.CONNECTION)},
        vocabulary=events.CONNECTION,
        needs=connection.needs,
        decide=connection.decide,
        touches=connection_state.touches,
        evolve=connection_state.evolve,
        subject=_subject,
        read_document=lambda kind, body: DOCUMENTS[kind].validate_json(body),
    )
