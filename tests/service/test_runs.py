from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwatch.runstate import VERSION, RunState
from gradwatch.service.runs import (
    MAX_BYTES,
    REASONS,
    Runs,
    read_snapshot,
)
from gradwatch.strict_json import dumps

NewState = Callable[..., RunState]
Save = Callable[[Path, RunState], Path]


def scan(runs: Runs) -> list[Any]:
    """Returns the snapshots that a look finds."""
    return [seen.snapshot for seen in runs.look()]


def ids(runs: Runs) -> list[str]:
    """Returns the ids of the runs that a look finds, in order."""
    return [snapshot["run"]["id"] for snapshot in scan(runs)]


def counted(runs: Runs) -> dict[str, int]:
    """Returns the errors that happened."""
    return {reason: n for reason, n in runs.errors().items() if n}


def test_finds_nested_runs_newest_first(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """Runs of several roots and depths are listed by modification time."""
    a, b = tmp_path / "a", tmp_path / "b"
    for i, (root, name) in enumerate(
        [(a, "one"), (a / "x/y", "two"), (b, "3")]
    ):
        os.utime(save(root, new_state(name)), (1000 + i, 1000 + i))
    runs = Runs([a, b])
    assert ids(runs) == ["3", "two", "one"]
    assert counted(runs) == {}
    assert set(runs.errors()) == set(REASONS)


def test_a_root_may_be_a_run_or_given_twice(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """A run directory is found once, also as its own root."""
    save(tmp_path, new_state("one"))
    runs = Runs([tmp_path, tmp_path / "one", tmp_path])
    assert ids(runs) == ["one"]
    assert counted(runs) == {}


def test_reads_what_the_trainer_wrote(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """The snapshot that is read equals the one that was written."""
    state = new_state("one", loss=np.nan)
    path = save(tmp_path, state)
    read, wrote = read_snapshot(tmp_path, path), state.snapshot()
    parts = read["history"]["series"]
    series = [[*slot, values.tolist()] for *slot, values in parts]
    read = {**read, "history": {**read["history"], "series": series}}
    assert dumps(read) == dumps(wrote)
    with pytest.raises(FileNotFoundError):
        read_snapshot(tmp_path, tmp_path / "two" / "state.json")


def test_sees_a_replaced_state(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """The next scan returns what an atomic replacement brought."""
    runs = Runs([tmp_path])
    save(tmp_path, new_state("one", loss=1.0))
    [before] = scan(runs)
    assert scan(runs)[0] is before
    save(tmp_path, new_state("one", loss=2.0))
    [after] = scan(runs)
    assert before["values"][0] == ("loss", "", 1.0)
    assert after["values"][0] == ("loss", "", 2.0)


def _changed(state: RunState, **fields: Any) -> str:
    return dumps({**state.snapshot(), **fields})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "json"),
        ('{"version": 1, "run": ', "json"),
        ('{"version": NaN}', "json"),
        ('{"version": 1, "x":' + "[" * 100_000, "json"),
        ("[" * 100_000, "shape"),
        ("9" * 10_000, "shape"),
        ("\ud800", "json"),
        ("[]", "shape"),
        ('{"version": 1}', "shape"),
        ("{}", "version"),
        (f'{{"version": {VERSION + 1}}}', "version"),
        ('{"version": 1' + " " * MAX_BYTES + "}", "size"),
    ],
)
def test_broken_content_is_counted(
    tmp_path: Path,
    new_state: NewState,
    save: Save,
    content: str,
    reason: str,
) -> None:
    """A broken state.json is skipped, counted, and hides no other run."""
    save(tmp_path, new_state("good"))
    broken = tmp_path / "broken" / "state.json"
    broken.parent.mkdir()
    broken.write_bytes(content.encode(errors="surrogatepass"))
    runs = Runs([tmp_path])
    assert ids(runs) == ["good"]
    assert ids(runs) == ["good"]
    assert counted(runs) == {reason: 2}


@pytest.mark.parametrize(
    "fields",
    [
        {"run": {"id": "../x", "name": "x", "start": 0.0, "host": ""}},
        {"phase": "lost"},
        {"steps": "NaN"},
        {"steps": 10**300},
        {"heartbeat": "yesterday"},
        {"heartbeat": True},
        {"values": [["loss", "", None]]},
        {"values": [["loss", ""]]},
        {"errors": {"tensorboard": -1}},
        {"counters": {}},
        {"step_duration": {"edges": [1.0], "counts": [1], "sum": 0.0}},
        {"step_duration": {"edges": [1.0, 1.0], "counts": [1] * 3, "sum": 0}},
        {"history": {"steps": [1, 2], "series": [["loss", "", [1.0]]]}},
        {"history": {"steps": [1], "series": [["loss", "", ["nan"]]]}},
        {"history": {"steps": [1], "series": [["loss", "", "N"]]}},
        {"findings": [{"rule": "x"}]},
        {"rank": "../0"},
    ],
)
def test_other_shapes_are_counted(
    tmp_path: Path, new_state: NewState, save: Save, fields: dict[str, Any]
) -> None:
    """Strict JSON that is not a snapshot never gets to the readers."""
    state = new_state("one")
    save(tmp_path, state).write_text(_changed(state, **fields))
    runs = Runs([tmp_path])
    assert scan(runs) == []
    assert counted(runs) == {"shape": 1}


def test_unknown_fields_are_let_through(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """A newer writer of the same version may add fields."""
    state = new_state("one")
    save(tmp_path, state).write_text(_changed(state, autopsies=[]))
    assert ids(Runs([tmp_path])) == ["one"]


def test_links_and_pipes_are_not_opened(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """Links to files and folders elsewhere are not followed, pipes not read."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    real = save(outside, new_state("secret"))
    (root / "file").mkdir(parents=True)
    (root / "file" / "state.json").symlink_to(real)
    (root / "folder").symlink_to(outside)
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / "state.json")
    runs = Runs([root])
    assert scan(runs) == []
    assert counted(runs) == {"unsafe": 2}


def test_a_folder_that_turns_into_a_link_is_refused(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """Reading stays inside the root, whatever happened since the listing."""
    real = save(tmp_path / "outside", new_state("secret"))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "one").symlink_to(real.parent)
    with pytest.raises(ValueError, match="unsafe"):
        read_snapshot(
            tmp_path / "root", tmp_path / "root" / "one" / "state.json"
        )
    with pytest.raises(ValueError, match="is not in the subpath"):
        read_snapshot(tmp_path / "root", real)


def test_a_link_as_root_is_the_users_choice(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """The root itself may be a link."""
    save(tmp_path / "real", new_state("one"))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert ids(Runs([tmp_path / "link"])) == ["one"]


def test_missing_root_and_copied_run_are_counted(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """A copy of a run directory is one run; the newer file speaks for it."""
    state = new_state("one")
    os.utime(save(tmp_path / "copy", state), (1000, 1000))
    save(tmp_path, state)
    runs = Runs([tmp_path, tmp_path / "nowhere"])
    assert ids(runs) == ["one"]
    assert counted(runs) == {"duplicate": 1, "missing": 1}


def test_limit_keeps_the_newest(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """Only left out runs that were written lately count as an error."""
    now = time.time()
    for i, age in enumerate((1, 2, 3, 10_000)):
        path = save(tmp_path, new_state(f"run-{i}"))
        os.utime(path, (now - age, now - age))
    runs = Runs([tmp_path], limit=2)
    assert ids(runs) == ["run-0", "run-1"]
    assert counted(runs) == {"limit": 1}


def test_ended_runs_are_current_for_a_while(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """Ended runs are kept for the retention, lost ones for a week."""
    save(tmp_path, new_state("lost", age=86400))
    save(tmp_path, new_state("forgotten", age=8 * 86400))
    save(tmp_path, new_state("ended", phase="finished", age=60))
    save(tmp_path, new_state("old", phase="failed", age=1000))
    runs = Runs([tmp_path])

    def current(retention: float) -> list[str]:
        return sorted(
            seen.snapshot["run"]["id"]
            for seen in runs.look()
            if seen.is_current(time.time(), retention)
        )

    assert current(900.0) == ["ended", "lost"]
    assert current(30.0) == ["lost"]
    assert len(runs.look()) == 4


def test_ranks_of_a_run_are_no_copies(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """Workers of one run have the same id and ranks of their own."""
    for rank in ("0", "1"):
        state = new_state("one")
        path = save(tmp_path / rank, state)
        path.write_text(_changed(state, rank=rank))
    runs = Runs([tmp_path])
    assert ids(runs) == ["one", "one"]
    assert counted(runs) == {}


def test_clocks_of_machines_may_differ(
    tmp_path: Path, new_state: NewState, save: Save
) -> None:
    """Once a beat was seen to come, the time since then decides."""
    now = [time.time()]
    runs = Runs([tmp_path], clock=lambda: now[0])
    save(tmp_path, new_state("behind", age=3600))
    (seen,) = runs.look()
    assert seen.now(now[0]) - seen.snapshot["heartbeat"] > 3599
    save(tmp_path, new_state("behind", age=3595))
    (seen,) = runs.look()
    assert seen.now(now[0]) == seen.snapshot["heartbeat"]
    now[0] += 50
    (seen,) = runs.look()
    assert seen.now(now[0]) == seen.snapshot["heartbeat"] + 50


def test_room_is_that_of_each_folder(tmp_path: Path) -> None:
    """Bytes that are free, of the folders that are there."""
    room = Runs([tmp_path, tmp_path / "later"]).room()
    assert list(room) == [str(tmp_path)]
    free = shutil.disk_usage(tmp_path).free
    assert room[str(tmp_path)] == pytest.approx(free, abs=1 << 30)
