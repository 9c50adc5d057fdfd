"""The other side of `supervisor.py`: a child loads what it will need while the servers start, and waits to be told where."""

import asyncio
import importlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Final

from gateways.private_files import write_private

#: What each word of the command line loads before it waits.
LOADED_EARLY: Final = {
    "http": ("gateways.http.opening",),
    "smtp": ("gateways.mail_in.smtp", "gateways.mail_in.log_door"),
    "work": (
        "gateways.log.subscriptions",
        "gateways.parser.pool",
        "gateways.providers.catalogue",
        "gateways.stores.vault",
        "handlers.mailboxes",
        "handlers.decider",
        "handlers.refresh",
    ),
    "project": ("gateways.log.subscriptions", "projections.catalogue"),
    "provision": ("gateways.log.provision", "projections.migrate", "gateways.stores.postgres"),
}


def wait_for_servers(sign: Path, *words: str) -> None:
    """Returns once the sign is there, with the settings that name the servers in the environment."""
    for word in words:
        for module in LOADED_EARLY[word]:
            importlib.import_module(module)
    while not sign.exists():
        time.sleep(0.01)
    servers = json.loads(sign.read_text())
    os.environ |= {"POSTLEDGER_KAFKA": servers["kafka"], "POSTLEDGER_DATABASE_URL": servers["database_url"]}


def pass_on(sign: Path, further: Path) -> None:
    """Makes a sign of the same content for those who wait for more than the servers."""
    write_private(further, sign.read_text())


def told_to_end() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once, with exit status 130.

    What it has started is then ended by guards of its own.
    """
    ending = asyncio.Event()

    def end() -> None:
        if ending.is_set():
            os._exit(130)
        ending.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, end)
    return ending
