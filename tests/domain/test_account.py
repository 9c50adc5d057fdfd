"""Accounts, their plans and their API keys."""

from dataclasses import replace

import pytest

from domain.account import (
    PLANS_KEY,
    Account,
    AccountCommandRefused,
    AccountCreated,
    ApiKeyIssued,
    ApiKeyRevoked,
    AssignPlan,
    CreateAccount,
    DefinePlan,
    IssueApiKey,
    PlanAssigned,
    PlanDefined,
    PlanRefused,
    RevokeApiKey,
    needs,
)
from domain.plans import LARGEST_COUNT, LONGEST_LIFETIME_MINUTES, Limits
from domain.scopes import allows
from tests.support import spec
from tests.support.spec import ACCOUNT, at

CREATED = AccountCreated("acc_1", "pro")
ISSUE = IssueApiKey("acc_1", "key_1", "pl_live_ab", "0" * 64, ["mailboxes:read"])
ISSUED = ApiKeyIssued("acc_1", "key_1", "pl_live_ab", "0" * 64, ["mailboxes:read"])
REVOKE = RevokeApiKey("acc_1", "key_1")
REVOKED = ApiKeyRevoked("acc_1", "key_1")


def given(*events, key="acc_1"):
    return spec.given(*events, rules=ACCOUNT, key=key)


def refused(command, reason):
    return AccountCommandRefused(command, "acc_1", reason)


def test_an_account_is_created_once():
    command = CreateAccount("acc_1", "pro")
    given().when(command).then(CREATED).and_then_known(("account", "acc_1"), Account("pro")).when(
        CreateAccount("acc_1", "free"), now=at(), key="acc_1"
    ).then(refused("CreateAccount", "already")).and_then_known(("account", "acc_1"), Account("pro"))


@pytest.mark.parametrize(
    ("command", "name"),
    [(AssignPlan("acc_1", "pro"), "AssignPlan"), (ISSUE, "IssueApiKey"), (REVOKE, "RevokeApiKey")],
)
def test_an_unknown_account_is_refused(command, name):
    given().when(command).then(refused(name, "unknown_account")).and_then_known(("account", "acc_1"), None)


def test_a_plan_is_assigned_and_keys_are_kept():
    given(CREATED, ISSUED).when(AssignPlan("acc_1", "free")).then(PlanAssigned("acc_1", "free")).and_then_known(
        ("account", "acc_1"), Account("free", ["key_1"])
    )


def test_keys_are_issued_and_revoked_one_by_one():
    second = ApiKeyIssued("acc_1", "key_2", "pl_live_cd", "1" * 64)
    given(CREATED).when(ISSUE).then(ISSUED).and_then_known(("account", "acc_1"), Account("pro", ["key_1"]))
    given(CREATED, ISSUED, second).when(REVOKE).then(REVOKED).and_then_known(
        ("account", "acc_1"), Account("pro", ["key_2"])
    )


def test_a_key_is_issued_once():
    given(CREATED, ISSUED).when(ISSUE).then(refused("IssueApiKey", "already")).and_then_known(
        ("account", "acc_1"), Account("pro", ["key_1"])
    )


def test_a_key_has_no_scope_that_means_nothing():
    given(CREATED).when(replace(ISSUE, scopes=["mailboxes:read", "mailboxes:all"])).then(
        refused("IssueApiKey", "unknown_scope")
    ).and_then_known(("account", "acc_1"), Account("pro"))


@pytest.mark.parametrize(
    ("granted", "wanted", "allowed"),
    [
        ([], "mailboxes:write", True),
        (["mailboxes:write"], "mailboxes:write", True),
        (["mailboxes:write"], "mailboxes:read", True),
        (["mailboxes:read"], "mailboxes:read", True),
        (["mailboxes:read"], "mailboxes:write", False),
        (["mailboxes:write"], "events:read", False),
        (["events:read", "mailboxes:read"], "mailboxes:read", True),
        (["a scope of a later version"], "mailboxes:read", False),
    ],
)
def test_a_key_may_what_its_scopes_say_and_without_any_everything(granted, wanted, allowed):
    assert allows(granted, wanted) is allowed


def test_a_key_that_is_not_there_is_not_revoked():
    given(CREATED).when(REVOKE).then(refused("RevokeApiKey", "unknown_key"))
    given(CREATED, ISSUED, REVOKED).when(REVOKE).then(refused("RevokeApiKey", "unknown_key"))


def test_one_accounts_key_is_not_revoked_by_another():
    other = RevokeApiKey("acc_2", "key_1")
    given(CREATED, ISSUED, AccountCreated("acc_2", "free"), key="acc_2").when(other).then(
        AccountCommandRefused("RevokeApiKey", "acc_2", "unknown_key")
    ).and_then_known(("account", "acc_1"), Account("pro", ["key_1"]))


def test_an_event_on_an_account_that_is_not_there_leaves_no_half_account():
    given(ISSUED, PlanAssigned("acc_1", "pro"), REVOKED).when(CreateAccount("acc_1", "pro")).then(CREATED)


# ── plans ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(1, 1, 1, 1), None),
        (Limits(60, 60, 1, 10), None),
        (Limits(60, LONGEST_LIFETIME_MINUTES, 20, 500), None),
        (Limits(LONGEST_LIFETIME_MINUTES, LONGEST_LIFETIME_MINUTES, 20, 500), None),
        (Limits(60, LONGEST_LIFETIME_MINUTES + 1, 20, 500), "beyond_longest_lifetime"),
        (Limits(61, 60, 1, 10), "default_beyond_longest"),
        (Limits(0, 60, 1, 10), "not_positive"),
        (Limits(60, 0, 1, 10), "not_positive"),
        (Limits(60, 60, 0, 10), "not_positive"),
        (Limits(60, 60, 1, 0), "not_positive"),
        (Limits(60, 60, 1, -1), "not_positive"),
        (Limits(60, 60, LARGEST_COUNT, LARGEST_COUNT), None),
        (Limits(60, 60, LARGEST_COUNT + 1, 10), "too_large"),
        (Limits(60, 60, 1, LARGEST_COUNT + 1), "too_large"),
    ],
)
def test_a_plan_is_defined_within_what_can_be_promised(limits, reason):
    expected = PlanRefused("team", reason) if reason else PlanDefined("team", limits)
    given(key=PLANS_KEY).when(DefinePlan("team", limits), key=PLANS_KEY).then(expected)


def test_a_plan_can_be_defined_again():
    """What was opened under it keeps the limits it was opened with: they travelled in its event."""
    first, second = Limits(60, 60, 1, 10), Limits(60, 120, 2, 20)
    given(PlanDefined("team", first), key=PLANS_KEY).when(DefinePlan("team", second), key=PLANS_KEY).then(
        PlanDefined("team", second)
    )


def test_plans_need_no_document():
    assert needs(DefinePlan("team", Limits(1, 1, 1, 1)), PLANS_KEY) == []
