"""Random histories of sends: whatever workers, timers, providers and people do in whatever order, the same things hold.

What holds is asserted by `tests/support/send_world.py` as it happens.
"""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domain.fields import Digest
from domain.send_commands import CancelSend, MoveSend, RedriveSend, ReportReconciled, StopSend, WakeSend
from tests.support.send_words import GMAIL, OUTLOOK, OWNER, SMTP, STATES, USER, request
from tests.support.send_world import FATES, World

connections = st.sampled_from(["con_1", "con_2", "con_3"])
#: Which is meant of those that there are, the latest first.
latest = st.integers(0, 3)
fates = st.sampled_from(["ok", "lost", "died", *FATES])


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.found: list[ReportReconciled] = []

    def named(self, number: int) -> str:
        names = self.world.sends
        return names[-1 - number % len(names)]

    # ── people ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: len(self.world.sends) < 4)
    @rule(
        named=st.none() | connections,
        preference=st.sampled_from([None, "smtp", "smtp", "gmail", "outlook"]),
        hours=st.sampled_from([None, None, None, None, 1]),
        key=st.sampled_from([None, "#key"]),
    )
    def a_mail_is_to_be_sent(self, named, preference, hours, key):
        command = request(
            send=f"snd_{len(self.world.sends)}",
            connections=self.world.known,
            connection=named,
            preference=preference,
            scheduled_at=self.world.now + timedelta(hours=hours) if hours else None,
            key=Digest(key) if key else None,
        )
        self.world.run(command)
        self.world.run(command)

    @precondition(lambda self: self.world.sends)
    @rule(number=latest, what=st.sampled_from(["redrive", "move", "cancel"]))
    def somebody_asks(self, number, what):
        name, world = self.named(number), self.world
        about = (name, USER, OWNER)
        world.run(
            {
                "move": MoveSend(*about, world.now + timedelta(minutes=5)),
                "cancel": CancelSend(*about),
                "redrive": RedriveSend(*about, "caller", world.known),
            }[what]
        )

    @precondition(lambda self: self.world.sends)
    @rule()
    def all_that_can_be_are_redriven(self):
        for name in self.world.sends:
            if self.world.send(name).state in ("failed", "dead_lettered", "uncertain"):
                self.world.run(RedriveSend(name, USER, OWNER, "caller", self.world.known))

    @rule(seconds=st.sampled_from([0, 1, 30, 70, 600, 4_000, 90_000]))
    def time_passes(self, seconds):
        self.world.now += timedelta(seconds=seconds)

    # ── workers, timers and looks ─────────────────────────────────────────────────────────────────────────────────────

    def goes_on(self, worker, steps, fate):
        """So many steps, of which the last has this fate. It never ends: it tells again what it told before."""
        for step in range(steps):
            if worker in self.world.workers:
                self.world.works(worker, fate if step == steps - 1 or worker.on_record else "ok")

    @precondition(lambda self: self.world.sends)
    @rule(number=latest, obeys=st.sampled_from([True, True, True, False]), steps=st.integers(0, 3), fate=fates)
    def a_worker_asks_to_try(self, number, obeys, steps, fate):
        worker = self.world.claims(self.named(number), obeys=obeys)
        if worker is not None:
            self.goes_on(worker, steps, fate)

    @precondition(lambda self: self.world.sends)
    @rule(obeys=st.sampled_from([True, True, True, False]), steps=st.integers(1, 3), fate=fates)
    def all_that_wait_are_tried_in_time(self, obeys, steps, fate):
        for name in self.world.sends:
            send = self.world.send(name)
            if send.state in ("scheduled", "deferred") and send.due is not None:
                self.world.now = max(self.world.now, send.due)
            self.world.fires(name)
            worker = self.world.claims(name, obeys=obeys)
            if worker is not None:
                self.goes_on(worker, steps, fate)

    @precondition(lambda self: self.world.workers)
    @rule(number=latest, fate=fates, steps=st.integers(1, 3))
    def a_worker_goes_on(self, number, fate, steps):
        self.goes_on(self.world.workers[-1 - number % len(self.world.workers)], steps, fate)

    @precondition(lambda self: self.world.workers)
    @rule(number=latest)
    def a_worker_dies(self, number):
        self.world.workers.pop(-1 - number % len(self.world.workers))

    @precondition(lambda self: self.world.sends)
    @rule(number=latest, late=st.sampled_from([None, 0, 0, 3600]), scale=st.sampled_from([1, 1, 0.01]))
    def a_timer_fires(self, number, late, scale):
        """At any time: too early as well."""
        name = self.named(number)
        due = self.world.send(name).due
        if late is not None and due is not None:
            self.world.now = max(self.world.now, due + timedelta(seconds=late))
        self.world.fires(name, scale)

    @precondition(lambda self: self.world.doubts)
    @rule(number=latest, last=st.booleans())
    def the_provider_is_asked(self, number, last):
        found = self.world.looks(self.world.doubts[-1 - number % len(self.world.doubts)], last=last)
        self.found += [found] if found else []

    @precondition(lambda self: self.found)
    @rule(number=latest)
    def what_was_found_is_told(self, number):
        """Late, and any number of times."""
        self.world.run(self.found[-1 - number % len(self.found)])

    # ── connections ───────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.world.drafts)
    @rule(number=latest, really=st.sampled_from([False, False, True]))
    def a_user_throws_a_draft_away(self, number, really):
        draft = [*self.world.drafts][-1 - number % len(self.world.drafts)]
        if really and self.world.drafts[draft] == "there":
            self.world.drafts[draft] = "gone"

    @rule(connection=connections, state=st.sampled_from(["active", "active", "active", "reauth_required", "revoked"]))
    def a_connection_changes(self, connection, state):
        world = self.world
        before = world.connections[connection]
        world.connections[connection] = replace(before, state=state)
        for name in world.sends:
            if state == "revoked":
                world.run(StopSend(name, USER, connection, "connection_revoked", world.known))
            if state == "active":
                world.run(WakeSend(name, USER, connection))

    # ── what holds ────────────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def it_holds(self):
        self.world.holds()

    def teardown(self):
        """Whatever is to become of them, every send ends; and the log alone says all of it."""
        for number, name in enumerate(self.world.sends):
            turn = len(self.world.log) + number
            self.world.settles(name, FATES[turn % len(FATES)], looks=turn % 3 > 0)
        self.world.ends()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("fate", FATES)
