"""Dashboards: well made, in words that exist, and with data in them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradwatch import default_rules
from gradwatch.families import families
from gradwatch.monitoring.alerts import alerts, recorded
from gradwatch.monitoring.dashboards import dashboard_files, dashboards
from gradwatch.monitoring.thresholds import THRESHOLDS, Settings
from gradwatch.service.pages import _TEMPLATES
from tests.monitoring.boards import ASKED, BOARDS, Asked, filled, panels

# What Grafana calls the units that are used here.
UNITS = {
    "none",
    "short",
    "sci",
    "percentunit",
    "s",
    "ops",
    "decbytes",
    "string",
    "dateTimeFromNow",
}

# Panels that show a counter as it is: it says exactly how many there were.
# Over what is not scraped yet, or was before a service began, no rate can.
EXACT = {
    "Runs",
    "Done",
    "Left",
    "Found so far",
    "Variables whose gradient was NaN or Inf",
    "Variables with series of their own",
}

# Numbers of the alert rules that dashboards show, too.
SHOWN = (
    "disk_free_bytes",
    "diverging_factor",
    "lost_seconds",
    "loss_scale",
    "skipped_ratio",
    "stalled_loss_errors",
    "stalled_loss_gain",
    "stalled_run_seconds",
    "step_time_factor",
    "step_time_seconds",
)

PANELS = [
    pytest.param(panel, id=f"{uid}-{panel['title']}")
    for uid, board in BOARDS.items()
    for panel in panels(board)
]
QUERIES = [
    pytest.param(one, id=f"{one.board}-{one.where}-{one.ref}") for one in ASKED
]
_SELECTOR = re.compile(
    r"\b((?:[a-z_]+:)?gradwatch_[a-z_0-9:]+|up|ALERTS)\{([^}]*)\}"
)
_NAME = re.compile(r"\b(?:[a-z_]+:)?gradwatch_[a-z_]+(?::\w+)?")


def matched(expr: str) -> list[tuple[str, str]]:
    """Returns name and matchers of each selector; there is nothing else."""
    found = _SELECTOR.findall(expr)
    ours = [name for name, _ in found if "gradwatch" in name]
    assert ours == _NAME.findall(expr)
    return found


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_is_well_made(uid: str) -> None:
    """Its data source can be chosen, links keep time and variables."""
    board = BOARDS[uid]
    assert (board["editable"], board["tags"]) == (False, ["gradwatch"])
    assert len(uid) <= 40
    variables = {v["name"]: v for v in board["templating"]["list"]}
    first, job, *_ = variables.values()
    assert (first["name"], first["type"]) == ("datasource", "datasource")
    assert (first["label"], first["query"]) == ("Data source", "prometheus")
    assert (job["name"], job["label"], job["multi"]) == ("job", "Job", True)
    assert job["allValue"] == ".+"
    for variable in list(variables.values())[1:]:
        assert variable["refresh"] == 2  # when the time range changes
        assert variable["datasource"]["uid"] == "${datasource}"
    boards, page = board["links"]
    assert boards["tags"] == board["tags"]
    assert (boards["keepTime"], boards["includeVars"]) == (True, True)
    assert page["url"].startswith(Settings().service)
    for mark in board["annotations"]["list"]:
        assert mark["datasource"]["uid"] == "${datasource}"
        assert mark["useValueForTime"] is True
        assert mark["expr"].endswith("* 1000")


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_do_not_overlap(uid: str) -> None:
    """They have numbers of their own and fit into 24 columns."""
    board = BOARDS[uid]
    numbers = [panel["id"] for panel in panels(board, rows=True)]
    assert len(numbers) == len(set(numbers))
    # What a collapsed row holds takes no room on the board.
    for group in (
        board["panels"],
        *(p.get("panels", ()) for p in board["panels"]),
    ):
        taken: set[tuple[int, int]] = set()
        for panel in group:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            columns = range(place["x"], place["x"] + place["w"])
            rows = range(place["y"], place["y"] + place["h"])
            cells = set(itertools.product(columns, rows))
            assert not cells & taken, panel["title"]
            taken |= cells
    opened = [p for p in board["panels"] if p["type"] != "row"]
    assert len([p for p in opened if p["type"] != "stat"]) <= 12


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_well_made(panel: dict[str, Any]) -> None:
    """Explained, with a unit, and no line bridges what is not finite."""
    assert panel["title"]
    assert len(panel["description"]) > 40
    assert panel["description"].endswith((".", "?"))
    assert panel["targets"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(letters) == len(set(letters))
    for source in (panel, *panel["targets"]):
        assert source["datasource"]["uid"] == "${datasource}"
    fields = panel["fieldConfig"]
    units = [
        prop["value"]
        for override in fields["overrides"]
        for prop in override["properties"]
        if prop["id"] == "unit"
    ]
    assert {fields["defaults"]["unit"], *units} <= UNITS
    values = [s["value"] for s in fields["defaults"]["thresholds"]["steps"]]
    assert values[0] is None
    assert values[1:] == sorted(values[1:])
    custom = fields["defaults"]["custom"]
    if panel["type"] in ("timeseries", "state-timeline"):
        assert custom["spanNulls"] is False
    if panel["type"] == "timeseries" and "norm" in panel["title"].lower():
        assert custom["scaleDistribution"] == {"type": "log", "log": 10}
    if panel["type"] == "stat":
        assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]


@pytest.mark.parametrize("one", QUERIES)
def test_a_query_asks_for_what_exists(one: Asked) -> None:
    """Metrics and labels are in the catalogue or recorded; of chosen jobs."""
    known = {family.name: family for family in families().values()}
    (group,) = recorded(Settings())["groups"]
    names = {rule["record"] for rule in group["rules"]}
    selectors = matched(one.expr)
    assert selectors
    for name, matchers in selectors:
        # The jobs themselves are asked for without.
        assert 'job=~"$job"' in matchers or one.where == "job"
        labels = set(re.findall(r"(\w+)(?:=|!)", matchers)) - {"job"}
        if ":" in name:
            assert name in names
        elif "gradwatch" in name:
            short = re.sub("_(sum|count|bucket)$", "", name)
            family = known.get(name) or known[short]
            assert labels <= set(family.labels)
            chosen = labels or "run" not in family.labels
            assert chosen or one.kind == "variable"


@pytest.mark.parametrize("one", QUERIES)
def test_rates_are_taken_where_they_should(one: Asked) -> None:
    """Over Grafana's interval, and of nothing but counters."""
    ranges = re.findall(
        r"\b(rate|irate|increase)\((\w+)\{[^}]*\}\[(.*?)\]", one.expr
    )
    assert {over for *_, over in ranges} <= {"$__rate_interval"}
    rated = [name for _, name, _ in ranges]
    counters = ("_total", "_sum", "_count", "_bucket")
    assert all(name.endswith(counters) for name in rated)
    bare = [
        name
        for name, _ in matched(one.expr)
        if name.endswith(counters) and name not in rated
    ]
    assert not bare or one.where in EXACT


