"""The Chromium of our npm packages, with its own libraries and fonts: the same for every machine and every user.

async with async_playwright() as playwright:
    browser = await playwright.chromium.launch(**launching())
"""

import fcntl
import io
import json
import os
import platform
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import cramjam

from tests.support.node import cache, npm_packages

#: For a machine without a display, a sandbox or a way out to Google's hosts.
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-domain-reliability", "--no-pings", "--no-zygote",
    "--disable-dev-shm-usage",
]  # fmt: skip
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/fonts-cache</cachedir></fontconfig>
"""


def launching(**environment: str) -> dict[str, Any]:
    """What playwright's `launch` needs to start it; more variables of its environment may be named."""
    executable = chromium()
    own = {"LD_LIBRARY_PATH": str(executable.parent / "lib"), "FONTCONFIG_PATH": str(executable.parent)}
    packed = own if executable.parent.parent == cache() else {}
    return {"executable_path": str(executable), "args": ARGUMENTS, "env": {**os.environ, **packed, **environment}}


def chromium() -> Path:
    """The executable, unpacked when it is not there. Raises RuntimeError where there is none that could run."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        for name in ("chromium", "chromium-browser", "google-chrome"):
            if found := shutil.which(name):
                return Path(found)
        raise RuntimeError(
            "The packaged Chromium runs on Linux on x86-64 only, and none is installed here: install one."
        )
    package = npm_packages() / "node_modules/@sparticuz/chromium"
    folder = cache() / f"chromium-{json.loads((package / 'package.json').read_text())['version']}"
    if not folder.is_dir():
        with (cache() / "chromium.lock").open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            if not folder.is_dir():
                _unpack(package / "bin", folder)
    return folder / "chromium"


def _unpack(packed: Path, folder: Path) -> None:
    """Whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="chromium-coming-") as temporary:
        coming = Path(temporary, "chromium")
        coming.mkdir()
        for name in ("al2023", "fonts"):
            with tarfile.open(fileobj=io.BytesIO(_plain(packed / f"{name}.tar.br"))) as archive:
                archive.extractall(coming, filter="data")
        (coming / "fonts.conf").write_text(_FONTS.format(folder=folder))
        executable = coming / "chromium"
        executable.write_bytes(_plain(packed / "chromium.br"))
        executable.chmod(0o755)
        coming.rename(folder)


def _plain(file: Path) -> bytes:
    return bytes(cramjam.brotli.decompress(file.read_bytes()))
