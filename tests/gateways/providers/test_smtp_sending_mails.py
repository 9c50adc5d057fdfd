"""To whom a mail goes by SMTP, and that it stays one mail whatever is in it."""

from typing import Any

import pytest

from domain.delivery import Accepted, Answer, Deferred, RecipientRefused, Refused
from domain.mail import parse
from domain.outgoing import Mailbox, OutgoingFile
from tests.gateways.providers.sending_contract import CC, HIDDEN, TO, a_mail
from tests.gateways.providers.smtp_peer import Act, SmtpPeer
from tests.gateways.providers.smtp_sends import DAY, SmtpSends, without_text
from tests.support.smtp_probe import NOT_ENDS, SMUGGLED


@pytest.fixture
def sending(smtp_sends: SmtpSends) -> SmtpSends:
    return smtp_sends


@pytest.fixture
def peer(sending: SmtpSends) -> SmtpPeer:
    return sending.peer


# ── recipients ────────────────────────────────────────────────────────────────────────────────────────────────────────

GONE, LATER = Act(b"550 5.1.1 No such user"), Act(b"450 4.2.1 Greylisted")


@pytest.mark.parametrize(
    ("acts", "last", "expected", "recipients"),
    [
        ([None, GONE, None], False, Accepted(refused=[RecipientRefused(1, 550, "5.1.1")]), [TO, HIDDEN]),
        ([Act(b"251 Will forward", takes=True), GONE, Act(b"553 no")], False,
         Accepted(refused=[RecipientRefused(1, 550, "5.1.1"), RecipientRefused(2, 553)]), [TO]),
        ([None, LATER, None], False, Deferred("temporarily_refused"), None),
        ([None, LATER, GONE], False, Deferred("temporarily_refused"), None),
        ([None, LATER, GONE], True,
         Accepted(refused=[RecipientRefused(1, 450, "4.2.1"), RecipientRefused(2, 550, "5.1.1")]), [TO]),
        ([GONE, GONE, GONE], False,
         Refused("recipients_refused", refused=[RecipientRefused(number, 550, "5.1.1") for number in range(3)]), None),
        ([GONE, LATER, GONE], True, Deferred("temporarily_refused"), None),
        ([None, Act(b"452 4.5.3 Too many recipients"), None], False, Deferred("temporarily_refused"), None),
        ([None, Act(b"552 Too many recipients"), None], False, Deferred("temporarily_refused"), None),
        ([None, None, Act(b"550 5.4.5 Daily limit")], True, DAY, None),
    ],
    ids=str,
)  # fmt: skip
async def test_some_recipients_are_refused(
    sending: SmtpSends, peer: SmtpPeer, acts: Any, *, last: bool, expected: Answer, recipients: list[str] | None
) -> None:
    peer.acts["RCPT"] += acts
    answer, notes = await sending.tries(last=last)
    assert without_text(answer) == expected
    assert [mail.recipients for mail in peer.mails] == ([] if recipients is None else [recipients])
    assert notes.order == ([] if recipients is None else ["transmission"])


async def test_a_hundred_recipients_get_one_mail(sending: SmtpSends, peer: SmtpPeer) -> None:
    everybody = [Mailbox(f"user{number}@example.test", f"User, {number}") for number in range(100)]
    peer.acts["RCPT"] += [None] * 99 + [GONE]
    answer, _ = await sending.tries(a_mail(to=everybody[:50], cc=everybody[50:], bcc=[]))
    assert answer == Accepted(refused=[RecipientRefused(99, 550, "5.1.1")])
    assert [mail.recipients for mail in peer.mails] == [[one.address for one in everybody[:99]]]


@pytest.mark.parametrize(
    ("extensions", "mail", "command"),
    [
        (["SIZE 0"], {}, "MAIL FROM:<alice@gmail.test> SIZE="),
        ([], {}, "MAIL FROM:<alice@gmail.test>"),
        (["SIZE 100000"], {"to": [Mailbox("用户@例え.テスト")]}, None),
        (["SMTPUTF8", "8BITMIME"], {"to": [Mailbox("用户@例え.テスト")]},
         "MAIL FROM:<alice@gmail.test> BODY=8BITMIME SMTPUTF8"),
        (["SMTPUTF8", "8BITMIME"], {"to": [Mailbox("bob@例え.テスト", "用户")]}, "MAIL FROM:<alice@gmail.test>"),
        (["SIZE 100"], {}, None),
    ],
    ids=str,
)  # fmt: skip
async def test_what_the_server_offers_is_used(
    sending: SmtpSends, peer: SmtpPeer, extensions: list[str], mail: dict[str, Any], command: str | None
) -> None:
    peer.extensions = ["AUTH XOAUTH2", *extensions]
    answer, _ = await sending.tries(a_mail(**mail))
    told = [each for each in peer.commands if each.startswith(("MAIL", "RCPT"))]
    if command is None:
        assert isinstance(answer, Refused)
        assert (told, answer.code in {"message_refused", "message_too_large"}) == ([], True)
    else:
        assert isinstance(answer, Accepted)
        assert told[0] == (f"{command}{peer.content_bytes - 3}" if command.endswith("=") else command)
        assert not mail or told[1].endswith("@xn--r8jz45g.xn--zckzah>")


# ── one mail stays one (D-12) ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", [*NOT_ENDS, b"\r\n.\r\n"], ids=repr)
async def test_no_end_of_data_comes_from_a_mail(sending: SmtpSends, peer: SmtpPeer, form: bytes) -> None:
    smuggled = b"before" + form + SMUGGLED + form + b"after"
    text = smuggled.decode()
    file = OutgoingFile("a.eml", "text/plain", smuggled)
    answer, _ = await sending.tries(a_mail(text=text, html=f"<pre>{text}</pre>", attachments=[file]))
    assert isinstance(answer, Accepted)
    (mail,) = peer.mails
    assert [each.partition(" ")[0] for each in peer.commands[:4]] == ["EHLO", "AUTH", "MAIL", "RCPT"]
    assert sum(each.startswith("MAIL") for each in peer.commands) == 1
    assert sorted(mail.recipients) == sorted([TO, CC, HIDDEN])
    raw = peer.raw
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    assert all(line == b"." or not line.startswith(b".") or line.startswith(b"..") for line in raw.split(b"\r\n"))
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert HIDDEN.encode() not in raw


async def test_a_line_that_begins_with_a_dot_keeps_it(sending: SmtpSends, peer: SmtpPeer) -> None:
    text = "".join(f"{'.' * dots}x\n" for dots in range(6)) + ".\n..\n"
    await sending.tries(a_mail(text=text, html=None, attachments=[]))
    assert parse(peer.mails[0].content).text == text
