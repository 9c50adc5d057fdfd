"""What the outcomes of connecting mean to the person who tried: by code only, never in words of a provider."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from domain.connection_events import Provider, RefusedBecause
from gateways.providers.connector import ConnectCode

#: What a failed try is told to the product as, beside what providers and rules say.
OurCode = Literal["servers_forgotten", "unavailable", "outcome_unknown", "internal_error"]
Code = ConnectCode | RefusedBecause | OurCode

NAMES: Final[Mapping[Provider, str]] = {"gmail": "Gmail", "outlook": "Outlook", "smtp": "Mail server"}
AGAIN: Final = "Nothing was changed; please try again."
OPERATOR: Final = "Nothing you can do will mend this: whoever runs this service has been told."


@dataclass(frozen=True, slots=True)
class Words:
    """What happened, and what there is to do."""

    happened: str
    advice: str


WORDS: Final[Mapping[Code, Words]] = {
    # the provider, or what it was asked
    "access_denied": Words("Access was not granted.", "If that was a mistake, connect again and choose to allow it."),
    "provider_refused": Words("The provider refused.", AGAIN),
    "provider_unavailable": Words("The provider did not answer as it should.", "Please try again in a few minutes."),
    "code_refused": Words("The provider no longer accepted this sign-in.", AGAIN),
    "identity_unknown": Words("The provider did not say whose mailbox it is.", AGAIN),
    "id_token_invalid": Words("The provider's word about whose mailbox it is could not be trusted.", AGAIN),
    "issuer_mismatch": Words("The answer came from somewhere else than where you were sent.", AGAIN),
    "no_refresh_token": Words(
        "The provider gave access for an hour only.", "Connect again and allow everything that is asked for."
    ),
    "client_broken": Words("This service is not set up rightly at the provider.", OPERATOR),
    "login_failed": Words(
        "A mail server did not let us in.", "Check the server's name, port, user name and password, and try again."
    ),
    "host_not_allowed": Words("That mail server can't be used here.", "Use a server that is on the public internet."),
    # the rules of connections
    "another_mailbox": Words(
        "You signed in to another mailbox than the one to be reconnected.",
        "Reconnect and sign in to that same mailbox, or connect this one as a new mailbox.",
    ),
    "scopes_missing": Words(
        "Sending mail was not allowed, and without that the mailbox is of no use here.",
        "Connect again and leave every box ticked.",
    ),
    "already_connected": Words("This mailbox is being connected by another try.", "Please look whether it is there."),
    "too_many_connections": Words(
        "As many mailboxes are connected as there may be.", "Disconnect one first, then connect this one."
    ),
    "unknown_connection": Words(
        "The mailbox that was to be reconnected is not there any more.", "Connect it as a new mailbox."
    ),
    "user_deleted": Words("This account does not exist any more.", "Please go back to where you came from."),
    # ourselves
    "servers_forgotten": Words(
        "We no longer know the servers of that mailbox.", "Please connect it again where you connected it first."
    ),
    "unavailable": Words("We could not do this just now.", AGAIN),
    "outcome_unknown": Words(
        "We could not make sure that it worked: the mailbox may be connected, or may be in a moment.",
        "Please look again in a minute, and connect it once more if it is not there.",
    ),
    "internal_error": Words("A fault of ours kept this from being done.", AGAIN),
}
CODES: Final = frozenset({*get_args(ConnectCode), *get_args(RefusedBecause), *get_args(OurCode)})


class NotConnected(Exception):
    """A try that ended without a connection; `code` is what the product is told."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code: Code = code


def words_for(code: str | None) -> Words | None:
    """None for whatever is none of our codes: anybody can write a query."""
    return next((words for known, words in WORDS.items() if known == code), None)
