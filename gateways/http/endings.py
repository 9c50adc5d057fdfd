"""Why a stream ends, and what its client hears of it."""

from dataclasses import dataclass
from typing import Final

from gateways.http.stream_measures import Cause


@dataclass(frozen=True, slots=True)
class Ending:
    """`close_code` is the WebSocket's (RFC 6455 7.4.1); `reason` is there where the mailbox ended, and nothing follows;
    `retry_ms` tells an SSE client when to come back. `cause` is what an operator sees counted."""

    close_code: int
    cause: Cause
    reason: str | None = None
    retry_ms: int | None = None


#: Everything has been told, and no more can come: as an event of its own already said.
COMPLETE: Final = Ending(1000, "ended")
#: Come back and resume: it could not keep up with what there was to tell.
SLOW: Final = Ending(1013, "slow")
#: Come back and resume: we could not keep up.
BEHIND: Final = Ending(1013, "behind")
#: The key it was opened with is no longer good.
REVOKED: Final = Ending(1008, "revoked")
#: A frame that is larger than any client needs to send.
TOO_BIG: Final = Ending(1009, "too_big")


def inbox_ended(reason: str) -> Ending:
    """The mailbox was deleted or has expired."""
    return Ending(1000, "ended", reason=reason)


def restarting(retry_ms: int) -> Ending:
    """This process is about to end; come back after so long."""
    return Ending(1012, "restarting", retry_ms=retry_ms)
