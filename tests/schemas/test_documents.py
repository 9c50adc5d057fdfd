"""What docs/schemas says in public is what the code does, and is valid in its own language."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from jsonschema import Draft202012Validator

from domain.fields import Digest, Sealed
from domain.mailbox_events import MessageReceived
from schemas import asyncapi, commands, events, meanings, webhook_queue, work
from schemas.documents import ASYNCAPI, as_text, documents, write
from schemas.envelope import Headers, command_headers, moment
from schemas.json_schema import schema_of
from schemas.raw_mail import RawMail, headers_of
from schemas.topics import FOREVER, TOPICS
from schemas.vocabulary import Vocabulary

COMMITTED = Path(__file__).parents[2] / "docs/schemas"
HOW = "run `python main.py schemas` and commit docs/schemas with the change that made it differ"

DOCUMENTS = documents()
SCHEMAS = {name: document for name, document in DOCUMENTS.items() if name != ASYNCAPI}
PAPER = DOCUMENTS[ASYNCAPI]
TYPES = {
    kind: cls
    for module in (events, commands, work, webhook_queue)
    for vocabulary in vars(module).values()
    if isinstance(vocabulary, Vocabulary)
    for cls, kind in vocabulary.types.items()
    if cls not in asyncapi.NEVER_WRITTEN
}


def test_every_type_that_stands_in_a_topic_has_a_schema_and_nothing_else_has():
    assert SCHEMAS.keys() == {f"{kind}.json" for kind in TYPES}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_committed_document_is_what_the_code_says(name: str):
    path = COMMITTED / name
    assert path.exists(), HOW
    assert path.read_text(encoding="utf-8") == as_text(DOCUMENTS[name]), HOW


def test_no_document_is_left_from_a_type_that_is_gone():
    assert {path.name for path in COMMITTED.iterdir()} == DOCUMENTS.keys(), HOW


def test_writing_twice_gives_the_same_bytes(tmp_path: Path):
    first = {path.name: path.read_bytes() for path in write(tmp_path / "schemas")}
    again = {path.name: path.read_bytes() for path in write(tmp_path / "schemas")}
    assert first == again
    assert all(text.endswith(b"}\n") for text in first.values())


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_valid_in_its_dialect(name: str):
    Draft202012Validator.check_schema(SCHEMAS[name])


def objects(found: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object within a schema."""
    if isinstance(found, dict):
        if "properties" in found:
            yield where, found
        for word, inner in found.items():
            yield from objects(inner, f"{where}/{word}")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_type_and_field_is_described_and_readers_may_meet_more(name: str):
    for where, found in objects(SCHEMAS[name]):
        assert found["description"].endswith("."), where
        assert found["additionalProperties"] is True, where
        for field, schema in found["properties"].items():
            assert schema["description"].endswith((".", "`")), f"{where}/{field}"


def test_every_meaning_is_somebodys():
    """A sentence about a field or type that is gone would mislead."""
    fields = {field for schema in SCHEMAS.values() for _, found in objects(schema) for field in found["properties"]}
    assert {name.rpartition(".")[2] for name in meanings.FIELDS} <= fields
    classes = {cls.__name__ for cls in TYPES.values()}
    assert meanings.TYPES.keys() <= classes
    parts = {name for schema in SCHEMAS.values() for name in schema.get("$defs", {})}
    assert {name.split(".")[0] for name in meanings.FIELDS if "." in name} <= classes | parts


@pytest.mark.parametrize(("mark", "kind"), [("x-sealed", Sealed), ("x-digest", Digest)])
def test_exactly_the_sealed_and_the_digest_fields_are_marked(mark: str, kind: Any):
    for name, cls in TYPES.items():
        hints = get_type_hints(cls)
        expected = {field for field, hint in hints.items() if kind in (hint, *get_args(hint))}
        schema = SCHEMAS[f"{name}.json"]["properties"]
        assert {field for field, found in schema.items() if found.get(mark)} == expected, name


def test_a_sealed_field_is_base64_and_a_closed_list_an_enum():
    schema = schema_of(MessageReceived, "mailbox.message-received.v1")["properties"]
    assert schema["envelope"]["contentEncoding"] == schema["summary"]["contentEncoding"] == "base64"
    assert schema["via"]["enum"] == ["smtp", "ses"]
    assert schema["message_id_digest"]["x-digest"] is True


