"""The Gmail fake's own process: `python -m tests.support.gmail.child`."""

import asyncio
import contextlib
import json
import re
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

from tests.support.gmail import content
from tests.support.gmail.content import Content, Upload
from tests.support.gmail.errors import Answer, Refused
from tests.support.gmail.methods import BY_NAME, METHODS, Method
from tests.support.gmail.receipts import ReceiptLog
from tests.support.gmail.rudeness import cut, instead, say
from tests.support.gmail.service import Call, Service, new_upload_id, sent_mails
from tests.support.gmail.world import World, says_something

_BEFORE = ("/gmail/v1/users/{user}", "/upload/gmail/v1/users/{user}", "/resumable/upload/gmail/v1/users/{user}")


@dataclass
class Asked:
    """A request, before it is known whether it is let in."""

    world: World
    method: Method
    request: web.Request
    body: bytes
    name: str = ""
    user: str | None = None
    scopes: frozenset[str] = frozenset()
    content: Content = field(default_factory=Content)
    refused: list[Refused] = field(default_factory=list)
    upload: Upload | None = None
    beside: int = 0  # how many requests of the same user were open when it came

    def read(self) -> None:
        """What it is called (an upload in pieces has its method's name at its last piece only), and what it brings."""
        query, headers, settings = self.request.query, self.request.headers, self.world.settings
        uploads = "/upload/" in self.request.path
        kind, content_type = query.get("uploadType", "media"), headers.get("Content-Type", "")
        within = "message" if self.method.name.startswith("drafts") else None
        self.name = self.method.name
        try:
            if self.request.method != self.method.verb and "upload_id" not in query:
                raise Refused("notFound")
            if uploads and "upload_id" in query:
                self.upload = self.world.uploads.get(query["upload_id"])
                if self.upload is None:
                    raise Refused("notFound")
                self.method, self.content = BY_NAME[self.upload.method], self.upload.content
                self.name = _piece(headers.get("Content-Range", "")) or self.method.name
            elif uploads and kind == "resumable":
                self.name = "upload.start"
                self.content = content.about_upload(self.body, headers.get("X-Upload-Content-Type"))
                if int(headers.get("X-Upload-Content-Length", 0)) > settings["messageBytes"]:
                    raise Refused("uploadTooLarge")
            elif uploads:
                if len(self.body) > settings["messageBytes"] + 65_536:
                    raise Refused("uploadTooLarge")
                self.content = content.in_one(kind, self.body, content_type)
            elif self.request.method in ("POST", "PUT"):
                if len(self.body) > settings["jsonBytes"]:
                    problem = f"Request payload size exceeds the limit: {settings['jsonBytes']} bytes."
                    raise Refused("badRequest", problem)
                self.content = content.in_json(self.body, within)
            if len(self.content.raw or b"") > settings["messageBytes"]:
                raise Refused("uploadTooLarge")
        except Refused as refused:
            self.refused.append(refused)

    def material(self) -> bytes:
        """The mail that this is about, or what is asked."""
        if self.upload is not None:
            return bytes(self.upload.received) + self.body
        if self.content.raw is not None:
            return self.content.raw
        name = self.content.words.get("id") or self.request.match_info.get("id")
        draft = self.world.mailbox(self.user).drafts.get(str(name)) if self.user else None
        return draft.raw if draft else str(self.request.rel_url).encode()


