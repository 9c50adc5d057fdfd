"""What Prometheus is told by a whole installation: the page for operators lists all of it, and it moves when things do."""

import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from gateways.local_ports import free_port
from tests.support.papers import ROOT, part
from tests.support.up import Up, installed_at, started

PAGE = ROOT / "docs/operations.md"
#: Of the client library itself; the page names them together.
OF_THE_PROCESS = "process_"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    data = tmp_path_factory.mktemp("metrics") / "data"
    with started(installed_at(data, operations=f"127.0.0.1:{free_port()}")) as up:
        yield up


def doors(house: Up) -> str:
    return house.url


def workers(house: Up) -> str:
    return f"http://{house.words.environment['POSTLEDGER_OPERATIONS']}"


def families(url: str) -> dict[str, tuple[str, set[str]]]:
    """Of every metric that is served: its type, and the labels of its samples, by the name that is asked for."""
    found = {}
    for family in text_string_to_metric_families(requests.get(f"{url}/metrics", timeout=10).text):
        if family.type == "gauge" and family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    return found


def value(url: str, name: str, **labels: str) -> float:
    """The sum of all samples with these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(requests.get(f"{url}/metrics", timeout=10).text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def described() -> dict[str, set[str]]:
    """The names in the page's table, each with its labels."""
    rows = [line.split("|") for line in part(PAGE, "metrics").strip().splitlines()[2:]]
    return {row[1].strip().strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows}


def test_the_page_lists_every_metric_there_is_with_its_labels(house: Up) -> None:
    served = families(doors(house)) | families(workers(house))
    ours = {name: labels for name, (_, labels) in served.items() if not name.startswith(OF_THE_PROCESS)}
    page = described()
    assert page.pop("process_…") == set()
    assert set(ours) == set(page)
    # A metric without a sample yet shows no labels.
    assert {name: labels for name, labels in ours.items() if labels and labels != page[name]} == {}
    assert any(name.startswith(OF_THE_PROCESS) for name in families(doors(house)))


def test_names_are_as_prometheus_asks_for(house: Up) -> None:
    """https://prometheus.io/docs/practices/naming/: a prefix, base units, `_total` for what only grows."""
    for name, (kind, _) in (families(doors(house)) | families(workers(house))).items():
        assert re.fullmatch(r"(postledger|process)(_[a-z]+)+", name), name
        assert name.endswith("_total") == (kind == "counter"), name
        if kind == "histogram":
            assert name.endswith(("_seconds", "_bytes")), name
        assert not re.search(r"_(ms|millis|kb|minutes)(_|$)", name), name


def test_a_mail_is_seen_by_everybody_who_has_to_do_with_it(house: Up) -> None:
    made = requests.post(f"{house.url}/api/v1/mailboxes", timeout=10).json()
    bearer = {"Authorization": f"Bearer {made['session_token']}"}
    messages = f"{house.url}/api/v1/mailboxes/{made['address']}/messages"
    with smtplib.SMTP(*house.smtp) as client:
        client.sendmail("ann@example.org", [made["address"]], b"Subject: Hello\r\n\r\nHello\r\n")
    with requests.get(
        messages.replace("/messages", "/events?after=mailbox.events-0:0"), headers=bearer, stream=True, timeout=20
    ) as live:
        lines = live.iter_lines(1)
        assert any(line == b"event: new_message" for line in lines)
        assert value(doors(house), "postledger_streams_open", kind="inbox_sse") == 1
    assert len(requests.get(messages, headers=bearer, timeout=10).json()) == 1
    assert value(doors(house), "postledger_smtp_mails_total", outcome="kept") == 1
    assert value(doors(house), "postledger_append_seconds_count", topic="mail.raw") == 1
    assert value(doors(house), "postledger_accept_to_visible_seconds_count") == 1
    assert value(doors(house), "postledger_stream_events_sent_total", kind="inbox_sse") == 1
    assert value(workers(house), "postledger_mails_parsed_total", outcome="whole") == 1
    assert value(workers(house), "postledger_parse_seconds_count", limits="quick") == 1
    assert value(workers(house), "postledger_commands_decided_total", outcome="MailboxCreated") == 1
    assert value(workers(house), "postledger_commands_decided_total", outcome="MessageReceived") == 1
    assert value(workers(house), "postledger_append_seconds_count", topic="mailbox.events") >= 2
    assert value(workers(house), "postledger_decider_lag_records") == 0
    assert value(doors(house), "postledger_projection_lag_records", projection="messages") == 0
    assert value(doors(house), "postledger_projection_position", projection="messages") >= 2


def test_a_role_without_http_answers_operators_and_nobody_else(house: Up) -> None:
    assert requests.get(f"{workers(house)}/livez", timeout=10).json() == {"ok": True}
    looked_at = requests.get(f"{workers(house)}/readyz", timeout=10).json()["dependencies"]
    assert looked_at.keys() == {
        "postgres",
        "kafka",
        "data keys",
        "decider of mailbox",
        "decider of account",
        "decider of connection",
        "decider of send",
        "decider of webhook",
    }
    unknown, wrong = (
        requests.get(f"{workers(house)}/", timeout=10),
        requests.post(f"{workers(house)}/livez", timeout=10),
    )
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.headers["Allow"], wrong.json()["code"]) == (405, "GET, HEAD", "method_not_allowed")
    assert requests.head(f"{workers(house)}/metrics", timeout=10).status_code == 200


def test_a_taken_address_for_operators_is_said_at_once(house: Up, tmp_path: Path) -> None:
    taken = house.words.environment["POSTLEDGER_OPERATIONS"]
    said = installed_at(tmp_path / "data", operations=taken).says("up")
    assert said.code == 1
    assert f"{taken} can't be listened on" in said.err
    assert "set POSTLEDGER_OPERATIONS to another" in said.err
