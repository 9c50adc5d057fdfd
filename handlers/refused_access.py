"""Connections whose provider has refused the newest that we have to call it with: a token it has just given, or a password.

Google and Microsoft say 401 for a token that is over or was withdrawn, and a refresh mends that; where it does not, only time
or the user does. Each send that tried it all the same would cost one refresh more, or one failed login, and providers lock
out who fails too often. So the connection is left alone, for longer each time, until what it is called with is newer.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

Code = Literal["token_refused", "reauth_required"]

#: Seconds that it is left alone after the first refusal, twice as long after each further one; a scale shortens them.
FIRST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 3600.0
REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Refused:
    """What was refused, how often in a row, and until when nobody asks, by the loop's clock."""

    version: int
    code: Code
    times: int
    until: float


class RefusedAccess:
    """What this process has heard, by connection. Another one will hear it by itself."""

    def __init__(self, *, scale: float) -> None:
        self._scale = scale
        self._refused: OrderedDict[str, Refused] = OrderedDict()

    def __contains__(self, connection: str) -> bool:
        return connection in self._refused

    def heard(self, connection: str, version: int, code: Code) -> int:
        """What has this version in the vault was refused: how often in a row. Several who tried at once are one refusal."""
        before, now = self._refused.get(connection), asyncio.get_running_loop().time()
        if before is not None and now < before.until and version <= before.version:
            return before.times
        longest = LONGEST_SECONDS * self._scale
        times = before.times + 1 if before is not None and now < before.until + longest else 1
        seconds = min(FIRST_SECONDS * self._scale * 2 ** min(times - 1, 16), longest)
        self._refused[connection] = Refused(version, code, times, now + seconds)
        self._refused.move_to_end(connection)
        if len(self._refused) > REMEMBERED:
            self._refused.popitem(last=False)
        return times

    def taken(self, connection: str) -> None:
        """The provider has taken what it was called with."""
        self._refused.pop(connection, None)

    def is_newest(self, connection: str, version: int) -> bool:
        """Whether this version is one that was refused, and nothing was taken since."""
        refused = self._refused.get(connection)
        return refused is not None and version <= refused.version

    def standing(self, connection: str, version: int) -> tuple[Code, float] | None:
        """Why the provider is not to be asked with this version, and for how many seconds; None where it may be."""
        refused = self._refused.get(connection)
        if refused is None or not self.is_newest(connection, version):
            return None
        left = refused.until - asyncio.get_running_loop().time()
        return (refused.code, left) if left > 0 else None
