"""Connecting a user's mailboxes: whose may be connected, connecting anew, and ending it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from domain import connection
from domain.connection import KEYS_KEY
from domain.connection_commands import (
    CloseUser,
    ReportRevocation,
    ReportRotation,
    ReportUse,
    RevokeConnection,
)
from domain.connection_events import (
    MOST_CONNECTIONS,
    Call,
    ConnectionCommandRefused,
    ConnectionRefused,
    ConnectionRestored,
    ConnectionRevoked,
    KeyRotated,
    ReauthorisationRequired,
    RevocationRequested,
    TokenRefreshed,
    TokenUsed,
    UserClosed,
)
from domain.connection_state import Connection, User
from domain.fields import Digest
from tests.support import spec
from tests.support.connection_words import (
    COMPOSE,
    HOUR,
    READONLY,
    USER,
    authorise,
    authorised,
    failed,
    refreshed,
    token,
)
from tests.support.spec import CONNECTION, START, at

CONNECTED = authorised()
REQUESTED = RevocationRequested("con_1", USER, "caller")
REVOKED = ConnectionRevoked("con_1", USER, "caller", "done")
REQUIRED = ReauthorisationRequired("con_1", USER, "invalid_grant", connection.CAUSES["invalid_grant"], 1)
CLOSED = UserClosed(USER)
CALL = Call(START, "create_draft", "deliver", "snd_1", "ok")

#: Each state a connection can be in, by the events that lead there.
STATES = {
    "unknown": [],
    "active": [CONNECTED],
    "reauth_required": [CONNECTED, REQUIRED],
    "revoking": [CONNECTED, REQUESTED],
    "revoked": [CONNECTED, REQUESTED, REVOKED],
}
LIVE = ("active", "reauth_required")
GONE = ("revoking", "revoked")


def given(*events):
    return spec.given(*events, rules=CONNECTION, key=USER)


def refused(reason, of=None, connection="con_1", missing=()):
    return ConnectionRefused(connection, USER, reason, of, list(missing))


def of(when, name="con_1"):
    """What is known of the connection."""
    return when.known["user", USER].connections.get(name)


# ── connecting ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mailbox_is_connected():
    done = given().when(authorise()).then(CONNECTED)
    assert of(done) == Connection("acc_1", "gmail", Digest("#ada@gmail"), Digest("#subject of ada@gmail"), 1)
    (event,) = done.events
    assert event.replaces is None
    assert START + HOUR - timedelta(minutes=6) <= event.refresh_at <= START + HOUR - timedelta(minutes=5)


def test_a_password_is_connected_and_never_due():
    command = authorise(
        provider="smtp", auth="password", subject_digest=None, scopes=[], asked_scopes=[], token=token(life=None)
    )
    (event,) = given().when(command).then(authorised(command)).events
    assert (event.refresh_at, event.token.expires_at, event.missing_scopes) == (None, None, [])


def test_a_user_may_connect_several_mailboxes_of_one_provider_and_one_address_at_several():
    other, elsewhere = authorise("con_2", "ada2@gmail"), authorise("con_2", provider="smtp")
    given(CONNECTED).when(other).then(authorised(other))
    given(CONNECTED).when(elsewhere).then(authorised(elsewhere))


def test_another_users_connections_are_not_in_the_way():
    command = authorise("con_2", user="usr_2")
    given(CONNECTED).when(command, key="usr_2").then(authorised(command))


@pytest.mark.parametrize("state", LIVE)
def test_a_mailbox_that_is_connected_is_not_connected_a_second_time(state):
    given(*STATES[state]).when(authorise("con_2")).then(refused("already_connected", "con_1", "con_2"))


@pytest.mark.parametrize("state", GONE)
def test_a_mailbox_whose_connection_was_given_up_can_be_connected_again(state):
    command = authorise("con_2")
    given(*STATES[state]).when(command).then(authorised(command))


def test_the_address_of_a_connected_mailbox_in_other_hands_is_no_second_connection():
    """The old one must be given up first: that it would refresh for one person and send for another can't be seen."""
    command = authorise("con_2", subject_digest=Digest("#somebody else"))
    given(CONNECTED).when(command).then(refused("already_connected", "con_1", "con_2"))


