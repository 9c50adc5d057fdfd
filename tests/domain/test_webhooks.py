"""An account's webhooks: registered, rotated with an overlap, disabled, enabled and removed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from domain.account import AccountCreated
from domain.fields import Digest, Sealed
from domain.webhook_words import TYPES
from domain.webhooks import (
    MOST_ENDPOINTS,
    MOST_RETIRING,
    OVERLAP,
    AccountSecretRotated,
    AddWebhook,
    DisableWebhook,
    EnableWebhook,
    Hooked,
    RemoveWebhook,
    RetiringSecret,
    RotateAccountSecret,
    RotateWebhook,
    WebhookAdded,
    WebhookDisabled,
    WebhookEnabled,
    WebhookRefused,
    WebhookRemoved,
    WebhookRotated,
)
from tests.support import spec
from tests.support.spec import ACCOUNT, START, at

ACCOUNT_1 = AccountCreated("acc_1", "pro")
ADD = AddWebhook("acc_1", "whk_1", Sealed("sealed:url"), ["send.sent"], Sealed("sealed:orders"))
ADDED = WebhookAdded("acc_1", "whk_1", Sealed("sealed:url"), ["send.sent"], 1, Sealed("sealed:orders"))
ROTATE = RotateWebhook("acc_1", "whk_1", "key_1")
DISABLED = WebhookDisabled("acc_1", "whk_1", "gone")


def given(*events):
    return spec.given(ACCOUNT_1, *events, rules=ACCOUNT, key="acc_1")


def refused(command, reason, of=None, endpoint="whk_1"):
    return WebhookRefused(command, "acc_1", endpoint, reason, of)


def test_an_endpoint_is_added_with_the_first_version_of_its_secret():
    given().when(ADD).then(ADDED)


def test_it_may_want_every_event_there_is_and_none_there_is_not():
    given().when(replace(ADD, events=[*TYPES])).then(replace(ADDED, events=[*TYPES]))
    given().when(replace(ADD, events=[])).then(replace(ADDED, events=[]))
    given().when(replace(ADD, events=["send.sent", "send.lost"])).then(refused("AddWebhook", "unknown_event"))


def test_an_idempotency_key_stands_for_one_endpoint():
    keyed = replace(ADD, idempotency_key=Digest("#key"), request=Digest("#request"))
    made = replace(ADDED, idempotency_key=Digest("#key"), request=Digest("#request"))
    when = given().when(keyed).then(made).and_then_known(("hooked", "acc_1/#key"), Hooked("whk_1", Digest("#request")))
    when.when(replace(keyed, endpoint="whk_2"), now=at(minutes=1), key="acc_1").then(
        refused("AddWebhook", "repeated", "whk_1", "whk_2")
    )
    when.when(replace(keyed, endpoint="whk_3", request=Digest("#other")), now=at(minutes=2), key="acc_1").then(
        refused("AddWebhook", "idempotency_key_reused", "whk_1", "whk_3")
    )


def test_an_account_has_twenty_endpoints_and_not_one_more_until_one_is_removed():
    many = [replace(ADDED, endpoint=f"whk_{number}") for number in range(1, MOST_ENDPOINTS + 1)]
    late = replace(ADD, endpoint="whk_late")
    given(*many[:-1]).when(late).then(replace(ADDED, endpoint="whk_late"))
    full = refused("AddWebhook", "too_many_endpoints", endpoint="whk_late")
    given(*many).when(late).then(full)
    given(*many, DISABLED).when(late).then(full)
    given(*many, WebhookRemoved("acc_1", "whk_1", "key_1")).when(late).then(replace(ADDED, endpoint="whk_late"))


def test_the_secret_before_signs_for_a_day_after_a_rotation():
    first = WebhookRotated("acc_1", "whk_1", 2, [RetiringSecret(1, START + OVERLAP)], "key_1")
    when = given(ADDED).when(ROTATE).then(first)
    soon = WebhookRotated(
        "acc_1", "whk_1", 3, [RetiringSecret(1, START + OVERLAP), RetiringSecret(2, at(hours=34))], "key_1"
    )
    when = when.when(ROTATE, now=at(hours=10), key="acc_1").then(soon)
    later = WebhookRotated(
        "acc_1", "whk_1", 4, [RetiringSecret(2, at(hours=34)), RetiringSecret(3, at(hours=48))], "key_1"
    )
    when.when(ROTATE, now=at(hours=24), key="acc_1").then(later)


def test_no_more_than_so_many_secrets_sign_at_a_time():
    when = given(ADDED).when(ROTATE)
    for number in range(1, MOST_RETIRING):
        when = when.when(ROTATE, now=at(minutes=number), key="acc_1")
        assert len(when.events[0].retiring) == number + 1
    when = when.when(ROTATE, now=at(hours=23), key="acc_1").then(refused("RotateWebhook", "too_many_secrets"))
    (rotated,) = when.when(ROTATE, now=START + OVERLAP, key="acc_1").events
    assert (rotated.key_version, len(rotated.retiring)) == (MOST_RETIRING + 2, MOST_RETIRING)


def test_the_account_has_a_secret_of_its_own_from_the_beginning():
    rotate = RotateAccountSecret("acc_1", "key_1")
    rotated = AccountSecretRotated("acc_1", 2, [RetiringSecret(1, START + OVERLAP)], "key_1")
    when = given(ADDED).when(rotate).then(rotated)
    when.when(ROTATE, now=at(hours=1), key="acc_1").then(
        WebhookRotated("acc_1", "whk_1", 2, [RetiringSecret(1, at(hours=25))], "key_1")
    )
    for minute in range(MOST_RETIRING - 1):
        when = when.when(rotate, now=at(minutes=minute), key="acc_1")
    when.when(rotate, now=at(hours=1), key="acc_1").then(
        refused("RotateAccountSecret", "too_many_secrets", endpoint="")
    )


def test_what_is_disabled_is_enabled_again_by_a_person_only():
    disable = DisableWebhook("acc_1", "whk_1", "gone")
    enable = EnableWebhook("acc_1", "whk_1", "key_1")
    given(ADDED).when(disable).then(DISABLED).when(disable, now=at(minutes=1), key="acc_1").then_nothing()
    given(ADDED).when(enable).then(refused("EnableWebhook", "already"))
    when = given(ADDED, DISABLED).when(enable).then(WebhookEnabled("acc_1", "whk_1", "key_1"))
    when.when(replace(disable, cause="abandoned"), now=at(minutes=1), key="acc_1").then(
        WebhookDisabled("acc_1", "whk_1", "abandoned")
    )


def test_a_rotation_survives_being_disabled_and_enabled():
    events = (ADDED, WebhookRotated("acc_1", "whk_1", 2, [], "key_1"), DISABLED)
    (rotated,) = given(*events, WebhookEnabled("acc_1", "whk_1", "key_1")).when(ROTATE).events
    assert rotated.key_version == 3


@pytest.mark.parametrize(
    "command", [ROTATE, EnableWebhook("acc_1", "whk_1", "key_1"), RemoveWebhook("acc_1", "whk_1", "key_1")]
)
def test_of_what_is_not_there_nothing_changes(command):
    name = type(command).__name__
    given().when(command).then(refused(name, "unknown_endpoint"))
    given(ADDED, WebhookRemoved("acc_1", "whk_1", "key_1")).when(command).then(refused(name, "unknown_endpoint"))
    spec.given(rules=ACCOUNT, key="acc_1").when(command).then(refused(name, "unknown_account"))


def test_an_effect_that_speaks_of_what_is_not_there_is_not_heard():
    command = DisableWebhook("acc_1", "whk_1", "abandoned")
    given().when(command).then_nothing()
    spec.given(rules=ACCOUNT, key="acc_1").when(command).then_nothing()


def test_another_accounts_endpoint_is_not_there():
    other = AccountCreated("acc_2", "pro")
    command = RemoveWebhook("acc_2", "whk_1", "key_2")
    spec.given(ACCOUNT_1, other, ADDED, rules=ACCOUNT, key="acc_2").when(command).then(
        WebhookRefused("RemoveWebhook", "acc_2", "whk_1", "unknown_endpoint")
    )


def test_an_overlap_is_a_day():
    assert timedelta(days=1) == OVERLAP