# ── AsyncAPI ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def references(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        if "$ref" in found:
            yield found["$ref"]
        found = list(found.values())
    if isinstance(found, list):
        for inner in found:
            yield from references(inner)


def test_every_reference_of_the_asyncapi_document_leads_somewhere():
    for reference in set(references(PAPER)):
        found = PAPER
        for step in reference.removeprefix("#/").split("/"):
            assert step in found, reference
            found = found[step]


def test_the_asyncapi_document_has_only_what_asyncapi_3_knows():
    """The fixed fields of AsyncAPI 3.0.0's objects; x-… and JSON Schema are free."""
    assert PAPER["asyncapi"] == "3.0.0"
    assert PAPER.keys() == {"asyncapi", "info", "defaultContentType", "servers", "channels", "operations", "components"}
    assert PAPER["components"].keys() == {"messages", "schemas"}
    assert all(re.fullmatch(r"[\w.-]+", name) for part in PAPER["components"].values() for name in part)
    for channel in PAPER["channels"].values():
        assert channel.keys() <= {"address", "title", "summary", "description", "messages", "tags", "bindings"}
    for operation in PAPER["operations"].values():
        assert operation.keys() == {"action", "summary", "channel", "messages"}
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])
    known = {"name", "title", "summary", "contentType", "headers", "payload", "correlationId", "bindings"}
    assert all(message.keys() <= known for message in PAPER["components"]["messages"].values())


@pytest.mark.parametrize("name", PAPER["components"]["schemas"])
def test_a_schema_of_the_asyncapi_document_is_valid(name: str):
    Draft202012Validator.check_schema(PAPER["components"]["schemas"][name])


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_is_a_channel_with_its_key_and_retention(topic):
    channel = PAPER["channels"][topic.name]
    configuration = channel["bindings"]["kafka"]["topicConfiguration"]
    assert channel["messages"]
    assert configuration["retention.ms"] == topic.kept_ms
    assert configuration["cleanup.policy"] == ["delete"]
    assert ("Kept for ever." in channel["description"]) == (topic.kept_ms == FOREVER)
    assert f"Keyed by {topic.key}." in channel["description"]
    assert ("is void" in channel["description"]) == topic.truth, (
        "the void rule belongs to truth topics, and to them alone"
    )


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic.truth], ids=lambda topic: topic.name)
def test_every_message_of_a_truth_topic_promises_the_envelope(topic):
    headers = PAPER["components"]["schemas"]["EventHeaders"]
    assert {
        "ce_id",
        "ce_type",
        "ce_subject",
        "ce_time",
        "position",
        "causationid",
        "correlationid",
        "srcpos",
        "sequence",
    } <= {*headers["required"]}
    assert "traceparent" in headers["properties"]
    for name in PAPER["channels"][topic.name]["messages"]:
        message = PAPER["components"]["messages"][name]
        assert message["headers"]["allOf"] == [{"$ref": "#/components/schemas/EventHeaders"}]
        assert message["headers"]["properties"]["ce_type"] == {"const": name}


def test_the_same_type_is_described_alike_in_both_documents():
    for kind in TYPES:
        alone = json.loads(json.dumps(SCHEMAS[f"{kind}.json"]).replace("#/$defs/", "#/components/schemas/"))
        within = PAPER["components"]["schemas"][kind]
        assert {word: alone[word] for word in ("properties", "description")} == {
            word: within[word] for word in ("properties", "description")
        }


def as_mapping(headers: Headers) -> dict[str, str]:
    return {name: value.decode() for name, value in headers}


def test_the_headers_we_write_are_the_headers_we_promise():
    """Commands and mail; events are proven by the golden records."""
    schemas, at = PAPER["components"]["schemas"], moment(1_773_415_800_000)
    trace = {"traceparent": "00-981e714665a8cc14e0c2279551998e8e-a40b73c8b0f822cc-01"}
    command = command_headers(command_id="c", kind="k", subject="s", at=at, not_after=at, trace=trace)
    mail = RawMail("msg_1", "mbx_1", "smtp", 1824, "0" * 64, Sealed("AQ=="))
    for name, headers in {
        "CommandHeaders": command,
        "RawMailHeaders": headers_of(mail, at=at, not_after=at, trace=trace),
    }.items():
        Draft202012Validator(schemas[name], format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
            as_mapping(headers)
        )
        assert as_mapping(headers).keys() == schemas[name]["properties"].keys()
