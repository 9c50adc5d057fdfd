"""The front door: the command line, and the only place where the rooms are wired together.

python main.py up         everything on this machine
python main.py http|smtp|work|project    one role of a larger installation
python main.py --help     everything else
"""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateways.command_line.failures import USAGE, Failed
from gateways.command_line.front_door import front_door, run_command

if TYPE_CHECKING:
    from gateways.settings import Settings

# ── wiring ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class House:
    """The parts of one process, each opened when first needed and closed in the opposite order."""

    def __init__(self, settings: "Settings", stack: AsyncExitStack) -> None:
        from prometheus_client import CollectorRegistry, ProcessCollector

        from gateways.stores.blobs_chosen import open_blobs
        from gateways.stores.keyset import open_keyset

        assert settings.kafka is not None
        assert settings.database_url is not None
        self.settings = settings
        self.kafka, self.prefix = settings.kafka, settings.topic_prefix
        self.database_url = settings.database_url.get_secret_value()
        self.stack = stack
        self.keyset = open_keyset(settings.keyset_path)
        self.blobs = open_blobs(settings.blobs, settings.blobs_path, endpoint=settings.blobs_endpoint)
        self.metrics = CollectorRegistry()
        self.checks: dict[str, Callable[[], Coroutine[Any, Any, str | None]]] = {}
        ProcessCollector(registry=self.metrics)

    async def open(self) -> None:
        """What every role needs."""
        from gateways.background import in_background
        from gateways.log.measured import AppendMeasures, MeasuredCommandLog
        from gateways.stores.key_watch import KeyWatch
        from gateways.stores.keyring import Keyring
        from gateways.stores.kms_chosen import key_encryption
        from gateways.stores.one_keyset import check_keyset
        from gateways.stores.postgres import pooled

        self.pool = await self.stack.enter_async_context(pooled(self.database_url, size=10))
        await check_keyset(self.pool, self.keyset, self.settings.keyset_path)
        self.keys = key_encryption(self.settings.kms, self.keyset)
        self.stack.push_async_callback(self.keys.close)
        watch = KeyWatch(self.keys)
        self.checks["data keys"] = watch.trouble
        in_background(self.stack, watch.run())
        self.keyring = Keyring(self.pool, self.keys)
        self.appends = AppendMeasures(self.metrics)
        self.command_log = MeasuredCommandLog(self.kafka, self.appends, prefix=self.prefix)
        self.stack.push_async_callback(self.command_log.close)

    async def connect(self) -> None:
        """What connected accounts need: the vault, and every provider."""
        from gateways.log.use_reports import UseReports
        from gateways.providers.catalogue import ProviderSettings, connectors
        from gateways.stores.vault import Vault

        names = [field.name for field in fields(ProviderSettings) if field.name in type(self.settings).model_fields]
        said = ProviderSettings(**{name: self.settings.plain(name) for name in names})
        self.vault = Vault(self.pool, self.keys, self.keyset)
        self.connectors = await self.stack.enter_async_context(connectors(said, self.metrics))
        self.uses = UseReports(self.command_log, self.metrics)
        self.uses.start()
        self.stack.push_async_callback(self.uses.close)

    async def follow(self) -> None:
        """What the doors need: the tail of the log, and how far the tables are."""
        from gateways.log.tail import Tail
        from gateways.stores.folded import FoldedPositions
        from gateways.stores.freshness import Freshness
        from gateways.stores.time_to_visible import TimeToVisible
        from schemas.topics import MAILBOX_EVENTS, TOPICS

        self.tail = Tail(self.kafka, [topic.name for topic in TOPICS if topic.truth], prefix=self.prefix)
        self.folded = FoldedPositions(self.database_url, self.pool)
        self.fresh = Freshness("mailboxes", MAILBOX_EVENTS.name, self.tail, self.folded)
        TimeToVisible(self.tail, self.folded, self.metrics)
        await self.folded.start()
        self.stack.push_async_callback(self.folded.stop)
        await self.tail.start()
        self.stack.push_async_callback(self.tail.stop)
        self.fresh.start()
        self.stack.push_async_callback(self.fresh.stop)

    def door(self) -> Any:
        from gateways.mail_in.log_door import LogDoor

        return LogDoor(self.pool, self.keyset, self.keyring, self.command_log, self.blobs, fresh=self.fresh)


