"""GreenMail: SMTP and IMAP with real mailboxes, where a user's token is a user's password.

One jar of Maven's, known by its digest and fetched once for all runs, on the Java that runs Kafka.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from gateways.kafka_jars import java
from gateways.local_children import Child
from gateways.local_ports import free_port
from tests.support.mail_servers.authority import Authority
from tests.support.node import cache

VERSION = "2.1.13"
SHA256 = "21b361e46e8ffe83afe7915a2b01231c4a163c8d0fa5de607e32ed19732d908d"
_PROTOCOLS = ("smtp", "smtps", "imap", "imaps")


def jar() -> Path:
    """The jar in our cache, fetched when it is not there; raises RuntimeError when it is not the one we know."""
    file = cache() / f"greenmail-standalone-{VERSION}.jar"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with (file.parent / "greenmail.lock").open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            if not file.is_file():
                _fetch(file)
    return file


def _fetch(file: Path) -> None:
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    project = MavenContext(repo_cache=GlobalSettings.load().repo_cache).project("com.icegreen", "greenmail-standalone")
    found = project.at_version(VERSION).artifact().resolve()
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as coming:
        shutil.copyfile(found, coming.name)
    with Path(coming.name).open("rb") as bytes_of_it:
        if hashlib.file_digest(bytes_of_it, "sha256").hexdigest() != SHA256:
            Path(coming.name).unlink()
            raise RuntimeError(f"{found} is not the GreenMail {VERSION} that we know: delete it and start again.")
    Path(coming.name).rename(file)


class GreenMail:
    """A running GreenMail with these users (address → password or token); TLS by our authority.

    Its lenience: it takes mail without a login and makes users that it does not know; no STARTTLS.
    """

    host = "127.0.0.1"

    def __init__(self, users: Mapping[str, str] | None = None, *, authority: Authority | None = None) -> None:
        self.authority = authority or Authority()
        self._users = dict(users or {})
        self.ports = {name: free_port() for name in (*_PROTOCOLS, "api")}
        self._open = contextlib.AsyncExitStack()
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as opening:
            folder = Path(opening.enter_context(tempfile.TemporaryDirectory(prefix="greenmail-")))
            lock = os.open(folder, os.O_RDONLY)
            opening.callback(os.close, lock)
            password = secrets.token_hex(8)
            store = self.authority.issue_pkcs12(folder / "keys.p12", password.encode())
            self._child = await Child.spawn(
                "GreenMail",
                [java(), *self._options(store, password), "-jar", await asyncio.to_thread(jar)],
                log=folder / "log",
                stop_signal=signal.SIGKILL,
                guard_signal="KILL",
                lock=lock,
            )
            opening.push_async_callback(self._child.stop)
            self._http = await opening.enter_async_context(aiohttp.ClientSession(self.api))
            await self._ready()
            for address, secret in self._users.items():
                await self._call("POST", "user", {"email": address, "login": address, "password": secret})
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        await self._open.aclose()

    @property
    def api(self) -> str:
        return f"http://{self.host}:{self.ports['api']}"

    async def user(self, address: str, secret: str) -> None:
        """From now on this is the user's password and token; the mailbox is a new one, as GreenMail has it."""
        with contextlib.suppress(LookupError):
            await self._call("DELETE", f"user/{address}")
        await self._call("POST", "user", {"email": address, "login": address, "password": secret})

    async def purge(self) -> None:
        """No mail in any mailbox."""
        await self._call("POST", "mail/purge")

    async def mails(self, address: str) -> list[dict[str, Any]]:
        """What is in the user's INBOX, as GreenMail's API tells it."""
        return await self._call("GET", f"user/{address}/messages/INBOX")

    def _options(self, store: Path, password: str) -> list[str]:
        ports = {f"{name}.port": self.ports[name] for name in _PROTOCOLS}
        hosts = {f"{name}.hostname": self.host for name in (*_PROTOCOLS, "api")}
        rest = {"api.port": self.ports["api"], "users.login": "email"}
        keys = {"tls.keystore.file": store, "tls.keystore.password": password, "tls.key.password": password}
        told = ports | hosts | rest | keys
        return [
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            *(f"-Dgreenmail.{name}={is_}" for name, is_ in told.items()),
        ]

    async def _ready(self) -> None:
        assert self._child is not None
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError, LookupError):
                    await self._call("GET", "service/readiness")
                    return
                if not self._child.alive:
                    raise RuntimeError(f"GreenMail ended while it started: {self._child.last_words()}")
                await asyncio.sleep(0.05)

    async def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        async with self._http.request(method, f"/api/{path}", json=body) as answer:
            told = await answer.json(content_type=None)
            if answer.status != 200:
                raise LookupError(f"{answer.status}: {told}")
            return told
