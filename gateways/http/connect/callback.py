"""Where a provider sends the browser back to (RFC 6749 4.1.2, RFC 9207).

Nothing is asked of a provider before it is sure that this very browser began this very consent, at this provider, within ten
minutes, and that nobody came back with it before. Code and state are let go of at once: the answer is always a redirect or a
page that repeats neither, and no line is logged that has them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import Response

from domain.connection_events import Provider
from gateways.http.connect.authorising import Authorising, Connected, Wanted
from gateways.http.connect.consenting import take
from gateways.http.connect.forms import form_of, taken_out
from gateways.http.connect.page import open_page
from gateways.http.connect.parts import Connecting
from gateways.http.connect.rendering import notice, redirect
from gateways.http.connect.return_urls import with_outcome
from gateways.http.connect.wishes import Wish, provider_named
from gateways.http.connect.words import WORDS, Code, NotConnected
from gateways.http.problems import RETRY_SECONDS
from gateways.http.services import Services
from gateways.http.v1.pending import CONNECT, operation_asked
from gateways.log.command_log import OutcomeUnknown
from gateways.log.decisions import Unsettled
from gateways.providers.connector import ConnectFailed, Consent, Granted, Identity
from gateways.stores.postgres import UNREACHABLE

log = logging.getLogger(__name__)

#: Characters of what a provider may send back, by name; a few more names than these are passed over.
LONGEST: Final[Mapping[str, int]] = {"state": 128, "code": 8192, "error": 200, "iss": 500}
MOST_FIELDS: Final = 20
RETRY: Final = {"Retry-After": str(RETRY_SECONDS)}
HEADING: Final = "This sign-in can't be used"
SENTENCE: Final = (
    "It was used already, has lapsed, or was begun in another browser, so nothing was changed by it now. Please go back to "
    "where you came from, and connect the mailbox again if it is not there."
)
CONNECTED: Final = (
    "Your mailbox is connected. Our page can't be shown just now; you can go back to where you came from."
)


@dataclass(frozen=True, slots=True)
class Returned:
    """What a browser brings back from a provider."""

    state: str = field(repr=False)
    code: str | None = field(repr=False)
    error: str | None
    issuer: str | None

    @classmethod
    def of(cls, query: bytes) -> "Returned | None":
        """None where it is none of ours: without a state, with one thing said twice, or with something too long."""
        try:
            pairs = parse_qsl(query.decode("ascii"), max_num_fields=MOST_FIELDS, errors="strict")
        except ValueError:
            return None
        known = [(name, text) for name, text in pairs if name in LONGEST]
        found = dict(known)
        if len(found) != len(known) or any(len(text) > LONGEST[name] for name, text in known):
            return None
        if not found.get("state"):
            return None
        return cls(found["state"], found.get("code"), found.get("error"), found.get("iss"))

    def query(self) -> str:
        said = {"state": self.state, "code": self.code, "error": self.error, "iss": self.issuer}
        return urlencode({name: text for name, text in said.items() if text is not None})


class Callback:
    """The handlers of one callback path for each provider."""

    def __init__(self, services: Services, connecting: Connecting) -> None:
        self._services = services
        self._connecting = connecting
        self._authorising = Authorising(services, connecting)

    async def get(self, request: Request) -> Response:
        """The end of a consent: to where the user wanted to go, with what came of it."""
        provider = provider_named(request.path_params["provider"])
        returned = Returned.of(taken_out(request))
        if request.scope.get("head"):
            return Response()  # whoever only looks uses nothing up
        browser = self._connecting.cookies.bound(request, returned.state) if returned else None
        if returned is None or browser is None:
            return self._foreign()
        found = await take(self._connecting, returned.state, browser, provider)
        if found is None:
            return self._foreign()
        consent, wish = found
        outcome = await self._outcome(request, provider, wish, consent, returned)
        _tell_operator(request, provider, wish, outcome)
        response = await self._ended(request, wish, outcome)
        self._connecting.cookies.unbind(response, provider, returned.state)
        return response

    async def post(self, request: Request) -> Response:
        """A provider that has the browser post a form: cookies of ours come with the GET that this becomes only."""
        provider = provider_named(request.path_params["provider"])
        returned = Returned.of(await form_of(request))
        if returned is None:
            return self._foreign()
        return redirect(f"{self._connecting.callback(provider)}?{returned.query()}")

    def _foreign(self) -> Response:
        return notice(self._connecting.root, 400, HEADING, SENTENCE)

    async def _outcome(
        self, request: Request, provider: Provider, wish: Wish, consent: Consent, returned: Returned
    ) -> Connected | Code:
        """The connection, or why there is none."""
        try:
            return await self._connected(request, provider, wish, consent, returned)
        except (ConnectFailed, NotConnected) as failure:
            return failure.code
        except (Unsettled, OutcomeUnknown):
            return "outcome_unknown"
        except UNREACHABLE:
            return "unavailable"
        except Exception:
            log.exception("a connect failed by a fault of ours", extra={"request_id": request.scope["request_id"]})
            return "internal_error"

    async def _connected(
        self, request: Request, provider: Provider, wish: Wish, consent: Consent, returned: Returned
    ) -> Connected:
        if returned.error is not None or not returned.code:
            raise NotConnected("access_denied" if returned.error == "access_denied" else "provider_refused")
        connector = self._connecting.connectors.by_provider[provider]
        granted = await connector.connect(consent, returned.code, returned.issuer, wish.servers)
        wanted = Wanted(wish.owner, wish.user, provider, wish.connection)
        return await self._authorising.connect(request, wanted, _named(granted, wish))

    async def _ended(self, request: Request, wish: Wish, outcome: Connected | Code) -> Response:
        """Where the browser goes now."""
        if isinstance(outcome, Connected):
            said = {"connectionId": outcome.connection, "status": "connected"}
        else:
            said = {"error": outcome, **self._operation(request, wish, outcome)}
        if wish.return_url is not None and not wish.on_page:
            return redirect(with_outcome(wish.return_url, **said))
        try:
            return await open_page(self._connecting, wish, said)
        except UNREACHABLE:
            return self._told(outcome)

    def _operation(self, request: Request, wish: Wish, outcome: Code) -> dict[str, str]:
        """What the product can look at where nobody knows yet."""
        operation = operation_asked(self._services.keyset, wish.owner, CONNECT, request)
        return {"operationId": operation} if outcome == "outcome_unknown" and operation is not None else {}

    def _told(self, outcome: Connected | Code) -> Response:
        """The outcome by itself, where there is no page to show it on."""
        root = self._connecting.root
        if isinstance(outcome, Connected):
            return notice(root, 200, "Connected", CONNECTED)
        words = WORDS[outcome]
        return notice(root, 503, "Not connected", f"{words.happened} {words.advice}", RETRY)


def _tell_operator(request: Request, provider: Provider, wish: Wish, outcome: Connected | Code) -> None:
    """What came of it, by code: a client that is broken is nobody else's to mend."""
    if isinstance(outcome, Connected):
        return
    said = {"provider": provider, "code": outcome, "user": wish.user, "request_id": request.scope["request_id"]}
    log.log(logging.ERROR if outcome == "client_broken" else logging.INFO, "a mailbox was not connected", extra=said)


def _named(granted: Granted, wish: Wish) -> Granted:
    """A mail server knows user names only: the address of such a mailbox is the one it was asked for with."""
    if wish.address is None:
        return granted
    return replace(granted, identity=Identity(wish.address, granted.identity.subject))