async def open_http(house: House) -> None:
    """Listens for HTTP until the house is closed."""
    from gateways.http import opening
    from gateways.stores.rates import CREATION, REQUESTS, SENDS

    settings = house.settings
    parts = opening.HttpParts(
        pool=house.pool,
        keyset=house.keyset,
        keyring=house.keyring,
        command_log=house.command_log,
        tail=house.tail,
        folded=house.folded,
        blobs=house.blobs,
        door=house.door(),
        kafka=house.kafka,
        topic_prefix=house.prefix,
        mail_domain=settings.mail_domain,
        rates_on=settings.rates == "on",
        creation_limit=replace(CREATION, most=settings.creations_per_minute),
        request_limit=replace(REQUESTS, most=settings.requests_per_second),
        send_limit=replace(SENDS, most=settings.sends_per_minute),
        retry_scale=settings.retry_scale,
        proxies=settings.proxies,
        sns_topics=settings.sns_topics,
        address=settings.http_address,
        vault=house.vault,
        connectors=house.connectors,
        uses=house.uses,
        public_url=settings.public_url or f"http://{settings.http}",
        return_urls=settings.return_urls,
        allow_private_hosts=settings.allow_private_hosts,
        attachment_days=settings.attachment_days,
        link_seconds=settings.link_seconds,
        metrics=house.metrics,
    )
    await opening.open_http(parts, house.stack)


async def open_smtp(house: House) -> None:
    """Listens for SMTP until the house is closed."""
    from gateways.mail_in import opening
    from gateways.mail_in.smtp_limits import Limits

    settings = house.settings
    await opening.open_smtp(
        house.door(),
        house.stack,
        address=settings.smtp_address,
        hostname=settings.mail_domain,
        limits=Limits(
            connections=settings.smtp_connections, connections_per_client=settings.smtp_connections_per_client
        ),
        rates_on=settings.rates == "on",
        certificate=(settings.tls_certificate, settings.tls_key) if settings.tls_certificate else None,
        metrics=house.metrics,
    )


async def open_health(house: House, address: tuple[str, int]) -> None:
    """Answers operators for the roles that have no HTTP of their own."""
    from gateways.http.role_health import open_role_health
    from gateways.log.provision import wait_for_broker

    async def postgres() -> None:
        await house.pool.fetchval("select 1")

    async def kafka() -> None:
        await wait_for_broker(house.kafka, seconds=2)

    await open_role_health(address, {"postgres": postgres, "kafka": kafka, **house.checks}, house.metrics, house.stack)


