"""Reading your own writes: `X-Log-Position` says where an answer stands, `X-After-Position` waits for it."""

import asyncio
from typing import Final

from starlette.requests import Request

from gateways.http import problems
from gateways.http.resume import places_in, token, token_of_all
from gateways.http.services import Services
from gateways.http.user_feeds import USER_FEEDS
from schemas import topics

AFTER: Final = "x-after-position"
LOG_POSITION: Final = "X-Log-Position"
#: Seconds a read waits for the position it was asked to have seen.
FOLD_SECONDS: Final = 2.0
NOT_REACHED: Final = (
    "What can be read is still before `X-After-Position`; try again shortly, or read without the header what there is."
)
#: The projection whose rows answer questions about a topic's facts.
READ_BY: Final = {
    topics.MAILBOX_EVENTS.name: "messages",
    topics.ACCOUNT_EVENTS.name: "users",
    topics.CONNECTION_EVENTS.name: "connections",
    topics.SEND_EVENTS.name: "sends",
    topics.WEBHOOK_EVENTS.name: "deliveries",
}


def position_text(topic: str, partition: int, offset: int) -> str:
    """`topic-partition:next offset`, as streams resume from it too."""
    return token(topic, partition, offset)


def list_position(services: Services) -> dict[str, str]:
    """The header of a list of an account's sends or connections that is asked for after this: a stream goes on from there.

    It names the places of both, so that who lists both can go on from the first answer. Empty where nothing is known yet.
    """
    positions, parts = services.folded.positions, []
    for topic in USER_FEEDS:
        offsets: list[int] = []
        while (offset := positions.get((READ_BY[topic], topic, len(offsets)))) is not None:
            offsets.append(offset)
        if not offsets:
            return {}
        parts.append(token_of_all(topic, offsets))
    return {LOG_POSITION: ",".join(parts)}


async def after_position(services: Services, request: Request) -> None:
    """Returns once what the request wants to have seen has been folded. Raises a Problem: 422, or 503 after two seconds."""
    wanted = request.headers.get(AFTER)
    if wanted is None:
        return
    places = places_in(wanted.strip())
    if not places or any(topic not in READ_BY for topic, _ in places):
        raise problems.invalid("/headers/X-After-Position", "`X-After-Position` has to be a position we gave out.")
    try:
        async with asyncio.timeout(FOLD_SECONDS):
            for (topic, partition), offset in places.items():
                await services.folded.reached(READ_BY[topic], topic, partition, offset, seconds=FOLD_SECONDS)
    except TimeoutError as error:
        raise problems.outcome_unknown(NOT_REACHED) from error
