"""The keyset file among processes that change it, power cuts, and an operator who takes it away for a moment."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateways.stores import keyset, keyset_file
from gateways.stores.keyset import Keyset, KeysetAway, KeysetError, open_keyset
from gateways.stores.postgres import UNREACHABLE

KEY = b"k" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    open_keyset(tmp_path / "keyset.json")
    return tmp_path / "keyset.json"


def test_of_many_who_change_it_at_once_none_takes_anothers_key_away(path: Path) -> None:
    """Who rotates may have lost the lock in Postgres, and not know of it yet."""
    with ThreadPoolExecutor(8) as pool:
        adding = [pool.submit(keyset_file.add_primary, path) for _ in range(24)]
        while not all(one.done() for one in adding):
            keyset_file.read(path)  # never half a file
        made = {one.result() for one in adding}
    found = keyset_file.read(path)
    assert made < {key.kid for key in found.keys}
    assert found.primary.kid in made
    assert [each.name for each in path.parent.iterdir()] == ["keyset.json"]


def test_a_key_is_on_the_disk_for_good_before_it_wraps(path: Path, monkeypatch) -> None:
    """A power cut may take the last writing back: every one is to be survived by what was wrapped before the next."""
    seen: list[tuple[str, set[str]]] = []

    def settled(folder: Path) -> None:
        found = json.loads((folder / "keyset.json").read_text())
        seen.append((found["primary"], {key["kid"] for key in found["keys"]}))

    before = open_keyset(path).primary
    monkeypatch.setattr(keyset_file, "_settle", settled)
    made = keyset_file.add_primary(path)
    assert seen == [(before, {before, made}), (made, {before, made})]


def test_what_was_cut_short_leaves_a_key_that_wraps_nothing_and_no_draft(path: Path, monkeypatch) -> None:
    before = open_keyset(path).primary
    written = iter(["add"])
    change = keyset_file._change

    def cut(*args) -> None:
        if next(written, None) is None:
            raise KeyboardInterrupt
        change(*args)

    monkeypatch.setattr(keyset_file, "_change", cut)
    with pytest.raises(KeyboardInterrupt):
        keyset_file.add_primary(path)
    monkeypatch.undo()
    (path.parent / "keyset.json.new-0123456789abcdef").write_text("half")
    found = open_keyset(path)
    assert found.primary == before
    assert found.is_between_keys  # so the next look ends it
    keyset_file.disable_others(path)
    assert not open_keyset(path).is_between_keys
    assert [each.name for each in path.parent.iterdir()] == ["keyset.json"]


def test_a_file_that_is_away_is_waited_for_and_one_that_is_back_goes_on(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(keyset, "LOOK_SECONDS", -1.0)
    kept = open_keyset(path)
    kid, wrapped = kept.wrap(KEY, "mbx_1")
    path.rename(path.with_name("away"))
    with pytest.raises(UNREACHABLE, match=r"keyset\.json can't be read \(No such file or directory\)"):
        kept.wrap(KEY, "mbx_1")
    assert kept.unwrap(kid, wrapped, "mbx_1") == KEY
    path.with_name("away").rename(path)
    assert kept.wrap(KEY, "mbx_1")[0] == kid


def test_another_file_in_its_place_wraps_nothing(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(keyset, "LOOK_SECONDS", -1.0)
    kept = open_keyset(path)
    open_keyset(tmp_path / "other.json")
    (tmp_path / "other.json").replace(path)
    with pytest.raises(KeysetAway, match="was replaced by another keyset"):
        kept.wrap(KEY, "mbx_1")


def test_half_a_file_wraps_nothing_and_is_waited_for(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(keyset, "LOOK_SECONDS", -1.0)
    kept: Keyset = open_keyset(path)
    time.sleep(0.01)
    path.write_text(path.read_text()[:50])
    with pytest.raises(KeysetAway, match="is no keyset"):
        kept.wrap(KEY, "mbx_1")
    with pytest.raises(KeysetError, match="is no keyset"):
        open_keyset(path)


def test_a_folder_that_can_only_be_read_is_said_so_and_nothing_changes(path: Path, monkeypatch) -> None:
    """As a file that is mounted by itself, or a secret of Kubernetes'."""
    before = path.read_bytes()

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(KeysetError, match=r"can't change the keyset .*: Device or resource busy"):
        keyset_file.add_primary(path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["keyset.json"]


def test_a_link_stays_one_and_its_file_its_owners_own(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.json"
    link.symlink_to(path)
    made = keyset_file.add_primary(link)
    assert link.is_symlink()
    assert keyset_file.read(path).primary.kid == made
    assert path.stat().st_mode & 0o777 == 0o600
