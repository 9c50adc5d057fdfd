"""An account's users: made once, found by what is theirs alone, and gone when they are deleted."""

from dataclasses import replace

import pytest

from domain.account import AccountCreated
from domain.fields import Digest, Sealed
from domain.users import CreateUser, DeleteUser, Made, Taken, User, UserCreated, UserDeleted, UserRefused
from tests.support import spec
from tests.support.spec import ACCOUNT, at

ACCOUNT_1 = AccountCreated("acc_1", "pro")
ACCOUNT_2 = AccountCreated("acc_2", "pro")
EMAIL, EXTERNAL = ("email", "acc_1/#ada"), ("external_id", "acc_1/#crm-1")
KEYED = ("made", "acc_1/#key")


def given(*events, key="acc_1"):
    return spec.given(ACCOUNT_1, *events, rules=ACCOUNT, key=key)


def create(user="usr_1", email="ada", **more):
    command = CreateUser("acc_1", user, Sealed(f"sealed:{email}"), Digest(f"#{email}"), Sealed("sealed:Ada"))
    return replace(command, **more)


def with_external_id(user="usr_1", email="ada", external_id="crm-1", **more):
    return create(
        user, email, external_id=Sealed(f"sealed:{external_id}"), external_id_digest=Digest(f"#{external_id}"), **more
    )


def created(command):
    return UserCreated(
        command.account,
        command.user,
        command.email,
        command.email_digest,
        command.display_name,
        command.external_id,
        command.external_id_digest,
        command.idempotency_key,
        command.request if command.idempotency_key else None,
    )


def delete(command, **more):
    return replace(
        DeleteUser(command.account, command.user, "caller", command.email_digest, command.external_id_digest), **more
    )


def deleted(command):
    return UserDeleted(command.account, command.user, "caller", command.email_digest, command.external_id_digest)


def refused(user, reason, of=None):
    return UserRefused("acc_1", user, reason, of)


ADA = with_external_id()
BOB = with_external_id("usr_2", "bob", "crm-2")


# ── making ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_user_is_made_with_what_is_theirs_alone():
    given().when(ADA).then(created(ADA)).and_then_known(
        ("user", "usr_1"), User("acc_1", Digest("#ada"), Digest("#crm-1"))
    ).and_then_known(EMAIL, Taken("usr_1")).and_then_known(EXTERNAL, Taken("usr_1"))


def test_a_user_needs_neither_a_name_nor_an_external_id():
    bare = create(display_name=None)
    given().when(bare).then(created(bare)).and_then_known(("user", "usr_1"), User("acc_1", Digest("#ada"), None))
    assert {key[0] for key in given().when(bare).known} == {"account", "user", "email"}


@pytest.mark.parametrize("command", [ADA, delete(ADA)], ids=["create", "delete"])
def test_without_the_account_there_is_no_user(command):
    spec.given(rules=ACCOUNT).when(command).then(refused("usr_1", "unknown_account"))


def test_an_address_is_one_users_alone():
    given(created(ADA)).when(with_external_id("usr_2", "ada", "crm-2")).then(refused("usr_2", "email_taken", "usr_1"))
    given(created(ADA)).when(BOB).then(created(BOB))


def test_an_external_id_is_one_users_alone():
    given(created(ADA)).when(with_external_id("usr_2", "bob")).then(refused("usr_2", "external_id_taken", "usr_1"))
    given(created(ADA)).when(create("usr_2", "bob")).then(created(create("usr_2", "bob")))


def test_users_without_an_external_id_do_not_stand_in_each_others_way():
    first, second = create(), create("usr_2", "bob")
    given(created(first)).when(second).then(created(second))


def test_what_is_taken_in_one_account_is_free_in_another():
    elsewhere = with_external_id("usr_2", account="acc_2")
    given(created(ADA), ACCOUNT_2, key="acc_2").when(elsewhere).then(created(elsewhere))


def test_what_was_refused_takes_nothing():
    refusal = refused("usr_2", "email_taken", "usr_1")
    known = given(created(ADA)).when(with_external_id("usr_2", "ada", "crm-2")).then(refusal).known
    assert ("external_id", "acc_1/#crm-2") not in known
    assert ("user", "usr_2") not in known


def test_the_same_id_again_is_a_repetition():
    given(created(ADA)).when(with_external_id(email="bob", external_id="crm-2")).then(
        refused("usr_1", "repeated", "usr_1")
    )


