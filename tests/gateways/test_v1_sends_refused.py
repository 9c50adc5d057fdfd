"""What is asked to be sent and can't be, over real HTTP: everything that is wrong is told at once, and nothing is sent."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from domain.plain_text import text_of
from gateways.http.edge import BODY_BYTES
from gateways.http.v1.send_bodies import HEADER_CHARACTERS, MOST_HEADERS, SUBJECT_CHARACTERS
from gateways.http.v1.send_people import MOST_NAMED, MOST_RECIPIENTS, MOST_REPLY_TO, NAME_CHARACTERS
from gateways.http.v1.send_sizes import MOST_ENCODED
from gateways.local_servers import Servers
from gateways.stores.rates import Limit
from schemas.send_message import MOST_IN_EVENT
from tests.support.asked_sends import SEND, AskedSends, Writer, asked_sends
from tests.support.http_house import served

#: What could end a line, a field or a command, or read as another recipient, wherever it is let through.
BREAKS = [
    "\r\n", "\n", "\r", "\r\n\t", "\n\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\x00",
    "\x07", "\x1b", "\x7f", "\x9b",
]  # fmt: skip
INJECTED = "Bcc: eve@evil.example"
RESERVED = [
    "From", "Sender", "To", "Cc", "Bcc", "Reply-To", "Subject", "Message-ID", "Date", "Return-Path", "Received",
    "MIME-Version", "MIME-X", "Content-Type", "Content-Disposition", "Content-ID", "DKIM-Signature", "ARC-Seal",
    "X-Postledger-Marker", "bcc", "BCC", "resent-to", "reply-TO", "x-postledger-MARKER",
]  # fmt: skip
NO_NAMES = ["", " ", "X Y", "X:", "X:Y", "Bcc ", " Bcc", "Bcc\t", "X\u00e9", "X\u200b", "x" * 77, "Bcc\uff1a"]
NO_ADDRESSES = [
    "", " ", "a", "a@", "@b", "a@b@c", "a b@c", "a@b c", "a@b,c@d", "a@b;c@d", "a@b, c@d", "<a@b", "a@b>",
    "<a@b>, <c@d>", "<>", "a..b@c", ".a@b", "a.@b", "a@.b", "a@b..c", "a@-b", "a@b-", "a@b_c", "a@[127.0.0.1",
    "a@b.c.", "a(x)@b", "a@b (x)", "a@(x)b", '"a@b', 'a"b@c', '"a"b@c', "=?utf-8?q?a=40b?=@c", "a\u200b@b",
    "a\u202e@b", "a\u00a0@b", "a@b\u200b.c", "a@\u202eb", "a@b\u3002\u3002c", "x" * 65 + "@b", "a@" + "x" * 64 + ".c",
    "a@" + ".".join(["x" * 60] * 5), "Eve <a@b> <c@d>", "a@b <c@d>", "Eve, Bob <a@b>", '"Eve" x <a@b>',
    'Eve "x <a@b>', "mailto:a@b", "Eve: a@b;", "a@b?cc=c@d",
]  # fmt: skip


@pytest.fixture(scope="module")
async def house(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AskedSends]:
    async with asked_sends(servers, "refused", tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
async def ada(house: AskedSends) -> Writer:
    return await house.writer()


@pytest.fixture(autouse=True)
async def nothing_is_taken_on(ada: Writer) -> AsyncIterator[None]:
    """Whoever sends a mail in this module says so, by taking it from the count."""
    before = await ada.count()
    yield
    assert await ada.count() == before


async def pointers(ada: Writer, **more: Any) -> list[str]:
    """Where a request is wrong."""
    status, body, _ = await ada.send(**more)
    assert (status, body.get("code")) == (400, "invalid_request"), (body, more)
    assert all(fault["message"].endswith(".") for fault in body["errors"])
    return [fault["pointer"] for fault in body["errors"]]


async def all_pointers(ada: Writer, forms: list[tuple[str, dict[str, Any]]]) -> int:
    """Each form is refused at its place, and there only."""
    found = await asyncio.gather(*[pointers(ada, **more) for _, more in forms])
    for (where, more), said in zip(forms, found, strict=True):
        assert set(said) == {where}, (where, more)
    return len(forms)


# ── all at once ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_that_is_wrong_is_told_at_once(ada: Writer) -> None:
    status, body, _ = await ada.house.asked("POST", SEND, ada.key, json={})
    assert status == 400
    assert [fault["pointer"] for fault in body["errors"]] == ["/bodyFormat", "/userId", "/subject", "/body"]
    said = await pointers(
        ada, userId=7, subject=["x"], body={}, bodyFormat="markdown", text=1, to="nobody", cc=[1, {"name": "x"}], bcc={},
        replyTo="x", headers=[], threadId="a b", attachments="x", scheduledAt="2020-01-01T00:00:00Z", callbackUrl="ftp://x",
        providerPreference="aol", connectionId=1, idempotencyKey="\n", sujbect="x", **{"a/b~c": 1},
    )  # fmt: skip
    assert set(said) == {
        "/userId", "/subject", "/body", "/bodyFormat", "/text", "/to", "/cc/0", "/cc/1/email", "/bcc/email", "/replyTo",
        "/headers", "/threadId", "/attachments", "/callbackUrl", "/providerPreference", "/connectionId", "/idempotencyKey",
        "/sujbect", "/a~1b~0c", "/scheduledAt",
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b'{"userId": "a", "userId": "b"}', b'{"subject": "\\ud800"}', b'{"x": NaN}', b"null"],
)
async def test_a_body_that_is_no_plain_object_is_told(ada: Writer, body: bytes) -> None:
    status, said, _ = await ada.house.asked("POST", SEND, ada.key, data=body)
    assert (status, said["code"]) == (400, "invalid_request")


async def test_a_wrong_header_of_the_request_is_told_with_the_rest(ada: Writer) -> None:
    assert set(await pointers(ada, key="x" * 256, subject=1)) == {"/headers/Idempotency-Key", "/subject"}


# ── what is hostile ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_can_be_slipped_into_a_mail(ada: Writer) -> None:
    """Each character that ends something × each field that it could end."""
    forms: list[tuple[str, dict[str, Any]]] = []
    for ends in BREAKS:
        if ends == "\x00":
            continue  # no JSON of ours holds it: the body as a whole is refused
        for text in (f"Tea{ends}{INJECTED}", f"Tea{ends}", f"{ends}{INJECTED}"):
            forms += [
                ("/subject", {"subject": text}),
                ("/to/0", {"to": [{"email": "bob@example.org", "name": text}]}),
                ("/to/0", {"to": [f'"{text}" <bob@example.org>']}),
                ("/cc/0", {"cc": [f"bob@example.org{ends}"]}),
                ("/bcc/0", {"bcc": [{"email": f"bob{ends}@example.org"}]}),
                ("/replyTo/0", {"replyTo": [{"email": "bob@example.org", "name": text}]}),
                ("/headers/X-Note", {"headers": {"X-Note": text}}),
                (f"/headers/X-Note{ends}", {"headers": {f"X-Note{ends}": "x"}}),
                ("/threadId", {"threadId": text}),
                ("/idempotencyKey", {"idempotencyKey": text}),
                ("/callbackUrl", {"callbackUrl": f"https://hooks.example.org/{text}"}),
            ]
    assert await all_pointers(ada, forms) >= 500
    status, body, _ = await ada.send(subject="a\x00b")
    assert (status, body["errors"][0]["pointer"]) == (400, "")


async def test_fields_that_are_not_the_caller_s_are_refused(ada: Writer) -> None:
    forms = [(f"/headers/{name}", {"headers": {name: "x"}}) for name in [*RESERVED, *NO_NAMES]]
    values: list[Any] = ["", " \t", 1, None, ["x"], {"x": "y"}]
    forms += [("/headers/X-A", {"headers": {"X-A": value}}) for value in values]
    forms += [("/headers/x-a", {"headers": {"X-A": "1", "x-a": "2"}})]
    await all_pointers(ada, forms)


async def test_what_is_no_address_is_refused(ada: Writer) -> None:
    forms = [("/to/1", {"to": ["ok@example.org", one]}) for one in NO_ADDRESSES]
    forms += [("/replyTo/0", {"replyTo": [one]}) for one in NO_ADDRESSES[:5]]
    odd: list[Any] = [None, 7, True, [], ["a@b"]]
    forms += [("/to/0", {"to": [one]}) for one in odd]
    forms += [("/to/0/x", {"to": [{"email": "a@b", "x": 1}]}), ("/to/0/email", {"to": [{"email": ["a@b"]}]})]
    await all_pointers(ada, forms)


async def test_a_callback_that_points_inside_is_refused(ada: Writer) -> None:
    """By what can be seen of it; what its name resolves to is decided when it is connected to."""
    hosts = [
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
        "[fd00::1]", "0x7f.1", "2130706433", "0", "127.1", "\u2460\u2461\u2466.0.0.1", "224.0.0.1",
    ]  # fmt: skip
    urls = [f"https://{host}/x" for host in hosts] + [
        "http://hooks.example.org/", "https://hooks.example.org:8443/", "https://user@hooks.example.org/", "file:///etc/passwd",
        "https://", "hooks.example.org", "https://hooks.example.org/#x", "gopher://x/", "https://a b/", "x" * 2049,
    ]  # fmt: skip
    await all_pointers(ada, [("/callbackUrl", {"callbackUrl": url}) for url in urls])
    assert not ada.house.http.services.egress.allow_private


# ── when ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def at(**more: float) -> str:
    return (datetime.now(UTC) + timedelta(**more)).isoformat()


async def test_a_schedule_needs_an_offset_and_a_time_that_can_be_meant(ada: Writer) -> None:
    odd: list[Any] = [
        at(seconds=-62), at(days=366), at(days=3650), "2030-01-01T00:00:00", "2030-01-01", "2030-13-01T00:00:00Z", "tomorrow",
        "2030-01-01T25:00:00Z", 1_900_000_000, "2030-01-01 00:00:00Z", "20300101T000000Z", "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00", "2030-W01-1T00:00:00Z", "", [], "2030-01-01T00:00:00 +01:00",
        "\u0662030-01-01T00:00:00Z",
    ]  # fmt: skip
    await all_pointers(ada, [("/scheduledAt", {"scheduledAt": one}) for one in odd])


async def test_the_edges_of_a_schedule_are_taken(house: AskedSends) -> None:
    bob = await house.writer()
    answers = [await bob.send(scheduledAt=one) for one in (at(seconds=-55), at(days=365, seconds=-5), at(seconds=5))]
    assert [(status, body["status"]) for status, body, _ in answers] == [
        (202, "queued"), (202, "scheduled"), (202, "scheduled"),
    ]  # fmt: skip


# ── how much ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_recipients_are_counted_once_each(house: AskedSends, ada: Writer) -> None:
    hundred = [f"r{number}@example.org" for number in range(MOST_RECIPIENTS)]
    for more in ({"to": []}, {"to": None}, {"to": [], "cc": [], "bcc": []}):
        status, body, _ = await ada.send(**more)
        assert (status, body["code"]) == (422, "no_recipients")
    for more in ({"to": [*hundred, "one@more.example"]}, {"to": hundred, "bcc": "one@more.example"}):
        status, body, _ = await ada.send(**more)
        assert (status, body["code"]) == (422, "too_many_recipients")
    often = ["bob@example.org"] * MOST_NAMED
    status, body, _ = await ada.send(to=often, cc=often[:1])
    assert (status, body["code"]) == (422, "too_many_recipients")
    assert await pointers(ada, to=["x"] * 50_000, replyTo=["x"] * 50_000, subject=1) == ["/subject", "/replyTo"]
    bob = await house.writer()
    assert len((await bob.get(await bob.taken(to=often, scheduledAt=at(hours=1))))["to"]) == 1
    send = await bob.taken(
        to=hundred[:50], cc=[one.replace("example", "EXAMPLE") for one in hundred], bcc=["R0@example.org", *hundred[:3]][1:],
        scheduledAt=at(hours=1),
    )  # fmt: skip
    found = await bob.get(send)
    assert [len(found[name]) for name in ("to", "cc", "bcc")] == [50, 50, 0]
    assert (await bob.get(await bob.taken(to=None, bcc=["R0@example.org", "r0@example.org"])))["bcc"] == [
        {"email": "R0@example.org", "name": None}, {"email": "r0@example.org", "name": None},
    ]  # fmt: skip


async def test_a_body_that_is_long_to_read_holds_up_nobody(house: AskedSends, ada: Writer) -> None:
    """Its plain text takes most of a second, and is made where a size is refused as well."""
    html, loop = "<ol><li>a" * 110_000, asyncio.get_running_loop()
    began = loop.time()
    assert len(text_of(html)) > len(html)
    alone, longest = loop.time() - began, 0.0
    asked = asyncio.ensure_future(ada.send(body=html, bodyFormat="html", attachments=["att_" + "0" * 26]))
    before = loop.time()
    while not asked.done():
        await asyncio.sleep(0.005)
        longest, before = max(longest, loop.time() - before), loop.time()
    assert (await asked)[0] == 400
    assert longest < alone / 2


async def test_eleven_attachments_are_too_many_and_ten_too_large_ones_as_well(house: AskedSends, ada: Writer) -> None:
    names = [f"att_{number:026}" for number in range(11)]
    status, body, _ = await ada.send(attachments=names)
    assert (status, body["code"]) == (400, "too_many_attachments")
    assert await pointers(ada, attachments=[*names[:10], names[0]]) == [
        f"/attachments/{number}" for number in range(10)
    ]
    assert await pointers(ada, attachments=[1, {}, {"id": 1}, {"id": "a", "x": 1}, None]) == [
        f"/attachments/{number}" for number in range(5)
    ]
    # Files of any size, as rows: their bytes are not looked at before the mail goes out.
    bob = await house.writer()
    one = await bob.upload()
    pool = house.http.services.pool
    await pool.execute("update attachments set size = $2 where attachment = $1", one, MOST_ENCODED["gmail"])
    status, body, _ = await bob.send(attachments=[one])
    assert (status, body["code"], body["most"]) == (413, "message_too_large", MOST_ENCODED["gmail"])
    excess = body["size"] - MOST_ENCODED["gmail"]
    fits = MOST_ENCODED["gmail"] - excess * 57 // 78 - 57
    await pool.execute("update attachments set size = $2 where attachment = $1", one, fits)
    while True:
        status, body, _ = await bob.send(attachments=[one], scheduledAt=at(hours=1))
        if status != 202:
            break
        fits += 57
        await pool.execute("update attachments set size = $2 where attachment = $1", one, fits)
    assert (status, body["code"]) == (413, "message_too_large")
    assert MOST_ENCODED["gmail"] < body["size"] <= MOST_ENCODED["gmail"] + 78


async def test_each_bound_holds_to_the_character(house: AskedSends, ada: Writer) -> None:
    bob = await house.writer()
    most: dict[str, Any] = {
        "subject": "x" * SUBJECT_CHARACTERS,
        "headers": {f"X-{number}": "y" * HEADER_CHARACTERS for number in range(MOST_HEADERS)},
        "to": [{"email": "a@b", "name": "\u00fc" * NAME_CHARACTERS}],
        "replyTo": [f"r{number}@b" for number in range(MOST_REPLY_TO)],
        "threadId": "t" * 512,
        "idempotencyKey": "k" * 255,
    }
    assert (await bob.send(**most))[0] == 202
    forms: list[tuple[str, dict[str, Any]]] = [
        ("/subject", {"subject": most["subject"] + "x"}),
        ("/headers", {"headers": most["headers"] | {"X-50": "y"}}),
        ("/headers/X-0", {"headers": {"X-0": "y" * (HEADER_CHARACTERS + 1)}}),
        ("/to/0", {"to": [{"email": "a@b", "name": "x" * (NAME_CHARACTERS + 1)}]}),
        ("/replyTo", {"replyTo": [*most["replyTo"], "one@more"]}),
        ("/threadId", {"threadId": "t" * 513}),
        ("/idempotencyKey", {"idempotencyKey": "k" * 256}),
        ("/text", {"text": "x", "bodyFormat": "text"}),
    ]
    await all_pointers(ada, forms)


async def test_a_body_of_a_mebibyte_is_taken_and_one_byte_more_is_not(house: AskedSends, ada: Writer) -> None:
    bob = await house.writer()
    usual = bob.mail(scheduledAt=at(hours=1), body="")
    exact = orjson.dumps(usual | {"body": "x" * (BODY_BYTES - len(orjson.dumps(usual)))})
    assert len(exact) == BODY_BYTES
    assert (await house.asked("POST", SEND, bob.key, data=exact))[0] == 202
    status, body, _ = await house.asked("POST", SEND, bob.key, data=exact + b" ")
    assert (status, body["code"]) == (413, "too_large")
    assert (await ada.house.asked("POST", SEND, ada.key, data=exact))[0] == 404


async def test_a_name_is_what_it_says_however_odd(house: AskedSends) -> None:
    bob = await house.writer()
    send = await bob.taken(
        to=['"Eve, \\"the\\" <x@y>" <eve@example.org>', "Zoë Ångström <zoë@bücher.example>", " <plain@example.org> "],
        cc=[{"email": "a@b.example", "name": "=?utf-8?q?Bcc=3A?= \u202e, x@y"}],
        subject="=?utf-8?q?x=0D=0ABcc:_eve@evil.example?=",
    )
    found = await bob.becomes(send, "sent")
    assert [(one["email"], one["name"]) for one in (*found["to"], *found["cc"])] == [
        ("eve@example.org", 'Eve, "the" <x@y>'),
        ("zoë@bücher.example", "Zoë Ångström"),
        ("plain@example.org", None),
        ("a@b.example", "=?utf-8?q?Bcc=3A?= \u202e, x@y"),
    ]
    (mail,) = [one for one in await house.gmail.mails() if one.id == found["providerMessageId"]]
    assert sorted(mail.recipients) == [
        "a@b.example",
        "eve@example.org",
        "plain@example.org",
        "zoë@xn--bcher-kva.example",
    ]


async def test_without_the_right_to_send_nothing_is_looked_at(house: AskedSends, ada: Writer) -> None:
    reading = await house.http.key(ada.person.account, "sends:read")
    assert (await house.asked("POST", SEND, reading, json={}))[1]["code"] == "scope_missing"
    assert (await house.asked("POST", SEND, None, json={}))[0] == 401
    assert (await house.asked("GET", "/v1/messages", reading))[0] == 200
    writing = await house.http.key(ada.person.account, "sends:write")
    assert (await house.asked("GET", "/v1/messages", writing))[0] == 200
    box = await house.http.mailbox()
    assert (await house.asked("POST", SEND, box, json={}))[1]["code"] == "api_key_required"


async def test_where_nothing_can_be_promised_nothing_is(house: AskedSends, ada: Writer) -> None:
    """A store of blobs that is away, for a mail that needs it."""

    class Away:
        async def put(self, *_: Any) -> None:
            raise OSError("no space")

    away: Any = Away()
    services = replace(house.http.services, blobs=away, metrics=CollectorRegistry())
    async with served(services) as url:
        large = ada.mail(body="x" * 300_000)
        status, body, headers = await house.asked("POST", SEND, ada.key, url=url, json=large)
    assert (status, body["code"]) == (503, "unavailable")
    assert headers["Retry-After"]


async def test_a_user_s_sends_a_minute_are_counted_over_all_processes(house: AskedSends) -> None:
    ada = await house.writer()
    services = ada.house.http.services
    more = {"rates_on": True, "send_limit": Limit("sends", 3, 60)}
    async with (
        served(replace(services, metrics=CollectorRegistry(), **more)) as one,
        served(replace(services, metrics=CollectorRegistry(), **more)) as other,
    ):
        said = [
            await ada.house.asked("POST", SEND, ada.key, url=url, json=ada.mail(scheduledAt=at(hours=1)))
            for url in (one, other, one, other)
        ]
        assert [status for status, _, _ in said] == [202, 202, 202, 429]
        assert [headers["RateLimit"].split(";t")[0] for _, _, headers in said] == [
            f'"sends";r={left}' for left in (2, 1, 0, 0)
        ]
        assert 0 < int(said[3][2]["Retry-After"]) <= 60
        assert (await ada.house.asked("GET", "/v1/messages", ada.key, url=one))[0] == 200
    assert await ada.count() == 3


async def test_no_blob_is_left_of_what_was_refused(house: AskedSends) -> None:
    ada = await house.writer(connected=False)
    status, body, _ = await ada.send(body="x" * (MOST_IN_EVENT + 1))
    assert (status, body["code"]) == (400, "no_active_connection")
    assert not [name for name in house.http.house.blobs.names() if name.startswith(ada.id)]
