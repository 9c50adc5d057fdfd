"""Every event there is, by context: what the truth topics hold."""

from typing import Final, get_args

from domain.account import AccountEvent
from domain.callbacks import CallbackEvent
from domain.connection_events import ConnectionEvent
from domain.mailbox_events import MailboxEvent
from domain.outcomes import EventSkipped, InputReset, InputsAdvanced, LogOpened, Outcome
from domain.send_events import SendEvent
from schemas.vocabulary import Vocabulary

LOG: Final = Vocabulary(
    "log",
    {
        LogOpened: "log.opened.v1",
        EventSkipped: "log.event-skipped.v1",
        InputsAdvanced: "log.inputs-advanced.v1",
        InputReset: "log.input-reset.v1",
    },
)
MAILBOX: Final = Vocabulary("mailbox", (*get_args(MailboxEvent), *get_args(Outcome)), others=(LOG,))
ACCOUNT: Final = Vocabulary("account", (*get_args(AccountEvent), *get_args(Outcome)), others=(LOG,))
CONNECTION: Final = Vocabulary("connection", (*get_args(ConnectionEvent), *get_args(Outcome)), others=(LOG,))
SEND: Final = Vocabulary("send", (*get_args(SendEvent), *get_args(Outcome)), others=(LOG,))
WEBHOOK: Final = Vocabulary("webhook", (*get_args(CallbackEvent), *get_args(Outcome)), others=(LOG,))

#: What stands in each truth topic.
OF_TOPIC: Final = {f"{found.context}.events": found for found in (MAILBOX, ACCOUNT, CONNECTION, SEND, WEBHOOK)}