def test_what_was_refused_is_not_there():
    done = given(CONNECTED).when(authorise("con_2")).then(refused("already_connected", "con_1", "con_2"))
    assert done.known["user", USER].connections.keys() == {"con_1"}


# ── partial grants ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grant_without_reading_is_connected_and_says_what_is_missing():
    command = authorise(scopes=[COMPOSE])
    given().when(command).then(authorised(command, missing=(READONLY,)))


@pytest.mark.parametrize("granted", [[READONLY], []])
def test_a_grant_without_sending_is_refused_and_says_what_is_missing(granted):
    missing = [scope for scope in (COMPOSE, READONLY) if scope not in granted]
    given().when(authorise(scopes=granted)).then(refused("scopes_missing", missing=missing))


def test_a_new_grant_without_sending_leaves_the_connection_as_it_was():
    command = authorise(version=2, scopes=[READONLY], reconnects=True)
    done = given(CONNECTED).when(command).then(refused("scopes_missing", missing=[COMPOSE]))
    assert of(done).version == 1
    better = authorise(version=2, reconnects=True)
    given(authorised(authorise(scopes=[COMPOSE]), missing=(READONLY,))).when(better).then(
        authorised(better, replaces=1)
    )


# ── how many ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def many(count):
    return [authorised(authorise(f"con_{number}", f"{number}@gmail")) for number in range(1, count + 1)]


def test_a_hundred_mailboxes_can_be_connected_and_no_more():
    hundredth, next_one = (
        authorise("con_100", "100@gmail"),
        authorise("con_101", "101@gmail"),
    )
    assert MOST_CONNECTIONS == 100
    given(*many(99)).when(hundredth).then(authorised(hundredth))
    given(*many(100)).when(next_one).then(refused("too_many_connections", connection="con_101"))


def test_there_is_room_again_once_one_is_revoked():
    command = authorise("con_101", "101@gmail")
    given(*many(100), REQUESTED).when(command).then(refused("too_many_connections", connection="con_101"))
    given(*many(100), REQUESTED, REVOKED).when(command).then(authorised(command))


def test_with_a_hundred_any_of_them_can_be_connected_anew():
    command = authorise("con_7", "7@gmail", version=2, reconnects=True)
    given(*many(100)).when(command).then(authorised(command, replaces=1))


# ── connecting anew ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reconnects", [True, False])
@pytest.mark.parametrize("state", LIVE)
def test_connecting_anew_renews_the_connection(state, reconnects):
    command = authorise(version=2, reconnects=reconnects)
    done = given(*STATES[state]).when(command, now=at(hours=2)).then(authorised(command, now=at(hours=2), replaces=1))
    assert (of(done).state, of(done).version, of(done).failures) == ("active", 2, 0)


@pytest.mark.parametrize("state", ["unknown", *GONE])
def test_what_is_not_there_can_not_be_connected_anew(state):
    given(*STATES[state]).when(authorise(version=2, reconnects=True)).then(refused("unknown_connection"))


def test_what_is_being_revoked_is_not_connected_by_its_id_either():
    given(*STATES["revoking"]).when(authorise(version=2)).then(refused("unknown_connection"))


@pytest.mark.parametrize("state", LIVE)
@pytest.mark.parametrize(
    "other",
    [
        {"account_digest": Digest("#bob@gmail")},
        {"subject_digest": Digest("#somebody else")},
        {"provider": "outlook", "scopes": ["Mail.Send"], "asked_scopes": ["Mail.Send"]},
    ],
    ids=["address", "subject", "provider"],
)
def test_another_mailbox_is_told_from_this_one(state, other):
    command = authorise(version=2, reconnects=True, **other)
    done = given(*STATES[state]).when(command).then(refused("another_mailbox", "con_1"))
    assert of(done).version == 1


def test_of_a_connection_that_is_given_up_nobody_hears_which_mailbox_it_was():
    command = authorise(version=2, reconnects=True, account_digest=Digest("#bob@gmail"))
    given(*STATES["revoking"]).when(command).then(refused("unknown_connection"))


def test_another_accounts_connection_is_not_connected_anew():
    given(CONNECTED).when(authorise(version=2, owner="acc_2", reconnects=True)).then(refused("unknown_connection"))


