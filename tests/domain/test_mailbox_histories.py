"""Random histories of mailboxes: whatever comes in whatever order, the books balance."""

from collections import Counter
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domain import mailbox_commands as commands
from domain.fields import Digest
from domain.mailbox_events import MailboxCreated, MessageReceived
from domain.mailbox_state import Mailbox, Message, Owner
from domain.plans import LONGEST_LIFETIME_MINUTES
from tests.support.mailbox_words import FREE, create, mail, roomy
from tests.support.spec import MAILBOX, START, Fold

OWNERS = ["acc_1", "acc_2"]
BOXES = {owner: [f"mbx_{owner[-1]}{number}" for number in range(4)] for owner in OWNERS}
PLANS = [FREE, roomy(live_mailboxes=2, live_messages=2, longest_ttl_minutes=180), roomy(live_mailboxes=3)]
#: An owner and one of its mailboxes: a record is keyed by the owner of the mailbox that it names.
places = st.sampled_from([(owner, box) for owner, boxes in BOXES.items() for box in boxes])
messages = st.sampled_from([f"msg_{number}" for number in range(6)])
digests = st.none() | st.sampled_from([Digest("#one"), Digest("#two")])


class Histories(RuleBasedStateMachine):
    """Commands to two owners' mailboxes, with a clock that only goes forward."""

    def __init__(self):
        super().__init__()
        self.fold = Fold(MAILBOX)
        self.now = START
        self.numbers = Counter()

    def run(self, owner, command):
        for event in self.fold.run(command, self.now, owner):
            if isinstance(event, MessageReceived):
                self.received(event)
            if isinstance(event, MailboxCreated):
                self.created(event)

    def received(self, event):
        box = self.fold.documents["mailbox", event.mailbox]
        self.numbers[event.mailbox] += 1
        assert event.number == self.numbers[event.mailbox], "numbers have no gap and none is given twice"
        assert box.live_messages <= box.live_messages_limit, "more messages live than the plan allows"
        assert box.open_at(self.now), "a mailbox that has ended took mail"

    def created(self, event):
        self.numbers[event.mailbox] = 0
        live = self.fold.documents["owner", event.owner].live(self.now)
        assert live <= event.limits.live_mailboxes, "more mailboxes live than the plan allows"

    @rule(minutes=st.sampled_from([0, 1, 30, 61, 1440]))
    def time_passes(self, minutes):
        self.now += timedelta(minutes=minutes)

    @rule(place=places, plan=st.sampled_from(PLANS), ttl=st.none() | st.integers(1, 10_000), key=digests, body=digests)
    def somebody_opens_a_mailbox(self, place, plan, ttl, key, body):
        owner, box = place
        self.run(owner, create(box, owner, plan, ttl_minutes=ttl, idempotency_key=key, request=body))

    @rule(
        place=places,
        message=messages,
        digest=digests,
        sha=st.sampled_from("ab"),
        state=st.sampled_from(["whole", "parsing", "unparsed", "erased"]),
    )
    def a_mail_comes(self, place, message, digest, sha, state):
        owner, box = place
        self.run(owner, mail(message, box, owner, message_id_digest=digest, sha256=sha * 64, state=state))

    @rule(place=places, message=messages)
    def it_is_parsed(self, place, message):
        self.run(place[0], commands.ReportParsed(place[1], message, "whole"))

    @rule(place=places, message=messages)
    def it_is_read(self, place, message):
        self.run(place[0], commands.ReadMessage(place[1], message))

    @rule(place=places, message=messages)
    def it_is_deleted(self, place, message):
        self.run(place[0], commands.DeleteMessage(place[1], message, "acc"))

    @rule(place=places, ttl=st.integers(1, 10_000))
    def it_is_extended(self, place, ttl):
        self.run(place[0], commands.ExtendMailbox(place[1], ttl))

    @rule(place=places)
    def the_mailbox_is_deleted(self, place):
        self.run(place[0], commands.DeleteMailbox(place[1], "acc"))

    @rule(place=places)
    def the_timer_of_its_expiry_rings(self, place):
        self.run(place[0], commands.ExpireMailbox(place[1], self.now))

    @rule(place=places)
    def the_timer_of_its_purge_rings(self, place):
        self.run(place[0], commands.PurgeMailbox(place[1]))

    @invariant()
    def live_messages_are_those_that_are_there(self):
        there = Counter(
            key[1].split("/")[0] for key, found in self.fold.documents.items() if isinstance(found, Message)
        )
        assert {box: n for box, n in self._mailboxes(lambda found: found.live_messages).items() if n} == dict(there)

    @invariant()
    def owners_list_exactly_their_mailboxes_that_have_not_ended(self):
        listed = {
            box: (owner[1], expires_at)
            for owner, found in self.fold.documents.items()
            if isinstance(found, Owner)
            for box, expires_at in found.mailboxes.items()
        }
        assert listed == self._mailboxes(lambda found: None if found.ended else (found.owner, found.expires_at))

    @invariant()
    def no_mailbox_lives_longer_than_its_plan_and_the_longest_lifetime(self):
        for found in self.fold.documents.values():
            if isinstance(found, Mailbox):
                longest = timedelta(minutes=min(found.longest_ttl_minutes, LONGEST_LIFETIME_MINUTES))
                assert found.expires_at - found.created_at <= longest

    @invariant()
    def nothing_is_remembered_of_a_mailbox_that_was_purged(self):
        boxes = {key[1] for key in self.fold.documents if key[0] == "mailbox"}
        parts = {key[1].split("/")[0] for key in self.fold.documents if key[0] in {"message", "repeat"}}
        assert parts <= boxes

    def _mailboxes(self, value):
        found = {key[1]: value(box) for key, box in self.fold.documents.items() if isinstance(box, Mailbox)}
        return {box: answer for box, answer in found.items() if answer is not None}


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
