"""Attachments: kept while a send has them, over when their time is, and gone with their user."""

from dataclasses import replace

import pytest
from hypothesis import given as generated
from hypothesis import strategies as st

from domain.account import AccountCreated
from domain.attachments import (
    Attachment,
    AttachmentDeleted,
    AttachmentRefused,
    AttachmentStored,
    AttachmentUsed,
    DeleteAttachment,
    StoreAttachment,
    Stored,
    UseAttachment,
)
from domain.fields import Digest, Sealed
from domain.users import CreateUser, DeleteUser, UserCreated, UserDeleted
from tests.support import spec
from tests.support.spec import ACCOUNT, Fold, at

ENDS = at(days=7)
USER = UserCreated("acc_1", "usr_1", Sealed("sealed:ada"), Digest("#ada"))
USER_DELETED = UserDeleted("acc_1", "usr_1", "caller", Digest("#ada"))
KEY, STORED = ("attachment", "usr_1/att_1"), ("stored", "usr_1/#key")


def given(*events):
    return spec.given(AccountCreated("acc_1", "pro"), USER, *events, rules=ACCOUNT, key="acc_1")


def store(attachment="att_1", **more):
    command = StoreAttachment(
        "acc_1", "usr_1", attachment, f"usr_1/{attachment}.bin", 3, "ab" * 32, "text/plain", Sealed("sealed:name"), ENDS
    )
    return replace(command, **more)


def stored(command):
    said = {name: getattr(command, name) for name in StoreAttachment.__slots__}
    return AttachmentStored(**said | {"request": command.request if command.idempotency_key else None})


def use(attachment="att_1", send="snd_1", **more):
    return replace(UseAttachment("acc_1", "usr_1", attachment, send), **more)


def used(command):
    return AttachmentUsed(command.account, command.user, command.attachment, command.send)


def delete(by="caller", **more):
    return replace(DeleteAttachment("acc_1", "usr_1", "att_1", by), **more)


def deleted(by="caller", blob="usr_1/att_1.bin"):
    return AttachmentDeleted("acc_1", "usr_1", "att_1", by, blob)


def refused(command, reason, of=None):
    return AttachmentRefused(command.account, command.user, command.attachment, type(command).__name__, reason, of)


IS_STORED = stored(store())


def test_what_is_stored_is_known_until_its_time_is_over():
    given().when(store()).then(IS_STORED).and_then_known(KEY, Attachment("usr_1/att_1.bin", ENDS))


@pytest.mark.parametrize("command", [store(), use(), delete(), delete("erasure")])
def test_nothing_is_done_for_whom_there_is_not(command):
    spec.given(rules=ACCOUNT, key="acc_1").when(command).then(refused(command, "unknown_account"))
    spec.given(AccountCreated("acc_1", "pro"), rules=ACCOUNT, key="acc_1").when(command).then(
        refused(command, "unknown_user")
    )
    given(USER_DELETED).when(command).then(refused(command, "unknown_user"))
    foreign = replace(command, account="acc_2")
    spec.given(AccountCreated("acc_2", "pro"), USER, rules=ACCOUNT, key="acc_2").when(foreign).then(
        refused(foreign, "unknown_user")
    )


@pytest.mark.parametrize("command", [use(), delete(), delete("erasure")])
def test_what_was_never_stored_or_is_deleted_is_not_there(command):
    given().when(command).then(refused(command, "unknown_attachment"))
    given(IS_STORED, deleted()).when(command).then(refused(command, "unknown_attachment"))


def test_a_repeated_request_names_what_the_first_one_stored():
    keyed = store(idempotency_key=Digest("#key"), request=Digest("#same"))
    once = given(stored(keyed))
    once.when(replace(keyed, attachment="att_2")).then(refused(replace(keyed, attachment="att_2"), "repeated", "att_1"))
    other = replace(keyed, attachment="att_2", request=Digest("#other"))
    given(stored(keyed)).when(other).then(refused(other, "idempotency_key_reused", "att_1"))
    given(stored(keyed), deleted()).when(other).then(refused(other, "idempotency_key_reused", "att_1"))
    given(IS_STORED).when(store()).then(refused(store(), "repeated", "att_1"))
    given().when(keyed).then(stored(keyed)).and_then_known(STORED, Stored("att_1", Digest("#same")))


def test_what_a_send_has_outlives_its_time_and_its_deletion():
    given(IS_STORED).when(use()).then(used(use()))
    given(IS_STORED, used(use())).when(use(send="snd_2")).then(used(use(send="snd_2")))
    given(IS_STORED, used(use())).when(delete("unused"), now=at(days=99)).then_nothing()
    given(IS_STORED, used(use())).when(delete()).then(deleted(blob=None)).and_then_known(KEY, None)
    given(IS_STORED, used(use())).when(delete("erasure")).then(deleted("erasure"))


def test_what_no_send_has_ends_when_its_time_is_over_and_not_before():
    given(IS_STORED).when(delete("unused"), now=at(days=6.999)).then_nothing()
    given(IS_STORED).when(delete("unused"), now=ENDS).then(deleted("unused"))
    given(IS_STORED, deleted("unused")).when(delete("unused"), now=ENDS).then_nothing()
    given().when(delete("unused"), now=ENDS).then_nothing()
    given(IS_STORED, USER_DELETED).when(delete("unused"), now=ENDS).then_nothing()


def test_a_send_that_was_asked_for_in_time_may_name_it_until_its_end_is_said():
    given(IS_STORED).when(use(), now=at(days=7, minutes=30)).then(used(use()))


def test_with_a_user_all_of_theirs_is_forgotten():
    keyed = store(idempotency_key=Digest("#key"), request=Digest("#same"))
    when = given(stored(keyed), used(use())).when(DeleteUser("acc_1", "usr_1", "caller", Digest("#ada")))
    assert [key for key in when.known if key[0] in {"attachment", "stored"}] == []


@st.composite
def commands(draw):
    user, number = f"usr_{draw(st.integers(1, 2))}", draw(st.integers(1, 3))
    named = {"user": user, "attachment": f"att_{number}"}
    key = draw(st.none() | st.sampled_from([Digest("#a"), Digest("#b")]))
    request = draw(st.sampled_from([Digest("#x"), Digest("#y")]))
    email = Digest(f"#{user}")
    return draw(
        st.sampled_from(
            [
                store(blob=f"{user}/att_{number}.bin", idempotency_key=key, request=request, **named),
                use(**named),
                delete(**named),
                delete("unused", **named),
                delete("erasure", **named),
                CreateUser("acc_1", user, Sealed("s"), email),
                DeleteUser("acc_1", user, "caller", email),
            ]
        )
    )


@generated(st.lists(st.tuples(commands(), st.integers(0, 10)), max_size=60))
def test_in_any_history_what_a_send_has_keeps_its_bytes_until_its_user_is_erased(steps):
    fold, day, needed = Fold(ACCOUNT), 0, set()
    fold.apply(AccountCreated("acc_1", "pro"))
    for command, days in steps:
        day += days
        for event in fold.run(command, at(days=day), "acc_1"):
            match event:
                case AttachmentUsed():
                    needed.add((event.user, event.attachment))
                case AttachmentDeleted(blob=str()):
                    assert event.by == "erasure" or (event.user, event.attachment) not in needed
                    needed.discard((event.user, event.attachment))
                case AttachmentDeleted(by="unused"):
                    raise AssertionError("what was never sent keeps no bytes")
                case UserDeleted():
                    needed = {key for key in needed if key[0] != event.user}
                case AttachmentStored():
                    needed.discard((event.user, event.attachment))  # an id is never used again outside a test
