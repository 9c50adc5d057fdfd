"""The HTTP surface as whoever just found it tries it: by hand, with the wrong method, without a header, on a wrong path."""

import re
import smtplib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from openapi_spec_validator import validate

from tests.support.up import Up, installed_at, started

MAIL = b"""From: Ann <ann@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

Hello
--b
Content-Type: application/pdf
Content-Disposition: attachment; filename=a.pdf
Content-Transfer-Encoding: base64

SGVsbG8=
--b--
"""
#: A mailbox is connected in a browser, and what else there is here none of: every answer about it is 404.
NOT_HERE = {
    "connection_id": "con_" + "0" * 26,
    "attachment_id": "att_" + "0" * 26,
    "send_id": "snd_" + "0" * 26,
    "operation_id": "op_x",
    "webhook_id": "whk_" + "0" * 26,
}
#: Asked otherwise than they are meant, their last word is read as an id.
READ_AS_IDS = {"/v1/connections/smtp", "/v1/attachments/upload", "/v1/messages/send", "/v1/webhooks/secret"}
STREAMS = {"streamMailbox", "streamEvents", "watchMailbox"}
#: Give a ticket for a browser, or lead there: they are tried in `tests/gateways/connect`.
TICKETS = {"connectProvider", "connectPage"}


@dataclass(frozen=True)
class Inbox:
    """One with a mail in it, which has an attachment; `document` is what the API says of itself.

    `key` and `user` are an API key and a user of its account: whoever has the inbox's token sees none of those.
    """

    up: Up
    address: str
    token: str
    message: str
    document: dict[str, Any]
    key: str
    user: str

    @property
    def url(self) -> str:
        return self.up.url

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def bearer_at(self, path: str, method: str) -> dict[str, str]:
        """The token, or the API key where a token is not enough."""
        told = self.document["paths"][path].get(method, {})
        return {"Authorization": f"Bearer {self.key}"} if told.get("security") == [{"apiKey": []}] else self.bearer

    def at(self, path: str) -> str:
        """This path of the document, with this inbox's ids in it."""
        ids = {"address": self.address, "message_id": self.message, "index": "0", "user_id": self.user}
        for name, value in (ids | NOT_HERE).items():
            path = path.replace(f"{{{name}}}", value)
        return self.url + path

    def operations(self, method: str) -> list[str]:
        """The paths that have this method, and are no streams or tickets."""
        return [
            path
            for path, methods in self.document["paths"].items()
            if method in methods and methods[method]["operationId"] not in STREAMS | TICKETS
        ]


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inbox]:
    with started(installed_at(tmp_path_factory.mktemp("surface") / "data")) as up:
        yield with_mail(up)


