"""`compose.yaml` and the image it is made of, as far as they can be judged without an engine.

The schema beside `tests/support` is that of the Compose Specification (Apache-2.0, its licence and notice lie beside it).
"""

import base64
import fnmatch
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

import main
from gateways.settings import PREFIX, read_settings

ROOT = Path(main.__file__).parent
SCHEMA = ROOT / "tests" / "support" / "compose_specification" / "compose-spec.json"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "postledger"}
ROLES = {"http", "smtp", "work", "project"}
VARIABLE = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")


#: What clients of key managements read, under names that are not ours.
OF_CLOUDS = ("AWS_", "AZURE_")


def environment_of(name: str) -> dict[str, str]:
    """The variables of a service where the environment names nothing: one without a value is passed on as it is set."""
    return {
        variable: with_defaults(value) for variable, value in OURS[name]["environment"].items() if value is not None
    }


def with_defaults(value: str) -> str:
    """What a value is where the environment names nothing."""
    return VARIABLE.sub(lambda found: found["default"], value)


def validate(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)


def test_it_is_what_the_compose_specification_asks_for() -> None:
    validate(COMPOSE)


@pytest.mark.parametrize(
    "slip", [{"services": {"x": {"imagine": "y"}}}, {"service": {}}, {"services": {"x": {"ports": "8080"}}}]
)
def test_the_schema_knows_a_slip_when_it_sees_one(slip: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(slip)


def test_every_role_is_a_service_of_its_own_and_can_be_scaled() -> None:
    assert set(OURS) >= ROLES
    for name in ROLES:
        assert "container_name" not in OURS[name]
        for port in OURS[name].get("ports", []):
            published = with_defaults(port).rsplit(":", 1)[0].rsplit(":", 1)[-1]
            first, _, last = published.partition("-")
            assert int(last) > int(first), f"{name}: one port can be published by one container only"


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_a_word_of_ours(name: str) -> None:
    words = OURS[name]["command"]
    command = typer.main.get_command(main.cli)
    context = command.make_context("main.py", list(words[:1]), resilient_parsing=True)
    known = command.get_command(context, words[0])  # type: ignore[attr-defined] # typer's root command is a group
    assert known is not None or words == ["--help"]
    if known is not None:
        known.make_context(words[0], list(words[1:]))


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_of_ours_with_a_value_it_may_have(name: str) -> None:
    environment = environment_of(name)
    assert all(variable.startswith(PREFIX) or variable == "PGPASSWORD" for variable in environment)
    settings = read_settings(environment)
    assert settings.kafka == "kafka:9092"
    assert settings.database_url is not None


def test_what_clouds_need_to_know_us_is_passed_on_and_never_made_empty() -> None:
    """An empty region or secret is another thing to them than none."""
    passed_on = {name for name, value in OURS["work"]["environment"].items() if value is None}
    assert passed_on
    assert all(name.startswith(OF_CLOUDS) for name in passed_on)
    assert {"AWS_REGION", "AWS_ACCESS_KEY_ID", "AZURE_CLIENT_ID"} <= passed_on


def test_what_the_environment_may_name_is_what_the_manual_lists() -> None:
    manual = (ROOT / "docs" / "operations.md").read_text()
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\|", manual, re.MULTILINE))
    asked = {found["name"]: found["default"] for found in VARIABLE.finditer((ROOT / "compose.yaml").read_text())}
    assert told == asked


def test_every_service_that_is_named_is_there() -> None:
    settings = read_settings(environment_of("http"))
    assert settings.kafka is not None
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    postgres = SERVICES["postgres"]["environment"]
    expected = f"{postgres['POSTGRES_USER']}@postgres"
    assert OURS["http"]["environment"]["PGPASSWORD"] == postgres["POSTGRES_PASSWORD"]
    assert url == f"postgresql://{expected}:5432/{postgres['POSTGRES_DB']}"
    assert settings.kafka.partition(":")[0] in SERVICES
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
    scraped = yaml.safe_load((ROOT / "docs" / "prometheus.yaml").read_text())["scrape_configs"]
    for job in scraped:
        for target in job["dns_sd_configs"]:
            assert set(target["names"]) <= set(OURS)
            assert settings.operations_address
            address = settings.http_address if target["names"] == ["http"] else settings.operations_address
            assert target["port"] == address[1]


def test_nothing_starts_before_topics_and_tables_are_as_meant() -> None:
    assert SERVICES["provision"]["depends_on"] == {
        "kafka": {"condition": "service_healthy"},
        "postgres": {"condition": "service_healthy"},
    }
    assert SERVICES["provision"]["restart"] == "no"
    for name in ROLES:
        assert OURS[name]["depends_on"] == {"provision": {"condition": "service_completed_successfully"}}


def test_every_lasting_service_says_how_it_is() -> None:
    lasting = {name for name, service in SERVICES.items() if service.get("restart") != "no"}
    assert {name for name in lasting if "healthcheck" not in SERVICES[name]} == set()


def test_all_roles_share_one_keyset_and_one_blob_store() -> None:
    """Mail that one container stores, another one reads."""
    for name in ROLES:
        mounts = dict(volume.split(":") for volume in OURS[name]["volumes"])
        environment = OURS[name]["environment"]
        assert with_defaults(environment["POSTLEDGER_BLOBS"]) == mounts["blobs"]
        assert str(Path(environment["POSTLEDGER_KEYSET"]).parent) == mounts["keyset"]
    assert {volume.split(":")[0] for name in ROLES for volume in OURS[name]["volumes"]} <= set(COMPOSE["volumes"])


def test_what_must_not_be_lost_is_in_a_volume() -> None:
    kafka = SERVICES["kafka"]
    assert f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}" in kafka["volumes"]
    assert "postgres:/var/lib/postgresql" in SERVICES["postgres"]["volumes"]


