"""docs/topics.md shows what is there: its tables are made from the code, its programs are files that the tests run."""

import re
from pathlib import Path

import pytest

from schemas.documents import facts_table, topics_table
from schemas.header_schemas import COMMON_HEADERS, EVENT_HEADERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/topics.md").read_text(encoding="utf-8")


def part(name: str) -> str:
    """What stands between the page's marks of this name."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- /{re.escape(name)} -->\n", PAGE, re.DOTALL)
    assert found, f"docs/topics.md has no part {name}"
    return found[1]


@pytest.mark.parametrize(("name", "table"), [("topics", topics_table()), ("facts", facts_table())])
def test_a_table_is_what_the_code_says(name: str, table: str):
    assert part(name) == table, f"put this into docs/topics.md:\n{table}"


@pytest.mark.parametrize("name", ["docs/consumer.py", "docs/copy_topic.py"])
def test_a_program_is_shown_as_it_is_run(name: str):
    assert part(name) == f"```python\n{(ROOT / name).read_text(encoding='utf-8')}```\n"


def test_the_consumer_is_as_short_as_promised():
    lines = (ROOT / "docs/consumer.py").read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 22


def test_every_header_of_an_event_is_explained():
    rows = "".join(
        line.split("|")[1] for line in PAGE.partition("## The envelope")[2].splitlines() if line.startswith("|")
    )
    assert set(re.findall(r"`([\w-]+)`", rows)) == COMMON_HEADERS.keys() | EVENT_HEADERS.keys()


def test_every_link_leads_to_something():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