class Gmail:
    """The server: who asks, what fails, and then what is done."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._receipts = ReceiptLog(Path(told["receipts"]))
        self._service = Service(self._receipts)
        self._http: aiohttp.ClientSession | None = None
        self.world = World(told)

    async def serve(self, method: Method, request: web.Request) -> web.StreamResponse:
        asked = Asked(self.world, method, request, await request.read())
        try:
            await self._identify(asked)
        except Refused as refused:
            asked.refused.append(refused)
        asked.read()
        world = asked.world
        failure = world.due(asked.name, asked.user, asked.material())
        with world.counted(asked.name, asked.user) as line:
            asked.beside = line["beside"]
            await asyncio.sleep(world.settings["latency"] + failure.get("delay", 0))
            if failure.get("drop") == "before":
                return cut(request)
            own = instead(failure) if says_something(failure) else None
            answer = own if own and failure["when"] == "before" else await self._answer(asked)
            if own and failure["when"] == "after":
                answer = own
            line["status"] = 0 if failure.get("drop") else answer.status
            return await say(request, answer, failure)

    async def _answer(self, asked: Asked) -> Answer:
        try:
            return await self._do(asked)
        except Refused as refused:
            return refused.answer()

    async def _do(self, asked: Asked) -> Answer:
        world, request = asked.world, asked.request
        if asked.user is None:
            raise asked.refused[0]
        if not asked.method.scopes & asked.scopes:
            raise Refused("insufficientPermissions")
        if request.match_info["user"].lower() not in ("me", asked.user.lower()):
            raise Refused("forbidden", f"Delegation denied for {asked.user}")
        if not asked.name.startswith("upload."):
            world.charge(asked.name, asked.user, asked.beside)
        if asked.refused:
            raise asked.refused[0]
        place = {name: value for name, value in request.match_info.items() if name != "user"}
        if asked.name == "upload.start":
            kind = "message/rfc822"
            name = new_upload_id()
            world.uploads[name] = Upload(asked.method.name, asked.user, place, asked.content, kind)
            where = str(request.url.update_query(upload_id=name))
            return Answer(200, b"", {"Location": where, "X-GUploader-UploadID": name})
        if (upload := asked.upload) is not None:
            return await self._piece(asked, upload)
        return await self._service.do(
            Call(world, asked.method, asked.user, asked.scopes, place, request.query, asked.content)
        )

    async def _piece(self, asked: Asked, upload: Upload) -> Answer:
        if upload.answered is not None:
            return upload.answered
        header = asked.request.headers.get("Content-Range") or f"bytes 0-{len(asked.body) - 1}/{len(asked.body)}"
        if not upload.take(header, asked.body, asked.world.settings["messageBytes"]):
            got = {"Range": f"bytes=0-{len(upload.received) - 1}"} if upload.received else {}
            return Answer(308, b"", got)
        call = Call(asked.world, asked.method, upload.user, asked.scopes, upload.place, asked.request.query,
                    Content(upload.content.words, bytes(upload.received)))  # fmt: skip
        try:
            upload.answered = await self._service.do(call)
        except Refused as refused:
            upload.answered = refused.answer()
        return upload.answered

    async def _identify(self, asked: Asked) -> None:
        """Whose token it is, asked anew each time where there is an authorization server."""
        header = asked.request.headers.get("Authorization")
        if header is None:
            raise Refused("required")
        found = re.fullmatch(r"Bearer (\S+)", header, re.IGNORECASE)
        if not found:
            raise Refused("authError")
        known = asked.world.tokens.get(found[1])
        if known is None and (issuer := asked.world.settings["oauth"]):
            known = await self._ask(issuer, found[1])
        if known is None:
            raise Refused("authError")
        asked.user, asked.scopes = known["login"], frozenset(known["scope"].split())
        asked.world.mailbox(asked.user)

    async def _ask(self, issuer: str, token: str) -> dict[str, str] | None:
        self._http = self._http or aiohttp.ClientSession()
        try:
            async with self._http.post(f"{issuer}/_test/token", json={"token": token}) as answer:
                found = await answer.json()
        except aiohttp.ClientError as error:
            raise Refused("unavailable") from error
        good = found["alive"] and found["kind"] == "AccessToken"
        return {"login": found["login"], "scope": found.get("scope") or ""} if good else None

    async def control(self, request: web.Request) -> web.Response:
        words = await request.json() if request.can_read_body else {}
        try:
            return web.json_response(self._order(request.match_info.get("order", "fail"), words))
        except (ValueError, TypeError, KeyError, Refused) as error:
            return web.json_response({"error": str(error)}, status=400)

    def _order(self, order: str, words: dict[str, Any]) -> Any:
        match order:
            case "fail" | "set" | "token" | "put":
                return getattr(self.world, order)(**words)
            case "told":
                return self.world.told()
            case "mails":
                return sent_mails(self.world)
            case "reset":
                self.world.over = True
                self.world = World(self._told)
                self._receipts.forget()
                return None
        raise ValueError(f"unknown order: {order}")


def _piece(header: str) -> str | None:
    """The name of a request that brings not the last piece of an upload."""
    if header.startswith("bytes *"):
        return "upload.query"
    found = re.fullmatch(r"bytes \d+-(\d+)/(\d+|\*)", header)
    return "upload.chunk" if found and found[2] != str(int(found[1]) + 1) else None


async def main() -> None:
    """Serve on a port, say which, and end with standard input."""
    reader = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    told = json.loads(await reader.readline())
    gmail = Gmail(told)
    app = web.Application(client_max_size=1 << 28)
    for method in METHODS:
        for before in _BEFORE if method.uploads else _BEFORE[:1]:
            app.router.add_route(method.verb, before + method.path, partial(gmail.serve, method))
            if before != _BEFORE[0] and method.verb != "PUT":
                app.router.add_route("PUT", before + method.path, partial(gmail.serve, method))
    app.router.add_route("*", "/_control", gmail.control)
    app.router.add_route("*", "/_control/{order}", gmail.control)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", told["port"], backlog=1024, reuse_address=True)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    while await reader.read(1 << 16):
        pass


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
