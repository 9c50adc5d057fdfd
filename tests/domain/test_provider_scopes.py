"""What a provider's scopes are good for, as each provider spells them."""

import pytest

from domain.provider_scopes import ABOUT_THE_USER, DEFAULT_SCOPES, SENDS, may_send, missing
from tests.support.connection_words import COMPOSE, READONLY

GRAPH = "https://graph.microsoft.com/"


@pytest.mark.parametrize("provider", DEFAULT_SCOPES)
def test_what_is_asked_for_by_itself_allows_to_send_and_lacks_nothing(provider):
    asked = DEFAULT_SCOPES[provider]
    assert may_send(provider, asked)
    assert missing(provider, asked, asked) == []


@pytest.mark.parametrize("scope", sorted(SENDS["gmail"]))
def test_each_of_googles_scopes_that_send_is_enough(scope):
    assert may_send("gmail", [scope])


@pytest.mark.parametrize("granted", [[], [READONLY], ["openid", "email"], [COMPOSE.upper()], [f"{COMPOSE}.tomorrow"]])
def test_without_one_of_them_google_does_not_let_us_send(granted):
    assert not may_send("gmail", granted)


@pytest.mark.parametrize("scope", ["Mail.Send", "mail.send", f"{GRAPH}Mail.Send", f"{GRAPH.upper()}MAIL.SEND"])
def test_microsoft_spells_in_any_case_and_with_or_without_its_host(scope):
    assert may_send("outlook", ["openid", scope])
    assert missing("outlook", ["Mail.Send"], [scope]) == []
    assert missing("outlook", [scope], ["Mail.Send"]) == []


@pytest.mark.parametrize("granted", [[], ["Mail.ReadWrite"], [f"{GRAPH}Mail.Send.Shared"], [COMPOSE]])
def test_without_mail_send_microsoft_does_not_let_us_send(granted):
    assert not may_send("outlook", granted)


@pytest.mark.parametrize("granted", [[], ["https://mail.example/all"]])
def test_a_mail_server_is_judged_by_logging_in(granted):
    assert may_send("smtp", granted)


def test_what_was_not_granted_is_named_in_the_order_and_spelling_it_was_asked_for():
    asked = ["Mail.ReadWrite", "Mail.Send", "Calendars.Read"]
    assert missing("outlook", asked, [f"{GRAPH}Mail.Send"]) == ["Mail.ReadWrite", "Calendars.Read"]
    assert missing("gmail", [COMPOSE, READONLY], []) == [COMPOSE, READONLY]


@pytest.mark.parametrize("scope", sorted(ABOUT_THE_USER))
def test_who_somebody_is_can_not_be_missing(scope):
    assert missing("outlook", [scope], []) == []


def test_google_gives_an_address_for_email():
    granted = [COMPOSE, "https://www.googleapis.com/auth/userinfo.email", "openid"]
    assert missing("gmail", [COMPOSE, "openid", "email"], granted) == []
    assert missing("gmail", ["https://www.googleapis.com/auth/userinfo.profile"], []) == []


def test_more_than_was_asked_for_lacks_nothing():
    assert missing("gmail", [COMPOSE], [COMPOSE, READONLY]) == []
