"""Every command there is, by context."""

from typing import Final, get_args

from domain.account import AccountCommand
from domain.callbacks import CallbackCommand
from domain.connection_commands import ConnectionCommand
from domain.mailbox_commands import MailboxCommand
from domain.send_commands import SendCommand
from schemas.vocabulary import Vocabulary

MAILBOX: Final = Vocabulary("mailbox", get_args(MailboxCommand))
ACCOUNT: Final = Vocabulary("account", get_args(AccountCommand))
CONNECTION: Final = Vocabulary("connection", get_args(ConnectionCommand))
SEND: Final = Vocabulary("send", get_args(SendCommand))
WEBHOOK: Final = Vocabulary("webhook", get_args(CallbackCommand))
