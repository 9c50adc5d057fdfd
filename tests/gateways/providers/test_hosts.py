"""Every form of a host that some program takes for a machine it should not reach, and what is left of it here."""

import time
from ipaddress import ip_address

import pytest

from gateways.providers.hosts import HostNotAllowed, denied, literal, plain_host, plain_url

#: Addresses that lead, or may lead, to something else than a machine on the public internet.
DENIED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
ALLOWED = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "198.20.0.1", "223.255.255.255",
           "2606:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "2003::1"]  # fmt: skip

#: Hosts that are written as none should be.
MALFORMED = [
    "",
    " ",
    ".",
    "..",
    "0",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "0X7F.1",
    "017700000001",
    "0177.1",
    "0177.0.0.1",
    "127.0.0.01",
    "127.0.0.256",
    "127.0.0.1.1",
    "1.2.3.4.5",
    "127.0.0.1..",
    "mail.0x1",
    "mail.example.1",
    "256",
    "[::1]",
    "[127.0.0.1]",
    "::1]",
    "fe80::1%eth0",
    "::1%25lo",
    "1::2::3",
    "127.0.0.1:25",
    "mail.example.org:25",
    "alice@mail.example.org",
    "alice:secret@mail.example.org",
    "mail.example.org/",
    "mail.example.org#a",
    "mail.example.org?a",
    "mail.example.org\\",
    "mail..example.org",
    ".mail.example.org",
    "mail.example.org..",
    "-mail.example.org",
    "mail-.example.org",
    "mail_.example.org",
    " mail.example.org",
    "mail.example.org ",
    "mail.example.org\n",
    "mail.example.org\r\nRCPT TO:<a@b>",
    "mail\x00.example.org",
    "mail\t.example.org",
    "mail%2eexample.org",
    "mail.*.org",
    "a" * 64 + ".example.org",
    ".".join(["a" * 60] * 5),
    "١٢٧.0.0.1",
    "exa\u202emple.org",
    "xn--\u00fc.example",
]
#: What a name is looked up as: what other programs take for loopback is loopback here, too, and so refused.
READ_AS = {
    "MAIL.Example.ORG": "mail.example.org",
    "mail.example.org.": "mail.example.org",
    "127.0.0.1.": "127.0.0.1",
    "①②⑦.0.0.1": "127.0.0.1",
    "127。0。0。1": "127.0.0.1",
    "１２７.０.０.１": "127.0.0.1",
    "ｌｏｃａｌｈｏｓｔ": "localhost",
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "::FFFF:127.0.0.1": "::ffff:7f00:1",
    "0:0:0:0:0:0:0:1": "::1",
}


@pytest.mark.parametrize("address", DENIED)
def test_an_address_off_the_public_internet_is_denied(address: str) -> None:
    assert denied(ip_address(address))


@pytest.mark.parametrize("address", ALLOWED)
def test_an_address_on_the_public_internet_is_not(address: str) -> None:
    assert not denied(ip_address(address))


@pytest.mark.parametrize("host", MALFORMED)
def test_a_host_in_no_usual_form_is_no_host(host: str) -> None:
    with pytest.raises(HostNotAllowed):
        plain_host(host)


@pytest.mark.parametrize(("host", "read_as"), READ_AS.items())
def test_a_host_is_read_in_one_way(host: str, read_as: str) -> None:
    assert plain_host(host) == read_as
    assert plain_host(read_as) == read_as


def test_only_an_address_is_an_address() -> None:
    assert literal("127.0.0.1") == ip_address("127.0.0.1")
    assert literal("mail.example.org") is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "//auth.example.org/",
        "auth.example.org/token",
        "http://auth.example.org/",
        "ftp://auth.example.org/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "gopher://auth.example.org/",
        "https:///token",
        "https://",
        "https://:443/",
        "https://user@auth.example.org/",
        "https://user:secret@auth.example.org/",
        "https://auth.example.org@127.0.0.1/",
        "https://auth.example.org\\@127.0.0.1/",
        "https://auth.example.org#@127.0.0.1/",
        "https://auth.example.org/#f",
        "https://auth.example.org:0/",
        "https://auth.example.org:65536/",
        "https://auth.example.org:port/",
        "https://auth.example.org/a b",
        "https://auth.example.org/a\r\nHost: b",
        " https://auth.example.org/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[fe80::1%25eth0]/",
        "https://[::1",
        "https://auth..example.org/",
    ],
)
def test_a_url_that_is_read_in_two_ways_is_none(url: str) -> None:
    with pytest.raises(HostNotAllowed):
        plain_url(url)


def test_a_good_url_stays_as_it_is() -> None:
    assert str(plain_url("https://auth.example.org/t/a%2Fb?x=1&y=%20")) == "https://auth.example.org/t/a%2Fb?x=1&y=%20"
    assert str(plain_url("https://Bücher.example./token")) == "https://xn--bcher-kva.example/token"
    assert plain_url("http://auth.example.org/", http=True).scheme == "http"


@pytest.mark.parametrize(
    "form", ["https://{}/", "https://[:{}]/", "https://a@{}:443/", "//{}", "https://{}.example.org"]
)
def test_a_host_that_is_too_long_is_refused_before_it_is_mapped(form: str) -> None:
    han = "".join(map(chr, range(0x4E00, 0x4E00 + 4_000)))
    began = time.perf_counter()
    with pytest.raises(HostNotAllowed):
        plain_url(form.format(han))
    with pytest.raises(HostNotAllowed):
        plain_host(han)
    assert time.perf_counter() - began < 1


def test_a_host_may_be_as_long_as_names_are() -> None:
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert plain_url(f"https://{longest}.:65535/").host == plain_host(f"{longest}.") == longest
    with pytest.raises(HostNotAllowed):
        plain_url(f"https://{longest}b/")
