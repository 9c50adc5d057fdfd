"""SMTP as honest clients speak it, and what they hear when we can't keep our part."""

import asyncio
import smtplib
import ssl
from collections import Counter

import pytest

from gateways.mail_in.smtp import SmtpServer
from gateways.mail_in.smtp_limits import Limits
from tests.support.smtp_probe import Probe, RecordingDoor

LETTER = b"Subject: hello\r\n\r\nworld"


class Tally:
    """Counts in a Counter."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def connection(self, admission: str) -> None:
        self.seen[admission] += 1

    def ended(self, ending: str) -> None:
        self.seen[ending] += 1

    def mail(self, outcome: str, size: int) -> None:
        self.seen[outcome] += 1


@pytest.fixture
def door() -> RecordingDoor:
    return RecordingDoor()


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
async def server(door, tally):
    async with SmtpServer(
        door, hostname="mx.test", counts=tally, limits=Limits(connections_per_client=None)
    ) as running:
        yield running


def by_smtplib(port: int, *, tls: bool) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example") as client:
        if tls:
            client.starttls(context=context)
            client.ehlo()
            assert not client.has_extn("starttls")
        client.sendmail("ada@example.org", ["Known.One@in.example", "stranger@in.example"], "Subject: a\n\n.dot\nend\n")
        options = ["SMTPUTF8", "BODY=8BITMIME"]
        client.sendmail("ädä@example.org", ["known-ü@in.example"], "Subject: ü\r\n\r\n".encode(), mail_options=options)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "starttls"])
async def test_smtplib_delivers_each_mail_once_with_what_was_said_around_it(server, door, tls):
    await asyncio.to_thread(by_smtplib, server.port, tls=tls)
    first, second = door.kept
    assert first.text == b"Subject: a\r\n\r\n.dot\r\nend\r\n"
    (said,) = first.envelopes
    assert (said.sender, said.recipient, said.helo) == ("ada@example.org", "Known.One@in.example", "client.example")
    assert (said.client, said.tls, said.via) == ("127.0.0.1", tls, "smtp")
    assert second.envelopes[0].recipient == "known-ü@in.example"
    assert second.text == "Subject: ü\r\n\r\n".encode()


async def test_ehlo_offers_what_the_server_can_do(server):
    async with await Probe.connect(server.port) as client:
        assert await client.reply() == "220 mx.test ESMTP Postledger"
        offered = (await client.ask("EHLO x")).split("\n")
        assert [line[4:] for line in offered] == [
            "mx.test", "SIZE 26214400", "8BITMIME", "SMTPUTF8", "PIPELINING", "STARTTLS", "ENHANCEDSTATUSCODES", "HELP",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        (["VRFY known@in.example"], "252 2.5.0"), (["VRFY"], "501 5.5.4"), (["EXPN list"], "502 5.5.1"),
        (["HELP"], "214 2.0.0"), (["NOOP anything"], "250 2.0.0"), (["noop"], "250 2.0.0"), (["RSET"], "250 2.0.0"),
        (["AUTH PLAIN AGEAYg=="], "502 5.5.1"), (["BDAT 5"], "500 5.5.1"), ([""], "500 5.5.1"), (["QUIT"], "221 2.0.0"),
        (["RCPT TO:<known@in.example>"], "503 5.5.1"), (["DATA"], "503 5.5.1"), (["MAIL FROM:ada@example.org"], "501 5.5.4"),
        (["MAIL FROM:<>", "DATA"], "503 5.5.1"), (["MAIL FROM:<>", "MAIL FROM:<>"], "503 5.5.1"), (["EHLO"], "501 5.5.4"),
        (["MAIL FROM:<> SIZE=26214400"], "250 2.1.0"), (["MAIL FROM:<> SIZE=26214401"], "552 5.3.4"),
        (["MAIL FROM:<> SIZE=-1"], "501 5.5.4"), (["MAIL FROM:<> BODY=BINARYMIME"], "501 5.5.4"),
        (["MAIL FROM:<> RET=HDRS"], "555 5.5.4"), (["MAIL FROM:<>", "RCPT TO:<known@in.example> NOTIFY=NEVER"], "555 5.5.4"),
        (["MAIL FROM:<>", "RCPT TO:<>"], "553 5.1.3"), (["MAIL FROM:<>", "RCPT TO:<PostMaster>"], "250 2.1.5"),
        (["MAIL FROM:<SRS0=" + "a" * 1_900 + "@example.org>"], "250 2.1.0"),
        (["MAIL FROM:<>", "RCPT TO:<" + "a" * 65 + "@in.example>"], "553 5.1.3"),
        (["MAIL FROM:<ä@example.org>"], "553 5.6.7"), (["HELO x", "MAIL FROM:<> SIZE=1"], "555 5.5.4"),
        (["MAIL FROM:<>", "RCPT TO:<known\x01@in.example>"], "500 5.5.2"), (["MAIL FROM:<a\rb@example.org>"], "500 5.5.2"),
    ],
)  # fmt: skip
async def test_each_command_has_its_reply(server, commands, code):
    async with await Probe.greeted(server.port) as client:
        *_, last = [await client.ask(command) for command in commands]
        assert last.startswith(code)


async def test_bytes_that_are_no_utf8_are_refused(server):
    async with await Probe.greeted(server.port) as client:
        await client.send(b"MAIL FROM:<\xff@example.org>\r\n")
        assert (await client.reply()).startswith("500 5.5.2")


async def test_mail_needs_a_greeting_first(server):
    async with await Probe.connect(server.port) as client:
        await client.reply()
        assert (await client.ask("MAIL FROM:<ada@example.org>")).startswith("503 5.5.1")


async def test_pipelined_commands_are_answered_in_order_and_looked_up_in_order(server, door):
    names = [f"known{n}@in.example" for n in range(50)]
    commands = ["MAIL FROM:<>", *(f"RCPT TO:<{name}>" for name in names), "RCPT TO:<broken>", "DATA"]
    async with await Probe.greeted(server.port) as client:
        await client.send("".join(f"{command}\r\n" for command in commands).encode())
        replies = [await client.reply() for _ in commands]
        assert [reply[:3] for reply in replies] == ["250"] * 51 + ["553", "354"]
        # RFC 2920 3.1: the mail itself may be the first of the next group.
        await client.send(LETTER + b"\r\n.\r\nNOOP\r\nQUIT\r\n")
        assert [(await client.reply())[:3] for _ in range(3)] == ["250", "250", "221"]
    assert door.found == names
    assert [said.recipient for said in door.kept[0].envelopes] == names


async def test_strangers_hear_what_everybody_hears_and_nothing_is_kept(server, door, tally):
    async with await Probe.greeted(server.port) as client:
        reply = await client.mail(LETTER, "stranger@in.example", "root@elsewhere.example")
        assert reply == await client.mail(LETTER, "known@in.example")
    assert [mail.mailboxes for mail in door.kept] == [["mbx_known@in.example"]]
    assert (tally.seen["dropped"], tally.seen["kept"]) == (1, 1)


async def test_a_mailbox_that_is_named_often_gets_the_mail_once(server, door):
    async with await Probe.greeted(server.port) as client:
        names = ["known@in.example", "KNOWN@in.example", *["Known@In.example"] * 97, "known2@in.example"]
        assert (await client.mail(LETTER, *names)).startswith("250")
    assert [mail.mailboxes for mail in door.kept] == [["mbx_known@in.example", "mbx_known2@in.example"]]


async def test_a_hundred_recipients_are_taken_and_all_others_are_put_off(server, door):
    async with await Probe.greeted(server.port) as client:
        await client.ask("MAIL FROM:<>")
        await client.send(b"".join(b"RCPT TO:<known%d@in.example>\r\n" % n for n in range(10_000)))
        codes = Counter([(await client.reply())[:9] for _ in range(10_000)])
        assert codes == {"250 2.1.5": 100, "452 4.5.3": 9_900}
        assert (await client.ask("DATA")).startswith("354")
        await client.send(LETTER + b"\r\n.\r\n")
        assert (await client.reply()).startswith("250")
    assert len(door.found) == 100
    assert [len(mail.envelopes) for mail in door.kept] == [100]


async def test_one_bad_recipient_among_good_ones_spoils_only_itself(server, door):
    async with await Probe.greeted(server.port) as client:
        await client.ask("MAIL FROM:<>")
        replies = [await client.ask(f"RCPT TO:<{name}>") for name in ["known1@in.example", "bad", "known2@in.example"]]
        assert [reply[:3] for reply in replies] == ["250", "553", "250"]
        await client.ask("DATA")
        await client.send(LETTER + b"\r\n.\r\n")
        assert (await client.reply()).startswith("250")
    assert len(door.kept[0].envelopes) == 2


async def test_what_cannot_be_looked_up_or_kept_now_is_put_off_with_its_sentence(server, door, tally):
    async with await Probe.greeted(server.port) as client:
        await client.envelope()
        door.unavailable("The log is behind.\r\n250 OK")
        await client.send(LETTER + b"\r\n.\r\n")
        assert await client.reply() == "451 4.3.0 The log is behind.  250 OK"
        await client.ask("MAIL FROM:<>")
        assert (await client.ask("RCPT TO:<known@in.example>")).startswith("451 4.3.0 The log is behind.")
        door.find_fails = door.deliver_fails = None
        await client.ask("RSET")
        assert (await client.mail(LETTER)).startswith("250")
    assert (tally.seen["deferred"], tally.seen["kept"]) == (1, 1)


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionResetError, OSError, ValueError])
async def test_a_fault_of_ours_is_451_with_a_fixed_text_and_its_own_text_goes_nowhere(server, door, caplog, kind):
    async with await Probe.greeted(server.port) as client:
        await client.envelope()
        door.find_fails = door.deliver_fails = kind("password=canary known@in.example")
        await client.send(LETTER + b"\r\n.\r\n")
        late = await client.reply()
        await client.ask("MAIL FROM:<>")
        early = await client.ask("RCPT TO:<known@in.example>")
        assert {late, early} == {"451 4.3.0 Temporary failure on our side, please try again"}
        assert (await client.ask("NOOP")).startswith("250")
    assert "canary" not in caplog.text
    assert "known@" not in caplog.text
    assert f"failed with {kind.__name__} at " in caplog.text


@pytest.mark.parametrize("away", ["half-close", "close", "reset"])
async def test_a_client_that_goes_after_the_final_dot_leaves_a_whole_mail(server, door, away):
    door.may_deliver.clear()
    client = await Probe.greeted(server.port)
    await client.envelope()
    await client.send(LETTER + b"\r\n.\r\n")
    await door.delivering.wait()
    if away == "half-close":
        client.half_close()
    elif away == "close":
        await client.close()
    else:
        client.reset()
    async with asyncio.timeout(5):
        while away == "reset" and server.connections:
            await asyncio.sleep(0)
    door.may_deliver.set()
    if away == "half-close":
        assert (await client.reply()).startswith("250 ")
        await client.close()
    await server.stop()
    assert [mail.text for mail in door.kept] == [LETTER + b"\r\n"]


@pytest.mark.parametrize("away", ["close", "reset"])
async def test_a_client_that_goes_at_the_final_dot_leaves_a_whole_mail_or_none(server, door, away):
    for _ in range(50):
        client = await Probe.greeted(server.port)
        await client.envelope()
        client.writer.write(LETTER + b"\r\n.\r\n")
        client.reset() if away == "reset" else await client.close()
    await server.stop()
    assert {mail.text for mail in door.kept} <= {LETTER + b"\r\n"}
    assert len(door.kept) <= 50
    assert away == "reset" or len(door.kept) == 50


async def test_half_a_mail_is_no_mail(server, door, tally):
    client = await Probe.greeted(server.port)
    await client.envelope()
    await client.send(LETTER + b"\r\n.")
    await client.close()
    await server.stop()
    assert door.kept == []
    assert tally.seen["lost"] == 1


@pytest.mark.parametrize(("hops", "code"), [(49, "250"), (50, "250"), (51, "554 5.4.6"), (101, "554 5.4.6")])
async def test_a_mail_that_goes_round_in_circles_is_stopped(server, door, hops, code):
    async with await Probe.greeted(server.port) as client:
        assert (await client.mail(b"Received: from a by b\r\n" * hops + LETTER)).startswith(code)
    assert len(door.kept) == (code == "250")


async def test_stopping_says_421_to_the_idle_and_lets_a_mail_in_hand_be_finished(server, door, tally):
    door.may_deliver.clear()
    idle, reading, keeping = [await Probe.greeted(server.port) for _ in range(3)]
    await reading.envelope()
    await keeping.envelope()
    await keeping.send(LETTER + b"\r\n.\r\n")
    await door.delivering.wait()
    stopping = asyncio.create_task(server.stop(grace=10))
    assert (await idle.reply()).startswith("421 4.3.2")
    door.may_deliver.set()
    await reading.send(LETTER + b"\r\n.\r\n")
    for client in (reading, keeping):
        assert [(await client.reply())[:9] for _ in range(2)] == ["250 2.0.0", "421 4.3.2"]
        await client.close()
    await idle.close()
    await stopping
    assert len(door.kept) == 2
    assert tally.seen["stopping"] == 3


async def test_after_the_grace_a_mail_that_has_not_arrived_is_cut_and_one_being_kept_is_kept(server, door):
    door.may_deliver.clear()
    reading, keeping = [await Probe.greeted(server.port) for _ in range(2)]
    await reading.envelope()
    await reading.send(b"half")
    await keeping.envelope()
    await keeping.send(LETTER + b"\r\n.\r\n")
    await door.delivering.wait()
    stopping = asyncio.create_task(server.stop(grace=0.05))
    assert await reading.rest() == await keeping.rest() == b""
    assert not stopping.done()
    door.may_deliver.set()
    await stopping
    assert len(door.kept) == 1
    for client in (reading, keeping):
        client.reset()