# ── idempotency ───────────────────────────────────────────────────────────────────────────────────────────────────────

KEY, REQUEST = Digest("#key"), Digest("#request")
MADE = with_external_id(idempotency_key=KEY, request=REQUEST)


def test_an_idempotency_key_stands_for_the_user_it_made():
    given().when(MADE).then(created(MADE)).and_then_known(KEYED, Made("usr_1", REQUEST)).when(
        replace(MADE, user="usr_2"), now=at(minutes=1), key="acc_1"
    ).then(refused("usr_2", "repeated", "usr_1"))


def test_another_request_under_the_same_key_is_refused_and_under_another_key_is_not():
    other = replace(BOB, idempotency_key=KEY, request=Digest("#another"))
    given(created(MADE)).when(other).then(refused("usr_2", "idempotency_key_reused", "usr_1"))
    fresh = replace(other, idempotency_key=Digest("#another key"))
    given(created(MADE)).when(fresh).then(created(fresh))


def test_a_request_without_a_key_is_not_remembered():
    command = create(request=REQUEST)
    known = given().when(command).then(replace(created(command), request=None)).known
    assert not [key for key in known if key[0] == "made"]


def test_one_accounts_key_is_not_anothers():
    elsewhere = replace(MADE, account="acc_2", user="usr_2", request=Digest("#another"))
    given(created(MADE), ACCOUNT_2, key="acc_2").when(elsewhere).then(created(elsewhere))


def test_a_refused_request_does_not_use_up_its_key():
    refused_first = replace(MADE, user="usr_2", external_id=None, external_id_digest=None)
    known = given(created(ADA)).when(refused_first).then(refused("usr_2", "email_taken", "usr_1")).known
    assert KEYED not in known
    again = replace(BOB, idempotency_key=KEY, request=REQUEST)
    given(created(ADA), refused("usr_2", "email_taken", "usr_1")).when(again).then(created(again))


def test_a_key_outlives_the_user_it_made():
    """Who asks again hears what became of the first request, and makes nobody anew."""
    given(created(MADE), deleted(MADE)).when(replace(MADE, user="usr_2")).then(refused("usr_2", "repeated", "usr_1"))


# ── deleting ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_deletion_frees_the_address_and_the_external_id():
    anew = with_external_id("usr_2")
    gone = given(created(ADA)).when(delete(ADA)).then(deleted(ADA))
    gone.and_then_known(("user", "usr_1"), None).and_then_known(EMAIL, None).and_then_known(EXTERNAL, None)
    gone.when(anew, now=at(minutes=1), key="acc_1").then(created(anew))


def test_deletion_frees_nothing_of_anybody_else():
    known = given(created(ADA), created(BOB)).when(delete(ADA)).then(deleted(ADA)).known
    assert known["user", "usr_2"] == User("acc_1", Digest("#bob"), Digest("#crm-2"))
    assert known["email", "acc_1/#bob"] == known["external_id", "acc_1/#crm-2"] == Taken("usr_2")


def test_a_user_is_deleted_once():
    given(created(ADA), deleted(ADA)).when(delete(ADA)).then(refused("usr_1", "unknown_user"))
    given().when(delete(ADA)).then(refused("usr_1", "unknown_user"))


def test_another_accounts_user_can_not_be_deleted():
    foreign = delete(ADA, account="acc_2")
    given(created(ADA), ACCOUNT_2, key="acc_2").when(foreign).then(
        UserRefused("acc_2", "usr_1", "unknown_user")
    ).and_then_known(("user", "usr_1"), User("acc_1", Digest("#ada"), Digest("#crm-1")))


@pytest.mark.parametrize(
    "wrong", [{"email_digest": Digest("#bob")}, {"external_id_digest": None}, {"external_id_digest": Digest("#crm-2")}]
)
def test_a_deletion_that_names_other_digests_frees_nobody_elses(wrong):
    given(created(ADA), created(BOB)).when(delete(ADA, **wrong)).then(refused("usr_1", "unknown_user")).and_then_known(
        ("email", "acc_1/#bob"), Taken("usr_2")
    )


def test_a_user_without_an_external_id_is_deleted_as_well():
    bare = create()
    given(created(bare)).when(delete(bare)).then(deleted(bare)).and_then_known(EMAIL, None)
