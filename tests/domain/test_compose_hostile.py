"""Nobody adds a field or a recipient to a mail by what he writes into it: two parsers count them (D-11)."""

import email
import email.header
import email.policy
import email.utils
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from domain.compose import Unwritable, compose
from domain.mail import parse
from domain.mail_wire_addresses import NoAddress, wire_address
from domain.mail_wire_fields import is_reserved
from domain.outgoing import MARKER, Mailbox, OutgoingFile, OutgoingMail
from tests.domain.test_compose import FULL

BREAKS = [
    "\r\n", "\n", "\r", "\r\r\n", "\n\r", "\0", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029",
    "\r\n ", "\n\t", "\x7f", "\x1b", "\\r\\n", "%0D%0A", "=0D=0A", "&#13;&#10;", "\u560d\u560a", "\u010a", "\ud800", "\u202e",
]  # fmt: skip
TAILS = [
    "Bcc: victim@evil.example", "To: victim@evil.example", "\r\nbody", "X-Injected: 1", ", victim@evil.example",
    "> , <victim@evil.example",
]  # fmt: skip
TRICKS = [
    "=?UTF-8?Q?x=0D=0ABcc:_victim@evil.example?=", "=?UTF-8?Q?x=0ABcc:_victim@evil.example?=",
    "=?utf-8?b?DQpCY2M6IHZpY3RpbUBldmlsLmV4YW1wbGU=?=", "=?utf-8?q?victim=40evil=2Eexample=2C?=",
    "=?us-ascii?q?=0a?= =?us-ascii?q?Bcc:?=", '" <victim@evil.example>, "', "victim@evil.example, ", "victim@evil.example;",
    "(\r\n)", "a:victim@evil.example;", '\\" <victim@evil.example>, \\"', "<victim@evil.example>", "@victim.evil.example:",
    "x\\", '"', "(", "\\",
]  # fmt: skip

Place = Callable[[str], OutgoingMail]
PLACES: dict[str, Place] = {
    "subject": lambda text: replace(FULL, subject=f"Hello{text}"),
    "sender's name": lambda text: replace(FULL, sender=Mailbox("alice@example.org", f"Alice{text}")),
    "sender": lambda text: replace(FULL, sender=Mailbox(f"alice{text}@example.org")),
    "recipient's name": lambda text: replace(FULL, to=[Mailbox("bob@example.org", f"Bob{text}")]),
    "recipient": lambda text: replace(FULL, to=[Mailbox(f"bob@example.org{text}")]),
    "recipient's local part": lambda text: replace(FULL, to=[Mailbox(f"bob{text}@example.org")]),
    "quoted local part": lambda text: replace(FULL, to=[Mailbox(f'"bob{text}"@example.org')]),
    "cc": lambda text: replace(FULL, cc=[Mailbox(f"carol@{text}example.org")]),
    "hidden recipient": lambda text: replace(FULL, bcc=[Mailbox(f"dave@example.org{text}", text)]),
    "reply-to name": lambda text: replace(FULL, reply_to=[Mailbox("desk@example.org", text)]),
    "header name": lambda text: replace(FULL, headers={f"X-A{text}": "1"}),
    "header value": lambda text: replace(FULL, headers={"X-A": f"1{text}"}),
    "references": lambda text: replace(FULL, headers={"References": f"<a@b>{text}"}),
    "file name": lambda text: replace(FULL, attachments=[OutgoingFile(f"a{text}.txt", "text/plain", b"x")]),
    "media type": lambda text: replace(FULL, attachments=[OutgoingFile("a.txt", f"text/plain{text}", b"x")]),
    "media type's charset": lambda text: replace(FULL, attachments=[OutgoingFile("a", f"a/b; charset={text}", b"x")]),
    "marker": lambda text: replace(FULL, marker=f"snd_1{text}"),
    "message id": lambda text: replace(FULL, message_id=f"<snd{text}@postledger.example>"),
}


def attacks() -> Iterator[tuple[str, str]]:
    for place in PLACES:
        for text in [*(mark + tail for mark in BREAKS for tail in TAILS), *TRICKS]:
            yield place, text


#: What every mail has, and FULL beside it.
OURS = {"from", "reply-to", "to", "cc", "subject", "message-id", "date", "mime-version", "content-type", MARKER.lower()}


