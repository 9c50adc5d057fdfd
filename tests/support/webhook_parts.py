"""Everything that delivers webhooks, wired into a house: decider, effects, tiers, and the table of deliveries."""

from gateways.log.dead_letters import DeadLetters
from gateways.log.event_log import EventLog
from gateways.log.subscriptions import Subscriptions
from gateways.providers.egress import Egress
from gateways.stores.snapshots import Snapshots
from gateways.stores.webhook_endpoints import WebhookEndpoints
from gateways.stores.work_positions import EffectPositions
from gateways.webhooks.measures import WebhookMeasures
from gateways.webhooks.receivers import Receivers
from handlers import webhook_deliver, webhook_facts, webhook_queue, webhooks
from handlers.decider import Decider
from handlers.effector import Effector
from handlers.webhook_deliver import Delivers
from handlers.webhook_facts import Tells
from handlers.webhook_queue import Queue
from handlers.webhook_tiers import Tier
from main import House
from projections.catalogue import of_topic
from projections.projector import Projector
from schemas import events
from schemas.topics import SEND_EVENTS, WEBHOOK_EVENTS, WEBHOOK_RETRY


async def open_webhooks(
    house: House, *, seconds: float = 15.0, work: bool = True, project: bool = True, session_ms: int = 6000
) -> None:
    """Runs until the house is closed. `seconds`: what a receiver has for its answer."""
    subscriptions = Subscriptions(house.kafka, prefix=house.prefix, session_timeout_ms=session_ms)
    if work:
        await _deliver(house, subscriptions, seconds)
    if project:
        _project(house, subscriptions)
    await subscriptions.start()
    house.stack.push_async_callback(subscriptions.stop)


async def _deliver(house: House, subscriptions: Subscriptions, seconds: float) -> None:
    stack = house.stack
    scale, pool, log = house.settings.retry_scale, house.pool, house.command_log
    positions, letters = EffectPositions(pool), DeadLetters(log)
    egress = Egress(house.settings.allow_private_hosts)
    receivers = await stack.enter_async_context(Receivers.opened(egress, house.keyset, seconds=seconds))
    queue, endpoints = Queue(log, scale=scale), WebhookEndpoints(pool, house.keyring)
    measures = WebhookMeasures(pool, house.metrics)
    truth = EventLog(house.kafka, prefix=house.prefix)
    stack.push_async_callback(truth.close)

    context = webhooks.context()
    decider = Decider(context, truth, Snapshots(pool), letters)
    decider.subscription = subscriptions.subscribe(
        list(context.inputs), group=f"decider.{context.snapshot}", consumes=decider
    )
    stack.push_async_callback(decider.stop)
    delivers = Delivers(endpoints, receivers, queue, log, measures, scale=scale)
    effects = (
        *webhook_facts.effects(Tells(endpoints, log)),
        *webhook_queue.effects(queue, log, letters),
        webhook_deliver.effect(delivers),
    )
    for effect in effects:
        effector = Effector(effect, positions)
        effector.subscription = subscriptions.subscribe(
            list(effect.topics), group=f"effect.{effect.name}", consumes=effector
        )
        stack.push_async_callback(effector.stop)
    for tier_seconds in WEBHOOK_RETRY:
        tier = Tier(tier_seconds, queue, positions)
        tier.subscription = subscriptions.subscribe([tier.topic], group=tier.name, consumes=tier)
        stack.push_async_callback(tier.stop)


def _project(house: House, subscriptions: Subscriptions) -> None:
    for topic, vocabulary in ((WEBHOOK_EVENTS.name, events.WEBHOOK), (SEND_EVENTS.name, events.SEND)):
        projector = Projector(topic, of_topic(topic), vocabulary, house.pool)
        projector.subscription = subscriptions.subscribe([topic], group=f"projector.{topic}", consumes=projector)
        house.stack.push_async_callback(projector.stop)
