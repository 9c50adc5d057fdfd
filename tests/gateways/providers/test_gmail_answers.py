"""Gmail's refusals, row by row of the table, and in forms that Google never gives."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.delivery import Deferred, InDoubt, NotProven, Refused, TokenRefused
from gateways.providers.calls import Reply
from gateways.providers.gmail_answers import TABLE, Row, meaning, meaning_of_looking, meaning_of_sending, problem_in

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def reply(status: int, body: Any, retry_after: float | None = None) -> Reply:
    return Reply(status, body if isinstance(body, bytes) else json.dumps(body).encode(), retry_after)


def error(status: int, reason: str, text: str = "", place: str = "errors") -> Reply:
    found: dict[str, Any] = {"code": status, "message": text}
    found |= {"status": reason} if place == "status" else {place: [{"reason": reason}]}
    return reply(status, {"error": found})


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.reason or 'any'} {row.text}".strip())
@pytest.mark.parametrize("place", ["errors", "details", "status"])
def test_each_row_means_what_it_says(row: Row, place: str) -> None:
    """A row that one above it leaves nothing for fails here."""
    answer = error(row.status, row.reason or "unheardOf", f"So: {row.text.upper()}", place)
    for found in (meaning(answer), meaning_of_sending(answer)):
        assert type(found) is type(row.means)
        if isinstance(found, Deferred):
            assert isinstance(row.means, Deferred)
            assert (found.code, found.counted) == (row.means.code, row.means.counted)
        if isinstance(found, Refused):
            assert isinstance(row.means, Refused)
            assert found.code == row.means.code
        if not isinstance(found, TokenRefused):
            assert found.said == f"So: {row.text.upper()}".strip()


@pytest.mark.parametrize("status", [402, 405, 409, 410, 412, 415, 418, 431, 451])
def test_what_is_in_no_row_is_tried_again_and_counted(status: int) -> None:
    assert meaning_of_sending(error(status, "odd")) == Deferred("server_error")


NO_ERRORS: list[Any] = [b"", b"<h1>", b"[]", {}, {"error": None}, {"error": "invalid_token"}, {"error": ["a"]}]


@pytest.mark.parametrize("body", NO_ERRORS, ids=str)
def test_what_is_no_error_of_google_s_is_a_doubt_only_where_the_mail_may_have_left(body: Any) -> None:
    for status in (400, 401, 403, 404, 413, 429):
        assert meaning_of_sending(reply(status, body)) == InDoubt("answer_unreadable")
    assert meaning(reply(401, body)) == TokenRefused()
    assert meaning(reply(429, body, 9.0)) == Deferred("rate_limited", 9.0, counted=False)
    assert meaning(reply(404, body)) == Deferred("answer_unreadable")
    assert meaning(reply(503, body, 9.0)) == Deferred("server_error", 9.0)


ODD_ERRORS: list[Any] = [
    {"errors": {}, "details": "x", "status": 7, "message": ["a"]},
    {"errors": [None, 1, "a", {"reason": {}}, {}], "message": None},
    {},
]


@pytest.mark.parametrize("odd", ODD_ERRORS, ids=str)
def test_an_error_in_an_odd_form_is_read_as_far_as_it_goes(odd: Any) -> None:
    assert meaning_of_sending(reply(429, {"error": odd})) == Deferred("rate_limited", counted=False)
    assert meaning_of_sending(reply(400, {"error": odd})) == Deferred("server_error")
    found = problem_in(reply(400, {"error": odd}))
    assert found is not None
    assert (found.reasons, found.text) == (frozenset(), "")


@pytest.mark.parametrize("status", [408, 499, 500, 501, 502, 503, 504, 507, 599])
def test_who_gave_up_may_have_sent_it(status: int) -> None:
    assert meaning_of_sending(error(status, "backendError", "Backend\0 Error\n")) == InDoubt(
        "server_error", "Backend Error"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("User-rate limit exceeded.  Retry after 2026-11-28T12:15:00.000Z (Mail sending)", 900),
        ("User-rate limit exceeded.  Retry after 2026-11-28T12:15:00Z", 900),
        ("retry AFTER 2026-11-28T13:15:00+01:00.", 900),
        ("Retry after 2026-11-28T11:00:00Z", 0),
        ("Retry after 2126-11-28T11:00:00Z", 86_400),
        ("Retry after 2026-13-28T11:00:00Z", None),
        ("Retry after 2026-11-28T12:15:00", None),
        ("Retry after tomorrow", None),
        ("Retry after " + "9" * 100_000, None),
    ],
)
def test_a_wait_may_stand_in_the_text(text: str, seconds: float | None) -> None:
    found = meaning_of_sending(error(429, "userRateLimitExceeded", text), NOW)
    assert isinstance(found, Deferred)
    assert (found.retry_after, found.counted) == (seconds, False)


def test_a_header_is_believed_before_a_text() -> None:
    body = {"error": {"message": "Retry after 2026-11-28T12:15:00Z"}}
    assert meaning(reply(429, body, 5.0), NOW) == Deferred("rate_limited", 5.0, False, body["error"]["message"])


def test_what_google_says_is_kept_short_and_plain() -> None:
    found = meaning(error(400, "badRequest", "\x1b[31mno\r\n" + "a" * 10_000))
    assert isinstance(found, Refused)
    assert found.said is not None
    assert found.said.startswith("[31mno aaa")
    assert len(found.said) == 500
    assert found.said.isprintable()
    assert "aaa" not in repr(found)


def test_a_look_that_is_refused() -> None:
    assert meaning_of_looking(error(401, "authError")) == TokenRefused()
    assert meaning_of_looking(error(403, "insufficientPermissions")) == NotProven("not_allowed")
    assert meaning_of_looking(error(403, "dailyLimitExceeded")) == NotProven("rate_limited")
    assert meaning_of_looking(reply(503, b"", 9.0)) == NotProven("server_error", 9.0)
    assert meaning_of_looking(reply(403, b"<h1>")) == NotProven("server_error")
