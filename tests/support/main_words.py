"""Runs `main.py` as people do: in processes of its own, told by the environment where everything is."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAIN = Path(__file__).resolve().parents[2] / "main.py"
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its output, as the JSON lines that a program reads."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.rows
        return row


@dataclass(frozen=True)
class Installed:
    """One installation; `environment` is what every process of it is started with."""

    environment: dict[str, str]

    @classmethod
    def at(cls, data: Path, **settings: str) -> "Installed":
        """An installation with this data folder; `kafka="…"` is the setting POSTLEDGER_KAFKA, and so on."""
        ours = {f"POSTLEDGER_{name.upper()}": value for name, value in {"data": str(data), **settings}.items()}
        others = {name: value for name, value in os.environ.items() if not name.startswith("POSTLEDGER_")}
        return cls(others | ours)

    def with_settings(self, **settings: str) -> "Installed":
        return Installed(self.environment | {f"POSTLEDGER_{name.upper()}": text for name, text in settings.items()})

    def says(self, *words: str) -> Said:
        """Runs one command to its end."""
        done = subprocess.run(
            [sys.executable, MAIN, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def begin(self, *roles: str, name: str) -> "Running":
        """Starts one process with these roles; `until_ready` waits for it."""
        data = Path(self.environment["POSTLEDGER_DATA"])
        data.mkdir(parents=True, exist_ok=True)
        ready, log = data / f"{name}.ready", data / f"{name}.log"
        ready.unlink(missing_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, MAIN, "roles", *roles, "--ready-file", str(ready)],
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        return Running(process, ready, log)

    @contextmanager
    def running(self, *roles: str, name: str) -> Iterator["Running"]:
        """One process with these roles, ready when the block begins; ended at its end."""
        process = self.begin(*roles, name=name)
        try:
            process.until_ready()
            yield process
        finally:
            process.end()


@dataclass(frozen=True)
class Running:
    """A process of `main.py` that goes on until it is ended."""

    process: subprocess.Popen[bytes]
    ready: Path
    log: Path

    def until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready.exists():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"not ready after {READY_SECONDS} s: {self.log.read_text()}"
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> None:
        """As an operator ends it; killed where that takes too long."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
