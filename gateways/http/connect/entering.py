"""Tickets: where an end user's browser comes in. A `GET` uses one up; a `HEAD`, as previews send it, does nothing.

A browser that fetches an address before anybody asked to see it is refused: it would show what it got instead of asking
again. An unknown ticket, a used one and one that has lapsed are not told apart.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateways.http.connect.consenting import to_provider, use_ticket
from gateways.http.connect.forms import taken_out, ticket_in
from gateways.http.connect.page import ConnectPage, open_page
from gateways.http.connect.parts import Connecting
from gateways.http.connect.rendering import notice, redirect
from gateways.http.connect.return_urls import with_outcome
from gateways.http.connect.wishes import provider_named
from gateways.providers.connector import ConnectFailed
from gateways.stores.postgres import UNREACHABLE

HEADING: Final = "This link can't be used any more"
SENTENCE: Final = (
    "It works once, and for ten minutes. Please go back to where you came from and choose to connect a mailbox again."
)


class Entering:
    """The handlers of the two addresses that tickets have."""

    def __init__(self, connecting: Connecting, page: ConnectPage) -> None:
        self._connecting = connecting
        self._page = page

    async def provider(self, request: Request) -> Response:
        """On to the provider, which this browser will be known by when it comes back from there."""
        provider, query = provider_named(request.path_params["provider"]), taken_out(request)
        if (looked := _only_looks(request)) is not None:
            return looked
        wish = await use_ticket(self._connecting, ticket_in(query) or "", provider)
        if wish is None:
            return self._over()
        try:
            return await to_provider(self._connecting, request, wish, provider)
        except ConnectFailed as failure:
            if wish.return_url is not None:
                return redirect(with_outcome(wish.return_url, error=failure.code))
            return await open_page(self._connecting, wish, {"error": failure.code})
        except UNREACHABLE:
            if wish.return_url is None:
                raise
            return redirect(with_outcome(wish.return_url, error="unavailable"))  # the ticket is used up

    async def page(self, request: Request) -> Response:
        """The page itself; with a ticket, its opening in this browser."""
        ticket = ticket_in(request.scope["query_string"])
        if ticket is None:
            return await self._page.show(request)
        taken_out(request)
        if (looked := _only_looks(request)) is not None:
            return looked
        wish = await use_ticket(self._connecting, ticket, None)
        return self._over() if wish is None else await open_page(self._connecting, wish, {})

    def _over(self) -> Response:
        return notice(self._connecting.root, 410, HEADING, SENTENCE)


def _only_looks(request: Request) -> Response | None:
    """The answer to a `HEAD`, and to fetching ahead (`Sec-Purpose`); None where somebody really comes."""
    if request.scope.get("head"):
        return Response()
    purpose = request.headers.get("sec-purpose", "") + request.headers.get("purpose", "")
    return Response(status_code=503, headers={"Retry-After": "0"}) if "prefetch" in purpose.lower() else None
