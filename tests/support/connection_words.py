"""Words for specifications of users' connections: one user, one mailbox, and what is said of them."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from domain import refresh
from domain.connection_commands import AuthoriseConnection, ReportRefresh
from domain.connection_events import ConnectionAuthorised, Token
from domain.fields import Digest, Sealed
from tests.support.spec import START

USER = "usr_1"
COMPOSE = "https://www.googleapis.com/auth/gmail.compose"
READONLY = "https://www.googleapis.com/auth/gmail.readonly"
HOUR = timedelta(hours=1)


def token(version: int = 1, *, life: timedelta | None = HOUR, now: datetime = START) -> Token:
    """The token of this version, which lives for so long from now on."""
    return Token(f"#token {version}", version, now + life if life is not None else None)


def authorise(
    connection: str = "con_1", mailbox: str = "ada@gmail", *, version: int = 1, now: datetime = START, **more: Any
) -> AuthoriseConnection:
    """Connects a mailbox at Google, with all that was asked for."""
    command = AuthoriseConnection(
        connection=connection,
        user=USER,
        owner="acc_1",
        provider="gmail",
        auth="oauth",
        account=Sealed(f"sealed:{mailbox}"),
        account_digest=Digest(f"#{mailbox}"),
        subject_digest=Digest(f"#subject of {mailbox}"),
        scopes=[COMPOSE, READONLY],
        asked_scopes=[COMPOSE, READONLY],
        token=token(version, now=now),
    )
    return replace(command, **more)


def authorised(
    command: AuthoriseConnection | None = None,
    *,
    now: datetime = START,
    replaces: int | None = None,
    missing: tuple[str, ...] = (),
) -> ConnectionAuthorised:
    """What follows from connecting, at this time; without a command, the mailbox that `authorise` connects."""
    said = command or authorise(now=now)
    return ConnectionAuthorised(
        connection=said.connection,
        user=said.user,
        owner=said.owner,
        provider=said.provider,
        auth=said.auth,
        account=said.account,
        account_digest=said.account_digest,
        subject_digest=said.subject_digest,
        scopes=said.scopes,
        missing_scopes=list(missing),
        token=said.token,
        refresh_at=refresh.refresh_at(said.connection, said.token.version, now, said.token.expires_at),
        replaces=replaces,
    )


def refreshed(version: int, connection: str = "con_1", *, now: datetime = START, **more: Any) -> ReportRefresh:
    """The token of the version before has been refreshed: this is the version now."""
    new = token(version, now=now)
    return replace(ReportRefresh(connection, USER, version - 1, "refreshed", "timer", new), **more)


def failed(version: int, outcome: Any, code: Any, connection: str = "con_1", **more: Any) -> ReportRefresh:
    """The token of this version could not be refreshed."""
    return replace(ReportRefresh(connection, USER, version, outcome, "timer", code=code), **more)
