"""Mails that go out by users' own mailboxes: asking for one, looking what has become of it, and changing one's mind.

A mail is sealed under its user's data key, for `place("send", send, "message")`, its callback for `"callback"`.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final, get_args

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from domain.send_commands import CancelSend, MoveSend, RedriveSend
from domain.send_events import SendCommandRefused
from gateways.http import parameters, problems
from gateways.http.asking import read_back, settled
from gateways.http.edge import Shortcut
from gateways.http.json_bodies import json_object
from gateways.http.operations import json_response, list_response
from gateways.http.parameters import USER_ID
from gateways.http.positions import LOG_POSITION, after_position, list_position
from gateways.http.problems import Problem
from gateways.http.services import Services
from gateways.http.v1 import pages
from gateways.http.v1.bodies import Faults, Members
from gateways.http.v1.new_sends import make_send
from gateways.http.v1.pending import SEND_MAIL, following
from gateways.http.v1.queries import query_of
from gateways.http.v1.send_bodies import moment, when
from gateways.http.v1.send_json import SendsShown
from gateways.http.v1.send_routes import ASK, LARGEST_PAGE, PATH, declare_sends
from gateways.http.v1.send_shapes import Status
from gateways.http.v1.send_waits import Ends, preferred_wait
from gateways.http.v1.users import NO_STORE
from gateways.http.who import account_caller
from gateways.log.decisions import Asked, Decision
from gateways.single_flight import SingleFlight
from projections import send_grounds, send_lists, sends
from projections.send_lists import SendRow
from schemas import topics
from schemas.ids import ALPHABET

SEND_ID: Final = re.compile(f"snd_[{ALPHABET}]{{26}}")
STATUSES: Final = get_args(Status)
QUERY: Final = ("userId", "status", "offset", *pages.NAMES)
TOO_LATE: Final = "It is on its way, or has ended otherwise: look at its `status`."
NOT_ENDED: Final = (
    "Only what failed, was given up or is uncertain is tried again, and not what was tried again in the meantime: look at "
    "its `status`."
)


def routes(services: Services, mails: "Mails") -> APIRouter:
    router = APIRouter(tags=["messages"])
    declare_sends(router, services, mails, STATUSES)
    return router


def shortcut(services: Services, mails: "Mails") -> Shortcut:
    """What a product is for: the framework would take a good part of its time."""
    return Shortcut("POST", ASK, re.compile(re.escape(ASK)), following(services, SEND_MAIL, mails.send))


class Mails:
    """The handlers; each raises a Problem where it refuses."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._shown = SendsShown(services)
        self._ends = Ends(services)
        self._turns = SingleFlight()

    async def send(self, request: Request) -> Response:
        """The answer comes once it is on record; what becomes of it is told by its message, by webhooks and by streams."""
        services = self._services
        caller = await account_caller(services, request, "sends:write")
        made = await make_send(services, request, caller, self._turns)
        headers = {**NO_STORE, "Location": f"{PATH}/{made.send}", LOG_POSITION: made.log_position}
        if made.replayed:
            headers["Idempotency-Replayed"] = "true"
        status = "scheduled" if made.scheduled else "queued"
        return await self._queued(request, caller.owner, made.send, status, headers)

    async def _queued(self, request: Request, owner: str, send: str, status: str, headers: dict[str, str]) -> Response:
        """202, or 200 and the message where it has come to an end while the caller waited."""
        seconds = preferred_wait(request)
        if seconds:
            row = await self._ends.ended(owner, send, seconds)
            if row is not None:
                return self._json(await self._one(row), headers | {"Preference-Applied": f"wait={seconds}"})
        return json_response({"messageId": send, "status": status}, 202, headers)

    async def list_all(self, request: Request) -> Response:
        """Those of all the account's users, or of one of them, the newest first. `X-Log-Position` is where the stream of
        `GET /v1/events` goes on from what is listed here."""
        services = self._services
        caller = await account_caller(services, request, "sends:read")
        faults = Faults()
        said = query_of(request, QUERY, faults)
        status = said.get("status")
        if status is not None and status not in STATUSES:
            faults.add("/query/status", "`status` has to be " + " or ".join(f"`{one}`" for one in STATUSES) + ".")
        limit, before = min(pages.limit_of(request, faults), LARGEST_PAGE), pages.cursor_of(request, SEND_ID, faults)
        offset = faults.tried(lambda: parameters.whole_number(request, "offset", least=0)) or 0
        faults.refuse()
        await after_position(services, request)
        position = list_position(services)
        user = said.get("userId")
        rows = await send_lists.of_account(
            services.pool,
            caller.owner,
            # What can't be a user's id is nobody's, as an id that was never given out.
            user=user if user is None or USER_ID.fullmatch(user) else "",
            statuses=[status] if status else None,
            limit=limit + 1,
            offset=offset,
            before=before,
        )
        last = rows[limit - 1].send if len(rows) > limit else None
        return list_response(request, *pages.page(await self._shown.all(rows[:limit]), last), position)

    async def show(self, request: Request) -> Response:
        """Its state, when it is tried next, and what came of each attempt."""
        caller = await account_caller(self._services, request, "sends:read")
        send = send_id(request)
        await after_position(self._services, request)
        return self._json(await self._one(await self._row(caller.owner, send)), NO_STORE)

    async def raw(self, request: Request) -> Response:
        """As it was asked for. Each answer has new links to the attachments, which need no credentials until they expire."""
        caller = await account_caller(self._services, request, "sends:read")
        send = send_id(request)
        await after_position(self._services, request)
        said = await self._shown.raw(await self._row(caller.owner, send))
        if said is None:
            raise problems.not_found()
        return json_response(said, 200, NO_STORE)

    async def move(self, request: Request) -> Response:
        """Until it starts, and never to a time that is past."""
        caller = await account_caller(self._services, request, "sends:write")
        row = await self._row(caller.owner, send_id(request))
        faults, body = Faults(), await json_object(request)
        Members(body, ("scheduledAt",), faults)
        scheduled_at = faults.tried(lambda: moment(body.get("scheduledAt")))
        if scheduled_at is None and body.get("scheduledAt") is None:
            faults.add("/scheduledAt", "`scheduledAt` is missing: it says when to send it instead.")
        faults.tried(lambda: when(scheduled_at, datetime.now(UTC)))
        faults.refuse()
        assert scheduled_at is not None
        return await self._changed(request, row, MoveSend(row.send, row.user, row.owner, scheduled_at))

    async def cancel(self, request: Request) -> Response:
        """While nothing of it has gone out and nothing is under way. What is cancelled can be cancelled again."""
        caller = await account_caller(self._services, request, "sends:write")
        row = await self._row(caller.owner, send_id(request))
        return await self._changed(request, row, CancelSend(row.send, row.user, row.owner))

    async def retry(self, request: Request) -> Response:
        """With a full number of attempts, the same Message-ID, and the draft that stands at the provider, if there is one.
        What is uncertain may have gone out already: look into the mailbox before you ask for that."""
        services = self._services
        caller = await account_caller(services, request, "sends:write")
        row = await self._row(caller.owner, send_id(request))
        known = await send_grounds.grounds(services.pool, row.owner, row.user, None)
        if known is None:
            raise problems.not_found()
        about = (row.send, row.user, row.owner)
        command = RedriveSend(*about, caller.by, known.connections, services.retry_scale, row.attempt)
        decision = await self._decided(request, row, command)
        headers = {**NO_STORE, "Location": f"{PATH}/{row.send}", LOG_POSITION: decision.log_position}
        after = await read_back(self._row(row.owner, row.send))
        return await self._queued(request, row.owner, row.send, after.status, headers)

    async def _changed(self, request: Request, row: SendRow, command: MoveSend | CancelSend) -> Response:
        """The message as it is after the command."""
        decision = await self._decided(request, row, command)
        after = await read_back(self._row(row.owner, row.send))
        return self._json(await read_back(self._one(after)), {**NO_STORE, LOG_POSITION: decision.log_position})

    async def _decided(self, request: Request, row: SendRow, command: Any) -> Decision:
        """Raises a Problem where it was refused, but for what is cancelled already."""
        asked = Asked(topics.SEND_COMMANDS.name, row.user, row.send, command, sends.PROJECTION.name)
        decision = await settled(self._services.send_decisions, request, asked)
        match decision.event:
            case SendCommandRefused(reason="unknown"):
                raise problems.not_found()
            case SendCommandRefused(reason="too_late"):
                raise Problem("too_late", TOO_LATE)
            case SendCommandRefused(reason="sent"):
                raise Problem("already_sent", "It went out: send another mail instead.")
            case SendCommandRefused(reason="not_ended"):
                raise Problem("not_ended", NOT_ENDED)
        return decision

    async def _row(self, owner: str, send: str) -> SendRow:
        """Raises a Problem (404)."""
        row = await send_lists.by_id(self._services.pool, owner, send)
        if row is None:
            raise problems.not_found()
        return row

    async def _one(self, row: SendRow) -> bytes:
        """Raises a Problem (404) where the user's data key is gone."""
        shown = await self._shown.all([row])
        if not shown:
            raise problems.not_found()
        return shown[0]

    @staticmethod
    def _json(body: bytes, headers: dict[str, str]) -> Response:
        return Response(body, 200, headers, "application/json")


def send_id(request: Request) -> str:
    """The message that the path names; what can't be an id is not there."""
    found: str = request.path_params["send_id"]
    if not SEND_ID.fullmatch(found):
        raise problems.not_found()
    return found
