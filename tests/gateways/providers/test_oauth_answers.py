"""What each answer of a token endpoint means, as Google, Microsoft and RFC 6749 word it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateways.providers.calls import Answer, CallFailed
from gateways.providers.oauth_answers import LONGEST_TOKEN, tokens, why_not

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def microsoft(error: str, number: int, *, listed: bool = True) -> dict[str, Any]:
    said = {"error": error, "error_description": f"AADSTS{number}: Something in English. Trace ID: 1"}
    return {**said, "error_codes": [number]} if listed else said


@pytest.mark.parametrize(
    ("status", "body", "failure", "code"),
    [
        (400, {"error": "invalid_grant"}, "invalid_grant", "invalid_grant"),
        (400, {"error": "invalid_grant", "error_description": "Token expired or revoked."}, "invalid_grant", "invalid_grant"),
        (400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"}, "invalid_grant", "invalid_grant"),
        (400, microsoft("invalid_grant", 700082), "invalid_grant", "invalid_grant"),
        (400, microsoft("invalid_grant", 50173), "invalid_grant", "invalid_grant"),
        (400, microsoft("invalid_grant", 70000), "invalid_grant", "invalid_grant"),
        (400, microsoft("interaction_required", 50076), "invalid_grant", "invalid_grant"),
        (400, microsoft("consent_required", 65001), "invalid_grant", "invalid_grant"),
        (401, {"error": "invalid_client"}, "client_broken", "invalid_client"),
        (401, {"error": "deleted_client"}, "client_broken", "invalid_client"),
        (400, {"error": "unauthorized_client"}, "client_broken", "unauthorized_client"),
        (401, microsoft("invalid_client", 7000222), "client_broken", "client_secret_expired"),
        (401, microsoft("invalid_client", 7000222, listed=False), "client_broken", "client_secret_expired"),
        (401, microsoft("invalid_client", 7000215), "client_broken", "invalid_client"),
        (400, microsoft("unauthorized_client", 700016), "client_broken", "unauthorized_client"),
        (400, microsoft("invalid_request", 700016), "client_broken", "unauthorized_client"),
        (400, microsoft("invalid_grant", 70002220), "invalid_grant", "invalid_grant"),
        (400, {"error": "temporarily_unavailable"}, "transient", "server_error"),
        (400, microsoft("invalid_request", 900144), "transient", "refused"),
        (400, {"error": "invalid_scope"}, "transient", "refused"),
        (403, {"error": "access_denied"}, "transient", "refused"),
        (200, {"error": "invalid_grant"}, "invalid_grant", "invalid_grant"),
        (400, {"error": {"code": 400}}, "transient", "answer_unreadable"),
        (400, {"error_description": "invalid_grant AADSTS7000222"}, "transient", "answer_unreadable"),
        (400, {}, "transient", "answer_unreadable"),
        (404, None, "transient", "answer_unreadable"),
        (400, {"error": "invalid_grant", "error_codes": "7000222"}, "invalid_grant", "invalid_grant"),
        (400, {"error": "invalid_grant", "error_description": ["AADSTS7000222"]}, "invalid_grant", "invalid_grant"),
        (400, {"error": "invalid_grant", "error_codes": [True, {}, "7000222"]}, "invalid_grant", "invalid_grant"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_by_its_code(status: int, body: dict[str, Any] | None, failure: str, code: str) -> None:
    found = why_not(Answer(status, body))
    assert found is not None
    assert (found.failure, found.code) == (failure, code)


def test_an_answer_with_tokens_is_no_refusal() -> None:
    assert why_not(Answer(200, {"access_token": "a"})) is None


def test_tokens_are_read() -> None:
    found = tokens(
        Answer(
            200, {"access_token": "a", "refresh_token": "r", "expires_in": 3599, "scope": "x  y x", "id_token": "i"}
        ),
        NOW,
    )
    assert (found.access_token, found.refresh_token, found.id_token) == ("a", "r", "i")
    assert found.expires_at == NOW + timedelta(seconds=3599)
    assert found.scopes == ["x", "y"]
    assert "'a'" not in repr(found)


@pytest.mark.parametrize(
    "token", [None, 1, "", " ", "a b", "a\r\nX: b", "a\x00", "é", ["a"], "a" * (LONGEST_TOKEN + 1)]
)
def test_what_can_be_no_header_is_no_token(token: object) -> None:
    with pytest.raises(CallFailed, match="answer_unreadable"):
        tokens(Answer(200, {"access_token": token}), NOW)
    assert tokens(Answer(200, {"access_token": "a", "refresh_token": token}), NOW).refresh_token is None


@pytest.mark.parametrize(
    ("life", "seconds"),
    [(3600, 3600), (1.5, 1.5), ("3600", 3600), (0, 0), (-1, 0), (10**30, 366 * 86400), ("9" * 400, 366 * 86400)],
)
def test_a_life_is_believed_within_reason(life: object, seconds: float) -> None:
    assert tokens(Answer(200, {"access_token": "a", "expires_in": life}), NOW).expires_at == NOW + timedelta(
        seconds=seconds
    )


@pytest.mark.parametrize("life", [None, "", "soon", True, [], {}, "1.5", "-1"])
def test_an_unknown_life_is_unknown(life: object) -> None:
    assert tokens(Answer(200, {"access_token": "a", "expires_in": life}), NOW).expires_at is None


@pytest.mark.parametrize("scope", [None, "", " ", 1, ["x"]])
def test_unnamed_scopes_are_those_that_were_asked_for(scope: object) -> None:
    assert tokens(Answer(200, {"access_token": "a", "scope": scope}), NOW).scopes is None
