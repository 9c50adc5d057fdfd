"""Addresses of hosts that users name, as this machine's resolver says them.

The system's resolver keeps a thread for as long as a name's servers are silent, and no thread can be cut off. So lookups
have threads of their own, which nothing else waits for, neither other work nor the end of the process; and of these no
domain has more than a few.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from weakref import WeakValueDictionary

#: Threads that look up names at the same time, and those for names of one domain: whoever owns it makes names in it.
THREADS: Final = 64
THREADS_OF_A_DOMAIN: Final = 8
#: Seconds that anybody waits for a name.
LOOKUP_SECONDS: Final = 5.0
#: Labels below which a country gives out names, as it does in co.uk; anybody can own another short one.
REGISTRIES: Final = frozenset(
    ("ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "ltd", "mil", "ne", "net", "nom", "or", "org", "plc", "sch")
)
SILENT: Final = "The host's name servers do not answer."

#: Family and socket address of each address that a host has.
Addresses = Sequence[tuple[socket.AddressFamily, tuple[str, int]]]
Resolve = Callable[[str, int], Awaitable[Addresses]]


class Resolver:
    """Looks up names. Whoever asks for one that is being looked up waits for the same answer."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(THREADS)
        self._domains: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._lookups: dict[str, asyncio.Task[Any]] = {}

    async def __call__(self, host: str, port: int) -> Addresses:
        """Raises OSError where the host has no address, or nobody says so in time."""
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = self._lookups[host] = asyncio.create_task(self._look_up(host))
            lookup.add_done_callback(lambda ended: self._forget(host, ended))
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                # Others may wait for it, too.
                found = await asyncio.shield(lookup)
        except TimeoutError:
            raise _silent() from None
        return [(family, (str(address[0]), port)) for family, _, _, _, address in found]

    def _forget(self, host: str, lookup: "asyncio.Task[Any]") -> None:
        del self._lookups[host]
        if not lookup.cancelled():
            lookup.exception()  # perhaps nobody waits for it any more, and asyncio would say so

    async def _look_up(self, host: str) -> Any:
        of_domain = self._domains.setdefault(_domain(host), asyncio.Semaphore(THREADS_OF_A_DOMAIN))
        async with asyncio.timeout(LOOKUP_SECONDS):  # else names nobody waits for any more would have their turn, too
            await of_domain.acquire()
            try:
                await self._room.acquire()
            except BaseException:
                of_domain.release()
                raise
        try:
            return await _in_a_thread(host)
        finally:
            self._room.release()
            of_domain.release()


async def _in_a_thread(host: str) -> Any:
    """What the system says of a host. Ends with the thread and not before."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Any] = loop.create_future()

    def tell(answer: Any, error: BaseException | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(answer)
        else:
            found.set_exception(error)

    def ask() -> None:
        answer, failure = None, None
        try:
            answer = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, answer, failure)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    return await found


def _domain(host: str) -> str:
    """That in which one owner makes names: two labels, or three where a country gives out those below its second (co.uk)."""
    labels = host.split(".")[-3:]
    of_country = len(labels) == 3 and len(labels[-1]) == 2 and labels[-2] in REGISTRIES
    return ".".join(labels if of_country else labels[-2:])


def _silent() -> OSError:
    return socket.gaierror(socket.EAI_AGAIN, SILENT)
