"""What each provider allows one mailbox: made of its own figures, which stand beside its calls."""

from typing import Final

from domain.connection_events import Provider
from gateways.providers import gmail_calls, graph_sending, smtp_sending
from gateways.stores.mailbox_limits import Allowed
from gateways.stores.rates import Limit

#: Units of quota that one send takes: a draft and its sending. What looks take is counted as they take it.
GMAIL_UNITS: Final = gmail_calls.UNITS["drafts.create"] + gmail_calls.UNITS["drafts.send"]
#: Mails that Exchange Online takes of a mailbox in a minute. With the requests that each takes, and looks afterwards, this is
#: well below the 10,000 requests in ten minutes that Graph allows.
EXCHANGE_A_MINUTE: Final = 30

ALLOWED: Final[dict[Provider, Allowed]] = {
    "gmail": Allowed(Limit("gmail-units", gmail_calls.PER_MINUTE, 60), None, GMAIL_UNITS),
    "outlook": Allowed(Limit("outlook", EXCHANGE_A_MINUTE, 60), graph_sending.AT_ONCE),
    "smtp": Allowed(None, smtp_sending.AT_ONCE),
}
#: The same without windows, for load tests.
WITHOUT_RATES: Final[dict[Provider, Allowed]] = {
    provider: Allowed(None, allowed.at_once) for provider, allowed in ALLOWED.items()
}
