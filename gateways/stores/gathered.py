"""Asking together what is asked together: one statement for all that came while the last one was under way.

Nobody is answered by a statement that began before they asked, so an answer is as fresh as one of their own would be.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Gathered(Generic[Asked, Answer]):
    """Hands what is asked to `ask`, as much at once as waits; it answers in the same order.

    What it raises is raised to everybody who was among them, and to everybody who waits by then: who does not answer the
    one in time will not answer the others in time.
    """

    def __init__(self, ask: Callable[[list[Asked]], Awaitable[Sequence[Answer]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def add(self, asked: Asked) -> Answer:
        """Its answer."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answered))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_on())
        return await answered

    async def _ask_on(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                answers = await self._ask([asked for asked, _ in taken])
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits has to hear it
                waiting, self._waiting = self._waiting, []
                for _, answered in (*taken, *waiting):
                    if not answered.done():
                        answered.set_exception(error)
            else:
                for (_, answered), answer in zip(taken, answers, strict=True):
                    if not answered.done():
                        answered.set_result(answer)
