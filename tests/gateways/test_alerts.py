"""The alert rules speak of metrics that there are, by labels that they have, and miss no event and count none twice."""

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from prometheus_client import CollectorRegistry

from gateways.http.projection_lag import ProjectionLag
from gateways.send_measures import SendMeasures
from gateways.stores.folded import FoldedPositions
from gateways.stores.postgres import Pool
from gateways.token_measures import TokenMeasures
from gateways.webhooks.measures import WebhookMeasures
from gateways.work_measures import TimerMeasures
from tests.support.papers import ROOT, part

RULES = yaml.safe_load((ROOT / "docs/alerts.yaml").read_text())
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
PAGE = ROOT / "docs/operations.md"
#: What is asked for, by name: of the alerts, and of the page that explains the metrics.
ASKED = {alert["alert"]: alert["expr"] for alert in ALERTS} | {PAGE.name: PAGE.read_text()}
NAME = re.compile(r"\b(postledger_[a-z_]+)(?:\{([^}]*)\})?")
SERIES = r"postledger_[a-z_]+(?:\{[^}]*\})?"
GROWTH = re.compile(rf"\b(?:increase|rate|irate)\(({SERIES})\[")
#: The growth of a counter whose children begin with their first event: of those that are new all of it.
GROWTH_WITH_BIRTHS = re.compile(
    rf"\( ?\(max_over_time\((?P<series>{SERIES})\[(?P<window>\w+)\]\) "
    r"unless last_over_time\((?P=series)\[5m\] offset (?P=window)\)\) "
    r"or increase\((?P=series)\[(?P=window)\]\) ?\)"
)
ALIKE = re.compile(rf"\b(?:max|min)(?: by \([^)]*\) )?\({SERIES}(?: offset \w+)?\)")


def rows() -> list[list[str]]:
    """Of docs/operations.md, which another test compares with what is served."""
    return [line.split("|") for line in part(PAGE, "metrics").strip().splitlines()[2:]]


def metrics() -> dict[str, set[str]]:
    """Name and labels."""
    return {row[1].strip(" `"): set(re.findall(r"`([a-z_]+)`", row[2])) for row in rows()}


def whole() -> set[str]:
    """Those that each process tells of the whole installation."""
    return {row[1].strip(" `") for row in rows() if "*whole*" in row[3]}


def on_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_asks_for_what_there_is(alert: dict[str, Any]) -> None:
    assert alert.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert {"summary", "description"} == alert["annotations"].keys()
    known, asked = metrics(), NAME.findall(alert["expr"])
    assert asked
    for name, selectors in asked:
        assert name in known
        assert set(re.findall(r"([a-z_]+)\s*=", selectors)) <= known[name]
    by = {label.strip() for found in re.findall(r"by \(([^)]*)\)", alert["expr"]) for label in found.split(",")}
    assert by <= set.intersection(*[known[name] for name, _ in asked])


@pytest.mark.parametrize("name", ASKED)
def test_the_first_event_of_a_kind_counts(name: str) -> None:
    """A child with labels comes into being at 1, and `increase` knows of nothing that it has risen from."""
    known, asked = metrics(), on_one_line(ASKED[name])
    missed = [found for found in GROWTH.findall(GROWTH_WITH_BIRTHS.sub("", asked)) if known[found.partition("{")[0]]]
    assert missed == []


def test_some_rules_ask_how_a_counter_with_labels_grows() -> None:
    assert {name for name, asked in ASKED.items() if GROWTH_WITH_BIRTHS.search(on_one_line(asked))} >= {
        "PostledgerDeadLetters",
        "PostledgerClientBroken",
        "PostledgerSendsFail",
        PAGE.name,
    }


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_what_every_process_tells_alike_is_not_added_up(alert: dict[str, Any]) -> None:
    """One more worker is no news, and one alert is enough."""
    rest = ALIKE.sub("", on_one_line(alert["expr"]))
    assert {name for name, _ in NAME.findall(rest)} & whole() == set()


def test_the_page_says_what_every_process_tells_alike() -> None:
    """All that is looked up in tables, and not counted where it happens."""
    registry, no_pool, nothing_folded = CollectorRegistry(), cast("Pool", None), SimpleNamespace(positions={})
    for measures in (SendMeasures, TokenMeasures, WebhookMeasures, TimerMeasures):
        measures(no_pool, registry)
    registry.register(ProjectionLag(cast("FoldedPositions", nothing_folded), None))
    gauges = [family for family in registry.collect() if family.type == "gauge"]
    assert {family.name for family in gauges} == whole()
    assert [family.name for family in gauges if "the whole installation" not in family.documentation] == []


def test_prometheus_reads_them() -> None:
    settings = yaml.safe_load((ROOT / "docs/prometheus.yaml").read_text())
    mounted = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prometheus"]["volumes"]
    for name in settings["rule_files"]:
        assert f"./docs/{name}:/etc/prometheus/{name}:ro" in mounted
