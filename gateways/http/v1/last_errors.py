"""What a connection's last error says to a person: what happened, and what there is to do."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from domain.connection_events import ReauthCode, RefreshCode
from schemas.envelope import stamp

AGAIN: Final = "It is tried again by itself, and the connection is none the worse for it."
OPERATOR: Final = "No user can mend this: the operator of this installation has to."
RECONNECT: Final = "Have the user connect the mailbox again."

MESSAGES: Final[Mapping[RefreshCode | ReauthCode, str]] = {
    # a new token could not be had this time
    "unreachable": f"The provider could not be reached when the token was to be refreshed. {AGAIN}",
    "timed_out": f"The provider did not answer in time when the token was to be refreshed. {AGAIN}",
    "rate_limited": f"The provider asked us to refresh the token later. {AGAIN}",
    "server_error": f"The provider had a fault of its own when the token was to be refreshed. {AGAIN}",
    "answer_unreadable": f"The provider's answer to refreshing the token could not be understood. {AGAIN}",
    "answer_too_large": f"The provider's answer to refreshing the token was too large to be read. {AGAIN}",
    "refused": f"The provider refused to refresh the token, and not because of the user's consent. {AGAIN}",
    # the provider does not know us any more
    "invalid_client": f"The provider does not accept our client's id and secret. {OPERATOR}",
    "unauthorized_client": f"The provider does not allow our client to refresh tokens. {OPERATOR}",
    "client_secret_expired": f"Our client's secret at the provider has expired. {OPERATOR}",
    # only the user can help
    "invalid_grant": "The provider no longer accepts the user's consent: it was withdrawn, has lapsed, or the password was "
    f"changed. {RECONNECT}",
    "tokens_missing": f"The tokens of this connection are no longer there. {RECONNECT}",
    "login_failed": f"The mail server no longer accepts the user name and password. {RECONNECT}",
    "token_refused": "The provider refuses tokens that it has only just given: the account may be closed, or whoever runs it "
    f"may keep us out. {RECONNECT}",
    "no_refresh_token": f"The provider gave no token that outlasts the first hour. {RECONNECT}",
}
#: What is said of a code that a newer version of us has written.
OTHERWISE: Final = "Something went wrong that this version has no words for; look at `code`."


def last_error(code: str | None, at: datetime | None) -> dict[str, Any] | None:
    """`{code, message, at}`, None where nothing is wrong."""
    if code is None or at is None:
        return None
    messages: Mapping[str, str] = {str(known): message for known, message in MESSAGES.items()}
    return {"code": code, "message": messages.get(code, OTHERWISE), "at": stamp(at)}
