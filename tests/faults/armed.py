"""A role of Postledger that ends or stops itself at a named point: the product has no hooks for this.

    python -m tests.faults.armed --kill D.append:3 --told FILE -- work --ready-file FILE

wraps the functions that stand at the named points, then runs `main.py roles` with what follows the dashes. At the n-th
pass of an armed point the process sends itself SIGKILL (`--kill`) or SIGSTOP (`--stop`), after it has written the point's
name to the file `--told`. `--owner` puts the deciders into a consumer group of their own, so that two processes own every
partition at once. Consumer sessions are scaled down, so that a killed owner's partitions are soon somebody else's.
"""

import argparse
import asyncio
import functools
import gc
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

SESSION_MS: Final = 2000
#: Seconds after a call in which a point lies "within" it; doubles of providers answer later than that.
WITHIN_SECONDS: Final = 0.05


def _always(*_: Any, **__: Any) -> bool:
    return True


def _fsync_of_a_blob(*_: Any, **__: Any) -> bool:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "_put" and frame.f_code.co_filename.endswith("blobs.py"):
            return True
        frame = frame.f_back
    return False


def _to(topic: str) -> Callable[..., bool]:
    return lambda _self, found, *_, **__: found == topic


def _whole_mail_answered(wire: Any, *_: Any, **__: Any) -> bool:
    return any(reply.startswith(b"250 2.0.0") for reply in wire._replies)


def _sends(_graph: Any, operation: str, *_: Any, **__: Any) -> bool:
    return operation == "send"


def _of_kind(kind: str) -> Callable[..., bool]:
    return lambda _self, timer, *_, **__: timer.kind == kind


@dataclass(frozen=True)
class Point:
    """A moment in a role: before or after a function of a module is called, where `when` says so of its arguments.

    "within" it: so long after it was called that what it asks for has left, and sooner than a slow provider answers.
    """

    role: str
    place: str
    moment: str
    when: Callable[..., bool] = _always


POINTS: Final = {
    "K1 data received": Point("smtp", "gateways.mail_in.log_door:LogDoor.deliver", "before"),
    "K2 blob not fsynced": Point("smtp", "os:fsync", "before", _fsync_of_a_blob),
    "K3 blob fsynced": Point("smtp", "gateways.stores.blobs:LocalBlobs._put", "after"),
    "K4 mail acknowledged": Point("smtp", "gateways.log.command_log:CommandLog.append", "after", _to("mail.raw")),
    "K5 250 written": Point("smtp", "gateways.mail_in.smtp_wire:Wire._flush", "after", _whole_mail_answered),
    "K7 commands fetched": Point("work", "handlers.decider:Decider.take", "before"),
    "K7 effects fetched": Point("work", "handlers.effector:Effector.take", "before"),
    "K7 events fetched": Point("project", "projections.projector:Projector.take", "before"),
    "K8 in transaction": Point("project", "projections.projector:advance", "after"),
    "K8 committed": Point("project", "projections.projector:Projector._fold", "after"),
    "K9 group offset committed": Point(
        "project", "aiokafka.consumer.group_coordinator:GroupCoordinator._do_commit_offsets", "after"
    ),
    "K9 effect position kept": Point("work", "gateways.stores.work_positions:EffectPositions.advance", "after"),
    "D decided, not appended": Point("work", "gateways.log.event_log:EventLog.append", "before", _to("mailbox.events")),
    "D batch handed over": Point("work", "aiokafka:AIOKafkaProducer.send_batch", "after"),
    "D acknowledged, not folded": Point(
        "work", "gateways.log.event_log:EventLog.append", "after", _to("mailbox.events")
    ),
    "D before snapshot": Point("work", "gateways.stores.snapshots:Snapshots.save", "before"),
    "D after snapshot": Point("work", "gateways.stores.snapshots:Snapshots.save", "after"),
    "K18 before expiry": Point("work", "handlers.timers:Timers._fire", "before", _of_kind("expire")),
    "K18 expiry asked": Point("work", "handlers.timers:Timers._fire", "after", _of_kind("expire")),
    "P blobs gone, key there": Point("work", "gateways.stores.keyring:Keyring.destroy", "before"),
}


