"""Random histories of users' connections: whatever is asked and reported in whatever order, the same things hold."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domain import connection_commands as commands
from domain.connection_events import (
    Call,
    ConnectionAuthorised,
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
from domain.connection_state import User
from domain.fields import Digest
from tests.support.connection_words import COMPOSE, READONLY, authorise, failed, refreshed, token
from tests.support.spec import CONNECTION, START, Fold

USERS: Final = ["usr_1", "usr_2"]
users = st.sampled_from(USERS)
#: Which of a user's connections is meant: the first, the second, … that was ever asked for.
chosen = st.integers(0, 5)
numbers = st.integers(1, 9)
mailboxes = st.sampled_from(["ada@gmail", "bob@gmail", "eve@gmail"])
#: By what a state that users see is reached. `active` comes back by a token, too, that somebody else had got already.
REACHED_BY: Final[dict[tuple[str | None, str | None], tuple[type, ...]]] = {
    (None, "active"): (ConnectionAuthorised,),
    ("reauth_required", "active"): (ConnectionAuthorised, ConnectionRestored, TokenRefreshed),
    ("active", "reauth_required"): (ReauthorisationRequired,),
    ("active", "revoking"): (RevocationRequested,),
    ("reauth_required", "revoking"): (RevocationRequested,),
    ("revoking", None): (ConnectionRevoked,),
}
REFUSALS: Final = (ConnectionRefused, ConnectionCommandRefused)


class Histories(RuleBasedStateMachine):
    """Commands about two users' connections, reports that come late, twice or never, and a clock that only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = Fold(CONNECTION)
        self.now = START
        self.asked: dict[str, list[str]] = {user: [] for user in USERS}
        self.revoked: set[str] = set()
        self.closed: set[str] = set()
        self.log: list[Any] = []

    def run(self, user: str, command: Any) -> None:
        for event in self.fold.decide(command, self.now, user):
            before = self.states(user)
            versions = self.versions(user)
            self.fold.apply(event)
            self.log.append(event)
            self.moved(event, before, self.states(user))
            for name, version in self.versions(user).items():
                assert version >= versions.get(name, 0), "versions only grow"
            if isinstance(event, ConnectionRestored):
                assert event.code != "invalid_grant", "a consent that is gone does not come back by being used"
            if isinstance(event, TokenRefreshed):
                assert event.version > versions[event.connection], "a new token is newer than any that is known"
            if isinstance(event, ConnectionAuthorised):
                assert user not in self.closed, "nothing is connected for a user who was deleted"
                assert event.replaces == versions.get(event.connection)
            if isinstance(event, UserClosed):
                assert user not in self.closed, "a user is closed once"
                self.closed.add(user)

    def moved(self, event: Any, before: dict[str, str], after: dict[str, str]) -> None:
        for name in before.keys() | after.keys():
            step = before.get(name), after.get(name)
            if step[0] != step[1]:
                assert isinstance(event, REACHED_BY[step]), "each state is reached by one type of event"
                assert event.connection == name, "an event changes the connection that it names"
        if isinstance(event, (*REFUSALS, TokenUsed)):
            assert before == after, "nothing changed, it says"
        if not isinstance(event, (*REFUSALS, KeyRotated, UserClosed)):
            assert event.connection not in self.revoked, "nothing is said of a connection after its revocation"
            if before.get(event.connection) == "revoking":
                assert isinstance(event, ConnectionRevoked | TokenUsed)
        if isinstance(event, ConnectionRevoked):
            self.revoked.add(event.connection)

    def states(self, user: str) -> dict[str, str]:
        return {name: found.state for name, found in self.user(user).connections.items()}

    def versions(self, user: str) -> dict[str, int]:
        return {name: found.version for name, found in self.user(user).connections.items()}

    def user(self, user: str) -> User:
        return self.fold.documents.get(("user", user)) or User()

    def named(self, user: str, number: int) -> str:
        names = self.asked[user]
        return names[number % len(names)] if names else "con_none"

    # ── what is asked and reported ────────────────────────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([0, 1, 60, 3600, 86_400]))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    @rule(user=users, mailbox=mailboxes, reads=st.booleans(), sends=st.sampled_from([True, True, True, False]))
    def a_mailbox_is_connected(self, user, mailbox, reads, sends):
        name = f"con_{user[-1]}{len(self.asked[user])}"
        self.asked[user].append(name)
        granted = [scope for scope, given in ((COMPOSE, sends), (READONLY, reads)) if given]
        self.run(user, authorise(name, mailbox, user=user, scopes=granted, now=self.now))

    @rule(user=users, number=chosen, mailbox=mailboxes, version=numbers, subject=st.sampled_from([None, "", " other"]))
    def one_is_connected_anew(self, user, number, mailbox, version, subject):
        digest = None if subject is None else Digest(f"#subject of {mailbox}{subject}")
        command = authorise(
            self.named(user, number), mailbox, version=version, user=user, reconnects=True, subject_digest=digest
        )
        self.run(user, command)

    @rule(user=users, number=chosen, version=numbers, life=st.sampled_from([None, -1, 2, 3600]))
    def a_refresh_is_reported(self, user, number, version, life):
        new = token(version, now=self.now, life=None if life is None else timedelta(seconds=life))
        self.run(user, replace(refreshed(version, self.named(user, number)), user=user, token=new))

    @rule(
        user=users,
        number=chosen,
        version=numbers,
        said=st.sampled_from(
            [
                ("transient", "timed_out"),
                ("client_broken", "invalid_client"),
                *[("reauth_required", code) for code in ("invalid_grant", "login_failed", "token_refused")],
            ]
        ),
        retry_after=st.none() | st.floats(0, 10**9),
    )
    def a_refresh_that_failed_is_reported(self, user, number, version, said, retry_after):
        self.run(user, failed(version, *said, self.named(user, number), user=user, retry_after=retry_after))

    @rule(user=users, number=chosen)
    def one_is_given_up(self, user, number):
        self.run(user, commands.RevokeConnection(self.named(user, number), user, "caller"))

    @rule(user=users, number=chosen)
    def its_tokens_are_destroyed(self, user, number):
        self.run(user, commands.ReportRevocation(self.named(user, number), user, "done"))

    @rule(user=users, number=chosen, outcomes=st.lists(st.sampled_from(["ok", "refused", "failed"]), max_size=3))
    def one_is_used(self, user, number, outcomes):
        calls = [Call(self.now, "send", "deliver", "snd_1", outcome) for outcome in outcomes]
        self.run(user, commands.ReportUse(self.named(user, number), user, calls))

    @rule()
    def keys_are_rotated(self):
        self.run("keys", commands.ReportRotation("key-2", 3, self.now))

    @rule(user=st.sampled_from([*USERS, None, None, None]))
    def a_user_is_deleted(self, user):
        if user is not None:
            self.run(user, commands.CloseUser(user))

    # ── what holds ────────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def a_mailbox_of_a_user_has_one_live_connection(self):
        for user in USERS:
            live = Counter(
                (found.provider, found.account_digest)
                for found in self.user(user).connections.values()
                if found.state != "revoking"
            )
            assert not live or max(live.values()) == 1

    @invariant()
    def a_user_who_is_closed_has_no_live_connection(self):
        for user in USERS:
            assert self.user(user).closed == (user in self.closed)
            if user in self.closed:
                assert set(self.states(user).values()) <= {"revoking"}

    @invariant()
    def what_is_being_revoked_says_who_asked(self):
        for user in USERS:
            for found in self.user(user).connections.values():
                assert (found.revoked_by is not None) == (found.state == "revoking")

    def teardown(self):
        """What the log says is all there is to know."""
        again = Fold(CONNECTION)
        for event in self.log:
            again.apply(event)
        assert again.documents == self.fold.documents


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
