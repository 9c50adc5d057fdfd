"""The IMAP double's own process: `python -m tests.support.mail_servers.imap_child`."""

import asyncio
import base64
import contextlib
import re
from typing import Any

from tests.support.mail_servers.state import CHALLENGE, State, bearer, serve

GREETING = "* OK Gimap ready for requests from 127.0.0.1 double"
REFUSED = "NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)"
_MOST_LINE = 64 * 1024
_WORDS = re.compile(rb'"((?:[^"\\]|\\.)*)"|(\S+)')


class Connection:
    """One client, until it logs out or one of us hangs up."""

    def __init__(self, state: State, security: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.state, self.port_security, self.reader, self.writer = state, security, reader, writer
        self.secret = security == "tls"
        self.name: str | None = None
        self.failure: dict[str, Any] = {}

    async def run(self) -> None:
        self.state.connections += 1
        self.state.open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError, OSError):
                await self._talk()
        finally:
            self.state.open -= 1
            self.writer.close()

    async def _talk(self) -> None:
        if await self._failed("CONNECT", "*"):
            return
        await self._say(GREETING if self.state.settings["banner"] is None else self.state.settings["banner"])
        while line := await self.reader.readline():
            tag, _, rest = line.rstrip(b"\r\n").partition(b" ")
            command, _, arguments = rest.partition(b" ")
            name, mark = command.decode(errors="replace").upper(), tag.decode(errors="replace")
            if await self._failed(name, mark):
                continue
            match name:
                case "CAPABILITY":
                    await self._say(f"* CAPABILITY {self._capabilities()}")
                    await self._end(mark, "OK Thats all she wrote!")
                case "NOOP" | "ID":
                    await self._end(mark, "OK Success")
                case "LOGOUT":
                    await self._say("* BYE LOGOUT Requested")
                    await self._end(mark, "OK Quoth the raven, nevermore...")
                    return
                case "STARTTLS":
                    await self._starttls(mark)
                case "LOGIN" | "AUTHENTICATE" if self.name:
                    await self._end(mark, "BAD already authenticated")
                case "LOGIN":
                    await self._login(mark, arguments)
                case "AUTHENTICATE":
                    await self._authenticate(mark, arguments.decode(errors="replace"))
                case "SELECT" | "EXAMINE" if self.name:
                    await self._say("* 0 EXISTS")
                    await self._end(mark, "OK [READ-WRITE] selected. (Success)")
                case _:
                    await self._end(mark, f"BAD Unknown command {id(self):x}")

    def _capabilities(self) -> str:
        settings, words = self.state.settings, ["IMAP4rev1", "UNSELECT", "IDLE", "NAMESPACE", "ID", "UIDPLUS"]
        if self.name:
            return " ".join([*words, "ENABLE", "MOVE", "CONDSTORE"])
        if self.port_security == "starttls" and not self.secret and settings["starttls"]:
            words.append("STARTTLS")
        if not self._takes_secrets() or settings["loginDisabled"]:
            words.append("LOGINDISABLED")
        if settings["saslIr"]:
            words.append("SASL-IR")
        return " ".join([*words, *(f"AUTH={one}" for one in self._mechanisms())])

    def _takes_secrets(self) -> bool:
        return self.secret or self.state.settings["plainLogins"]

    def _mechanisms(self) -> list[str]:
        return [one for one in self.state.settings["mechanisms"] if one != "LOGIN"] if self._takes_secrets() else []

    async def _starttls(self, tag: str) -> None:
        if self.secret or self.port_security != "starttls" or not self.state.settings["starttls"]:
            await self._end(tag, "BAD Unknown command")
            return
        await self._end(tag, "OK Begin TLS negotiation now")
        await self.writer.start_tls(self.state.tls)
        self.secret = True

    async def _login(self, tag: str, arguments: bytes) -> None:
        if not self._takes_secrets() or self.state.settings["loginDisabled"]:
            await self._end(tag, "NO [PRIVACYREQUIRED] LOGIN is disabled")
            return
        words = [re.sub(rb"\\(.)", rb"\1", quoted) or bare for quoted, bare in _WORDS.findall(arguments)]
        if len(words) != 2:
            await self._end(tag, "BAD Could not parse command")
            return
        name, password = (word.decode(errors="replace") for word in words)
        await self._decide(tag, name, "LOGIN", ok=await self.state.knows(name, password, "password"))

    async def _authenticate(self, tag: str, arguments: str) -> None:
        mechanism, _, initial = arguments.partition(" ")
        if mechanism.upper() not in self._mechanisms():
            await self._end(tag, "NO [CANNOT] Unsupported mechanism")
            return
        if initial and not self.state.settings["saslIr"]:
            await self._end(tag, "BAD no initial response here")
            return
        text = initial or await self._asked("")
        if text == "*":
            await self._end(tag, "BAD AUTHENTICATE cancelled")
            return
        try:
            blob = base64.b64decode("" if text == "=" else text, validate=True)
        except ValueError:
            await self._end(tag, "BAD Invalid SASL argument")
            return
        if mechanism.upper() == "PLAIN":
            parts = blob.decode(errors="replace").split("\0")
            name, password = parts[1:] if len(parts) == 3 else ("", "")
            await self._decide(tag, name, "PLAIN", ok=await self.state.knows(name, password, "password"))
            return
        given = bearer(blob)
        ok, ended = bool(given and await self.state.knows(*given, "token")), None
        if not ok:
            answer = await self._asked(base64.b64encode(CHALLENGE.encode()).decode())
            ended = answer or "empty line"
        await self._decide(tag, given[0] if given else "", "XOAUTH2", ok=ok, ended=ended)

    async def _asked(self, challenge: str) -> str:
        await self._say(f"+ {challenge}")
        line = await self.reader.readline()
        if not line:
            raise ConnectionResetError
        return line.decode(errors="replace").rstrip("\r\n")

    async def _decide(self, tag: str, name: str, method: str, *, ok: bool, ended: str | None = None) -> None:
        security = self.port_security if self.secret else "plain"
        self.state.seen(name, method, ok=ok, security=security, ended=ended)
        if not ok:
            await self._end(tag, REFUSED)
            return
        self.name = name
        await self._say(f"* CAPABILITY {self._capabilities()}")
        await self._end(tag, f"OK {name} authenticated (Success)")

    async def _failed(self, command: str, tag: str) -> bool:
        self.failure = failure = self.state.due(command)
        await asyncio.sleep((failure.get("delayMs", 0) + self.state.settings["slowMs"]) / 1000)
        if failure.get("dropBefore"):
            self.writer.transport.abort()
            raise ConnectionResetError
        if "hugeBytes" in failure:
            self.writer.write(b"* OK ")
            for _ in range(failure["hugeBytes"] >> 16):
                self.writer.write(b"a" * (1 << 16))
                await self.writer.drain()
            await self._say("")
        elif "reply" in failure:
            await self._say(failure["reply"].replace("TAG", tag))
        else:
            return False
        return True

    async def _end(self, tag: str, text: str) -> None:
        await asyncio.sleep(self.failure.get("delayAfterMs", 0) / 1000)
        if self.failure.get("dropAfter"):
            self.writer.transport.abort()
            raise ConnectionResetError
        await self._say(f"{tag} {text}")

    async def _say(self, line: str) -> None:
        self.writer.write(line.encode() + b"\r\n")
        await self.writer.drain()


async def listen(state: State, security: str) -> asyncio.Server:
    return await asyncio.start_server(
        lambda reader, writer: Connection(state, security, reader, writer).run(),
        "127.0.0.1",
        0,
        limit=_MOST_LINE,
        ssl=state.tls if security == "tls" else None,
    )


if __name__ == "__main__":
    asyncio.run(serve(listen))