def test_promtool_accepts_every_query(
    tmp_path: Path, tool: Callable[..., Any]
) -> None:
    """As Grafana sends them."""
    rules = [
        {"record": f"query:{i}", "expr": filled(one.expr)}
        for i, one in enumerate(ASKED)
    ]
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(
        json.dumps({"groups": [{"name": "dashboards", "rules": rules}]})
    )
    done = tool("promtool", "check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ASKED)} rules found" in done.stdout


def test_texts_name_what_exists() -> None:
    """Metrics, recording rules and alerts that descriptions speak of."""
    known = {family.name for family in families().values()}
    (group,) = recorded(Settings())["groups"]
    known |= {rule["record"] for rule in group["rules"]}
    named = {alert.name for alert in alerts(Settings())}
    for board in BOARDS.values():
        for panel in panels(board):
            text = panel["description"]
            assert set(_NAME.findall(text)) <= known, text
            assert set(re.findall(r"\bGradwatch\w+", text)) <= named


@pytest.mark.parametrize("name", SHOWN)
def test_thresholds_are_those_of_the_alerts(name: str) -> None:
    """Another number in the rules is another number here."""
    other = Settings({name: THRESHOLDS[name].default * 1.5})
    assert dashboards(other) != dashboards(Settings())


def test_findings_and_alerts_say_what_to_do() -> None:
    """Every rule and alert has its words in the tables."""
    (table,) = [
        p for p in panels(BOARDS["gradwatch-run"]) if p["title"] == "Findings"
    ]
    shown = json.dumps(table)
    for rule in default_rules():
        assert json.dumps(rule.advice)[1:-1] in shown
        assert json.dumps(rule.meaning)[1:-1] in shown
    fleet = json.dumps(BOARDS["gradwatch-fleet"])
    for alert in alerts(Settings()):
        assert json.dumps(alert.act)[1:-1] in fleet


def test_the_readme_tells_of_them() -> None:
    """Title and file of each, and the variables by which one chooses."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    section = readme.split("\n### Grafana\n")[1].split("\n### ")[0]
    assert section.count("| *gradwatch: ") == len(BOARDS)
    for uid, board in BOARDS.items():
        file = f"[{uid}.json](dashboards/grafana/{uid}.json)"
        assert f"| *{board['title']}* | {file} |" in section
        for variable in board["templating"]["list"]:
            assert re.search(rf"^\| .*\b{variable['label']}\b", section, re.M)


def test_links_to_dashboards_lead_to_one() -> None:
    """Those of service and alerts: their uids and variables exist."""
    pages = [path.read_text() for path in _TEMPLATES.iterdir()]
    sent = [alert.dashboard for alert in alerts(Settings())]
    inner = [json.dumps(board) for board in BOARDS.values()]
    text = "\n".join([*pages, *(f"/d/{to}" for to in sent), *inner])
    links = re.findall(r"/d/([\w-]+)(?:\?var-(\w+)=)?", text)
    assert {uid for uid, _ in links} == {"gradwatch-fleet", "gradwatch-run"}
    for uid, variable in links:
        known = {v["name"] for v in BOARDS[uid]["templating"]["list"]}
        assert variable in known | {""}


def test_settings_reach_the_dashboards() -> None:
    """The job that is chosen at first, and where the service is."""
    found = dashboard_files(Settings(job="mine", service="https://g.example"))
    for uid, text in found.items():
        board = json.loads(text)
        assert f"{board['uid']}.json" == uid
        job = board["templating"]["list"][1]
        assert job["current"]["value"] == ["mine"]
        assert "https://g.example/" in text
        assert "127.0.0.1" not in text
