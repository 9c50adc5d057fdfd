"""Versions below which something is known to be open: an audit that could look nothing up is green as well, so we look."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
#: The first version without the hole, and which that was.
FLOORS = {
    "aiosmtpd": ("1.4.6", "CVE-2024-27305 smuggling, CVE-2024-34083 injection before STARTTLS"),
    "starlette": ("0.49.1", "CVE-2025-62727 quadratic ranges"),
    "python-multipart": ("0.0.27", "CVE-2024-53981 and later ones of its kind"),
    "cryptography": ("44.0.1", "CVE-2024-12797 in the OpenSSL it carries"),
    "aiohttp": ("3.12.14", "CVE-2025-53643 request smuggling in its parser"),
    "h11": ("0.16.0", "CVE-2025-43859 lenient chunked bodies"),
}
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-judges.lock"]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def locked(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_is_not_below_its_floor(name: str) -> None:
    assert numbers(version(name)) >= numbers(FLOORS[name][0]), FLOORS[name][1]


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_locked_is_not_below_its_floor(lock: str) -> None:
    below = {
        name: found
        for name, found in locked(lock).items()
        if name in FLOORS and numbers(found) < numbers(FLOORS[name][0])
    }
    assert below == {}
    assert "aiosmtpd" in locked(lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock: str) -> None:
    entries = re.split(r"^(?=[\w.-]+(?:\[[^\]]*\])?==)", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_asked_for_is_locked(lock: str) -> None:
    """In a version that is asked for: whoever adds a package, or moves a bound, makes the lock files anew (`make lock`)."""
    asked = requirements(ROOT / lock.replace(".lock", ".in"))
    held = {canonicalize_name(name): found for name, found in locked(lock).items()}
    assert len(asked) > 1
    assert {one.name for one in asked if canonicalize_name(one.name) not in held} == set()
    assert {str(one) for one in asked if held[canonicalize_name(one.name)] not in one.specifier} == set()


def requirements(path: Path) -> list[Requirement]:
    """Those of a file, and of the files that it names."""
    found = []
    for line in (line.partition("#")[0].strip() for line in path.read_text().splitlines()):
        if line.startswith("-r "):
            found += requirements(path.with_name(line.removeprefix("-r ").strip()))
        elif line:
            found.append(Requirement(line))
    return found


def test_a_lower_version_would_be_seen() -> None:
    assert numbers("0.49.0") < numbers(FLOORS["starlette"][0]) < numbers("1.0")
