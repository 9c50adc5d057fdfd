"""As whom Postgres runs when we are somebody it does not accept.

It refuses root, and its tools refuse a user id without a name (`docker run --user 12345`). Both start it in a user
namespace in which they are `nobody`: the files stay theirs. Where namespaces are off, as in most containers, root
becomes `nobody` outright, keeping just the right to read and write what root may, and gives it the data.
"""

import functools
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gateways.local_children import CannotStart


@dataclass(frozen=True)
class Account:
    """A way to run Postgres: what to put before its commands, and the user id its files then belong to."""

    prefix: tuple[str, ...]
    owner: int


@functools.cache
def account() -> Account:
    """The first way that works here; raises CannotStart when none does."""
    us = os.geteuid()
    if us != 0 and _has_name(us):
        return Account((), us)
    nobody = _nobody()
    for candidate in (
        Account(("unshare", "--user", f"--map-user={nobody}", f"--map-group={nobody}"), us),
        Account(
            (
                "setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups",
                "--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search",
            ),
            nobody,
        ),
    ):  # fmt: skip
        if shutil.which(candidate.prefix[0]) and _runs(*candidate.prefix, "true"):
            return candidate
    raise CannotStart(
        f"Postgres refuses to run as user id {us}, and this system neither gives it a user namespace nor lets it become "
        "nobody: start as an ordinary user, or name a running Postgres in POSTLEDGER_DATABASE_URL."
    )


def give(data: Path, owner: int) -> None:
    """Let the files of `data` belong to `owner`; they may have been made under another account."""
    if data.stat().st_uid == owner:
        return
    if os.geteuid() != 0:
        raise CannotStart(f"{data} belongs to another user: start as that user, or give the folder to yourself.")
    for path in (data, *data.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)


def _has_name(uid: int) -> bool:
    return any(entry.pw_uid == uid for entry in pwd.getpwall())


def _nobody() -> int:
    """The user id of `nobody`, else of anybody with a name who is not root."""
    named = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0}
    return named.get("nobody") or next(iter(named.values()), 65534)


def _runs(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - constants of ours
