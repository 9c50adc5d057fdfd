"""Sends as a product team lives through them: `main.py up`, three mailboxes, receivers of webhooks, and `kill -9`."""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateways.stores.keyset import open_keyset
from gateways.stores.kms import LocalKeys
from gateways.stores.postgres import pooled
from gateways.stores.vault import Vault
from tests.support.everywhere import found_in, tables_of, topics_of
from tests.support.main_words import Installed
from tests.support.oauth_server.server import Client
from tests.support.sending_product import (
    CALLBACK,
    FILE,
    FILE_NAME,
    GMAIL,
    GOOGLE,
    HEADER,
    HIDDEN,
    KEY,
    MICROSOFT,
    OUTLOOK,
    OWN,
    PASSWORD,
    RECIPIENT,
    SUBJECT,
    TEXT,
    Product,
    read,
    settings,
    world,
)
from tests.support.up import Up, await_gone, descendants, installed_at, started

#: Seconds from the second start until every send has to have ended.
HEALED = 60


@asynccontextmanager
async def running(words: Installed) -> AsyncIterator[Up]:
    """Starts it while receivers go on answering in this process."""
    with ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, started(words))


@pytest.mark.timeout(300)
async def test_a_mail_is_sent_once_or_its_sender_knows_through_failures_and_kill_9_of_everything(
    tmp_path: Path,
) -> None:
    """What arrives is what was asked for, everybody is told who wants to be, and nothing of it can be read elsewhere."""
    async with world() as outside, aiohttp.ClientSession() as http:
        words = installed_at(tmp_path / "data", **settings(outside))
        async with running(words) as up:
            product = Product(up, outside, http)
            await moves_in(product)
            await sends_what_was_asked(product)
            await waits_for_the_end(product)
            await moves_and_cancels(product)
            await outlives_its_providers(product)
            sends = await is_killed_while_sending(product)
        async with running(words) as product.up:
            await every_send_has_ended_once(product, sends)
            await nothing_secret_is_anywhere(product)
            rebuilt = await asyncio.to_thread(words.says, "replay", "--all", "--dry-run")
            assert rebuilt.code == 0, rebuilt
            await forgets_its_user(product, sends)
            await nothing_secret_is_anywhere(product)


async def moves_in(product: Product) -> None:
    """An account, a user, three mailboxes, an endpoint."""
    outside = product.world
    for client, provider in ((GOOGLE, "gmail"), (MICROSOFT, "outlook")):
        callback = f"{product.up.url}/v1/connect/{provider}/callback"
        await outside.oauth.add_client(Client(client.id, client.secret, (callback,), mode=client.mode))
    said = await asyncio.to_thread(product.up.words.says, "account", "create", "--plan", "pro")
    product.key = said.row["key"]
    body: dict[str, Any] = {"email": "ada@example.org", "displayName": "Ada"}
    product.user = (await product.ask("POST", "/v1/users", status=201, json=body))["id"]
    product.connections = {"gmail": await product.connect("gmail", GMAIL)}
    product.connections["outlook"] = await product.connect("outlook", OUTLOOK)
    server = {"host": "127.0.0.1", "security": "none", "username": OWN}
    body = {"userId": product.user, "email": OWN, "auth": "password", "password": PASSWORD}
    body |= {"smtp": server | {"port": outside.smtp.plain_port}, "imap": server | {"port": outside.imap.plain_port}}
    product.connections["smtp"] = (await product.ask("POST", "/v1/connections/smtp", status=201, json=body))["id"]
    body = {"url": f"{outside.hook.url}/{CALLBACK}"}
    product.webhook_secret = (await product.ask("POST", "/v1/webhooks", status=201, json=body))["secret"]
    keyset = open_keyset(product.up.data / "keyset.json")
    async with pooled(product.up.servers.database_url, size=1) as pool:
        held = [await Vault(pool, LocalKeys(keyset), keyset).get(one) for one in product.connections.values()]
    tokens = {token for one in held if one for token in (one.secrets.access_token, one.secrets.refresh_token) if token}
    assert len(tokens) == 4
    product.secrets |= tokens | {product.key, product.webhook_secret, product.webhook_secret.removeprefix("whsec_")}
    product.secrets |= {PASSWORD, GOOGLE.secret, MICROSOFT.secret, SUBJECT, TEXT, HEADER, RECIPIENT, HIDDEN, KEY}
    product.secrets |= {FILE[:22].decode(), FILE_NAME.partition(".")[0], CALLBACK}


