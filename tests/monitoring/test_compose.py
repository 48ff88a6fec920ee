"""`docker-compose.yml`: what it promises, and what it mounts, really run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradwatch.metrics import MAX_SERIES
from gradwatch.monitoring.deployments import SAMPLE_LIMIT
from gradwatch.monitoring.thresholds import Settings
from gradwatch.service.options import Options
from gradwatch.service.runs import Runs
from gradwatch.service.security import is_loopback
from tests.monitoring.boards import BOARDS
from tests.monitoring.stack import (
    Stack,
    await_ready,
    free_port,
    listening,
    serving,
    start,
)
from tests.service.conftest import build_state, save_state, serving_here

ROOT = Path(__file__).parents[2]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
SERVERS = {name: s for name, s in SERVICES.items() if name != "demo"}
PORTS = {
    "gradwatch": 9753,
    "tensorboard": 6006,
    "prometheus": 9090,
    "alertmanager": 9093,
    "grafana": 3000,
}
USERS = {
    "gradwatch": "10001:10001",
    "tensorboard": "10001:10001",
    "demo": "10001:10001",
    "prometheus": "65534:65534",
    "alertmanager": "65534:65534",
    "grafana": "472",
}
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?([^}]*))\}")

every = pytest.mark.parametrize("name", SERVICES)
server = pytest.mark.parametrize("name", SERVERS)


def mounts(name: str) -> Iterator[tuple[str, str, bool]]:
    """Yields source, target and whether it is read-only, of each mount.

    The source is as without any variable set.
    """
    for mount in SERVICES[name].get("volumes", ()):
        if isinstance(mount, str):
            short = _VARIABLE.sub(lambda found: found[2], mount)
            source, target, *mode = short.split(":")
            yield source, target, mode == ["ro"]
        else:
            source = _VARIABLE.sub(lambda found: found[2], mount["source"])
            yield source, mount["target"], mount.get("read_only", False)


def image_tree(name: str, folder: Path) -> Path:
    """Makes a folder that has the files where the container has them."""
    for source, target, _ in mounts(name):
        if source.startswith("./") and (ROOT / source).exists():
            place = folder / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(ROOT / source)
    return folder


def flags(name: str) -> dict[str, str]:
    """Returns flag -> value of a service's command."""
    command = [part for part in SERVICES[name]["command"] if part[:2] == "--"]
    return dict(part.partition("=")[::2] for part in command)


def test_it_is_named_and_holds_what_is_promised() -> None:
    """A project of its own, with the trainer only on demand."""
    assert FILE["name"] == "gradwatch"
    assert set(SERVICES) == {*PORTS, "demo"}
    assert SERVICES["demo"]["profiles"] == ["demo"]
    assert not any("profiles" in service for service in SERVERS.values())


@every
def test_ports_are_on_loopback(name: str) -> None:
    """Nothing is published to others; the demo publishes nothing."""
    port = PORTS.get(name)
    expected = [f"127.0.0.1:{port}:{port}"] if port else []
    assert SERVICES[name].get("ports", []) == expected
    assert "network_mode" not in SERVICES[name]


@every
def test_containers_may_do_little(name: str) -> None:
    """Read-only, without capabilities, not root, within limits."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == USERS[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] > 0
    options = service["logging"]["options"]
    assert {"max-size", "max-file"} <= set(options)


@every
def test_images_are_pinned(name: str) -> None:
    """To a version, which for our own is the package's."""
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    if "build" in SERVICES[name]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        assert tag == project["project"]["version"]


@every
def test_mounts_exist_and_are_read_only(name: str) -> None:
    """Files of the host cannot be changed; state is in named volumes."""
    runs = {"./runs"}  # the user's own
    for source, target, read_only in mounts(name):
        if source.startswith("."):
            assert read_only, target
            assert source in runs or (ROOT / source).exists(), source
        else:
            assert source in FILE["volumes"]
            assert read_only == (target.startswith("/runs") and name != "demo")


@server
def test_health_checks(name: str) -> None:
    """Each server has one on its own port; the service's is its image's."""
    service, port = SERVICES[name], PORTS[name]
    if name == "gradwatch":
        assert "healthcheck" not in service
        assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
        return
    check = service["healthcheck"]
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    paths = {"grafana": "/api/health", "tensorboard": "/"}
    path = paths.get(name, "/-/ready")
    if name == "tensorboard":
        assert f"'127.0.0.1', {port}" in check["test"][-1]
        assert f"'GET', '{path}'" in check["test"][-1]
    else:
        url = f"http://localhost:{port}{path}"
        assert check["test"] == ["CMD", "wget", "-qO-", url]


def test_the_order_of_starts() -> None:
    """Who needs another waits until that one is healthy."""
    waits = {
        name: set(service["depends_on"])
        for name, service in SERVICES.items()
        if "depends_on" in service
    }
    assert waits == {
        "prometheus": {"gradwatch", "alertmanager"},
        "grafana": {"prometheus"},
        "demo": {"gradwatch"},
    }
    for name, others in waits.items():
        for other in others:
            condition = SERVICES[name]["depends_on"][other]
            assert condition == {"condition": "service_healthy"}