def test_no_attack_adds_a_field_or_a_recipient() -> None:
    """What isn't refused has the fields it was given, once each, and the recipients it was given."""
    tried = written = 0
    for place, text in attacks():
        mail, tried = PLACES[place](text), tried + 1
        try:
            raw = compose(mail, with_bcc=False)
        except Unwritable:
            continue
        written += 1
        given = OURS | {name.lower() for name in mail.headers}
        head = email.message_from_bytes(raw, policy=email.policy.compat32)
        ours = parse(raw)
        told = (place, text, raw)
        assert sorted(name.lower() for name in head) == sorted(given), told
        assert {name: len(values) for name, values in ours.headers.items()} == dict.fromkeys(given, 1), told
        for name, wanted in (("to", mail.to), ("cc", mail.cc), ("reply-to", mail.reply_to), ("from", [mail.sender])):
            addresses = [wire_address(one.address) for one in wanted]
            found = [address for _, address in email.utils.getaddresses([head[name]])]
            if not any('"' in address for address in addresses):
                assert found == addresses, told
            assert len(found) == len(addresses), told
        assert ours.to == tuple(wire_address(one.address) for one in mail.to), told
        assert b"dave@example.org" not in raw
        assert len(list(head.walk())) == 5, told
    assert tried > 3000
    assert 300 < written < tried - 1000


def test_what_breaks_lines_is_refused_everywhere() -> None:
    for name, place in PLACES.items():
        for mark in ("\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"):
            try:
                compose(place(f"{mark}x"), with_bcc=False)
            except Unwritable:
                continue
            pytest.fail(f"{name} took {mark!r}")


def test_a_reply_to_a_hostile_mail_is_no_other_mail() -> None:
    """CVE-2024-6923: a subject is decoded from one mail and copied into another."""
    raw = b"Subject: =?UTF-8?Q?x=0ABcc:_victim@evil.example?=\r\n\r\nx"
    theirs = str(email.header.make_header(email.header.decode_header(email.message_from_bytes(raw)["Subject"])))
    for decoded in (theirs, parse(raw).subject or ""):
        assert "\nBcc:" in decoded
        with pytest.raises(Unwritable):
            compose(replace(FULL, subject=f"Re: {decoded}"), with_bcc=False)


@pytest.mark.parametrize(
    "name",
    [
        "From", "to", "BCC", "Resent-To", "resent-bcc", "Content-Type", "MIME-Version", "Message-ID", "Sender",
        "Return-Path", "Received", "DKIM-Signature", "ARC-Seal", "Reply-To", MARKER, MARKER.upper(),
        "Apparently-To", "Subject", "Date", "Delivered-To",
    ],
)  # fmt: skip
def test_a_caller_writes_none_of_our_fields(name: str) -> None:
    assert is_reserved(name)
    with pytest.raises(Unwritable):
        compose(replace(FULL, headers={name: "victim@evil.example"}), with_bcc=False)


@pytest.mark.parametrize("name", ["", " ", "X A", "X:A", "X-É", "X-A\t", "x" * 77, "X\x7f", "X-A:", ":"])
def test_a_field_has_a_name_of_rfc_5322_s(name: str) -> None:
    with pytest.raises(Unwritable):
        compose(replace(FULL, headers={name: "1"}), with_bcc=False)


@pytest.mark.parametrize(
    "address",
    [
        "", "@", "a@", "@b", "a", "a@b@c", "a b@c", "a@b c", "<a@b>", "a@b>", "a,b@c", "a;b@c", "a@[1.2.3.4", "a@-b", "a@b-",
        "a@b..c", "a@b_c", ".a@b", "a.@b", "a..b@c", '"a@b', 'a"b"@c', "a(b)@c", "a@b(c)", "a@b%0d", "x" * 65 + "@b",
        "é" * 33 + "@b", "a@" + "b" * 64, "a@" + "b." * 130 + "c", "a\u202e@b", "a\u200b@b", "a\u00a0@b", "a@b\u200d",
        "a@b\u2024c", "a@\u2488", "a@b/c", "a@\u2100", "a@b\uff0f", "mailto:a@b", "a:b@c", "a@b:c", "@a:b@c", "\\@b",
        "a@[IPv6:::1]x", "a@[x]", "=?utf-8?q?a?=@b", '"=?utf-8?q?a?="@b', "a\ud800@b", "a@b\ud800",
    ],
)  # fmt: skip
def test_what_is_no_address_is_not_written(address: str) -> None:
    with pytest.raises(NoAddress) as caught:
        wire_address(address)
    assert not address or address not in str(caught.value) or len(address) < 3


#: Letters, each another.
HAN = "".join(map(chr, range(0x4E00, 0x4E00 + 8_000)))


@pytest.mark.parametrize(
    "domain",
    [HAN + ".com", HAN[:64] + ".com", ".".join(HAN[:1000]), ".".join("ab" * 85_000), "\ufdfa" * 255, "a." * 85_000],
)
def test_a_domain_that_is_too_long_is_refused_before_it_is_encoded(domain: str) -> None:
    began = time.perf_counter()
    for _ in range(10):
        with pytest.raises(NoAddress):
            wire_address(f"a@{domain}")
    assert time.perf_counter() - began < 1


def test_a_domain_is_measured_as_it_is_mapped() -> None:
    """Decomposed, letters are more characters than the label that they make."""
    assert wire_address("a@" + "u\u0308" * 40 + ".example") == wire_address("a@" + "\xfc" * 40 + ".example")
