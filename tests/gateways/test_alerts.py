"""The alert rules speak of metrics that there are, by labels that they have."""

import re
from typing import Any

import pytest
import yaml

from tests.support.papers import ROOT, part

RULES = yaml.safe_load((ROOT / "docs/alerts.yaml").read_text())
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
NAME = re.compile(r"\b(postledger_[a-z_]+)(?:\{([^}]*)\})?")


def metrics() -> dict[str, set[str]]:
    """Of docs/operations.md, which another test compares with what is served: name and labels."""
    rows = [line.split("|") for line in part(ROOT / "docs/operations.md", "metrics").strip().splitlines()[2:]]
    return {row[1].strip(" `"): set(re.findall(r"`([a-z_]+)`", row[2])) for row in rows}


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


def test_prometheus_reads_them() -> None:
    settings = yaml.safe_load((ROOT / "docs/prometheus.yaml").read_text())
    mounted = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["prometheus"]["volumes"]
    for name in settings["rule_files"]:
        assert f"./docs/{name}:/etc/prometheus/{name}:ro" in mounted