def test_a_provider_that_says_nothing_of_the_subject_is_believed_by_the_address():
    command = authorise(version=2, subject_digest=None, reconnects=True)
    given(CONNECTED).when(command).then(authorised(command, replaces=1))
    without = authorised(authorise(subject_digest=None))
    again = authorise(version=2, reconnects=True)
    given(without).when(again).then(authorised(again, replaces=1))


def test_who_owns_the_mailbox_stays_known_when_a_provider_once_says_nothing_of_it():
    silent = authorised(authorise(version=2, subject_digest=None), replaces=1)
    somebody_else = authorise(version=3, subject_digest=Digest("#somebody else"), reconnects=True)
    given(CONNECTED, silent).when(somebody_else).then(refused("another_mailbox", "con_1"))
    same = authorise(version=3, reconnects=True)
    given(CONNECTED, silent).when(same).then(authorised(same, replaces=2))


def test_connecting_that_is_reported_after_a_newer_refresh_keeps_the_newer_version():
    """The vault had the tokens before the decider heard of it, and a refresh was faster."""
    overtaken = [CONNECTED, TokenRefreshed("con_1", USER, "#", 3, START + HOUR, False, at(minutes=50), "timer")]
    command = authorise(version=2, reconnects=True)
    done = given(*overtaken).when(command).then(authorised(command, replaces=3))
    assert of(done).version == 3
    done.when(refreshed(3), now=at(), key=USER).then_nothing()


# ── ending it ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["caller", "operator", "erasure"])
@pytest.mark.parametrize("state", LIVE)
def test_a_connection_is_given_up_first_and_revoked_when_its_tokens_are_gone(state, by):
    asked = given(*STATES[state]).when(RevokeConnection("con_1", USER, by)).then(RevocationRequested("con_1", USER, by))
    assert (of(asked).state, of(asked).revoked_by) == ("revoking", by)
    done = asked.when(ReportRevocation("con_1", USER, "failed", "unreachable"), now=at(minutes=1), key=USER)
    done.then(ConnectionRevoked("con_1", USER, by, "failed", "unreachable"))
    assert of(done) is None


@pytest.mark.parametrize(("state", "reason"), [("unknown", "unknown"), ("revoking", "already"), ("revoked", "unknown")])
def test_what_is_not_there_or_given_up_already_is_not_given_up(state, reason):
    given(*STATES[state]).when(RevokeConnection("con_1", USER, "caller")).then(
        ConnectionCommandRefused("RevokeConnection", "con_1", USER, reason)
    )


@pytest.mark.parametrize("state", ["unknown", *LIVE, "revoked"])
def test_a_revocation_that_nobody_asked_for_says_nothing(state):
    given(*STATES[state]).when(ReportRevocation("con_1", USER, "done")).then_nothing()


def test_a_revocation_is_reported_once():
    report = ReportRevocation("con_1", USER, "none")
    given(*STATES["revoking"]).when(report).then(replace(REVOKED, at_provider="none")).when(
        report, now=at(minutes=1), key=USER
    ).then_nothing()


def test_giving_one_up_leaves_the_others():
    other = authorised(authorise("con_2", "bob@gmail"))
    done = given(CONNECTED, other).when(RevokeConnection("con_1", USER, "caller")).then(REQUESTED)
    assert of(done, "con_2").state == "active"


# ── a user who is deleted ─────────────────────────────────────────────────────────────────────────────────────────────


def test_with_a_user_each_of_their_connections_ends():
    second, third = authorised(authorise("con_2", "bob@gmail")), authorised(authorise("con_3", "eve@gmail"))
    required = replace(REQUIRED, connection="con_2")
    done = given(CONNECTED, second, third, required, replace(REQUESTED, connection="con_3")).when(CloseUser(USER))
    done.then(
        RevocationRequested("con_1", USER, "user_deleted"),
        RevocationRequested("con_2", USER, "user_deleted"),
        CLOSED,
    )
    assert {name: found.revoked_by for name, found in done.known["user", USER].connections.items()} == {
        "con_1": "user_deleted",
        "con_2": "user_deleted",
        "con_3": "caller",
    }
    done.when(ReportRevocation("con_1", USER, "done"), now=at(), key=USER).then(replace(REVOKED, by="user_deleted"))


