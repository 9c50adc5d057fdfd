"""Which addresses are addresses (RFC 5321 4.1.2, RFC 6531 3.3)."""

import pytest

from gateways.mail_in.smtp_paths import Refused, check_recipient, check_sender, parse_path

LONG_DOMAIN = ".".join(["d" * 63] * 3 + ["d" * 59])  # 251 octets


def verdict(address: str, *, utf8: bool = False) -> str:
    try:
        path = parse_path("TO", f"TO:<{address}>")
        check_recipient(path.address, utf8=utf8)
    except Refused as refused:
        return refused.reply[:3]
    return "250"


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.org", "a.b+tag@example.org", "!#$%&'*+-/=?^_`{|}~@example.org", "a%b@example.org",
        '"quoted local"@example.org', '"with\\"quote"@example.org', '"a>b"@example.org', '""@example.org',
        "ada@[192.0.2.1]", "ada@[IPv6:2001:db8::1]", "ada@localhost", "ada@under_score.example",
        "l" * 64 + "@example.org", f"a@{LONG_DOMAIN}.abc",
    ],
)  # fmt: skip
def test_an_address_by_the_grammar_passes(address):
    assert verdict(address) == "250"


@pytest.mark.parametrize(
    "address",
    [
        "", "ada", "@example.org", "../../x@example.org",
        "ada@", ".ada@example.org", "ada.@example.org", "a..b@example.org", "a b@example.org",
        "a@b@example.org", "@relay.example:ada@example.org", "relay.example!ada", "ada@-example.org", "ada@example-.org",
        "ada@example..org", "ada@.example.org", "ada@example.org.", "ada@[300.0.2.1]", "ada@[IPv6:zz]", "ada@[]", "ada@[x",
        '"open@example.org', '"a"b@example.org', "ada@exam ple.org", "ada<x@example.org", "a,b@example.org",
        "l" * 65 + "@example.org", f"a@{LONG_DOMAIN}.abcd", "a@" + "d" * 64 + ".example",
    ],
)  # fmt: skip
def test_anything_else_is_refused(address):
    assert verdict(address) in {"501", "553"}


@pytest.mark.parametrize(
    "address",
    [
        "bounces+1234567-" + "a" * 60 + "=example.net@em.example.org",
        "SRS0=HHH=TT=example.net=" + "a" * 300 + "@example.org",
        "IMCEAEX-_O=" + "a" * 1500 + "@example.org",
    ],
)
def test_a_senders_local_part_may_be_as_long_as_the_command_line(address: str) -> None:
    check_sender(address, utf8=False)
    with pytest.raises(Refused, match=r"553 5\.1\.3"):
        check_recipient(address, utf8=False)


@pytest.mark.parametrize("address", ["ada", "a..b@example.org", f"a@{LONG_DOMAIN}.abcd", "a@" + "d" * 64 + ".example"])
def test_a_sender_is_an_address_all_the_same(address: str) -> None:
    with pytest.raises(Refused, match=r"553 5\.1\.7"):
        check_sender(address, utf8=False)


def test_a_refusal_does_not_repeat_the_address():
    with pytest.raises(Refused) as refused:
        check_recipient("can..ary@example.org", utf8=False)
    assert refused.value.reply == "553 5.1.3 Malformed address"


@pytest.mark.parametrize("address", ["ädä@example.org", "ada@bücher.example", "用户@例子.广告", "known😀@in.example"])
def test_unicode_addresses_pass_with_smtputf8_only(address):
    assert (verdict(address), verdict(address, utf8=True)) == ("553", "250")


@pytest.mark.parametrize(
    "address",
    ["a\u202eb@example.org", "a\u00a0b@example.org", "a\u0085b@example.org", "a\u2028b@example.org", "a\u200bb@in.example",
     "ada@ex\u202eample.org", "ada@ex\u3002ample.org", "ä" * 33 + "@example.org"],
)  # fmt: skip
def test_unicode_that_hides_turns_or_separates_text_is_refused(address):
    assert verdict(address, utf8=True) == "553"


@pytest.mark.parametrize(
    "argument",
    ["", "TO", "TO:", "TO:ada@example.org", "TO:<ada@example.org", "FROM:<ada@example.org>", "TO:<a@b>x", "TO:<a@b> =1",
     "TO:<a@b> SIZE=", "TO:<a@b> SIZE=1 size=2", "TO :<a@b>", "TO:<<a@b>>"],
)  # fmt: skip
def test_malformed_arguments_are_refused(argument):
    with pytest.raises(Refused, match=r"501 5\.5\.4"):
        parse_path("TO", argument)


def test_parameters_have_upper_case_names():
    path = parse_path("FROM", "from: <> size=5 BODY=8bitmime SMTPUTF8")
    assert (path.address, path.parameters) == ("", {"SIZE": "5", "BODY": "8bitmime", "SMTPUTF8": ""})