def test_every_send_ends_whatever_becomes_of_its_attempts(fate, looks):
    """Each fate alone, for ever: from each connection and from each state."""
    for by in (GMAIL, OUTLOOK, SMTP):
        world = World()
        world.run(request(by))
        world.settles("snd_1", fate, looks=looks)
        assert world.mails["snd_1"] == (fate in ("ok", "lost", "died"))
        if fate == "ok" or (looks and by is not SMTP and world.mails["snd_1"]):
            assert world.send("snd_1").state == "sent"
        world.ends()
    for state, events in STATES.items():
        world = World()
        for event in events:
            world.fold.apply(event)
        world.drafts["d_1"], world.running["snd_1"] = "there", 1
        if state == "in_doubt":
            world.doubts.append(events[-1])
        if state not in ("sending", "in_doubt"):
            world.running.clear()
        world.settles("snd_1", fate, looks=looks)


def test_workers_that_die_one_after_the_other_use_up_the_attempts():
    world = World()
    world.run(request(GMAIL))
    deaths = 0
    while not (send := world.send("snd_1")).ended:
        world.now = max(world.now, send.due or world.now)
        world.fires("snd_1")
        if world.claims("snd_1") is not None:
            deaths += 1
    assert (deaths, world.send("snd_1").state) == (5, "dead_lettered")