def test_kafka_is_one_node_that_takes_our_largest_record_and_makes_no_topics_by_itself() -> None:
    from schemas.topics import MAX_MESSAGE_BYTES

    environment = SERVICES["kafka"]["environment"]
    assert len(base64.urlsafe_b64decode(environment["CLUSTER_ID"] + "==")) == 16
    assert int(environment["KAFKA_MESSAGE_MAX_BYTES"]) == MAX_MESSAGE_BYTES
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert environment["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://kafka:9092"


def test_no_port_is_open_to_others_unless_somebody_says_so() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(with_defaults(port).startswith("127.0.0.1:") for port in published)


# ── health checks, run ────────────────────────────────────────────────────────────────────────────────────────────────


class Health(BaseHTTPRequestHandler):
    """Answers `/readyz` with the status its server was given."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[200, 503])
def role(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """The port and the status of something that answers HTTP."""
    handler = type("Answering", (Health,), {"status": request.param})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, request.param
    server.shutdown()
    thread.join()
    server.server_close()


def run_check(name: str, ours: str, theirs: str) -> int:
    kind, *words = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    words = [sys.executable if word == "python" else word.replace(ours, theirs) for word in words]
    assert theirs in " ".join(words)
    return subprocess.run(words, check=False, capture_output=True, timeout=30).returncode


def test_http_is_healthy_when_it_says_that_it_is_ready(role: tuple[int, int]) -> None:
    port, status = role
    assert (run_check("http", ":8080/", f":{port}/") == 0) is (status == 200)


def test_smtp_is_unhealthy_when_nobody_greets(free_port: int) -> None:
    assert run_check("smtp", "2525", str(free_port)) != 0


@pytest.mark.parametrize("name", ["work", "project"])
def test_workers_are_healthy_when_they_say_that_they_are_ready(name: str, role: tuple[int, int]) -> None:
    port, status = role
    assert (run_check(name, ":9464/", f":{port}/") == 0) is (status == 200)


# ── the image ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def copied() -> list[str]:
    """What the image is made of."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return [path for line in lines if line.startswith("COPY ") for path in line.split()[1:-1]]


def test_the_image_holds_every_room_and_nothing_of_the_tests() -> None:
    rooms = {"domain", "schemas", "handlers", "projections", "gateways"}
    assert rooms <= set(copied())
    assert all((ROOT / path).exists() for path in copied())
    assert not {"tests", ".data", ".venv", "."} & set(copied())


def test_what_the_image_copies_is_not_kept_from_the_build() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    assert patterns[0] == "*"
    let_in = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    assert all(any(fnmatch.fnmatch(path, pattern) for pattern in let_in) for path in copied())


def test_the_image_does_not_run_as_root_and_owns_its_volumes() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = re.search(r"^USER (\w+)$", dockerfile, re.MULTILINE)
    assert user
    assert user[1] != "root"
    assert re.search(rf"--owner={user[1]} .*/keyset /blobs", dockerfile)