#: Of refreshing: they take a provider, and have a test of their own.
TOKEN_POINTS: Final = {
    "K15 leased": Point("work", "gateways.stores.vault:Vault.lease", "after", lambda _self, found, **_: bool(found)),
    "K15 rotated, not kept": Point("work", "gateways.stores.vault:Vault.switch", "before"),
    "K15 kept, not reported": Point("work", "gateways.stores.vault:Vault.switch", "after"),
    "K15 reported": Point("work", "handlers.reporting:Reports.refresh", "after"),
    "K15 revoked at the provider": Point("work", "gateways.stores.vault:Vault.destroy", "before"),
    "K15 destroyed, not reported": Point("work", "gateways.stores.vault:Vault.destroy", "after"),
}

#: Of delivering webhooks: they take a receiver.
WEBHOOK_POINTS: Final = {
    "K14 posted, not reported": Point("work", "gateways.webhooks.receivers:Receivers.post", "after"),
    "K14 moved on, place not kept": Point("work", "handlers.webhook_tiers:Tiers.move_on", "after"),
    "K14 granted, not posted": Point("work", "gateways.webhooks.receivers:Receivers.post", "before"),
    "K14 to be queued": Point("work", "handlers.webhook_queue:Queue.put", "before"),
    "K14 queued, place not kept": Point("work", "handlers.webhook_queue:Queue.put", "after"),
    "K14 reported": Point("work", "handlers.webhook_deliver:Delivers._report", "after"),
    "K14 letter kept, not disabled": Point("work", "gateways.log.dead_letters:DeadLetters.keep", "after"),
}

#: Of sending: they take providers. Those of K11 leave it open to everybody but the provider whether the mail goes out.
SEND_POINTS: Final = {
    "K10 granted, nothing asked": Point("work", "handlers.deliver:Delivering._answer", "before"),
    "K10 draft on record, not sent": Point("work", "handlers.deliver_parts:Notes.draft", "after"),
    "K10 transmission on record, dot not written": Point("work", "handlers.deliver_parts:Notes.transmission", "after"),
    "K11 Gmail asked for a draft": Point("work", "gateways.providers.gmail_calls:Gmail.create_draft", "within"),
    "K11 Gmail asked to send": Point("work", "gateways.providers.gmail_calls:Gmail.send_draft", "within"),
    "K11 Graph asked for a draft": Point("work", "gateways.providers.graph_sending:make", "within"),
    "K11 Graph asked to send": Point("work", "gateways.providers.graph_calls:Graph.post", "within", _sends),
    "K11 dot written": Point("work", "gateways.providers.smtp_content:Content.end", "within"),
    "K12 Gmail has a draft, not on record": Point("work", "gateways.providers.gmail_calls:Gmail.create_draft", "after"),
    "K12 Graph has a draft, not on record": Point("work", "gateways.providers.graph_sending:make", "after"),
    "K12 Gmail has sent": Point("work", "gateways.providers.gmail_calls:Gmail.send_draft", "after"),
    "K12 Graph has sent": Point("work", "gateways.providers.graph_calls:Graph.post", "after", _sends),
    "K12 a server has taken it": Point("work", "gateways.providers.smtp_content:Content.end", "after"),
    "K12 outcome known, not reported": Point("work", "handlers.send_reports:SendReports.tell_surely", "before"),
    "K13 reported, place not kept": Point("work", "handlers.send_reports:SendReports.tell_surely", "after"),
    "D send decided, not appended": Point(
        "work", "gateways.log.event_log:EventLog.append", "before", _to("send.events")
    ),
    "D send appended, not folded": Point("work", "gateways.log.event_log:EventLog.append", "after", _to("send.events")),
    "S dispatched, not queued": Point("work", "handlers.dispatch:Dispatching.act", "before"),
    "S queued, place not kept": Point("work", "handlers.dispatch:Dispatching.act", "after"),
    "S wait is over, not passed on": Point("work", "handlers.tiers:until", "after"),
    "S passed on, place not kept": Point("work", "handlers.tiers:Waits.act", "after"),
    "S timer claimed, not told": Point("work", "handlers.send_timers:SendTimers._fire", "before"),
    "S timer told": Point("work", "handlers.send_timers:SendTimers._fire", "after"),
    "S looked, not reported": Point("work", "handlers.reconcile:Reconciling._found", "after"),
}