def test_there_is_no_default_password() -> None:
    """Without a file that holds one, compose ends with what to do."""
    (file,) = FILE["secrets"].values()
    found = _VARIABLE.fullmatch(file["file"])
    assert found
    assert (found[2], bool(found[3])) == (None, True)
    environment = SERVICES["grafana"]["environment"]
    (secret,) = SERVICES["grafana"]["secrets"]
    place = environment["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert place == f"/run/secrets/{secret}"
    assert list(FILE["secrets"]) == [secret]
    words = re.compile("password|token|secret", re.IGNORECASE)
    for service in SERVICES.values():
        given = service.get("environment", {})
        assert [n for n in given if words.search(n)] in (
            [],
            ["GF_SECURITY_ADMIN_PASSWORD__FILE"],
        )


def test_grafana_keeps_to_itself() -> None:
    """No visitors by default, no sign-up, no reports, no look-ups."""
    environment = SERVICES["grafana"]["environment"]
    anonymous = environment["GF_AUTH_ANONYMOUS_ENABLED"]
    assert _VARIABLE.sub(lambda found: found[2], anonymous) == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    for name in (
        "USERS_ALLOW_SIGN_UP",
        "ANALYTICS_REPORTING_ENABLED",
        "ANALYTICS_CHECK_FOR_UPDATES",
        "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
    ):
        assert environment[f"GF_{name}"] == "false"


def test_prometheus_keeps_little_and_obeys_nobody() -> None:
    """Limits in time and size; no receiver, admin API or lifecycle."""
    given = flags("prometheus")
    assert given["--storage.tsdb.retention.time"] == "30d"
    assert re.fullmatch(r"\d+GB", given["--storage.tsdb.retention.size"])
    assert not [name for name in given if name.startswith("--web.enable")]
    assert flags("alertmanager")["--cluster.listen-address"] == ""


def test_links_lead_to_published_ports() -> None:
    """The service's links, and those in notifications."""
    urls = [
        flags("gradwatch")["--grafana-url"],
        flags("gradwatch")["--tensorboard-url"],
        flags("prometheus")["--web.external-url"],
        flags("alertmanager")["--web.external-url"],
        SERVICES["grafana"]["environment"]["GF_SERVER_ROOT_URL"],
        f"{Settings().grafana}/",
    ]
    names = ["grafana", "tensorboard", "prometheus", "alertmanager"]
    names += ["grafana", "grafana"]
    assert urls == [f"http://127.0.0.1:{PORTS[name]}/" for name in names]


def test_runs_are_where_they_are_read() -> None:
    """Every logdir is mounted; the demo writes into one of them."""
    read = {f"--logdir={target}" for _, target, _ in mounts("gradwatch")}
    command = SERVICES["gradwatch"]["command"]
    assert {part for part in command if "--logdir" in part} == read
    assert list(mounts("tensorboard")) == list(mounts("gradwatch"))
    ((volume, target, _),) = mounts("demo")
    assert (volume, target, True) in list(mounts("gradwatch"))
    assert flags("demo")["--logdir"] == target


def test_grafana_is_provisioned(tmp_path: Path) -> None:
    """Data source and dashboards are where its files say."""
    tree = image_tree("grafana", tmp_path)
    provisioning = tree / "etc/grafana/provisioning"
    ((source,),) = [
        yaml.safe_load(file.read_text())["datasources"]
        for file in (provisioning / "datasources").iterdir()
    ]
    assert source["url"] == f"http://prometheus:{PORTS['prometheus']}"
    assert source["uid"] == "gradwatch-prometheus"
    assert source["isDefault"] is True
    config = yaml.safe_load(
        (ROOT / "dashboards/compose/prometheus.yml").read_text()
    )
    interval = config["scrape_configs"][0]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    ((provider,),) = [
        yaml.safe_load(file.read_text())["providers"]
        for file in (provisioning / "dashboards").iterdir()
    ]
    assert provider["disableDeletion"] is True
    assert provider["allowUiUpdates"] is False
    shown = tree / provider["options"]["path"].lstrip("/")
    found = {
        file.stem: json.loads(file.read_text())["uid"]
        for file in shown.rglob("*.json")
    }
    assert found == {uid: uid for uid in BOARDS}
    assert len(found) == 3


def test_make_grafana_starts_it(tmp_path: Path) -> None:
    """With a password that is made once, and nobody else's; runs are there."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    variable = "GRADWATCH_GRAFANA_PASSWORD_FILE"
    docker.write_text(f'#!/bin/sh\necho "$@" && cat "${{{variable}:-$0}}"\n')
    docker.chmod(0o755)
    path = f"{docker.parent}{os.pathsep}{os.environ['PATH']}"
    make = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile")]
    told = [
        subprocess.run(
            [*make, "grafana", f"PYTHON={sys.executable}"],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert told[0][-2] == "compose --profile demo up --build"
    password = tmp_path / ".secrets" / "grafana"
    assert told[0][-1] == told[1][-1] == password.read_text().strip()
    assert len(told[0][-1]) > 40
    modes = [f.stat().st_mode & 0o777 for f in (password.parent, password)]
    assert modes == [0o700, 0o444]
    for source, _, _ in mounts("gradwatch"):
        assert not source.startswith("./") or (tmp_path / source).is_dir()


def test_prometheus_accepts_what_is_mounted(
    tmp_path: Path, tool: Callable[..., Any]
) -> None:
    """Configuration and rules, at the places that the container has."""
    tree = image_tree("prometheus", tmp_path)
    file = tree / flags("prometheus")["--config.file"].lstrip("/")
    done = tool("promtool", "check", "config", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == 2


def test_alertmanager_accepts_what_is_mounted(
    tmp_path: Path, tool: Callable[..., Any]
) -> None:
    """The routes, at the place that the container has."""
    tree = image_tree("alertmanager", tmp_path)
    file = tree / flags("alertmanager")["--config.file"].lstrip("/")
    done = tool("amtool", "check-config", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scrapes_have_limits() -> None:
    """A little above the page's own, as they fail the whole scrape."""
    path = ROOT / "dashboards/compose/prometheus.yml"
    job = yaml.safe_load(path.read_text())["scrape_configs"][0]
    assert job["job_name"] == Settings().job
    assert MAX_SERIES < SAMPLE_LIMIT == job["sample_limit"]
    assert job["label_value_length_limit"] > 200  # what a label may be long


def test_prometheus_finds_the_service_by_its_name(tmp_path: Path) -> None:
    """With `--host` as in the container; on loopback it would be refused."""
    config = yaml.safe_load(
        (ROOT / "dashboards/compose/prometheus.yml").read_text()
    )
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"gradwatch:{PORTS['gradwatch']}"]
    for host, status in ((flags("gradwatch")["--host"], 200), ("::1", 421)):
        options = Options(local=is_loopback(host))
        with serving_here(Runs([tmp_path]), options) as url:
            connection = HTTPConnection(url.removeprefix("http://"), timeout=5)
            connection.request("GET", "/metrics", headers={"Host": targets[0]})
            assert connection.getresponse().status == status
            connection.close()