async def declare_work(house: House, subscriptions: Any) -> None:
    """The deciders, the effects and the timers."""
    from gateways.background import in_background
    from gateways.caught_up import CaughtUp
    from gateways.log.measured import MeasuredDeadLetters, MeasuredEventLog
    from gateways.log.raw_mail import RawMailLog
    from gateways.parser.measured import MeasuredParserPool
    from gateways.stores import sealing
    from gateways.stores.consents import ConnectCleanup
    from gateways.stores.due_attachments import DueAttachments
    from gateways.stores.shared_grants import SharedGrants
    from gateways.stores.snapshots import Snapshots
    from gateways.stores.work_positions import Destruction, TimerClaims
    from gateways.work_measures import DecisionMeasures, TimerMeasures
    from handlers import (
        accounts,
        attachments,
        close_users,
        connections,
        discard,
        mailboxes,
        parse,
        revoke,
        sends,
        webhooks,
    )
    from handlers.decider import Decider
    from handlers.reporting import Reports
    from handlers.timers import Timers
    from projections import attachments as projections_of_attachments
    from projections import sends as projections_of_sends

    parser = await house.stack.enter_async_context(MeasuredParserPool(house.metrics, workers=house.settings.parsers))
    log = MeasuredEventLog(house.kafka, house.appends, prefix=house.prefix)
    raw_mail = RawMailLog(house.kafka, prefix=house.prefix)
    house.stack.push_async_callback(log.close)
    house.stack.push_async_callback(raw_mail.close)
    prepares = mailboxes.PreparesMail(house.keyring, sealing, house.blobs, parser)
    decisions = DecisionMeasures(house.metrics)
    letters = MeasuredDeadLetters(house.command_log, house.metrics)
    others = (accounts.context(), connections.context(), sends.context(), webhooks.context())
    for context in (mailboxes.context(prepares), *others):
        decider = Decider(context, log, Snapshots(house.pool), letters)
        decider.on_stopped = end_process
        house.checks[f"decider of {context.name}"] = decider.trouble
        decider.subscription = consumed = subscriptions.subscribe(
            list(context.inputs), group=f"decider.{context.snapshot}", consumes=decider
        )
        decisions.watch(context.name, decider, consumed)
        house.stack.push_async_callback(decider.stop)
    providers, reports, grants = house.connectors.by_provider, Reports(house.command_log), SharedGrants(house.pool)
    tables = [
        CaughtUp(log, house.pool, projection=found.name, topic=found.topic)
        for found in (projections_of_attachments.PROJECTION, projections_of_sends.PROJECTION)
    ]
    known = DueAttachments(house.pool, *tables)
    effects = (
        parse.effect(parse.ParsesLater(prepares, house.keyring, raw_mail, parser, house.command_log)),
        discard.effect(house.blobs),
        attachments.effect(house.blobs, known),
        close_users.effect(house.command_log, house.keyring, ConnectCleanup(house.pool)),
        revoke.effect(revoke.Revoking(house.vault, providers, grants, reports, scale=house.settings.retry_scale)),
    )
    run_effects(house, subscriptions, effects, in_a_hurry=False)
    timers = Timers(TimerClaims(house.pool), house.command_log, Destruction(house.keyring, house.blobs))
    ending = attachments.Ending(known, house.blobs, house.command_log)
    in_background(house.stack, timers.run(), TimerMeasures(house.pool, house.metrics).run(), ending.run())
    refreshing = keep_connected(house, log, reports)
    await deliver_sends(house, subscriptions, refreshing, letters)
    await deliver_webhooks(house, subscriptions, letters)


def run_effects(house: House, subscriptions: Any, effects: Sequence[Any], *, in_a_hurry: bool) -> None:
    """Each effect, from the start of the subscriptions to the end of the house."""
    from gateways.stores.work_positions import EffectPositions
    from handlers.effector import Effector

    for effect in effects:
        effector = Effector(effect, EffectPositions(house.pool))
        effector.subscription = subscriptions.subscribe(
            list(effect.topics), group=f"effect.{effect.name}", consumes=effector, in_a_hurry=in_a_hurry
        )
        house.stack.push_async_callback(effector.stop)


