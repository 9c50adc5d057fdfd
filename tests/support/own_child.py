"""A child process that says by itself when it is ready, and ends when we do.

Its first line on standard output is a JSON object: its word. Its standard input is a pipe whose other end only we hold:
a child ends when that ends, however rudely we did. The process started is the server itself, never a script around it.
"""

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from gateways.local_children import tail


class OwnChild:
    """One running child. `word` is what it said when it was ready."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self.log = name, process, log
        self.word: dict[str, Any] = {}
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        told: Any = None,
        seconds: float = 20,
    ) -> Self:
        """Start `command`, tell it `told` as one JSON line, and wait for its word."""
        descriptor, log = tempfile.mkstemp(prefix=f"{name}-", suffix=".log")
        try:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 26,
                stderr=descriptor,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        child = cls(name, process, Path(log))
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(told).encode() + b"\n")
            async with asyncio.timeout(seconds):
                line = await process.stdout.readline()
            child.word = json.loads(line)
        except BaseException as error:
            said = child.said
            await child.stop()
            if isinstance(error, ValueError | OSError):
                raise RuntimeError(f"{name} did not start: {said[-2000:] or error}") from error
            raise
        return child

    async def ask(self, words: Any) -> Any:
        """Tell it one more line of JSON and answer the line it says to that, of children that listen."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self._one_at_a_time, asyncio.timeout(20):
            self.process.stdin.write(json.dumps(words).encode() + b"\n")
            return json.loads(await self.process.stdout.readline())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        """The last of what it wrote on standard error."""
        return tail(self.log, 64 * 1024).decode(errors="replace")

    async def stop(self) -> None:
        """Kill it, wait for its end, and take its log away."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.stdout is not None:
            while await self.process.stdout.read(1 << 16):
                pass
        await self.process.wait()
        self.log.unlink(missing_ok=True)