def with_mail(up: Up) -> Inbox:
    made = requests.post(f"{up.url}/api/v1/mailboxes", timeout=10).json()
    bearer = {"Authorization": f"Bearer {made['session_token']}"}
    with smtplib.SMTP(*up.smtp) as client:
        client.sendmail("ann@example.org", [made["address"]], MAIL)
    deadline = time.monotonic() + 20
    while not (listed := requests.get(messages_of(up, made), headers=bearer, timeout=10).json()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    document = requests.get(f"{up.url}/openapi.json", timeout=10).json()
    key = up.words.says("account", "create", "--plan", "pro").row["key"]
    user = requests.post(
        f"{up.url}/v1/users",
        headers={"Authorization": f"Bearer {key}"},
        json={"email": "ada@example.org", "displayName": "Ada"},
        timeout=10,
    ).json()["id"]
    return Inbox(up, made["address"], made["session_token"], listed[0]["id"], document, key, user)


def messages_of(up: Up, made: dict[str, Any]) -> str:
    return f"{up.url}/api/v1/mailboxes/{made['address']}/messages"


# ── methods ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_whatever_can_be_got_can_be_asked_about(inbox: Inbox) -> None:
    """HEAD says what GET would (RFC 9110 9.3.2), without a body, and reads nothing."""
    for path in inbox.operations("get"):
        url, bearer = inbox.at(path), inbox.bearer_at(path, "get")
        head = requests.head(url, headers=bearer, timeout=10)
        got = requests.get(url, headers=bearer, timeout=10)
        status = 404 if any(f"{{{name}}}" in path for name in NOT_HERE) else 200
        assert (head.status_code, head.content) == (status, b""), path
        assert got.status_code == status, path
        same = {"Content-Type", "ETag", "Cache-Control", "Content-Disposition", "Accept-Ranges"} & set(got.headers)
        assert {name: head.headers.get(name) for name in same} == {name: got.headers[name] for name in same}, path


def test_asking_about_a_message_does_not_mark_it_as_read(inbox: Inbox) -> None:
    fresh = with_mail(inbox.up)
    messages = fresh.at("/api/v1/mailboxes/{address}/messages")
    assert requests.head(f"{messages}/{fresh.message}", headers=fresh.bearer, timeout=10).status_code == 200
    (unread,) = requests.get(messages, headers=fresh.bearer, timeout=10).json()
    assert unread["is_read"] is False
    requests.get(f"{messages}/{fresh.message}", headers=fresh.bearer, timeout=10)
    deadline = time.monotonic() + 10
    while not requests.get(messages, headers=fresh.bearer, timeout=10).json()[0]["is_read"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_method_that_is_not_possible_is_told_which_are(inbox: Inbox) -> None:
    for path, methods in inbox.document["paths"].items():
        if path.startswith("/ws/") or path in READ_AS_IDS:
            continue
        for method in {"get", "post", "put", "patch", "delete", "options"} - set(methods):
            answer = requests.request(method, inbox.at(path), headers=inbox.bearer, timeout=10)
            assert answer.status_code == 405, (method, path)
            allowed = set(answer.headers["Allow"].lower().split(", ")) - {"head"}
            assert allowed == set(methods), (method, path)
            assert answer.json()["code"] == "method_not_allowed"
            assert "only" in answer.json()["detail"]


# ── paths ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_path_is_told_where_the_right_ones_are(inbox: Inbox) -> None:
    for path in ("/nothing", "/api/v1/mailboxes/", "/api/v1", "/v1/events/"):
        answer = requests.get(inbox.url + path, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "`/docs`" in answer.json()["detail"]


def test_the_address_that_is_printed_leads_somewhere(inbox: Inbox) -> None:
    answer = requests.get(f"{inbox.url}/", timeout=10)
    assert (answer.status_code, answer.url) == (200, f"{inbox.url}/docs")


def test_a_websocket_asked_for_by_plain_http_says_what_it_is(inbox: Inbox) -> None:
    answer = requests.get(inbox.at("/ws/inbox/{address}?token=secret"), timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
    assert answer.headers["Upgrade"] == "websocket"
    assert "secret" not in answer.text


# ── what errors say ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "headers", "status", "says"),
    [
        ("", {}, 401, "Send `Authorization: Bearer`"),
        ("?token=x", {}, 401, "the query counts for streams only"),
        ("", {"Authorization": "Basic eDp5"}, 401, "has to be `Bearer`, a space, and"),
        ("", {"Authorization": "Bearer uct_cut"}, 401, "look whether it is whole"),
        ("/messages?limit=0", None, 422, "`limit` has to be 1 or more"),
        ("/messages?offset=-1", None, 422, "`offset` has to be 0 or more"),
        ("/messages?limit=ten", None, 422, "`limit` has to be a whole number"),
        ("/messages", {"X-After-Position": "mailbox.events-0:999999"}, 503, "try again shortly, or read without"),
    ],
)
def test_an_error_says_what_to_do(
    inbox: Inbox, path: str, headers: dict[str, str] | None, status: int, says: str
) -> None:
    sent = inbox.bearer | (headers or {}) if headers is None or "X-After-Position" in headers else headers
    answer = requests.get(inbox.at("/api/v1/mailboxes/{address}") + path, headers=sent, timeout=10)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_a_stream_is_refused_as_everything_else_is(inbox: Inbox) -> None:
    answer = requests.get(f"{inbox.url}/v1/events", headers={"X-Request-Id": "mine-1"}, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (401, "credentials_missing")
    assert answer.headers["X-Request-Id"] == answer.json()["request_id"] == "mine-1"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


# ── the document ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_document_of_a_whole_installation_is_one_and_every_operation_has_its_own_id(inbox: Inbox) -> None:
    validate(inbox.document)
    ids = [told["operationId"] for methods in inbox.document["paths"].values() for told in methods.values()]
    assert len(ids) == len(set(ids))
    assert STREAMS | {"receiveSesMail"} <= set(ids)
    page = requests.get(f"{inbox.url}/docs", timeout=10).text
    assert all(f'id="{name}"' in page for name in ids)


def test_whatever_changes_something_may_be_answered_with_an_operation(inbox: Inbox) -> None:
    """But for what starts something in a browser, or many things at once."""
    without = set()
    for path, methods in inbox.document["paths"].items():
        for method, told in methods.items():
            if not path.startswith("/v1/") or method not in {"post", "patch", "put", "delete"}:
                continue
            schema = told["responses"].get("202", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if "Pending" not in str(schema):
                without.add(told["operationId"])
            else:
                assert "outcome_unknown" not in str(told["responses"].get("503")), told["operationId"]
    assert without == {"resendDeliveries"}


def test_streams_are_described_as_they_are(inbox: Inbox) -> None:
    paths = inbox.document["paths"]
    for path in ("/api/v1/mailboxes/{address}/events", "/v1/events"):
        told = paths[path]["get"]
        assert {"token", "api_key", "after", "Last-Event-ID"} <= {found["name"] for found in told["parameters"]}
        assert {"200", "204", "401", "403", "404", "405", "429", "503"} == set(told["responses"])
        for more in ({"headers": inbox.bearer}, {"params": {"token": inbox.token}}):
            with requests.get(inbox.at(path), stream=True, timeout=10, **more) as stream:
                kind = stream.headers["Content-Type"].partition(";")[0]
                assert (stream.status_code, kind) == (200, "text/event-stream")
                assert list(told["responses"]["200"]["content"]) == [kind]
        assert requests.get(inbox.at(path), timeout=10).status_code == 401
        assert requests.post(inbox.at(path), timeout=10).status_code == 405
    other = f"{inbox.url}/api/v1/mailboxes/other-00000000@mail.localhost/events"
    assert requests.get(other, headers=inbox.bearer, timeout=10).status_code == 404
    example = paths["/api/v1/mailboxes/{address}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert re.fullmatch(r"id: \S+\nevent: new_message\ndata: \{.*\}\n\n", example["example"])


def test_a_stream_whose_mailbox_has_ended_is_204(inbox: Inbox) -> None:
    made = requests.post(f"{inbox.url}/api/v1/mailboxes", timeout=10).json()
    bearer = {"Authorization": f"Bearer {made['session_token']}"}
    url = f"{inbox.url}/api/v1/mailboxes/{made['address']}"
    assert requests.delete(url, headers=bearer, timeout=10).status_code == 204
    for path in (f"{url}/events", f"{inbox.url}/v1/events"):
        assert requests.get(path, headers=bearer, timeout=10).status_code == 204
    gone = requests.get(url, headers=bearer, timeout=10)
    assert (gone.status_code, gone.json()["code"]) == (410, "mailbox_ended")
