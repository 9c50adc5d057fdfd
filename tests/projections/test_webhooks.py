"""The tables of webhooks and deliveries: what events make of them, in whatever batches, and again from the log."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from domain import callbacks
from domain.account import CreateAccount
from domain.callbacks import Callback, CallbackRequested, ReportCallback, RequestCallback, ResendCallback
from domain.fields import Sealed
from domain.webhooks import (
    AddWebhook,
    DisableWebhook,
    EnableWebhook,
    RemoveWebhook,
    RotateAccountSecret,
    RotateWebhook,
)
from projections import deliveries, webhooks
from projections.projection import Folded, Projection
from schemas import events
from tests.support.spec import ACCOUNT, Rules
from tests.support.user_history import START, as_folded, decided

CALLBACKS = Rules(callbacks.needs, callbacks.decide, callbacks.touches, callbacks.evolve, events.WEBHOOK)


async def rows_of(postgres: Any, projection: Projection, seen: list[Folded], cuts: set[int]) -> dict[str, Any]:
    """The rows of every table, by table, after these events in batches that end at these places; nothing is left behind."""
    transaction = postgres.transaction()
    await transaction.start()
    try:
        await postgres.execute(f"set local search_path to read; truncate {', '.join(projection.tables)}")
        ends = sorted({*cuts, len(seen)})
        for start, end in zip([0, *ends], ends, strict=False):
            await projection.fold(postgres, seen[start:end])
        return {
            table: [dict(row) for row in await postgres.fetch(f"select * from read.{table} order by 1")]
            for table in projection.tables
        }
    finally:
        await transaction.rollback()


async def in_any_batches(postgres: Any, projection: Projection, seen: list[Folded]) -> dict[str, Any]:
    at_once = await rows_of(postgres, projection, seen, set())
    assert at_once == await rows_of(postgres, projection, seen, set(range(len(seen))))
    for width in (2, 3, 5):
        assert at_once == await rows_of(postgres, projection, seen, set(range(0, len(seen), width)))
    return at_once


async def test_an_account_has_what_was_added_and_not_removed(postgres: Any) -> None:
    def add(endpoint: str, *wanted: str) -> AddWebhook:
        return AddWebhook("acc_1", endpoint, Sealed(f"sealed:{endpoint}"), list(wanted))

    happened, _ = decided(
        ACCOUNT,
        [
            ("acc_1", command)
            for command in (
                CreateAccount("acc_1", "pro"),
                add("whk_1", "send.sent"),
                add("whk_2"),
                add("whk_3"),
                RotateWebhook("acc_1", "whk_1", "key_1"),
                DisableWebhook("acc_1", "whk_1", "gone"),
                EnableWebhook("acc_1", "whk_1", "key_1"),
                DisableWebhook("acc_1", "whk_2", "abandoned"),
                RotateWebhook("acc_1", "whk_1", "key_1"),
                RotateAccountSecret("acc_1", "key_1"),
                RemoveWebhook("acc_1", "whk_3", "key_1"),
                RotateAccountSecret("acc_1", "key_1"),
            )
        ],
    )
    found = await in_any_batches(postgres, webhooks.PROJECTION, as_folded(happened))
    one, two = found["webhooks"]
    assert (one["endpoint"], one["events"], one["disabled"], one["key_version"]) == ("whk_1", ["send.sent"], None, 3)
    assert one["old_versions"] == [1, 2]
    assert [until - START for until in one["old_until"]] == [
        timedelta(days=1, seconds=4),
        timedelta(days=1, seconds=8),
    ]
    assert (two["endpoint"], two["events"], two["disabled"], two["key_version"]) == ("whk_2", [], "abandoned", 1)
    (own,) = found["webhook_secrets"]
    assert (own["account"], own["key_version"], own["old_versions"]) == ("acc_1", 3, [1, 2])


async def test_a_delivery_shows_every_attempt_and_what_comes_next(postgres: Any) -> None:
    def callback(delivery: str) -> Callback:
        return Callback(delivery, "acc_1", "whk_1", "send.sent", "{}", "snd_1")

    def report(delivery: str, attempt: int, status: int | None, error: Any = None) -> ReportCallback:
        return ReportCallback(delivery, attempt, START, 7, 1.0, status, error)

    happened, _ = decided(
        CALLBACKS,
        [
            ("whk_1", command)
            for command in (
                *[RequestCallback(callback(f"whd_{number}")) for number in range(4)],
                report("whd_0", 1, 500, "refused"),
                report("whd_1", 1, None, "timed_out"),
                report("whd_0", 2, 204),
                report("whd_2", 1, 410, "refused"),
                ResendCallback(callback("whd_2"), "key_1"),
                report("whd_2", 2, 200),
            )
        ],
    )
    found = await in_any_batches(postgres, deliveries.PROJECTION, as_folded(happened))
    shown = {
        row["delivery"]: (row["status"], [(a["status"], a["error"]) for a in json.loads(row["attempts"])])
        for row in found["deliveries"]
    }
    assert shown == {
        "whd_0": ("delivered", [(500, "refused"), (204, None)]),
        "whd_1": ("pending", [(None, "timed_out")]),
        "whd_2": ("delivered", [(410, "refused"), (200, None)]),
        "whd_3": ("pending", []),
    }
    due = {row["delivery"]: row["next_at"] for row in found["deliveries"]}
    assert due["whd_0"] is None
    assert due["whd_2"] is None
    assert due["whd_1"] - START >= timedelta(seconds=5)


async def test_what_is_told_of_one_mail_is_paged_by_time_whatever_partition_it_stands_in(postgres: Any) -> None:
    """Positions of several partitions say nothing of each other, and of one moment there may be several."""

    def told(delivery: str, receiver: str) -> tuple[str, CallbackRequested]:
        endpoint = receiver if receiver.startswith("whk_") else None
        return receiver, CallbackRequested(Callback(delivery, "acc_1", endpoint, "send.sent", "{}", "snd_1"))

    stand = {"whd_a": (3, 50, 1), "whd_b": (7, 50, 2), "whd_c": (3, 51, 2), "whd_d": (5, 900, 0)}
    happened = [told(delivery, "whk_1" if stand[delivery][0] == 3 else "acc_1") for delivery in stand]
    seen = [
        replace(one, partition=partition, position=position, at=START + timedelta(seconds=second))
        for one, (partition, position, second) in zip(as_folded(happened), stand.values(), strict=True)
    ]
    async with postgres.transaction():
        await postgres.execute("set local search_path to read")
        await deliveries.PROJECTION.fold(postgres, seen)
        for limit in (1, 2, 3):
            found, before = [], None
            while page := await deliveries.of_message(postgres, "acc_1", "snd_1", limit=limit, before=before):
                found += [row.delivery for row in page]
                before = page[-1].created_at, page[-1].delivery
            assert found == ["whd_c", "whd_b", "whd_a", "whd_d"]
        assert await deliveries.of_message(postgres, "acc_1", "snd_1", limit=9, status="failed") == []
        assert await deliveries.of_message(postgres, "acc_2", "snd_1", limit=9) == []