def moved(text: str, places: Mapping[str, str]) -> str:
    """Returns a configuration with other addresses, each of which it had."""
    for old, new in places.items():
        assert old in text
        text = text.replace(old, new)
    return text


def test_the_same_configuration_runs(tmp_path: Path) -> None:
    """Debian's servers with the mounted files; only addresses are others."""
    service, manager, prometheus = free_port(), free_port(), free_port()
    (tmp_path / "runs").mkdir()
    state = build_state("seen", loss=float("nan"), phase="failed")
    save_state(tmp_path / "runs", state)
    files = {
        name: image_tree(name, tmp_path / name)
        / flags(name)["--config.file"].lstrip("/")
        for name in ("prometheus", "alertmanager")
    }
    with ExitStack() as stack:
        told = stack.enter_context(listening())
        stack.enter_context(serving(tmp_path / "runs", port=service))
        places = {
            "prometheus": {
                f"gradwatch:{PORTS['gradwatch']}": f"127.0.0.1:{service}",
                f"alertmanager:{PORTS['alertmanager']}": f"127.0.0.1:{manager}",
                f"127.0.0.1:{PORTS['prometheus']}": f"127.0.0.1:{prometheus}",
                "_interval: 15s": "_interval: 1s",
                "_interval: 5s": "_interval: 1s",
            },
            "alertmanager": {
                Settings.webhook: told.url,
                Settings.watchdog: told.url,
            },
        }
        for name, file in files.items():
            text = moved(file.read_text(), places[name])
            file.unlink()  # it is a link to the mounted one
            file.write_text(text)
        _start(stack, "prometheus-alertmanager", files["alertmanager"], manager)
        _start(stack, "prometheus", files["prometheus"], prometheus)
        seen = Stack(f"http://127.0.0.1:{prometheus}", told, told)
        for job in ("gradwatch", "prometheus", "alertmanager"):
            seen.await_result(f'up{{job="{job}"}} == 1')
        seen.await_result('gradwatch_run_info{run="seen"}')
        told.wait("GradwatchNonfiniteStep", "seen")
        told.wait("Watchdog", "")


def _start(stack: ExitStack, binary: str, config: Path, port: int) -> None:
    """Starts a server with the flags that the container has."""
    name = binary.removeprefix("prometheus-")
    given = flags(name) | {"--config.file": str(config)}
    for flag in given:
        if flag.endswith((".path", "external-url")):
            given[flag] = str(config.parent / "data")
    given["--web.listen-address"] = f"127.0.0.1:{port}"
    given["--web.external-url"] = f"http://127.0.0.1:{port}/"
    if name == "prometheus":  # 5 s until it has found Alertmanager
        given["--rules.alert.resend-delay"] = "5s"
    start(stack, binary, *(f"{flag}={value}" for flag, value in given.items()))
    await_ready(f"http://127.0.0.1:{port}/-/ready")
