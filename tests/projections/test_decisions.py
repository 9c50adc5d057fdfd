"""What came of commands, as a read model: the first event of each counts, in whatever batches they come."""

from datetime import timedelta
from typing import Any

from domain.callbacks import Callback, CallbackRefused, CallbackRequested
from domain.fields import Digest, Sealed
from domain.outcomes import CommandFailed, CommandLapsed, CommandUnreadable
from domain.send_events import SendCommandRefused, SendMoved, SendRepeated
from domain.users import UserDeleted, UserRefused
from domain.webhook_words import TEST
from domain.webhooks import WebhookAdded, WebhookRefused
from projections.decisions import KEPT_DAYS, PROJECTIONS, table_of
from projections.projection import Folded
from schemas import topics
from tests.support.user_history import START

ACCOUNT, SEND, WEBHOOK = topics.ACCOUNT_EVENTS.name, topics.SEND_EVENTS.name, topics.WEBHOOK_EVENTS.name
Row = tuple[str, str, str | None, str | None]


async def rows_of(postgres: Any, topic: str, seen: list[Folded], width: int) -> list[Row]:
    """What these events leave, in batches so long; nothing is left behind."""
    (projection,) = [one for one in PROJECTIONS if one.topic == topic]
    transaction = postgres.transaction()
    await transaction.start()
    try:
        await postgres.execute("set local search_path to read")
        for start in range(0, len(seen), width):
            await projection.fold(postgres, seen[start : start + width])
        found = await postgres.fetch(f"select * from {table_of(topic)} order by position")
        return [(row["command"], row["subject"], row["reason"], row["instead"]) for row in found]
    finally:
        await transaction.rollback()


async def made_of(postgres: Any, topic: str, *happened: tuple[str, str, Any]) -> list[Row]:
    """The rows that come of these: a command, what it was about, and the event; a day between each and the next."""
    seen = [
        Folded(topic, 0, number, START + timedelta(days=number), "", subject, "acc_1", command, event)
        for number, (command, subject, event) in enumerate(happened)
    ]
    at_once = await rows_of(postgres, topic, seen, len(seen))
    for width in (1, 2, 3):
        assert await rows_of(postgres, topic, seen, width) == at_once
    return at_once


async def test_each_command_has_the_first_of_what_it_led_to(postgres: Any) -> None:
    deleted = UserDeleted("acc_1", "usr_1", "key_1", Digest("d"))
    assert await made_of(
        postgres,
        ACCOUNT,
        ("cmd_1", "usr_2", UserRefused("acc_1", "usr_2", "email_taken", "usr_1")),
        ("cmd_2", "usr_1", deleted),
        ("cmd_2", "usr_1", UserRefused("acc_1", "usr_1", "unknown_user")),
        ("cmd_3", "whk_1", WebhookAdded("acc_1", "whk_1", Sealed("x"), [], 1)),
        ("cmd_4", "whk_1", WebhookRefused("RotateWebhook", "acc_1", "whk_1", "too_many_secrets")),
        ("", "usr_3", deleted),
        ("cmd_5", "usr_1", CommandLapsed("cmd_5", START)),
        ("cmd_6", "usr_1", CommandFailed("cmd_6", "rule_failed", "letter")),
        ("cmd_7", "acc_1", CommandUnreadable("cmd_7", "invalid_body", "letter")),
        ("cmd_1", "usr_2", deleted),
    ) == [
        ("cmd_1", "usr_2", "email_taken", "usr_1"),
        ("cmd_2", "usr_1", None, None),
        ("cmd_3", "whk_1", None, None),
        ("cmd_4", "whk_1", "too_many_secrets", None),
        ("cmd_5", "usr_1", "lapsed", None),
        ("cmd_6", "usr_1", "failed", None),
        ("cmd_7", "acc_1", "failed", None),
    ]


async def test_a_mail_that_was_asked_for_again_names_the_first(postgres: Any) -> None:
    assert await made_of(
        postgres,
        SEND,
        ("cmd_1", "snd_2", SendRepeated("snd_2", "usr_1", "acc_1", "snd_1")),
        ("cmd_2", "snd_1", SendMoved("snd_1", "usr_1", "acc_1", START)),
        ("cmd_3", "snd_1", SendCommandRefused("MoveSend", "snd_1", "usr_1", "too_late")),
    ) == [("cmd_1", "snd_2", "repeated", "snd_1"), ("cmd_2", "snd_1", None, None), ("cmd_3", "snd_1", "too_late", None)]


async def test_what_is_told_by_itself_has_no_row(postgres: Any) -> None:
    def told(delivery: str, kind: str) -> CallbackRequested:
        return CallbackRequested(Callback(delivery, "acc_1", "whk_1", kind, "{}"))

    assert await made_of(
        postgres,
        WEBHOOK,
        ("whd_1.requested", "whd_1", told("whd_1", "send.sent")),
        ("cmd_1", "whd_2", told("whd_2", TEST)),
        ("cmd_2", "whd_1", CallbackRefused("whd_1", "acc_1", "on_its_way")),
    ) == [("cmd_1", "whd_2", None, None), ("cmd_2", "whd_1", "on_its_way", None)]


async def test_rows_are_let_go_after_thirty_days_by_the_log_s_time(postgres: Any) -> None:
    refused = [(f"cmd_{day}", "usr_1", UserRefused("acc_1", "usr_1", "unknown_user")) for day in range(KEPT_DAYS + 5)]
    rows = await made_of(postgres, ACCOUNT, *refused)
    assert [command for command, *_ in rows] == [f"cmd_{day}" for day in range(4, KEPT_DAYS + 5)]
