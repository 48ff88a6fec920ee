"""The Dockerfile: what it promises, and its install steps, really run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from gradwatch.service.runs import Runs
from tests.monitoring.stack import free_port
from tests.service.conftest import (
    build_state,
    save_state,
    serving_here,
    stopping,
)

ROOT = Path(__file__).parents[2]
_PREFIX = "/venv"


class Stage(NamedTuple):
    """A stage of the Dockerfile.

    Attributes:
        origin: the image or stage that it begins with.
        lines: its instructions as (word, rest).
    """

    origin: str
    lines: list[tuple[str, str]]

    def rest(self, word: str) -> list[str]:
        """Returns what follows a word, of each such instruction."""
        return [rest for found, rest in self.lines if found == word]


def read_stages() -> dict[str, Stage]:
    """Returns the stages by name, in order."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    stage = Stage("", [])
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            origin, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(origin, [])
        elif word:
            stage.lines.append((word, rest.strip()))
    return found


STAGES = read_stages()


def copied() -> list[str]:
    """Returns the files and folders of the checkout that are copied."""
    found = [rest.split()[:-1] for rest in STAGES["source"].rest("COPY")]
    return [path for paths in found for path in paths]


def test_what_is_copied_is_in_the_context() -> None:
    """`.dockerignore` lets it through, and nothing else."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and line[0] != "#"]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule[0] == "!"}
    assert allowed == set(copied())
    for path in allowed:
        assert (ROOT / path).exists()
    assert any(fnmatch("gradwatch/__pycache__", rule) for rule in rules[1:])


def test_the_image_is_small_and_not_root() -> None:
    """What is built last has its own user, no compiler and no TensorFlow."""
    assert list(STAGES)[-1] == "serve"
    for name in ("serve", "demo"):
        stage = STAGES[name]
        assert stage.origin == "base"
        assert stage.rest("COPY") == [
            f"--from={name}-build {_PREFIX} {_PREFIX}"
        ]
        assert stage.rest("RUN") == []
    base = STAGES["base"]
    assert base.rest("USER") == ["10001:10001"]
    assert "--uid 10001" in base.rest("RUN")[0]
    for stage in (base, STAGES["source"]):
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", stage.origin)
    (install,) = STAGES["serve-build"].rest("RUN")[1:]
    assert install.endswith('-c constraints.txt ".[serve]"')
    trainer = STAGES["demo-build"].rest("RUN")[1]
    assert trainer == install.replace("[serve]", "[tensorflow,demo]")


def test_the_environment_stays_where_it_is_made() -> None:
    """Scripts of a virtual environment name its path, so both are the same."""
    for name in ("serve-build", "demo-build"):
        make, install = STAGES[name].rest("RUN")
        assert make == f"python -m venv {_PREFIX}"
        assert install.startswith(f"{_PREFIX}/bin/pip install ")
    assert f"PATH={_PREFIX}/bin:$PATH" in STAGES["base"].rest("ENV")[0]


def test_the_health_check_tells_health(tmp_path: Path) -> None:
    """Its command ends well while the service answers, and not after."""
    (rest,) = STAGES["serve"].rest("HEALTHCHECK")
    command = json.loads(rest.partition("CMD")[2])
    (port,) = STAGES["serve"].rest("EXPOSE")
    assert command[:2] == ["python", "-c"]
    assert f", {port}, " in command[2]
    save_state(tmp_path, build_state("seen"))
    with serving_here(Runs([tmp_path])) as url:
        there = url.rpartition(":")[2]
        code = command[2].replace(port, there)
        check = [sys.executable, "-c", code]
        assert subprocess.run(check, check=False).returncode == 0
        other = [sys.executable, "-c", code.replace("/-/healthy", "/none")]
        assert subprocess.run(other, check=False).returncode == 1
    done = subprocess.run(check, check=False, capture_output=True)
    assert done.returncode == 1


def source(folder: Path) -> Path:
    """Makes a folder that has what the stage `source` has, and no more."""
    for path in copied():
        there = folder / Path(path).name
        if (ROOT / path).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / path, there, ignore=unwanted)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, there)
    return folder


def run(command: str, folder: Path) -> None:
    """Runs a command of the Dockerfile as it does."""
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def served(command: list[str], **more: str) -> Iterator[str]:
    """Runs `gradwatch serve` on loopback; yields what it printed."""
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **more},
    )
    with stopping(process):
        assert process.stdout
        with process.stdout as stdout:
            yield stdout.readline()


def fetch(url: str) -> str:
    """Returns what a URL answers, fetched without this process' packages."""
    code = (
        "import sys, urllib.request as r; "
        "answer = r.build_opener(r.ProxyHandler({})).open(sys.argv[1]); "
        "sys.stdout.write(answer.read().decode())"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", code, url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_what_is_copied_is_enough_to_serve(tmp_path: Path) -> None:
    """The package alone, built from it, has pages, styles and command."""
    folder, site = source(tmp_path / "source"), tmp_path / "site"
    install = STAGES["serve-build"].rest("RUN")[1]
    ours = install.replace(f"{_PREFIX}/bin/pip", f"{sys.executable} -m pip")
    run(f"{ours} -q --no-deps --target {site}", folder)
    assert (site / "gradwatch/service/templates/fleet.html").exists()
    save_state(tmp_path / "runs", build_state("seen"))
    command = json.loads(STAGES["serve"].rest("CMD")[0])
    assert command[:2] == ["serve", "--logdir"]
    started = [sys.executable, "-P", "-m", "gradwatch.cli", "serve"]
    started += ["--logdir", str(tmp_path / "runs")]
    with served(started, PYTHONPATH=str(site)) as said:
        url = said.split()[1]
        assert "seen" in fetch(url)
        assert 'run="seen"' in fetch(f"{url}metrics")


@pytest.mark.acceptance
def test_the_install_steps_make_a_service(tmp_path: Path) -> None:
    """In a clean environment: it serves, TensorBoard too, TensorFlow is not."""
    folder, prefix = source(tmp_path / "source"), tmp_path / "gradwatch"
    venv.create(tmp_path / "python", with_pip=False)  # stands for the image's
    python = tmp_path / "python" / "bin" / "python"
    make, install = STAGES["serve-build"].rest("RUN")
    run(
        re.sub("^python", str(python), make.replace(_PREFIX, str(prefix))),
        folder,
    )
    run(install.replace(_PREFIX, str(prefix)), folder)
    for package in ("tensorflow", "keras", "pytest"):
        found = subprocess.run(
            [prefix / "bin/python", "-c", f"import {package}"],
            capture_output=True,
            check=False,
        )
        assert found.returncode == 1, package
    save_state(tmp_path / "runs", build_state("seen"))
    started = [str(prefix / "bin/gradwatch"), "serve"]
    with served([*started, "--logdir", str(tmp_path / "runs")]) as said:
        assert 'run="seen"' in fetch(f"{said.split()[1]}metrics")
    _tensorboard(prefix / "bin", tmp_path / "runs")


def _tensorboard(binaries: Path, runs: Path) -> None:
    """Runs TensorBoard as compose does, until its health check is content."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    service = compose["services"]["tensorboard"]
    port = free_port()
    places = {"/runs": str(runs), "0.0.0.0": "127.0.0.1", "6006": str(port)}
    command = " ".join(service["command"])
    for old, new in places.items():
        command = command.replace(old, new, 1)
    check = service["healthcheck"]["test"]
    code = check[-1].replace("6006", str(port))
    process = subprocess.Popen(
        [binaries / service["entrypoint"][0], *command.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with stopping(process):
        end = time.monotonic() + 30
        while True:
            done = subprocess.run(
                [binaries / "python", "-c", code],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