async def deliver_sends(house: House, subscriptions: Any, refreshing: Any, letters: Any) -> None:
    """Tries sends, waits between the attempts, and looks after those in doubt."""
    from gateways.background import in_background
    from gateways.log.claims import Claims
    from gateways.log.tail import Tail
    from gateways.log.work_queue import WorkQueue
    from gateways.providers.allowances import ALLOWED, WITHOUT_RATES
    from gateways.send_measures import SendMeasures
    from gateways.stores.due_sends import DueSends
    from gateways.stores.mailbox_limits import MailboxLimits
    from gateways.stores.outgoing_mails import OutgoingMails
    from gateways.stores.rates import Rates
    from handlers import delivery_effect, dispatch, send_connections, send_ends, tiers
    from handlers.accesses import Accesses
    from handlers.deliver import BESIDE_THE_CALL, Delivering
    from handlers.deliver_parts import Parts
    from handlers.reconcile import Reconciling
    from handlers.send_reports import SendReports
    from handlers.send_timers import SendTimers
    from schemas.topics import SEND_EVENTS

    settings, log, due = house.settings, house.command_log, DueSends(house.pool)
    scale, timeout, worker = settings.retry_scale, settings.provider_timeout, worker_name()
    tail = Tail(house.kafka, [SEND_EVENTS.name], prefix=house.prefix)
    await tail.start()
    house.stack.push_async_callback(tail.stop)
    measures = SendMeasures(house.pool, house.metrics)
    waits, reports = tiers.Waits(WorkQueue(log), scale=scale), SendReports(log)
    mails = OutgoingMails(house.pool, house.keyring, house.blobs)
    accesses, providers = Accesses(house.vault, refreshing, scale=scale), house.connectors.senders
    limits = MailboxLimits(
        house.pool,
        Rates(house.pool),
        ALLOWED if settings.rates == "on" else WITHOUT_RATES,
        holder=worker,
        seconds=timeout + BESIDE_THE_CALL * scale,
    )
    parts = Parts(
        Claims(log, tail), mails, accesses, providers, limits, waits, reports, house.uses, measures, scale=scale
    )
    delivering, reconciling = Delivering(parts, worker=worker, timeout=timeout), Reconciling(parts)
    effects = (
        dispatch.effect(dispatch.Dispatching(waits, letters, log, parts.turns)),
        delivery_effect.effect(delivering, reconciling),
        tiers.effect(waits),
        send_connections.effect(send_connections.FollowingConnections(due, reports, scale=scale)),
    )
    run_effects(house, subscriptions, effects, in_a_hurry=True)
    run_effects(house, subscriptions, [send_ends.effect(send_ends.CountingEnds(due, measures))], in_a_hurry=False)
    in_background(house.stack, SendTimers(due, log, scale=scale).run(), measures.run())


async def deliver_webhooks(house: House, subscriptions: Any, letters: Any) -> None:
    """Tells those who want to be told of what happened."""
    from gateways.background import in_background
    from gateways.providers.egress import Egress
    from gateways.stores.webhook_endpoints import WebhookEndpoints
    from gateways.webhooks.measures import WebhookMeasures
    from gateways.webhooks.receivers import Receivers
    from handlers import webhook_deliver, webhook_facts, webhook_queue, webhook_tiers

    settings, log = house.settings, house.command_log
    egress, endpoints = Egress(settings.allow_private_hosts), WebhookEndpoints(house.pool, house.keyring)
    receivers = await house.stack.enter_async_context(
        Receivers.opened(egress, house.keyset, seconds=settings.webhook_timeout)
    )
    queue, measures = webhook_queue.Queue(log, scale=settings.retry_scale), WebhookMeasures(house.pool, house.metrics)
    delivers = webhook_deliver.Delivers(endpoints, receivers, queue, log, measures, scale=settings.retry_scale)
    effects = (
        webhook_facts.effect(webhook_facts.Tells(endpoints, log)),
        webhook_queue.effect(queue, log, letters),
        webhook_deliver.effect(delivers),
        webhook_tiers.effect(queue),
    )
    run_effects(house, subscriptions, effects, in_a_hurry=True)
    in_background(house.stack, measures.run())


