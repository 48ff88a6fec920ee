"""`examples/kubernetes/`: its parts fit each other and the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml
from typer.main import get_command

from gradwatch.cli import app
from gradwatch.families import families
from gradwatch.monitoring.deployments import SAMPLE_LIMIT
from gradwatch.monitoring.thresholds import Settings
from gradwatch.service.runs import Runs
from tests.monitoring.stack import free_port
from tests.service.conftest import stopping

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "kubernetes"
RULES = ROOT / "dashboards" / "kubernetes"
NAME = "app.kubernetes.io/name"


def resources(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields all objects that the folder's kustomization brings."""
    kustomization = yaml.safe_load((folder / "kustomization.yml").read_text())
    for name in kustomization["resources"]:
        path = folder / name
        if path.is_dir():
            yield from resources(path.resolve())
        else:
            yield from yaml.safe_load_all(path.read_text())


OBJECTS = {o["kind"]: o for o in resources(FOLDER)}
PODS = {
    kind: OBJECTS[kind]["spec"]["template"] for kind in ("Deployment", "Job")
}
each_pod = pytest.mark.parametrize("kind", PODS)


def containers(kind: str) -> list[dict[str, Any]]:
    """Returns the containers of a pod, sidecars first."""
    spec = PODS[kind]["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def names_of_ports(kind: str) -> dict[str, int]:
    """Returns name -> number of a pod's ports."""
    ports = [p for c in containers(kind) for p in c.get("ports", ())]
    return {port["name"]: port["containerPort"] for port in ports}


def test_each_file_is_used() -> None:
    """One object of each kind; nothing lies about."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yml").read_text())
    (generated,) = kustomization["configMapGenerator"]
    used = {*kustomization["resources"], *generated["files"]}
    there = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert there == used - {"../../dashboards/kubernetes"} | {
        "kustomization.yml"
    }
    assert len(OBJECTS) == len(list(resources(FOLDER))) == 8
    assert (
        OBJECTS["Namespace"]["metadata"]["name"] == kustomization["namespace"]
    )


@each_pod
def test_pods_may_do_little(kind: str) -> None:
    """Not root, read-only, without capabilities, within limits, pinned."""
    spec = PODS[kind]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for container in containers(kind):
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        name, _, tag = container["image"].partition(":")
        assert re.fullmatch(r"\d+\.\d+\.\d+(-alpine)?", tag)
        if name.startswith("gradwatch"):
            assert tag == project["version"]


@each_pod
def test_volumes_are_there(kind: str) -> None:
    """Each mount has its volume, each volume its claim or its files."""
    volumes = {v["name"]: v for v in PODS[kind]["spec"]["volumes"]}
    for container in containers(kind):
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= set(volumes)
    claim = OBJECTS["PersistentVolumeClaim"]
    found = volumes["runs"]["persistentVolumeClaim"]
    assert found["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert found.get("readOnly", False) is (kind == "Deployment")
    if kind == "Job":
        kustomization = (FOLDER / "kustomization.yml").read_text()
        (generated,) = yaml.safe_load(kustomization)["configMapGenerator"]
        assert volumes["program"]["configMap"]["name"] == generated["name"]


def test_the_service_is_started_as_it_can_be() -> None:
    """Its options exist; port, path and volume are those of the pod."""
    (container,) = containers("Deployment")
    command, *options = container["args"]
    given = dict(option.split("=") for option in options)
    known = get_command(app).commands[command].params  # type: ignore[attr-defined]
    assert set(given) <= {name for option in known for name in option.opts}
    assert int(given["--port"]) == names_of_ports("Deployment")["http"]
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert given["--logdir"] in paths
    assert given["--host"] == "0.0.0.0"
    for probe, path in (("readiness", "/-/ready"), ("liveness", "/-/healthy")):
        got = container[f"{probe}Probe"]["httpGet"]
        assert got == {"path": path, "port": "http"}
    assert OBJECTS["Deployment"]["spec"]["replicas"] == 1


def test_the_service_monitor_finds_the_service() -> None:
    """Monitor -> Service -> pod, and the job that the alerts select by."""
    monitor, service = OBJECTS["ServiceMonitor"], OBJECTS["Service"]
    labels = monitor["spec"]["selector"]["matchLabels"]
    assert labels.items() <= service["metadata"]["labels"].items()
    pod = PODS["Deployment"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pod.items()
    selector = OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod.items()
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    assert port["targetPort"] in names_of_ports("Deployment")
    assert endpoint["path"] == "/metrics"
    assert monitor["spec"]["sampleLimit"] == SAMPLE_LIMIT
    assert service["metadata"]["name"] == Settings().job  # no jobLabel
    assert "jobLabel" not in monitor["spec"]


def test_the_pod_monitor_finds_the_training() -> None:
    """Monitor -> sidecar -> endpoint of the process, as another job."""
    monitor = OBJECTS["PodMonitor"]["spec"]
    labels = PODS["Job"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["jobLabel"] == NAME
    assert labels[NAME] != Settings().job
    (endpoint,) = monitor["podMetricsEndpoints"]
    sidecar, training = containers("Job")
    assert sidecar["restartPolicy"] == "Always"
    port = names_of_ports("Job")[endpoint["port"]]
    proxy = (FOLDER / "nginx.conf").read_text()
    assert f"listen {port};" in proxy
    path, port = endpoint["path"], training["command"][-1]
    assert f"location = {path} {{" in proxy
    assert f"proxy_pass http://127.0.0.1:{port}{path};" in proxy
    mounts = {m["name"]: m["mountPath"] for m in training["volumeMounts"]}
    program, logdir = training["command"][1:3]
    assert program == f"{mounts['program']}/train.py"
    assert logdir == mounts["runs"]
    assert sidecar["command"][-1] == f"{mounts['program']}/nginx.conf"


def test_no_label_is_the_operators() -> None:
    """It would rename ours: it adds these to all series that it scrapes."""
    added = {"namespace", "pod", "container", "endpoint", "service"}
    for family in families().values():
        assert not (added | {"job", "instance"}) & set(family.labels)


def test_rules_are_those_of_prometheus(
    tmp_path: Path, tool: Callable[..., Any]
) -> None:
    """The object holds the groups of both files, and promtool accepts them."""
    groups = OBJECTS["PrometheusRule"]["spec"]["groups"]
    files = [
        yaml.safe_load((ROOT / "dashboards/prometheus" / name).read_text())
        for name in ("recording.yml", "alerts.yml")
    ]
    assert groups == [group for file in files for group in file["groups"]]
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(OBJECTS["PrometheusRule"]["spec"]))
    done = tool("promtool", "check", "rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_training_trains(tmp_path: Path) -> None:
    """The Job's program serves its metrics meanwhile, and leaves its run."""
    _, training = containers("Job")
    port = free_port()
    places = {
        "python": sys.executable,
        "/program/train.py": str(FOLDER / "train.py"),
        "/runs": str(tmp_path),
        training["command"][-1]: str(port),
    }
    command = [places[part] for part in training["command"]]
    process = subprocess.Popen(
        [*command, "20"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with stopping(process):
        page, end = "", time.monotonic() + 60
        while "gradwatch_gradient_norm{" not in page:
            assert process.poll() is None
            assert time.monotonic() < end
            try:
                with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    page = answer.read().decode()
            except URLError:
                time.sleep(0.05)
        assert process.stdout
        with process.stdout as stdout:
            assert "finished" in stdout.read()
    (seen,) = Runs([tmp_path]).look()
    told = seen.snapshot
    assert (told["run"]["name"], told["phase"]) == ("digits", "finished")
