"""Sending through Outlook, against the double of Graph: what arrives, and that it does so once, whoever dies when."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from domain.delivery import (
    Accepted,
    Deferred,
    InDoubt,
    NotProven,
    ProvenAbsent,
    ProvenSent,
    Refused,
    TokenRefused,
)
from domain.outgoing import MARKER, Mailbox, OutgoingFile, Traces
from domain.tokens import Secrets
from gateways.providers.graph_drafts import MIME_BYTES, PIECE_BYTES, SESSION_BYTES
from tests.gateways.providers.graph_house import SECONDS, Outlook, mail_of, outlook_at
from tests.gateways.providers.sending_contract import TRACES, Recorder, Refuses, SendingContract
from tests.support.graph.caller import ALICE, TOKENS
from tests.support.graph.double import GraphFake
from tests.support.waiting import until


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[GraphFake]:
    async with GraphFake(TOKENS, mailsPerMinute=10_000, sentLag=0.0) as graph:
        yield graph


@pytest.fixture
async def outlook(running: GraphFake) -> AsyncIterator[Outlook]:
    await running.reset()
    async with outlook_at(running) as outlook:
        yield outlook


class TestOutlook(SendingContract):
    """The contract, where Graph shows at once what it has sent; the tests that are about the lag say so."""

    @pytest.fixture
    async def sending(self, running: GraphFake) -> AsyncIterator[Outlook]:
        await running.reset()
        async with outlook_at(running, seconds=SECONDS) as outlook:
            yield outlook


# ── what arrives ──────────────────────────────────────────────────────────────────────────────────────────────────────


def of_size(size: int, name: str = "a.bin") -> OutgoingFile:
    return OutgoingFile(name, "application/x-bin", hashlib.shake_256(name.encode()).digest(size))


PLAIN: dict[str, Any] = {"html": None}
THREAD: dict[str, Any] = {"headers": {"References": "<a@b.test> <c@d.test>", "In-Reply-To": "<c@d.test>"}}
FOUR, FIVE = ({"headers": {f"X-Own-{number}": str(number) for number in range(most)}} for most in (4, 5))
SESSION = "attachments.createUploadSession"
#: What is said of a mail, the bytes of its files, and the calls that these take.
WAYS: list[tuple[str, dict[str, Any], list[int], dict[str, int]]] = [
    ("bytes", FOUR, [3], {}),
    ("bytes without a file", PLAIN, [], {}),
    ("properties", FOUR, [2_200_000], {"attachments.create": 1}),
    ("properties of a text", PLAIN, [SESSION_BYTES - 1, 1], {"attachments.create": 2}),
    ("the smallest session", {}, [SESSION_BYTES], {SESSION: 1, "upload.put": 1}),
    ("one piece", {}, [PIECE_BYTES], {SESSION: 1, "upload.put": 1}),
    ("a byte more", {}, [PIECE_BYTES + 1, 7], {SESSION: 1, "upload.put": 2, "attachments.create": 1}),
    ("a conversation", THREAD, [SESSION_BYTES, 9], {SESSION: 1, "upload.put": 1, "attachments.create": 1}),
    ("many headers", FIVE, [SESSION_BYTES], {SESSION: 1, "upload.put": 1}),
]


@pytest.mark.parametrize(("changes", "sizes", "calls"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])
async def test_all_of_a_mail_arrives(
    outlook: Outlook, changes: dict[str, Any], sizes: list[int], calls: dict[str, int]
) -> None:
    files = [of_size(size, f"file ü {number}.bin") for number, size in enumerate(sizes)]
    mail, notes = mail_of(attachments=files, reply_to=[Mailbox("desk@people.test")], **changes), Recorder()
    answer = await outlook.send(notes, mail)
    assert isinstance(answer, Accepted), answer
    (receipt,) = outlook.double.receipts()
    assert answer.provider_message_id == notes.traces.draft == receipt["id"]
    assert answer.thread_id
    assert receipt["internetMessageId"] == mail.message_id
    assert receipt["from"] == ALICE
    assert receipt["to"] + receipt["cc"] + receipt["bcc"] == [one.address for one in mail.recipients]
    assert receipt["replyTo"] == ["desk@people.test"]
    assert receipt["subject"] == mail.subject
    headers = dict(receipt["headers"])
    assert {MARKER: mail.marker, **mail.headers}.items() <= headers.items()
    assert "Bcc" not in headers
    told = [(one["name"], one["size"], one["sha256"]) for one in receipt["attachments"]]
    assert told == [(one.name, len(one.content), hashlib.sha256(one.content).hexdigest()) for one in files]
    assert await outlook.counts() == calls | {"messages.create": 1, "messages.send": 1}
    assert await outlook.look(notes.traces) == ProvenSent(answer.provider_message_id, answer.thread_id)


async def test_the_size_of_the_whole_mail_says_which_way(outlook: Outlook) -> None:
    """On either side of the limit no request is too large for Graph; base64 in lines of MIME is 78 bytes for 57."""
    about = MIME_BYTES * 57 // 78
    for size, attached in ((about - 2000, 0), (about, 1)):
        assert isinstance(await outlook.send(Recorder(), mail_of(attachments=[of_size(size)])), Accepted)
        assert (await outlook.counts()).get("attachments.create", 0) == attached


async def test_a_text_that_graph_says_back_at_length(outlook: Outlook) -> None:
    """Both ways: its answers are several times as long as a mail may be."""
    text = '"é\x01\n' * 220_000
    for files in ([], [of_size(SESSION_BYTES)]):
        assert isinstance(await outlook.send(Recorder(), mail_of(text=text, html=text, attachments=files)), Accepted)


async def test_a_mail_that_is_not_taken(outlook: Outlook) -> None:
    await outlook.double.set(messageBytes=3 << 20)
    large = mail_of(attachments=[of_size(SESSION_BYTES)])
    huge = mail_of(text="x" * (MIME_BYTES + 1), headers={"References": "<a@b.test>"})
    torn = mail_of(headers={"X-A": "a\r\nBcc: eve@people.test"})
    foreign = replace(mail_of(), sender=Mailbox("bob@outlook.test"))
    for mail, code in (
        (large, "message_too_large"),
        (huge, "message_too_large"),
        (torn, "message_refused"),
        (foreign, "not_allowed"),
    ):
        answer = await outlook.send(Recorder(), mail)
        assert isinstance(answer, Refused)
        assert answer.code == code
    assert outlook.sent() == []


async def test_without_the_scopes_nothing_is_called(outlook: Outlook) -> None:
    drafted = replace(TRACES, draft="a draft of before")
    for scopes, traces in (([], TRACES), (["Mail.ReadWrite"], TRACES), (["Mail.Send"], drafted)):
        access = replace(outlook.access(), scopes=scopes)
        assert await outlook.sender.send(mail_of(), access, traces, Recorder()) == Refused("scope_missing")
    assert await outlook.counts() == {}


async def test_a_token_that_ends_under_way(outlook: Outlook) -> None:
    notes = Recorder()
    await outlook.double.fail("messages.send", status=401)
    assert await outlook.send(notes) == TokenRefused()
    assert await outlook.sender.look(notes.traces, outlook.access(good=False), last=True) == TokenRefused()
    none = replace(outlook.access(), secrets=Secrets())
    assert await outlook.sender.send(mail_of(), none, notes.traces, Recorder(notes.traces)) == TokenRefused()
    assert isinstance(await outlook.once_more(notes), Accepted)
    assert len(outlook.sent()) == 1


# ── files in pieces ───────────────────────────────────────────────────────────────────────────────────────────────────


NO_ADDRESS: list[object] = [None, 7, "", "ftp://127.0.0.1/a", "http://user@127.0.0.1/a", "http://127.0.0.1:1/a#b"]
#: Of networks of one's own, and without TLS: only where the operator allows both.
PRIVATE = ["http://outlook.office.com/a", "https://10.0.0.1/a", "https://outlook.office.com:8443/a"]


async def test_an_address_for_pieces_that_is_none_is_not_called(running: GraphFake) -> None:
    mail = mail_of(attachments=[of_size(SESSION_BYTES)])
    await running.reset()
    for private, addresses in ((True, NO_ADDRESS), (False, [*NO_ADDRESS, *PRIVATE])):
        async with outlook_at(running, private=private) as outlook:
            for address in addresses:
                await running.fail(SESSION, status=201, body={"uploadUrl": address})
                assert await outlook.send(Recorder(), mail) == Deferred("answer_unreadable"), address
            assert uploads(outlook) == {}
    assert outlook.sent() == []


async def test_a_name_for_pieces_that_is_of_this_machine_is_not_connected_to(running: GraphFake) -> None:
    await running.reset()
    async with outlook_at(running, private=False) as outlook:
        await running.fail(SESSION, status=201, body={"uploadUrl": "https://localhost/a"})
        answer = await outlook.send(Recorder(), mail_of(attachments=[of_size(SESSION_BYTES)]))
        assert answer == Deferred("unreachable")
        assert uploads(outlook) == {"refused": 1}


def uploads(outlook: Outlook) -> dict[str, float]:
    """Calls with pieces, by how they ended."""
    samples = [one for metric in outlook.registry.collect() for one in metric.samples]
    return {
        one.labels["outcome"]: one.value
        for one in samples
        if one.name == "postledger_provider_calls_total" and one.labels["operation"] == "upload"
    }


#: What happens to a piece: 401 is of the session, and no word on the mailbox's token.
PIECES: list[tuple[dict[str, Any], Deferred]] = [
    ({"status": 401}, Deferred("temporarily_refused")),
    ({"status": 403}, Deferred("temporarily_refused")),
    ({"status": 404}, Deferred("temporarily_refused")),
    ({"status": 416, "body": ""}, Deferred("server_error")),
    ({"status": 429, "retryAfter": 5}, Deferred("rate_limited", 5, counted=False)),
    ({"status": 200, "body": {"nextExpectedRanges": ["0"]}}, Deferred("answer_unreadable")),
    # aiohttp repeats a PUT once where a kept connection ends under it, which sends nothing.
    ({"drop": "before", "times": 2}, Deferred("unreachable")),
    ({"status": 302, "headers": {"Location": "/elsewhere"}}, Deferred("answer_unreadable")),
]


async def test_a_draft_without_all_its_files_is_neither_noted_nor_sent(outlook: Outlook) -> None:
    mail = mail_of(attachments=[of_size(SESSION_BYTES), of_size(9)])
    for fault, deferred in PIECES:
        notes = Recorder()
        await outlook.double.fail("upload.put", **fault)
        answer = await outlook.send(notes, mail)
        assert isinstance(answer, Deferred)
        assert (replace(answer, said=None), notes.order) == (deferred, []), fault
    await outlook.double.fail("attachments.create", status=404)
    assert isinstance(await outlook.send(Recorder(), mail), Deferred)
    assert outlook.sent() == []


# ── whoever dies when ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_draft_that_nobody_noted_is_taken_up_where_it_is_whole(outlook: Outlook) -> None:
    quoted = "<it's-1+a&b=c@postledger.test>"
    mail = mail_of(message_id=quoted, attachments=[of_size(9, "a"), of_size(2_300_000, "b")])
    again = Traces(quoted, mail.marker, earlier=True)
    await outlook.double.fail("attachments.create", skip=1, status=503)
    assert isinstance(await outlook.send(Recorder(replace(again, earlier=False)), mail), Deferred)
    for _ in range(2):
        with pytest.raises(Refuses):
            await outlook.send(Recorder(again, refuses=True), mail)
    assert [one["internetMessageId"] for one in await outlook.boxed()] == [quoted] * 2
    assert isinstance(await outlook.send(Recorder(again), mail), Accepted)
    (receipt,) = outlook.double.receipts()
    assert len(receipt["attachments"]) == 2
    assert (await outlook.counts())["messages.create"] == 2


async def test_a_worker_that_is_cut_off_anywhere_sends_once(outlook: Outlook) -> None:
    """Its task ends within each call in turn; another goes on with what is on record, and a look comes in between."""
    mail = mail_of(attachments=[of_size(9, "a"), of_size(SESSION_BYTES, "b")])
    for operation in ("messages.create", "attachments.create", SESSION, "upload.put", "messages.send"):
        for moment in ("delay", "delayAfter"):
            await outlook.double.reset()
            await outlook.double.fail(operation, **{moment: 30})
            goes_out = operation == "messages.send" and moment == "delayAfter"
            notes = Recorder()
            worker = asyncio.create_task(outlook.send(notes, mail))
            await until(partial(under_way, outlook, operation, int(goes_out)))
            worker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await worker
            noted = notes.traces.draft is not None
            assert noted == (operation == "messages.send")
            found = await outlook.look(notes.traces)
            assert isinstance(found, ProvenSent if goes_out else ProvenAbsent if noted else NotProven), found
            assert isinstance(await outlook.send(Recorder(replace(notes.traces, earlier=True)), mail), Accepted)
            (receipt,) = outlook.double.receipts()
            assert len(receipt["attachments"]) == 2


async def under_way(outlook: Outlook, operation: str, mails: int) -> bool:
    return operation in (await outlook.double.told())["injected"] and len(outlook.sent()) == mails


# ── on its way ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shown", ["outbox", "missing"])
async def test_a_mail_on_its_way_is_neither_sent_nor_a_draft(outlook: Outlook, shown: str) -> None:
    await outlook.double.set(sentLag=60, lagShows=shown)
    await outlook.fail("cut after")
    notes = Recorder()
    assert isinstance(await outlook.send(notes), InDoubt)
    assert await outlook.look(notes.traces) == NotProven("nothing_found")
    assert await outlook.once_more(notes) == InDoubt("draft_gone")
    assert (await outlook.counts())["messages.send"] == 1
    assert len(outlook.sent()) == 1


async def test_a_draft_that_its_owner_has_moved_or_deleted_is_not_sent_and_not_replaced(outlook: Outlook) -> None:
    notes = Recorder()
    await outlook.double.fail("messages.send", status=429)
    await outlook.send(notes)
    draft = str(notes.traces.draft)
    headers = {"Authorization": "Bearer alice", "Prefer": 'IdType="ImmutableId"'}
    http = outlook.double._http
    assert http is not None
    for method, below, words in (("POST", "/move", {"DestinationId": "deleteditems"}), ("DELETE", "", {})):
        path = f"/v1.0/me/messages/{draft}{below}"
        async with http.request(method, path, json=words, headers=headers) as told:
            assert told.status in {201, 204}
        assert await outlook.look(notes.traces) == NotProven("nothing_found")
        assert await outlook.once_more(notes) == InDoubt("draft_gone")
    assert outlook.sent() == []
    assert (await outlook.counts())["messages.create"] == 1


async def test_a_draft_that_goes_while_it_is_sent(outlook: Outlook) -> None:
    """Graph has it no more, and Sent Items says whether it went out."""
    notes = Recorder()
    await outlook.double.fail("messages.send", status=404, when="after")
    answer = await outlook.send(notes)
    assert answer == Accepted(notes.traces.draft, (await outlook.proven(notes.traces)).thread_id)
    await outlook.double.fail("messages.get", status=404)
    assert await outlook.proven(notes.traces) == ProvenSent(notes.traces.draft, answer.thread_id)
    assert len(outlook.sent()) == 1


@pytest.mark.parametrize("by", ["drop", "504"])
async def test_a_graph_that_loses_answers_sends_every_mail_once(outlook: Outlook, by: str) -> None:
    """Half of all answers are lost, and copies come late; who looks until it is proven, and repeats what is proven absent,
    has sent each mail once."""
    await outlook.double.set(lostAnswers=0.5, lostBy=by, sentLag=0.2)
    lost = 0

    async def through(number: int) -> None:
        nonlocal lost
        traces = replace(TRACES, message_id=f"<it's-{number}+a&b=c@postledger.test>")
        mail, notes = mail_of(message_id=traces.message_id), Recorder(traces)
        await outlook.double.fail("messages.send", status=503, skip=3)
        for _ in range(20):
            answer = await outlook.send(notes, mail)
            if isinstance(answer, Accepted):
                return
            if isinstance(answer, InDoubt):
                lost += 1
                found = await outlook.look(notes.traces)
                if isinstance(found, NotProven):
                    await outlook.proven(notes.traces)
            notes = Recorder(replace(notes.traces, earlier=True))
        raise AssertionError(answer)

    for four in range(0, 20, 4):
        await asyncio.gather(*(through(number) for number in range(four, four + 4)))
    ids = [one.message_id for one in outlook.sent()]
    assert sorted(ids) == sorted(f"<it's-{number}+a&b=c@postledger.test>" for number in range(20))
    assert lost > 5