def worker_name() -> str:
    """Tells this process from all others, here and elsewhere."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"


def keep_connected(house: House, log: Any, reports: Any) -> Any:
    """Refreshes tokens, and destroys what belongs to no connection; what is returned gives tokens to others."""
    from gateways.background import in_background
    from gateways.caught_up import CaughtUp
    from gateways.log.rotation_reports import rotation_reports
    from gateways.stores.consents import ConnectCleanup
    from gateways.stores.due_tokens import DueTokens
    from gateways.stores.key_care import keep_keys_young
    from gateways.stores.shared_grants import SharedGrants
    from gateways.token_measures import TokenMeasures
    from handlers.refresh import Refreshing
    from handlers.sweep import Sweeping
    from projections.connections import PROJECTION as CONNECTIONS

    providers, tokens = house.connectors.by_provider, TokenMeasures(house.pool, house.metrics)
    refreshing = Refreshing(
        house.vault,
        providers,
        DueTokens(house.pool),
        reports,
        tokens,
        holder=worker_name(),
        timeout=house.settings.provider_timeout,
        scale=house.settings.retry_scale,
    )
    tables = CaughtUp(log, house.pool, projection=CONNECTIONS.name, topic=CONNECTIONS.topic)
    age, report = timedelta(days=house.settings.key_max_age), rotation_reports(house.command_log)
    in_background(
        house.stack,
        refreshing.run(),
        tokens.run(),
        Sweeping(house.vault, providers, tables, SharedGrants(house.pool), ConnectCleanup(house.pool)).run(),
        keep_keys_young(house.pool, house.keys, max_age=age, report=report),
    )
    return refreshing


async def declare_projections(house: House, subscriptions: Any) -> None:
    """One projector for each truth topic."""
    from gateways.work_measures import StoppedProjections
    from projections.catalogue import of_topic
    from projections.projector import Projector
    from schemas.events import OF_TOPIC

    stopped = StoppedProjections(house.metrics)
    for topic, vocabulary in OF_TOPIC.items():
        projector = Projector(topic, of_topic(topic), vocabulary, house.pool)
        projector.subscription = subscriptions.subscribe(
            [topic], group=f"projector.{topic}", consumes=projector, max_records=2000
        )
        stopped.watch(projector)
        house.stack.push_async_callback(projector.stop)


@asynccontextmanager
async def assembled(settings: "Settings", roles: Sequence[str]) -> AsyncIterator[House]:
    """These roles, running in this process until the block ends."""
    async with AsyncExitStack() as stack:
        house = House(settings, stack)
        await house.open()
        if {"work", "http"} & set(roles):
            await house.connect()
        if {"work", "project"} & set(roles):
            from gateways.log.subscriptions import Subscriptions

            subscriptions = Subscriptions(house.kafka, prefix=house.prefix)
            if "work" in roles:
                await declare_work(house, subscriptions)
            if "project" in roles:
                await declare_projections(house, subscriptions)
            await subscriptions.start()
            stack.push_async_callback(subscriptions.stop)
        if {"http", "smtp"} & set(roles):
            await house.follow()
        if "smtp" in roles:
            await open_smtp(house)
        if "http" in roles:
            await open_http(house)
        elif house.settings.operations_address:
            await open_health(house, house.settings.operations_address)
        yield house


def end_process(sentence: str) -> None:
    """Ends this process for good, saying why."""
    print(sentence, file=sys.stderr, flush=True)
    os._exit(1)


async def prepare(settings: "Settings") -> None:
    """Topics as they are meant, tables up to date, one history."""
    from gateways.command_line.preparing import prepare_installation

    assert settings.kafka
    url = settings.plain("database_url")
    await prepare_installation(settings.kafka, url, prefix=settings.topic_prefix, partitions=settings.partitions)


async def run_roles(settings: "Settings", roles: Sequence[str], ready_file: Path | None, *, checked: bool) -> None:
    """Runs roles until SIGTERM or SIGINT; a second signal ends at once. `checked`: `provision` has just looked at the log."""
    from gateways import process_memory
    from gateways.supervised import told_to_end

    if not checked and settings.kafka and settings.database_url:
        from gateways.log.provision import one_history
        from gateways.stores.keyset import open_keyset

        open_keyset(settings.keyset_path)  # says what is wrong with it before anybody has to be reached

        await one_history(settings.kafka, settings.database_url.get_secret_value(), prefix=settings.topic_prefix)
    ending = told_to_end()
    async with assembled(settings, roles):
        process_memory.settle()
        if ready_file:
            await asyncio.to_thread(ready_file.write_text, str(os.getpid()))
        await ending.wait()


class Reads:
    """The settings, read by nobody else."""

    @staticmethod
    def read() -> "Settings":
        from gateways.settings import SettingsError, read_settings

        try:
            return read_settings()
        except SettingsError as error:
            raise Failed(str(error), code=USAGE) from error

    @staticmethod
    def describe(settings: "Settings") -> list[dict[str, str]]:
        from gateways.settings import describe

        return describe(settings)


cli = front_door(Path(__file__).absolute(), reads=Reads(), run_roles=run_roles, prepare=prepare)


def main() -> None:
    """Runs a command of the command line."""
    run_command(cli)


if __name__ == "__main__":
    main()
