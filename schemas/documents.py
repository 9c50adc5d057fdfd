"""The documents for services that consume us: docs/schemas, and what `/asyncapi.json` answers.

They are made from the code and committed, so that a change of what we say in public is seen in review; the tests compare.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas import asyncapi, meanings
from schemas.json_schema import schema_of
from schemas.topics import FOREVER, TOPICS, Topic

ASYNCAPI = "asyncapi.json"


def documents() -> dict[str, dict[str, Any]]:
    """File name → document: one JSON Schema for each type that stands in a topic, and the AsyncAPI document of all topics."""
    types = {kind: cls for topic in TOPICS for kind, cls in asyncapi.written_types(topic).items()}
    return {f"{kind}.json": schema_of(cls, kind) for kind, cls in types.items()} | {ASYNCAPI: asyncapi.document()}


def write(folder: Path) -> list[Path]:
    """Writes every document into the folder, which is made where it isn't there; the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, document in documents().items():
        path = folder / name
        path.write_text(as_text(document), encoding="utf-8")
        written.append(path)
    return written


def as_text(document: dict[str, Any]) -> str:
    """A document as it stands in its file: keys sorted, a newline at the end."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def topics_table() -> str:
    """The topics, in Markdown: a part of docs/topics.md."""
    rows = [f"| `{topic.name}` | {topic.key} | {topic.holds} | {_kept(topic)} | {_whose(topic)} |" for topic in TOPICS]
    return "\n".join(["| topic | key | holds | kept | whose |", "|---|---|---|---|---|", *rows, ""])


def facts_table() -> str:
    """Every type that stands in a truth topic, in Markdown: a part of docs/topics.md."""
    return "\n".join(["| type | says |", "|---|---|", *_facts(), ""])


def _facts() -> Iterator[str]:
    types = {kind: cls for topic in TOPICS if topic.truth for kind, cls in asyncapi.written_types(topic).items()}
    for kind, cls in sorted(types.items()):
        yield f"| [`{kind}`](schemas/{kind}.json) | {meanings.of_type(cls)} |"


def _kept(topic: Topic) -> str:
    return "for ever" if topic.kept_ms == FOREVER else f"{asyncapi.kept_days(topic)} days"


def _whose(topic: Topic) -> str:
    return "facts, for you" if topic.truth else "our own"
