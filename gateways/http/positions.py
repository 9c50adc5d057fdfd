"""Reading your own writes: `X-Log-Position` says where an answer stands, `X-After-Position` waits for it."""

import re
from typing import Final

from starlette.requests import Request

from gateways.http import problems
from gateways.http.services import Services
from schemas import topics

AFTER: Final = "x-after-position"
LOG_POSITION: Final = "X-Log-Position"
#: Seconds a read waits for the position it was asked to have seen.
FOLD_SECONDS: Final = 2.0
POSITION: Final = re.compile(r"([a-z.]{1,100})-([0-9]{1,9}):([0-9]{1,18})")
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
    return f"{topic}-{partition}:{offset}"


async def after_position(services: Services, request: Request) -> None:
    """Returns once what the request wants to have seen has been folded. Raises a Problem: 422, or 503 after two seconds."""
    wanted = request.headers.get(AFTER)
    if wanted is None:
        return
    found = POSITION.fullmatch(wanted.strip())
    if found is None or found[1] not in READ_BY:
        raise problems.invalid("/headers/X-After-Position", "`X-After-Position` has to be a position we gave out.")
    try:
        await services.folded.reached(READ_BY[found[1]], found[1], int(found[2]), int(found[3]), seconds=FOLD_SECONDS)
    except TimeoutError as error:
        raise problems.outcome_unknown(NOT_REACHED) from error
