"""docs/limits.md: each attack and each fault has tests that exist, or says why not; few may."""

import re

from tests.support.papers import NAMED_TEST, ROOT, missing_tests, part

#: Rows that may go without a test.
MOST_WITHOUT = 10
#: How many rows each kind has here: one that is dropped is missed.
ROWS = {
    "A": 12,
    "B": 12,
    "C": 7,
    "D": 13,
    "E": 5,
    "F": 10,
    "G": 10,
    "I": 5,
    "J": 9,
    "K": 11,
    "L": 6,
    "M": 6,
    "N": 5,
    "O": 10,
}


def rows() -> dict[str, str]:
    """Each row's id and what it says of its tests."""
    found = {}
    for line in part(ROOT / "docs/limits.md", "rows").strip().splitlines()[2:]:
        name, _, by = (cell.strip() for cell in line.strip("|").split("|"))
        assert name not in found, f"{name} is there twice"
        found[name] = by
    return found


def test_every_row_is_there_once() -> None:
    counts: dict[str, int] = {}
    for name in rows():
        assert re.fullmatch(r"[A-Z]-\d\d", name), name
        counts[name[0]] = counts.get(name[0], 0) + 1
    assert counts == ROWS


def test_every_row_names_tests_that_exist_or_says_why_not() -> None:
    missing = {name: absent for name, by in rows().items() if (absent := missing_tests(by))}
    assert missing == {}
    without = {name: by for name, by in rows().items() if by.startswith("no test: ")}
    assert len(without) <= MOST_WITHOUT
    assert [name for name, by in without.items() if len(by) < 40] == []
    assert [name for name, by in rows().items() if name not in without and not NAMED_TEST.search(by)] == []


def test_a_name_that_is_none_would_be_missed() -> None:
    assert missing_tests("tests/house/test_rows.py::test_that_nobody_wrote") != []
    assert missing_tests("tests/house/test_nobodys.py::test_x") != []
    assert missing_tests("tests/house/test_rows.py::test_every_row_is_there_once") == []
