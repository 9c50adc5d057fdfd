"""No open redirect: whatever a URL looks like to somebody, users are sent to the places that the operator listed (J-05)."""

import pytest

from gateways.http.connect.return_urls import ReturnUrls, with_outcome
from tests.support.connect_house import BACK, ConnectHouse

ALLOWED = ReturnUrls.of("https://app.example/settings, http://localhost:3000/done/ ,https://other.example:8443")

GOOD = [
    "https://app.example/settings",
    "https://app.example/settings/",
    "https://app.example/settings/mail",
    "https://app.example:443/settings/mail?tab=1&next=%2Fx",
    "https://APP.example/settings",
    "https://app.example/settings/a%20b/%C3%A9",
    "https://app.example/settings/a;v=1",
    "https://app.example/settings?x=//evil.example&y=https://evil.example",
    "http://localhost:3000/done/",
    "http://localhost:3000/done/x",
    "https://other.example:8443",
    "https://other.example:8443/any/where",
]
BAD = [
    "",
    " ",
    "/settings",
    "//app.example/settings",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https:evil.example",
    "https:/app.example/settings",
    "https:///app.example/settings",
    "https:\\\\app.example\\settings",
    "https://evil.example/settings",
    "https://app.example.evil.example/settings",
    "https://app.example@evil.example/settings",
    "https://evil.example\\@app.example/settings",
    "https://app.example:443@evil.example/settings",
    "https://user@app.example/settings",
    "https://:@app.example/settings",
    "https://app.example\\settings",
    "https://app.example/settings\\..\\x",
    "https://app.example/settings/../admin",
    "https://app.example/settings/./x",
    "https://app.example/settings/..",
    "https://app.example/settings/..;/admin",
    "https://app.example/settings/..;x=1/admin",
    "https://app.example/settings/%2e%2e/admin",
    "https://app.example/settings/%2E./admin",
    "https://app.example/settings/.%2e/admin",
    "https://app.example/settings/%252e%252e/admin",
    "https://app.example/settings/..%2fadmin",
    "https://app.example/settings/%2fadmin",
    "https://app.example/settings/%5cadmin",
    "https://app.example/settings/%00",
    "https://app.example/settings/%0d%0aSet-Cookie:x",
    "https://app.example/settings?x=%0d%0aLocation:https://evil.example",
    "https://app.example/settings//evil.example",
    "https://app.example//settings",
    "https://app.example/settings#fragment",
    "https://app.example/settings?x=1#@evil.example",
    "https://app.example/settings?next=a b",
    "https://app.example/settings\r\nX: y",
    "https://app.example/settings\t",
    "https://app.example/settings\n",
    " https://app.example/settings",
    "https://app.example/settings\x00",
    "https://app.example/settingsx",
    "https://app.example/setting",
    "https://app.example/",
    "https://app.example",
    "https://app.example/Settings",
    "https://app.example:8443/settings",
    "https://app.example:0443/settings",
    "https://app.example:/settings",
    "https://app.example:99999/settings",
    "https://app.example./settings",
    "https://ａpp.example/settings",
    "https://app。example/settings",
    "https://app.example⁄settings",
    "https://app.example/settings/é",
    "https://[::1]/settings",
    "https://app%2eexample/settings",
    "http://app.example/settings",
    "ftp://app.example/settings",
    "javascript:alert(1)//https://app.example/settings",
    "data:text/html,x",
    "HTTPS://app.example/settings",
    "https://app.example/settings?error=access_denied",
    "https://app.example/settings?status=connected&connectionId=con_1",
    "https://app.example/settings?a=1&connectionId",
    "https://app.example/settings?%65rror=access_denied",
    "https://app.example/settings?a=1;status=connected",
    "https://app.example/settings/%c0%ae%c0%ae/admin",
    "https://app.example/settings?x=<script>",
    'https://app.example/settings?x="',
    "https://app.example/settings/%zz",
    "https://app.example/settings?%",
    "http://localhost:3000/done",
    "http://localhost:3001/done/",
    "http://127.0.0.1:3000/done/",
    "https://other.example/any",
    "https://app.example/settings/" + "a" * 2000,
]


@pytest.mark.parametrize("url", GOOD)
def test_what_is_listed_and_what_is_below_it_is_allowed(url: str) -> None:
    assert ALLOWED.allow(url)


@pytest.mark.parametrize("url", BAD, ids=ascii)
def test_nothing_else_is(url: str) -> None:
    assert not ALLOWED.allow(url)


def test_without_a_list_nothing_is_allowed() -> None:
    assert not ReturnUrls.of("").allow("https://app.example/")
    assert not ReturnUrls.of(" , ").allow("https://app.example/")


@pytest.mark.parametrize("url", ["app.example", "https://", "https://u@app.example", "https://app.example/?x=1", "*"])
def test_a_setting_that_is_no_url_is_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="no http or https URL"):
        ReturnUrls.of(f"https://app.example, {url}")


def test_the_outcome_is_added_to_a_query() -> None:
    assert with_outcome("https://a.example/x", error="access_denied") == "https://a.example/x?error=access_denied"
    assert with_outcome("https://a.example/x?y=1", status="connected") == "https://a.example/x?y=1&status=connected"


async def test_the_api_refuses_what_is_not_allowed(house: ConnectHouse) -> None:
    """Over real HTTP, for both kinds of tickets: no form of a foreign place gets past."""
    ada = await house.person()
    hostile = [url.replace("https://app.example/settings", BACK) for url in BAD if url]
    for url in hostile:
        for provider in ("gmail", None):
            status, body = await house.asked_for_ticket(ada.id, provider, ada.key, returnUrl=url)
            assert (status, body["code"]) == (400, "invalid_request"), url
            assert body["errors"][0]["pointer"] == "/query/returnUrl"
            assert "evil.example" not in str({name: body[name] for name in body if name != "instance"})
