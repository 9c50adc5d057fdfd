"""The Graph double's own process: `python -m tests.support.graph.child`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.graph.answers import Asked
from tests.support.graph.messages import Work
from tests.support.graph.receipts import Receipts
from tests.support.graph.routes import OPERATIONS, Graph
from tests.support.graph.saying import say
from tests.support.graph.state import State

_MOST = 160 << 20


class House:
    """What is behind the two addresses: that of the API, and another one that takes the pieces of attachments."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.state = State(told["settings"], told["tokens"], OPERATIONS)
        self.receipts = Receipts(Path(told["receipts"]), sync=self.state.settings["sync"])
        self.graph = Graph(self.state, Work(self.state, self.receipts))

    async def request(self, request: web.Request) -> web.StreamResponse:
        base = f"http://{request.host}"
        headers = {name.lower(): text for name, text in request.headers.items()}
        asked = Asked(request.method, request.raw_path, headers, await _body(request), base)
        return await say(request, asked, await self.graph.answer(asked))

    async def control(self, request: web.Request) -> web.Response:
        words = json.loads(await request.read() or b"{}")
        try:
            return web.json_response(await self._order(request.match_info["order"], words))
        except (ValueError, TypeError, KeyError) as error:
            return web.json_response({"error": str(error)}, status=400)

    async def _order(self, order: str, words: dict[str, Any]) -> Any:
        match order:
            case "fail":
                self.state.fail(**words)
            case "set":
                self.state.set(**words)
                self.receipts.sync = self.state.settings["sync"]
            case "token":
                self.state.tokens[words["token"]] = {"login": words["login"], "scope": words["scope"]}
                if words["login"] is None:
                    del self.state.tokens[words["token"]]
            case "told":
                return self.state.told() | {
                    "mailboxes": {login: self._mailbox(login) for login in self.graph.work.boxes}
                }
            case "reset":
                self.graph.work.over = True
                self.graph.work = Work(self.state, self.receipts, self.graph.work.uploads)
                self.state.forget()
                self.receipts.sync = self.state.settings["sync"]
                await self.receipts.forget()
            case _:
                raise ValueError(f"no order {order}")
        return {}

    def _mailbox(self, login: str) -> list[dict[str, Any]]:
        box = self.graph.work.boxes[login]
        box.settle()
        return [
            {
                "id": one.immutable_id,
                "restId": one.rest_id,
                "folder": one.folder,
                "isDraft": one.is_draft,
                "submitted": one.submitted,
                "internetMessageId": one.internet_message_id,
                "subject": one.properties.get("subject"),
            }
            for one in box.messages.values()
        ]


async def _body(request: web.Request) -> bytes:
    """All of it, up to more than anybody takes; who is refused for the size still gets to hear it."""
    content = bytearray()
    async for piece in request.content.iter_chunked(1 << 20):
        if len(content) < _MOST:
            content += piece
    return bytes(content)


async def serve() -> None:
    """Serve on two ports, say which, and end when standard input does."""
    reader = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    told = json.loads(await reader.readline())
    house = House(told)
    app = web.Application()
    app.router.add_post("/_control/{order}", house.control)
    app.router.add_route("*", "/{rest:.*}", house.request)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75)
    await runner.setup()
    ports = []
    for wanted in (told["port"], 0):
        site = web.TCPSite(runner, "127.0.0.1", wanted, backlog=512)
        await site.start()
        ports.append(runner.addresses[-1][1])
    house.graph.work.uploads = f"http://127.0.0.1:{ports[1]}"
    sys.stdout.write(json.dumps({"port": ports[0], "uploads": ports[1]}) + "\n")
    sys.stdout.flush()
    while await reader.readline():
        pass


if __name__ == "__main__":
    asyncio.run(serve())
