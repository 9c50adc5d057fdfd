"""A user's connections in plain words, for the user: what state each is in, and what there is to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateways.http.connect.words import NAMES
from gateways.stores.sealing import Unsealable, place, unseal
from projections.connections import ConnectionRow

WORKS: Final = "connected"
NEEDS_YOU: Final = "needs you again"
RECONNECT: Final = "Reconnect it to go on; until then nothing is sent from it."
SMTP_RECONNECT: Final = "Enter its password once more where you connected it; until then nothing is sent from it."
BY_ITSELF: Final = (
    "The provider has not answered as it should lately. It is tried again by itself; there is nothing to do."
)
REASONS: Final[Mapping[str, str]] = {
    "invalid_grant": "The provider no longer accepts your consent: it was withdrawn or has lapsed, or your password was "
    "changed.",
    "tokens_missing": "What we need to use it is no longer there.",
    "login_failed": "The mail server no longer accepts the user name and password.",
    "token_refused": "The provider lets us in no more, though it says that we may.",
    "no_refresh_token": "The provider gave access for an hour only.",
}
#: What scopes allow, by the end of their names.
ALLOWS: Final[Mapping[str, str]] = {
    "gmail.readonly": "reading mail",
    "gmail.compose": "writing and sending mail",
    "gmail.modify": "reading and changing mail",
    "gmail.send": "sending mail",
    "mail.read": "reading mail",
    "mail.readwrite": "reading and writing mail",
    "mail.send": "sending mail",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """One connection as the page shows it. `reconnects` is the provider that its button leads to, None for no button.

    `needs_user`: it is of no use until its user has seen to it.
    """

    id: str
    account: str
    provider: str
    state: str
    look: str
    advice: Sequence[str]
    reconnects: str | None
    needs_user: bool


def shown(row: ConnectionRow, data_key: bytes) -> Shown | None:
    """None where it can't be opened any more: its user is being erased."""
    try:
        account = unseal(data_key, row.account, place("connection", row.connection, "account")).decode()
    except Unsealable:
        return None
    needs_user = row.state == "reauth_required"
    return Shown(
        id=row.connection,
        account=account,
        provider=NAMES[row.provider],
        state=NEEDS_YOU if needs_user else WORKS,
        look="warn" if needs_user else "good",
        advice=_reauth(row) if needs_user else _active(row),
        reconnects=row.provider if row.auth == "oauth" and (needs_user or row.missing_scopes) else None,
        needs_user=needs_user,
    )


def _reauth(row: ConnectionRow) -> list[str]:
    what = RECONNECT if row.auth == "oauth" else SMTP_RECONNECT
    reason = REASONS.get(row.last_error or "")
    return [reason, what] if reason else [what]


def _active(row: ConnectionRow) -> list[str]:
    said = [BY_ITSELF] if row.last_error else []
    if row.missing_scopes:
        missing = " and ".join(dict.fromkeys(_allows(scope) for scope in row.missing_scopes))
        said.append(f"Not allowed yet: {missing}. Reconnect and leave every box ticked to allow it.")
    return said


def _allows(scope: str) -> str:
    name = scope.rpartition("/")[2]
    return ALLOWS.get(name.lower(), name)
