"""The keyset file as it lies on the disk: how it is made, read, and given a new key without anybody seeing half of it.

It is written beside and put in place in one step, and stays its owner's own. Who changes it has seen to it that nobody else
does at the same time (`key_rotation.py`). Where they are mistaken, having lost Postgres and not noticed yet, a lock on the
folder lets them wait, and a name of its own for each draft sees to it that neither puts the other's half in place.
"""

import base64
import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ALGORITHM: Final = "A256GCM"
#: What the kids of keys in such a file begin with.
LOCAL_KID: Final = "local-"


class KeysetError(Exception):
    """The keyset file can't be used; the sentence says why and what to do."""


class KeysetAway(KeysetError, OSError):
    """The file can't be read now: nothing is known of its keys, and whoever asked waits (`postgres.UNREACHABLE`)."""


#: Tells one writing of the file from another.
Mark = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LocalKey:
    """One key-encryption key. One that is disabled opens what it once wrapped, and wraps nothing."""

    kid: str
    secret: bytes = field(repr=False)
    made_at: datetime
    disabled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What stands in the file."""

    primary: LocalKey
    keys: list[LocalKey]
    installation: bytes = field(repr=False)
    mark: Mark


def mark(path: Path) -> Mark:
    """Raises KeysetError where there is no such file."""
    try:
        return _mark(path.stat())
    except OSError as error:
        raise _unusable(path, error) from error


def read(path: Path) -> Contents:
    """Raises KeysetError. A key that doesn't say when it was made, as in files of before that was kept, is the file's age."""
    try:
        with path.open() as file:
            found, state = json.load(file), os.fstat(file.fileno())
        if state.st_mode & 0o077:
            raise KeysetError(f"{path} can be read by others: chmod 600 it.")
        keys = [_key(entry, state.st_mtime) for entry in found["keys"]]
        primary = next(key for key in keys if key.kid == found["primary"])
        return Contents(primary, keys, base64.b64decode(found["installation"]), _mark(state))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise _unusable(path, error) from error


def make(path: Path) -> None:
    """Exclusively: of two processes that start at once, one makes it and the other reads it whole. Raises KeysetError."""
    entry = _entry()
    keyset = {"primary": entry["kid"], "keys": [entry], "installation": _text(secrets.token_bytes(32))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        _write(draft, keyset)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first: its keyset holds
        finally:
            draft.unlink()
        _settle(path.parent)
    except OSError as error:
        raise KeysetError(f"can't make the keyset {path}: {error.strerror}.") from error


def add_primary(path: Path) -> str:
    """A new key, which wraps from now on; its id. Raises KeysetError, and nothing wraps by it then.

    It is on the disk for good before anybody can see that it wraps: no power cut takes it from what it has wrapped.
    """
    entry = _entry()

    def add(keyset: dict[str, Any], dated: dict[str, str]) -> None:
        for each in keyset["keys"]:  # once the file is written, its age tells no key's
            each.setdefault("made_at", dated[each["kid"]])
        keyset["keys"].append(entry)

    def wrap_by_it(keyset: dict[str, Any], _: dict[str, str]) -> None:
        keyset["primary"] = entry["kid"]

    _change(path, add)
    _change(path, wrap_by_it)
    return entry["kid"]


def disable_others(path: Path) -> None:
    """Every key but the primary one opens, and wraps nothing, from now on. Raises KeysetError."""

    def change(keyset: dict[str, Any], dated: dict[str, str]) -> None:
        for each in keyset["keys"]:
            each.setdefault("made_at", dated[each["kid"]])
            if each["kid"] != keyset["primary"] and each["status"] != "disabled":
                each |= {"status": "disabled", "disabled_at": _now()}

    _change(path, change)


def remove(path: Path, kids: set[str]) -> None:
    """Destroys these keys, for good; never the primary one. Raises KeysetError."""

    def change(keyset: dict[str, Any], _: dict[str, str]) -> None:
        keyset["keys"] = [
            each for each in keyset["keys"] if each["kid"] not in kids or each["kid"] == keyset["primary"]
        ]

    _change(path, change)


def _change(path: Path, change: Callable[[dict[str, Any], dict[str, str]], None]) -> None:
    path = path.resolve()  # a link stays one
    try:
        with _alone(path.parent):
            dated = {key.kid: key.made_at.isoformat() for key in read(path).keys}
            keyset = json.loads(path.read_text())
            change(keyset, dated)
            for left in path.parent.glob(f"{path.name}.new-*"):  # by one that was cut short
                left.unlink(missing_ok=True)
            draft = path.with_name(f"{path.name}.new-{secrets.token_hex(8)}")
            try:
                _write(draft, keyset, owner=path.stat())
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
            _settle(path.parent)
    except KeysetError:
        raise
    except OSError as error:
        raise KeysetError(
            f"can't change the keyset {path}: {error.strerror}. Whoever rotates keys must be able to replace the file."
        ) from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else on this machine changes a file there meanwhile; a folder that can't be locked, over a network, is not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _write(path: Path, keyset: dict[str, Any], *, owner: os.stat_result | None = None) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)  # an operator may be root, and the roles are not
        json.dump(keyset, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Until here a name in a folder may be forgotten when the power fails."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry() -> dict[str, str]:
    return {
        "kid": f"{LOCAL_KID}{secrets.token_hex(4)}",
        "alg": ALGORITHM,
        "status": "enabled",
        "made_at": _now(),
        "k": _text(AESGCM.generate_key(256)),
    }


def _key(entry: dict[str, str], file_made: float) -> LocalKey:
    made = datetime.fromisoformat(entry["made_at"]) if "made_at" in entry else datetime.fromtimestamp(file_made, UTC)
    disabled = datetime.fromisoformat(entry["disabled_at"]) if entry["status"] == "disabled" else None
    return LocalKey(entry["kid"], base64.b64decode(entry["k"]), made, disabled)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _mark(state: os.stat_result) -> Mark:
    return state.st_ino, state.st_mtime_ns, state.st_size


def _unusable(path: Path, error: BaseException) -> KeysetError:
    if isinstance(error, OSError):
        return KeysetAway(
            f"the keyset {path} can't be read ({error.strerror}): put it back, or restore it from your backup."
        )
    return KeysetError(f"{path} is no keyset ({error}): restore it from your backup.")


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
