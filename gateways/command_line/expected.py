"""What may go wrong on any day, told as a sentence: a server that is down, a wrong password, a keyset that is not ours.

Loaded only once something has failed, so that commands that succeed need not pay for its imports.
"""

import errno
from collections.abc import Callable
from typing import Final

import aiohttp
import asyncpg
from aiokafka.errors import KafkaError

from gateways.command_line.failures import FAILED, NOT_ALLOWED, NOT_FOUND, TIMED_OUT, Failed
from gateways.local_children import CannotStart
from gateways.log.command_log import NotPromised, OutcomeUnknown
from gateways.log.event_log import LogUnavailable
from gateways.log.provision import Misprovisioned
from gateways.stores.keyset import KeysetError

PROVISION_FIRST: Final = "run `python main.py provision` first, or check POSTLEDGER_DATABASE_URL."

Kinds = tuple[type[BaseException], ...]
#: From the more special to the more general: the first that fits is told.
SENTENCES: Final[tuple[tuple[Kinds, int, Callable[[BaseException], str]], ...]] = (
    ((CannotStart, Misprovisioned, KeysetError), FAILED, str),
    (
        (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError),
        NOT_ALLOWED,
        lambda error: (
            f"Postgres refuses this user: {error}. Check the name and password in POSTLEDGER_DATABASE_URL, and what that "
            f"user may do: it creates schemas and tables."
        ),
    ),
    (
        (asyncpg.InvalidCatalogNameError,),
        NOT_FOUND,
        lambda error: f"Postgres has no such database: {error}. Create it, or check POSTLEDGER_DATABASE_URL.",
    ),
    (
        (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError),
        FAILED,
        lambda _: f"This database has no tables of Postledger's: {PROVISION_FIRST}",
    ),
    (
        (
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ),
        FAILED,
        lambda error: f"Postgres does not answer ({error}): is it running, and is POSTLEDGER_DATABASE_URL right?",
    ),
    (
        (NotPromised,),
        FAILED,
        lambda error: f"Nothing was changed: {error}. Is Kafka running, and is POSTLEDGER_KAFKA right?",
    ),
    (
        (OutcomeUnknown,),
        TIMED_OUT,
        lambda _: "Kafka did not confirm in time, so this may have happened or not: look (`list`) before trying again.",
    ),
    (
        (LogUnavailable,),
        FAILED,
        lambda error: (
            f"The log does not answer ({error}): is Kafka running, is POSTLEDGER_KAFKA right, and was "
            f"`python main.py provision` run?"
        ),
    ),
    (
        (KafkaError,),
        FAILED,
        lambda error: f"Kafka does not answer ({_said(error)}): is it running, and is POSTLEDGER_KAFKA right?",
    ),
    (
        (aiohttp.ClientConnectionError,),
        FAILED,
        lambda error: f"Nobody answers there ({error}): is `python main.py up` running?",
    ),
    ((TimeoutError,), TIMED_OUT, lambda _: "It took too long: look at the logs of what is running, and try again."),
    ((OSError,), FAILED, lambda error: _system_said(error)),  # noqa: PLW0108 - defined below
)


def explained(error: BaseException) -> Failed | None:
    """The failure as a sentence and a status; None for what nobody expects, which deserves its traceback."""
    if isinstance(error, Failed):
        return error
    for kinds, code, sentence in SENTENCES:
        if isinstance(error, kinds):
            return Failed(sentence(error), code=code)
    return None


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _system_said(error: BaseException) -> str:
    assert isinstance(error, OSError)
    if error.errno == errno.EADDRINUSE:
        return (
            f"{error.strerror}: another program listens there. End it, or choose another address (POSTLEDGER_HTTP, "
            f"POSTLEDGER_SMTP, POSTLEDGER_OPERATIONS)."
        )
    if isinstance(error, ConnectionError) or error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, None):
        return (
            f"A server does not answer ({_said(error)}): is it running, and are POSTLEDGER_KAFKA and "
            f"POSTLEDGER_DATABASE_URL right?"
        )
    return f"{error.filename}: {error.strerror}." if error.filename else f"The system refused: {error.strerror}."
