"""Turns what happened into deliveries: one for each endpoint of the account that wants to be told of it.

A delivery's id derives from the event's and the endpoint's, and the decider knows what it has heard before, so an effect
that is asked twice tells nobody twice. Nobody is told of what happened before the endpoint was there: a log that is read
again from its beginning tells nothing.

A receiver will ask us about what it hears. So nothing is told before the tables show it.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from domain.callbacks import Callback, Receivers, RequestCallback
from domain.webhook_words import OF_CONNECTIONS, OF_MAILBOXES, OF_SENDS, Said, said
from handlers.command_log import AppendsCommands
from handlers.effector import Effect
from schemas import commands, events, topics
from schemas.envelope import Record, Source, first
from schemas.ids import derived_id
from schemas.vocabulary import Vocabulary, encode

#: The words of all topics that are followed.
FACTS: Final = Vocabulary("facts", (), others=(events.MAILBOX, events.CONNECTION, events.SEND))
#: Seconds between looks whether the tables show an event.
GLANCE_SECONDS: Final = 0.05
#: How an owner's id begins that is an account, and no mailbox that is its own.
OF_ACCOUNT: Final = "acc_"


class FindsEndpoints(Protocol):
    """Whom to tell. Everything raises where Postgres can't be reached."""

    async def wanting(self, account: str, kind: str, at: datetime) -> Sequence[str]:
        """The account's enabled endpoints that were there at that time and want events of this kind."""
        ...

    async def owner_of(self, connection: str) -> str | None:
        """The account that a connection belongs to; None where the tables don't show it."""
        ...

    async def wanting_of_send(self, send: str, account: str, kind: str, at: datetime) -> Receivers:
        """The same endpoints, with that of the send's `callbackUrl` among them where the account has one."""
        ...

    async def shown(self, source: Source) -> bool:
        """Whether every table that shows events of this record's topic is past it."""
        ...


class Tells:
    """What the effects need: whom to tell, and a way to say so."""

    def __init__(self, endpoints: FindsEndpoints, log: AppendsCommands) -> None:
        self._endpoints = endpoints
        self._log = log

    async def act(self, event: object, record: Record) -> None:
        """Requests a delivery for each endpoint that is to be told of this event."""
        found = said(event)
        if found is None or not (found.account or OF_ACCOUNT).startswith(OF_ACCOUNT):
            return
        account = found.account or await self._owner(found, record)
        if account is None:
            return
        headers = first(record.headers)
        wanted = account, found.type, datetime.fromisoformat(headers["ce_time"])
        if isinstance(event, OF_SENDS):
            receivers = await self._of_send(event.send, *wanted, record)
        else:
            receivers = Receivers(await self._endpoints.wanting(*wanted))
        if not receivers.endpoints and receivers.callback is None:
            return
        await self._shown(record)
        body, url = body_of(found, headers["ce_time"]), receivers.callback
        for endpoint in receivers.endpoints:
            delivery = delivery_id(headers["ce_id"], endpoint)
            await self._request(Callback(delivery, account, endpoint, found.type, body, found.message), headers)
        if url is not None:
            delivery = delivery_id(headers["ce_id"], account)
            callback = Callback(delivery, account, None, found.type, body, found.message, url, found.user)
            await self._request(callback, headers)

    async def _shown(self, record: Record) -> None:
        while not await self._endpoints.shown(record.source):  # noqa: ASYNC110 - it is Postgres that knows
            await asyncio.sleep(GLANCE_SECONDS)

    async def _of_send(self, send: str, account: str, kind: str, at: datetime, record: Record) -> Receivers:
        """What a send brought along never changes: where nobody is to be told of it, no table has to be up to date."""
        found = await self._endpoints.wanting_of_send(send, account, kind, at)
        if not found.known:
            await self._shown(record)
            found = await self._endpoints.wanting_of_send(send, account, kind, at)
        return found

    async def _owner(self, found: Said, record: Record) -> str | None:
        """None where the tables are past the event and show no such connection: its beginning was skipped."""
        account = await self._endpoints.owner_of(found.connection or "")
        if account is None:
            await self._shown(record)
            account = await self._endpoints.owner_of(found.connection or "")
        return account

    async def _request(self, callback: Callback, headers: dict[str, str]) -> None:
        await self._log.command(
            topics.WEBHOOK_COMMANDS.name,
            callback.key,
            RequestCallback(callback),
            vocabulary=commands.WEBHOOK,
            subject=callback.delivery,
            command_id=f"{callback.delivery}.requested",
            trace=headers,
        )


def body_of(found: Said, at: str) -> str:
    """The JSON that a receiver gets (Standard Webhooks, "payload structure"); `at` is when it happened (RFC 3339)."""
    return encode({"type": found.type, "timestamp": at, "data": found.data}).decode()


def delivery_id(event: str, receiver: str) -> str:
    """The same for the same event and receiver."""
    return derived_id("whd", event, receiver)


def effect(tells: Tells) -> Effect:
    """Follows every topic in which something happens that is told of."""
    topics_told = (topics.MAILBOX_EVENTS.name, topics.CONNECTION_EVENTS.name, topics.SEND_EVENTS.name)
    wants = (*OF_MAILBOXES, *OF_CONNECTIONS, *OF_SENDS)
    return Effect("webhooks", topics_told, FACTS, wants, tells.act, concurrency=16)