async def sends_what_was_asked(product: Product) -> None:
    """Asked twice under one key, sent once; each part of it arrives, and can be looked at by who asked."""
    form = aiohttp.FormData()
    form.add_field("file", FILE, filename=FILE_NAME, content_type="text/plain")
    where = f"/v1/attachments/upload?userId={product.user}"
    attachment = (await product.ask("POST", where, status=201, data=form))["id"]
    asked = {
        "body": f"<h1>Grüße</h1><p>{TEXT}</p>",
        "bodyFormat": "html",
        "to": [f"Grace <{RECIPIENT}@example.org>"],
        "bcc": [{"email": f"{HIDDEN}@example.org"}],
        "headers": {"X-Order": HEADER},
        "attachments": [attachment],
        "connectionId": product.connections["gmail"],
    }
    first = await product.send(f"{SUBJECT} für Grace", key=KEY, **asked)
    assert await product.send(f"{SUBJECT} für Grace", key=KEY, **asked) == first
    other = await product.send(f"{SUBJECT} for another", key=KEY, status=409, **asked)
    assert other["code"] == "idempotency_key_reused"
    shown = await product.ended(first["messageId"])
    (attempt,) = shown["attempts"]
    assert (attempt["number"], attempt["outcome"], shown["provider"]) == (1, "accepted", "gmail")
    assert shown["createdAt"] <= attempt["startedAt"] <= attempt["endedAt"]
    (mail,) = await product.world.gmail.mails()
    assert shown["providerMessageId"] == mail.id
    assert sorted(mail.recipients) == [f"{HIDDEN}@example.org", f"{RECIPIENT}@example.org"]
    arrived = read(mail.delivered)
    assert (arrived["Subject"], arrived["X-Order"], arrived["Bcc"]) == (f"{SUBJECT} für Grace", HEADER, None)
    assert str(arrived["To"]) == f"Grace <{RECIPIENT}@example.org>"
    html, plain = arrived.get_body(("html",)), arrived.get_body(("plain",))
    assert html is not None
    assert plain is not None
    assert html.get_content().strip() == asked["body"]
    assert plain.get_content().split() == ["Grüße", TEXT]
    (attached,) = arrived.iter_attachments()
    assert (attached.get_filename(), attached.get_payload(decode=True)) == (FILE_NAME, FILE)
    await product.told_of(first["messageId"], "send.sent")
    await a_link_opens_a_file_for_a_while(product, first["messageId"])


async def a_link_opens_a_file_for_a_while(product: Product, send: str) -> None:
    """Without credentials, until it expires."""
    (file,) = (await product.ask("GET", f"/v1/messages/{send}/raw"))["attachments"]
    async with product.http.get(file["url"]) as answer:
        assert (answer.status, await answer.read()) == (200, FILE)
    async with asyncio.timeout(20):
        while True:
            async with product.http.get(file["url"]) as answer:
                if answer.status != 200:
                    assert (await answer.json())["code"] == "link_expired"
                    break
            await asyncio.sleep(0.2)
    assert datetime.fromisoformat(file["expiresAt"]) <= datetime.now(UTC)


async def waits_for_the_end(product: Product) -> None:
    """Who would rather wait hears of the end in the answer."""
    for provider in ("outlook", "smtp"):
        subject = f"{SUBJECT} by {provider}"
        said = await product.send(subject, status=200, wait=20, providerPreference=provider)
        assert (said["status"], said["connectionId"]) == ("sent", product.connections[provider])
        assert await product.world.sent(subject) == [provider]


async def moves_and_cancels(product: Product) -> None:
    """What is scheduled goes out when it was moved to, or not at all."""
    far = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    moved = (await product.send(f"{SUBJECT} moved", scheduledAt=far))["messageId"]
    cancelled = (await product.send(f"{SUBJECT} cancelled", scheduledAt=far))["messageId"]
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    await product.ask("PATCH", f"/v1/messages/{moved}", json={"scheduledAt": due.isoformat()})
    assert (await product.ask("DELETE", f"/v1/messages/{cancelled}"))["status"] == "cancelled"
    shown = await product.ended(moved)
    assert datetime.fromisoformat(shown["attempts"][0]["startedAt"]) >= due
    late = await product.ask("DELETE", f"/v1/messages/{moved}", status=409)
    assert late["code"] == "too_late"
    await product.told_of(cancelled, "send.cancelled")
    assert [len(await product.world.sent(f"{SUBJECT} {one}")) for one in ("moved", "cancelled")] == [1, 0]


async def outlives_its_providers(product: Product) -> None:
    """One that fails is tried again; one whose answer got lost is asked, and nothing goes out twice."""
    await product.world.gmail.fail("drafts.create", status=503, times=2)
    fails = await product.send(f"{SUBJECT} fails", providerPreference="gmail")
    await product.world.graph.fail("messages.send", drop="after")
    lost = await product.send(f"{SUBJECT} lost", providerPreference="outlook")
    shown = await product.ended(fails["messageId"])
    assert [one["outcome"] for one in shown["attempts"]] == ["deferred", "deferred", "accepted"]
    await product.told_of(fails["messageId"], "send.deferred")
    shown = await product.ended(lost["messageId"])
    assert [one["outcome"] for one in shown["attempts"]] == ["accepted"]
    assert (await product.world.graph.told())["injected"] == {"messages.send": 1}
    assert await product.world.sent(f"{SUBJECT} fails") == ["gmail"]
    assert await product.world.sent(f"{SUBJECT} lost") == ["outlook"]


