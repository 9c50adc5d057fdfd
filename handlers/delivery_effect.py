"""The effect that works off what is due of sends: attempts, and looks after those in doubt."""

from typing import Final

from domain.connection_events import Provider
from handlers.deliver import Delivering
from handlers.effector import Effect, kind_of, same_work
from handlers.reconcile import Reconciling
from schemas.envelope import Record
from schemas.topics import DELIVER
from schemas.work import WORK, DeliverSend, LookForSend, Work

NAME: Final = "deliver"
#: Sends of one provider, and of one connection, that are under way in this process at the same time. Where a provider sets
#: no bound to sends but to calls, more of them are under way than may call at once: there is much to do beside the calls.
AT_ONCE: Final = 256
OF_ONE: Final[dict[Provider, int]] = {"gmail": 16, "outlook": 4, "smtp": 3}
#: Looks of one connection at the same time, in a lane beside its sends: each may take many calls, and holds up no mail.
LOOKS_OF_ONE: Final[dict[Provider, int]] = {"gmail": 4, "outlook": 1, "smtp": 1}
LOOK: Final = WORK.types[LookForSend]
TOPICS: Final = {topic.name: provider for provider, topic in DELIVER.items()}
#: Sends of one connection that wait in memory; more are told to come back, so that they hold up no other.
WAITING: Final = 2_000
#: Records of one partition in memory.
UNFINISHED: Final = 20_000
#: Seconds that attempts under way have to end when the process does.
DRAIN_SECONDS: Final = 12.0


def effect(delivering: Delivering, reconciling: Reconciling) -> Effect:
    """Acts on the topics `deliver.*`, each provider's by itself."""

    async def act(work: Work, record: Record) -> None:
        if isinstance(work, LookForSend):
            await reconciling.act(work, record)
        else:
            await delivering.act(work, record)

    async def surplus(work: Work, record: Record) -> None:
        if isinstance(work, LookForSend):
            await reconciling.act(work, record)
        else:
            await delivering.later(work, record)

    return Effect(
        NAME,
        tuple(TOPICS),
        WORK,
        (DeliverSend, LookForSend),
        act,
        concurrency=AT_ONCE,
        width=_width,
        lane=_lane,
        waiting=WAITING,
        surplus=surplus,
        unfinished=UNFINISHED,
        truth=False,
        # A look is about one attempt, and nobody asks for it again: one that waits stands for no other.
        distinct=(DeliverSend,),
        once=same_work,
        drain_seconds=DRAIN_SECONDS,
    )


def _lane(record: Record) -> str:
    return f"{record.key}/looks" if kind_of(record) == LOOK else record.key


def _width(record: Record) -> int:
    return (LOOKS_OF_ONE if kind_of(record) == LOOK else OF_ONE)[TOPICS[record.topic]]