def test_a_user_with_a_hundred_connections_is_closed_at_once():
    done = given(*many(100)).when(CloseUser(USER))
    assert len(done.events) == 101
    assert done.events[-1] == CLOSED


def test_a_user_who_never_connected_anything_is_closed_too():
    """Whoever is on their way through a provider's consent comes too late."""
    given().when(CloseUser(USER)).then(CLOSED).and_then_known(("user", USER), User(closed=True)).when(
        authorise(), now=at(), key=USER
    ).then(refused("user_deleted"))


def test_a_user_is_closed_once():
    given(CONNECTED, replace(REQUESTED, by="user_deleted"), CLOSED).when(CloseUser(USER)).then_nothing()


@pytest.mark.parametrize("reconnects", [True, False])
def test_nothing_is_connected_for_a_user_who_is_closed(reconnects):
    given(*STATES["revoking"], CLOSED).when(authorise(version=2, reconnects=reconnects)).then(refused("user_deleted"))
    given(CLOSED).when(authorise("con_9", "new@gmail")).then(refused("user_deleted", connection="con_9"))


# ── use and rotation ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [*LIVE, "revoking"])
def test_calls_are_kept_as_they_were_made(state):
    calls = [CALL, replace(CALL, at=at(seconds=1), operation="send", outcome="refused")]
    before = STATES[state]
    done = given(*before).when(ReportUse("con_1", USER, calls)).then(TokenUsed("con_1", USER, calls))
    assert done.known == given(*before).when(ReportUse("con_1", USER, [])).known


@pytest.mark.parametrize("state", ["unknown", "revoked"])
def test_nothing_is_said_of_a_connection_that_is_not_there(state):
    given(*STATES[state]).when(ReportUse("con_1", USER, [CALL])).then_nothing()


@pytest.mark.parametrize("code", ["login_failed", "token_refused"])
def test_what_a_provider_refused_is_over_when_it_takes_it_again(code):
    required = replace(REQUIRED, code=code)
    taken, refused_again = [replace(CALL, outcome="failed"), CALL], [CALL, replace(CALL, outcome="refused")]
    restored = TokenUsed("con_1", USER, taken), ConnectionRestored("con_1", USER, code)
    done = given(CONNECTED, required).when(ReportUse("con_1", USER, taken)).then(*restored)
    assert of(done) == of(given(CONNECTED).when(ReportUse("con_1", USER, [])))
    given(CONNECTED, required).when(ReportUse("con_1", USER, refused_again)).then(
        TokenUsed("con_1", USER, refused_again)
    )
    given(CONNECTED, required, REQUESTED).when(ReportUse("con_1", USER, taken)).then(TokenUsed("con_1", USER, taken))


def test_a_consent_that_is_gone_does_not_come_back_while_its_last_token_lives():
    given(*STATES["reauth_required"]).when(ReportUse("con_1", USER, [CALL])).then(TokenUsed("con_1", USER, [CALL]))


def test_no_calls_are_no_event():
    given(CONNECTED).when(ReportUse("con_1", USER, [])).then_nothing()


def test_a_rotation_is_said_and_touches_no_user():
    done = given(CONNECTED).when(ReportRotation("key-2", 12_000, START), key=KEYS_KEY).then(KeyRotated("key-2", 12_000))
    assert done.known.keys() == {("user", USER)}
    assert connection.needs(ReportRotation("key-2", 1, START), KEYS_KEY) == []


# ── what a connection that is not there hears ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "command",
    [
        refreshed(2),
        failed(1, "transient", "unreachable"),
        failed(1, "client_broken", "invalid_client"),
        failed(1, "reauth_required", "invalid_grant"),
    ],
    ids=["refreshed", "transient", "client_broken", "reauth_required"],
)
@pytest.mark.parametrize("state", ["unknown", *GONE])
def test_a_refresh_of_what_is_given_up_says_nothing(state, command):
    """It was on its way when the connection was revoked."""
    done = given(*STATES[state]).when(command).then_nothing()
    assert done.known == given(*STATES[state]).when(ReportUse("con_1", USER, [])).known
