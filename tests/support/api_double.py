"""What the doubles of providers' APIs have in common: a child process, tokens, failures to come, and a file of receipts."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import aiohttp

from tests.support.own_child import OwnChild

_ROOT = Path(__file__).parents[2]


class ApiDouble:
    """One double, on a port of 127.0.0.1: its API is below `url`, its control surface below `origin`."""

    #: What it is called; its child is the module `child` of the package of that name.
    NAME: ClassVar[str]
    #: What stands between the origin and the API's paths.
    BELOW: ClassVar[str] = ""

    def __init__(
        self,
        tokens: Mapping[str, Any] | None = None,
        *,
        receipts: Path | None = None,
        port: int = 0,
        **settings: Any,
    ) -> None:
        self.url = self.origin = ""
        self._kept = receipts is not None
        self.receipts_path = receipts or _own_file(self.NAME)
        self._told = {
            "tokens": {token: asdict(one) for token, one in (tokens or {}).items()},
            "receipts": str(self.receipts_path),
            "port": port,
            "settings": settings,
        }
        self._child: OwnChild | None = None
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", f"tests.support.{self.NAME}.child"]
        self._child = await OwnChild.start(self.NAME, command, environment={"PYTHONPATH": str(_ROOT)}, told=self._told)
        self.origin = f"http://127.0.0.1:{self._child.word['port']}"
        self.url = f"{self.origin}{self.BELOW}"
        self._http = aiohttp.ClientSession(self.origin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        assert self._child is not None
        assert self._http is not None
        await self._http.close()
        await self._child.stop()
        if not self._kept:
            self.receipts_path.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def said(self) -> str:
        """What it wrote on its standard error."""
        assert self._child is not None
        return self._child.said

    async def kill(self) -> None:
        """As a power cut does it: mailboxes are gone. The receipts stay until the `async with` ends."""
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            self._child.process.kill()
        await self._child.process.wait()

    async def set(self, **settings: Any) -> None:
        """Change settings while it runs."""
        await self._order("set", **settings)

    async def reset(self) -> None:
        """Everything as at the start, no mails, no receipts. A call that is still open does nothing any more."""
        await self._order("reset")

    async def _order(self, order: str, **words: Any) -> Any:
        assert self._http is not None
        async with self._http.post(f"/_control/{order}", json=words) as answer:
            told = await answer.json()
        if answer.status != 200:
            raise ValueError(told["error"])
        return told


def _own_file(name: str) -> Path:
    descriptor, path = tempfile.mkstemp(prefix=f"{name}-receipts-", suffix=".jsonl")
    os.close(descriptor)
    return Path(path)