def arm(name: str, nth: int, act: Callable[[], None]) -> None:
    """Has `act` called at the n-th pass of a point."""
    point, passes = (POINTS | TOKEN_POINTS | WEBHOOK_POINTS | SEND_POINTS)[name], 0

    def reached() -> None:
        nonlocal passes
        passes += 1
        if passes == nth:
            act()

    owner, attribute = _find(point.place)
    original = getattr(owner, attribute)

    @functools.wraps(original)
    async def awaited(*args: Any, **named: Any) -> Any:
        counts = point.when(*args, **named)
        if counts and point.moment == "before":
            reached()
        if counts and point.moment == "within":
            asyncio.get_running_loop().call_later(WITHIN_SECONDS, reached)
        answer = await original(*args, **named)
        if counts and point.moment == "after":
            reached()
        return answer

    @functools.wraps(original)
    def called(*args: Any, **named: Any) -> Any:
        counts = point.when(*args, **named)
        if counts and point.moment == "before":
            reached()
        answer = original(*args, **named)
        if counts and point.moment == "after":
            reached()
        return answer

    setattr(owner, attribute, awaited if inspect.iscoroutinefunction(original) else called)


def _find(place: str) -> tuple[Any, str]:
    module_name, _, path = place.partition(":")
    owner: Any = importlib.import_module(module_name)
    *classes, attribute = path.split(".")
    for name in classes:
        owner = getattr(owner, name)
    return owner, attribute


def _act(told: str, name: str, signum: signal.Signals) -> Callable[[], None]:
    def act() -> None:
        descriptor = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{name}\n".encode())
        os.close(descriptor)
        os.kill(os.getpid(), signum)

    return act


def _tell_tasks(*_: object) -> None:
    """What every task waits for, on standard error: for a role that does not end when it should."""
    for task in [found for found in gc.get_objects() if isinstance(found, asyncio.Task)]:
        if not task.done():
            task.print_stack(file=sys.stderr)


def scale_sessions(owner: str) -> None:
    """Has groups find out soon that a member has died; deciders are in groups of this owner's own."""
    from gateways.log.subscriptions import Subscriptions

    Subscriptions.__init__.__kwdefaults__["session_timeout_ms"] = SESSION_MS
    subscribe = Subscriptions.subscribe

    @functools.wraps(subscribe)
    def of_owner(self: Any, topics: Any, *, group: str, **more: Any) -> Any:
        return subscribe(self, topics, group=f"{group}{owner}" if group.startswith("decider.") else group, **more)

    Subscriptions.subscribe = of_owner  # type: ignore[method-assign]  # that is what this runner is for


def run(arguments: list[str]) -> None:
    """Arms what is asked for and becomes the role."""
    dashes = arguments.index("--")
    ours, theirs = arguments[:dashes], arguments[dashes + 1 :]
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill")
    parser.add_argument("--stop")
    parser.add_argument("--told", default=os.devnull)
    parser.add_argument("--owner", default="")
    parser.add_argument("--patience", type=float)
    parser.add_argument("--quiet", type=float)
    asked = parser.parse_args(ours)
    signal.signal(signal.SIGUSR1, _tell_tasks)
    scale_sessions(asked.owner)
    if asked.patience is not None:
        from handlers import adoption

        adoption.PATIENCE_SECONDS = asked.patience  # type: ignore[misc]  # scaled, so that a test need not wait for it
    if asked.quiet is not None:
        from handlers import inputs

        inputs.QUIET_SECONDS = asked.quiet  # type: ignore[misc]  # as above
    for text, signum in ((asked.kill, signal.SIGKILL), (asked.stop, signal.SIGSTOP)):
        if text:
            name, _, nth = text.rpartition(":")
            arm(name, int(nth), _act(asked.told, name, signum))
    import main

    sys.argv = ["main.py", "roles", *theirs]
    main.main()


if __name__ == "__main__":
    run(sys.argv[1:])