async def is_killed_while_sending(product: Product) -> dict[str, str]:
    """Twenty are asked for; while some are out, some under way and some wait, every process is killed. Subjects by id."""
    await product.world.gmail.fail("drafts.send", delay=1.0, times=4)
    await product.world.graph.fail("messages.send", delay=1.0, times=3)
    providers = ["gmail"] * 9 + ["outlook"] * 9 + ["smtp"] * 2
    before = len(product.world.gmail.receipts()) + len(product.world.graph.receipts())
    said = await asyncio.gather(*[
        product.send(f"{SUBJECT} {number}", providerPreference=provider, key=f"{KEY}-{number}")
        for number, provider in enumerate(providers)
    ])  # fmt: skip
    async with asyncio.timeout(20):
        while len(product.world.gmail.receipts()) + len(product.world.graph.receipts()) < before + 4:
            await asyncio.sleep(0.01)
    family = descendants(product.up.process.pid)
    product.up.kill()
    for process in family:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(await_gone, family, seconds=15)
    after = len(product.world.gmail.receipts()) + len(product.world.graph.receipts())
    assert after - before < 18, "all had gone out before the kill"
    return {one["messageId"]: f"{SUBJECT} {number}" for number, one in enumerate(said)}


async def every_send_has_ended_once(product: Product, sends: dict[str, str]) -> None:
    """Each is sent, once; only by SMTP, where nobody can be asked, a send may be in doubt, and says so."""
    async with asyncio.timeout(HEALED):
        shown = {send: await product.ended(send, "sent", "uncertain", seconds=HEALED) for send in sends}
    for send, subject in sends.items():
        found, status = await product.world.sent(subject), shown[send]["status"]
        if status == "uncertain":
            assert shown[send]["provider"] == "smtp", shown[send]
            assert len(found) <= 1
        else:
            assert len(found) == 1, (found, shown[send])
        await product.told_of(send, f"send.{status}")
    again = await product.send(f"{SUBJECT} 0", key=f"{KEY}-0", providerPreference="gmail")
    assert sends[again["messageId"]] == f"{SUBJECT} 0"


async def forgets_its_user(product: Product, sends: dict[str, str]) -> None:
    """Nothing of a user who was deleted can be read, and no key is left that would open it."""
    files = (await product.ask("GET", f"/v1/attachments?userId={product.user}"))["items"]
    await product.ask("DELETE", f"/v1/users/{product.user}", status=204)
    for send in sends:
        await product.ask("GET", f"/v1/messages/{send}", status=404)
        await product.ask("GET", f"/v1/messages/{send}/raw", status=404)
    for file in files:
        await product.ask("GET", f"/v1/attachments/{file['id']}/content", status=404)
    for kind in ("messages", "attachments", "connections"):
        assert (await product.ask("GET", f"/v1/{kind}?userId={product.user}"))["items"] == []
    async with pooled(product.up.servers.database_url, size=1) as pool, asyncio.timeout(20):
        while await pool.fetchval("select count(*) from vault"):
            await asyncio.sleep(0.1)


async def nothing_secret_is_anywhere(product: Product) -> None:
    """Not in a topic, a table, a file of ours or a metric, as it stands or in base64."""
    servers, data = product.up.servers, product.up.data
    async with pooled(servers.database_url, size=1) as pool:
        places = await topics_of(servers.kafka, "") | await tables_of(pool)
    files = [*data.rglob("*.log"), *(data / "blobs").rglob("*"), product.up.log]
    places |= {str(file): file.read_bytes() for file in files if file.is_file()}
    async with product.http.get(f"{product.up.url}/metrics") as answer:
        places["/metrics"] = await answer.read()
    assert {"send.events", "webhook.events", "deliver.gmail", "read.sends", "/metrics"} <= places.keys()
    assert {"send.events", "account.commands", "read.sends"} <= {place for place, _ in found_in(places, {product.user})}
    assert found_in(places, product.secrets | {one for secret in product.secrets for one in in_base64(secret)}) == []


def in_base64(secret: str) -> set[str]:
    """As it reads there, wherever it begins among three bytes; but for its ends, which depend on what is around."""
    return {base64.b64encode(b"\0" * skip + secret.encode())[4:-4].decode() for skip in range(3)}
