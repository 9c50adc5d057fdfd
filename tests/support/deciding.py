"""The deciders of some contexts, and some effects, in a house where nobody else works: the others are as if down."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from gateways.log.dead_letters import DeadLetters
from gateways.log.event_log import EventLog
from gateways.log.subscriptions import Subscriptions
from gateways.stores.snapshots import Snapshots
from gateways.stores.work_positions import EffectPositions
from handlers.context import Context
from handlers.decider import Decider
from handlers.effector import Effect, Effector
from main import House


@asynccontextmanager
async def deciding(house: House, *contexts: Context, effects: Sequence[Effect] = ()) -> AsyncIterator[None]:
    """They run until the block ends, and end as those of a process do that is told to."""
    async with AsyncExitStack() as stack:
        log = EventLog(house.kafka, prefix=house.prefix)
        stack.push_async_callback(log.close)
        subscriptions = Subscriptions(house.kafka, prefix=house.prefix)
        for context in contexts:
            decider = Decider(context, log, Snapshots(house.pool), DeadLetters(house.command_log))
            decider.subscription = subscriptions.subscribe(
                list(context.inputs), group=f"decider.{context.snapshot}", consumes=decider
            )
            stack.push_async_callback(decider.stop)
        for effect in effects:
            effector = Effector(effect, EffectPositions(house.pool))
            effector.subscription = subscriptions.subscribe(
                list(effect.topics), group=f"effect.{effect.name}", consumes=effector
            )
            stack.push_async_callback(effector.stop)
        await subscriptions.start()
        stack.push_async_callback(subscriptions.stop)
        yield
