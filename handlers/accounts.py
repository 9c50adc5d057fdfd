"""The decider of plans, accounts, API keys, users, attachments and webhooks."""

from typing import Any, Final

from pydantic import TypeAdapter

from domain import account, attachments, users, webhooks
from handlers.context import Context, json_commands
from schemas import commands, events, topics

FOLD_VERSION: Final = 1
DOCUMENTS: Final[dict[str, TypeAdapter[Any]]] = {
    "account": TypeAdapter(account.Account),
    "user": TypeAdapter(users.User),
    "email": TypeAdapter(users.Taken),
    "external_id": TypeAdapter(users.Taken),
    "made": TypeAdapter(users.Made),
    "attachment": TypeAdapter(attachments.Attachment),
    "stored": TypeAdapter(attachments.Stored),
    "webhooks": TypeAdapter(webhooks.Webhooks),
    "hooked": TypeAdapter(webhooks.Hooked),
    "sequence": TypeAdapter(int),
}


def _subject(command: account.AccountCommand) -> str:
    if isinstance(command, account.DefinePlan):
        return command.name
    if isinstance(command, attachments.AttachmentCommand):
        return command.attachment
    if isinstance(command, webhooks.WebhookCommand) and not isinstance(command, webhooks.RotateAccountSecret):
        return command.endpoint
    return command.user if isinstance(command, users.UserCommand) else command.account


def context() -> Context:
    return Context(
        name="account",
        version=FOLD_VERSION,
        events=topics.ACCOUNT_EVENTS.name,
        inputs={topics.ACCOUNT_COMMANDS.name: json_commands(commands.ACCOUNT)},
        vocabulary=events.ACCOUNT,
        needs=account.needs,
        decide=account.decide,
        touches=account.touches,
        evolve=account.evolve,
        subject=_subject,
        read_document=lambda kind, body: DOCUMENTS[kind].validate_json(body),
    )
