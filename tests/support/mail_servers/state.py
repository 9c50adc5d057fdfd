"""In the child: what a mail double knows and how it is told more."""

import asyncio
import copy
import json
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

SETTINGS: dict[str, Any] = {
    "oauth": None,  # the issuer of an OAuthServer that is asked about tokens
    "mechanisms": ["PLAIN", "LOGIN", "XOAUTH2"],
    "plainLogins": True,  # whether secrets are taken without TLS
    "starttls": True,  # whether it is offered where it could be
    "authRequired": True,  # before MAIL (SMTP)
    "saslIr": True,  # (IMAP)
    "loginDisabled": False,  # (IMAP)
    "slowMs": 0,  # before every answer
    "banner": None,  # in place of the greeting, as it stands
    "scopes": ["https://mail.google.com/", "https://outlook.office.com/SMTP.Send",
               "https://outlook.office.com/IMAP.AccessAsUser.All", "https://outlook.office365.com/SMTP.Send",
               "https://outlook.office365.com/IMAP.AccessAsUser.All"],
}  # fmt: skip
#: What Gmail says to a token it does not take, before it refuses.
CHALLENGE = '{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}'
_FAILURE = {"command", "times", "reply", "delayMs", "delayAfterMs", "dropBefore", "dropAfter", "hugeBytes"}


class State:
    """Everything that a test can change or read."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self.open = 0
        self.forget()
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(told["certificate"])
            file.flush()
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(Path(file.name))

    def forget(self) -> None:
        self.settings = copy.deepcopy(SETTINGS)
        self.set(**self._told["settings"])
        self.users: dict[str, dict[str, str]] = copy.deepcopy(self._told["users"])
        self.failures: list[dict[str, Any]] = []
        self.logins: list[dict[str, Any]] = []
        self.mails: list[dict[str, Any]] = []
        self.commands: Counter[str] = Counter()
        self.connections = 0

    def set(self, **settings: Any) -> None:
        if unknown := settings.keys() - SETTINGS.keys():
            raise ValueError(f"unknown settings: {sorted(unknown)}")
        self.settings |= settings

    def due(self, command: str) -> dict[str, Any]:
        """The failure of this command, counted; an empty one without."""
        self.commands[command] += 1
        for failure in self.failures:
            if failure["command"] == command and failure["times"] > 0:
                failure["times"] -= 1
                return failure
        return {}

    async def knows(self, name: str, secret: str, kind: str) -> bool:
        """Whether this secret (a `password` or a `token`) opens the mailbox of that name."""
        if kind == "token" and self.settings["oauth"]:
            async with (
                aiohttp.ClientSession() as http,
                http.post(f"{self.settings['oauth']}/_test/token", json={"token": secret}) as answer,
            ):
                found = await answer.json()
            scopes = set(str(found.get("scope")).split()) & set(self.settings["scopes"])
            return found["alive"] and found["kind"] == "AccessToken" and found["login"] == name and bool(scopes)
        return bool(secret) and self.users.get(name, {}).get(kind) == secret

    def seen(self, name: str, method: str, *, ok: bool, security: str, ended: str | None = None) -> None:
        self.logins.append({"name": name, "method": method, "ok": ok, "security": security, "ended": ended})

    def do(self, order: str, words: dict[str, Any]) -> Any:
        match order:
            case "user":
                self.users[words["name"]] = words["secrets"]
            case "set":
                self.set(**words)
            case "fail":
                if unknown := words.keys() - _FAILURE:
                    raise ValueError(f"unknown words of a failure: {sorted(unknown)}")
                self.failures.append({"times": 1} | words)
            case "tell":
                names = ("connections", "logins", "mails", "commands", "open")
                return {name: getattr(self, name) for name in names}
            case "reset":
                self.forget()
        return None


def bearer(blob: bytes) -> tuple[str, str] | None:
    """The name and the token of an initial response of XOAUTH2."""
    parts = blob.decode(errors="replace").split("\x01")
    if (
        len(parts) == 4
        and parts[0].startswith("user=")
        and parts[1].startswith("auth=Bearer ")
        and parts[2:] == ["", ""]
    ):
        return parts[0].removeprefix("user="), parts[1].removeprefix("auth=Bearer ")
    return None


async def serve(listen: Callable[[State, str], Awaitable[asyncio.Server]]) -> None:
    """Serve on three ports, say which, then do what standard input orders until it ends."""
    reader = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    state = State(json.loads(await reader.readline()))
    servers = {security: await listen(state, security) for security in ("tls", "starttls", "plain")}
    say({security: server.sockets[0].getsockname()[1] for security, server in servers.items()})
    while line := await reader.readline():
        try:
            say({"told": state.do(**json.loads(line))})
        except (ValueError, TypeError, KeyError) as error:
            say({"error": str(error)})


def say(words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()
