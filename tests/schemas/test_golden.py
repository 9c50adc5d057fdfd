"""What was ever written can be read for ever.

golden/ keeps one real record of each version of each event, as a decider appended it to a Kafka. A file there is never
changed: a new version gets a file of its own, and the old one stays, to be read through its upcaster. SHA256SUMS holds
their digests (`sha256sum -c SHA256SUMS`), so that nobody changes one by the way.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas import events
from schemas.documents import ASYNCAPI, documents
from schemas.envelope import Source, event_headers, is_void, moment
from schemas.topics import TOPICS
from schemas.vocabulary import Vocabulary, encode

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.json"))
VOCABULARIES = {found.context: found for found in vars(events).values() if isinstance(found, Vocabulary)}
DOCUMENTS = documents()


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text(encoding="utf-8"))


def vocabulary_of(record: dict[str, Any]) -> Vocabulary:
    """That of the topic the record stands in, as its readers have it."""
    return VOCABULARIES[record["topic"].partition(".")[0]]


def sums() -> dict[str, str]:
    lines = (GOLDEN / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines if not line.startswith("#"))}


def test_every_type_of_event_has_a_golden_record():
    written = {kind for vocabulary in VOCABULARIES.values() for kind in vocabulary.types.values()}
    assert written <= {path.stem for path in FILES}


def test_no_golden_record_was_changed_added_or_lost_by_the_way():
    assert sums() == {path.name: sha256(path.read_bytes()).hexdigest() for path in FILES}, (
        "Golden records are what stands in people's logs: take the change back. For a new version add a file and its line."
    )


def test_it_is_read_and_written_again_as_the_same_json(golden: dict[str, Any]):
    """Fields that came later are there as well, with nothing in them: a new field is optional for ever."""
    vocabulary, kind = vocabulary_of(golden), golden["headers"]["ce_type"]
    event = vocabulary.decode(kind, json.dumps(golden["body"]).encode())
    again = json.loads(encode(event))
    assert {name: again.get(name) for name in golden["body"]} == golden["body"]
    later = {name: value for name, value in again.items() if name not in golden["body"]}
    assert not any(later.values()), later
    assert vocabulary.decode(kind, encode(event)) == event


def test_a_reader_ignores_fields_it_does_not_know(golden: dict[str, Any]):
    vocabulary, kind = vocabulary_of(golden), golden["headers"]["ce_type"]
    more = {**golden["body"], "a_field_of_tomorrow": {"deep": [1]}}
    assert vocabulary.decode(kind, json.dumps(more).encode()) == vocabulary.decode(
        kind, json.dumps(golden["body"]).encode()
    )


def test_it_satisfies_the_published_schemas(golden: dict[str, Any]):
    kind = golden["headers"]["ce_type"]
    schema = DOCUMENTS[f"{kind}.json"]
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(golden["body"])
    headers = DOCUMENTS[ASYNCAPI]["components"]["schemas"]["EventHeaders"]
    Draft202012Validator(headers, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(golden["headers"])
    assert kind in DOCUMENTS[ASYNCAPI]["channels"][golden["topic"]]["messages"]


def test_it_stands_where_its_writer_expected_it(golden: dict[str, Any]):
    headers = [(name, value.encode()) for name, value in golden["headers"].items()]
    assert golden["topic"] in {topic.name for topic in TOPICS if topic.truth}
    assert not is_void(headers, golden["offset"])
    assert is_void(headers, golden["offset"] + 1)
    assert is_void([], golden["offset"]), "a record without a position is void"
    assert str(Source.read(golden["headers"]["srcpos"])) == golden["headers"]["srcpos"]


def test_the_envelope_we_write_today_has_the_headers_of_the_golden_records():
    """Headers may be added, never renamed or dropped."""
    today = event_headers(
        event_id="e",
        kind="k",
        subject="s",
        at=moment(0),
        position=0,
        cause={"ce_id": "c", "traceparent": "t"},
        source=Source("t", 0, 0),
        sequence=1,
    )
    for path in FILES:
        assert json.loads(path.read_text(encoding="utf-8"))["headers"].keys() <= {name for name, _ in today}, path.name
