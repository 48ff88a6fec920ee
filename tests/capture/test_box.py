"""The batch of a bad step, kept on the device: replicas, XLA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.capture.test_replicas import _mirrored, _small
from tests.models import BATCH, WHOLE, Mode, classifier, data
from tests.test_blackbox import BAD, _fit, _load, _watch


@pytest.mark.parametrize("policy", ["stop", "skip", "record"])
def test_each_replica_has_its_share(policy: str, tmp_path: Path) -> None:
    """Of the first step of each incident; what follows in it is not kept."""
    bad = (BAD, BAD + 2, BAD + 80) if policy == "skip" else (BAD,)
    x, y = (np.concatenate([a] * 12) for a in data(256))
    number = np.arange(len(x)) // BATCH
    x[np.isin(number, bad) & (np.arange(len(x)) % BATCH == 20)] = np.nan
    watch = _watch(tmp_path, on_nonfinite=policy, autopsy_seconds=0)
    _fit(_small(_mirrored()), x, y, watch)
    for step in {BAD, bad[-1]}:
        box = _load(watch, f"step-{step}")
        assert box.manifest["notes"] == []
        assert [len(share[0]) for share in box.batch] == [16, 16]
        got = np.concatenate([share[0] for share in box.batch])
        np.testing.assert_array_equal(got, x[number == step])


@pytest.mark.autopsy
def test_the_share_that_was_not_finite_is_explained(tmp_path: Path) -> None:
    """On a single device; whatever the policy, and with held updates."""
    x, y = data(256)
    x[BAD * BATCH + 20] = np.nan  # of the second replica
    watch = _watch(tmp_path)
    model = _small(_mirrored())
    _fit(model, x, y, watch)
    (finding,) = watch.findings
    assert "itself holds NaN or Inf, in example 4." in finding.message
    assert watch.path is not None
    box = watch.path / "blackbox" / f"step-{BAD}"
    assert "the share of replica 1" in (box / "autopsy.md").read_text()
    _fit(model, *data(256), watch)
    watch = _watch(tmp_path, on_nonfinite="skip")
    strategy = _mirrored(plain_sums=True)
    model = _small(strategy, steps_per_execution=4)
    _fit(model, x, y, watch)
    (finding,) = watch.findings
    assert "itself holds NaN or Inf, in example 4." in finding.message
    manifest = _load(watch).manifest
    assert (manifest["state"], manifest["held_steps"]) == ({"before": BAD}, 2)


def test_a_partial_batch_and_unknown_sizes_under_xla(tmp_path: Path) -> None:
    """A short batch is cut to its rows; without a size there is none."""
    x, y = data(WHOLE // 4)
    x[-1] = np.nan
    for size, rows in ((BATCH, None), (48, 32)):
        watch = _watch(tmp_path)
        model = classifier(Mode(jit_compile=True))
        _fit(model, x, y, watch, batch_size=size)
        step = (len(x) - 1) // size
        kept = _load(watch, f"step-{step}").batch[0]
        assert len(kept) == (rows or size)
        np.testing.assert_array_equal(kept, x[-len(kept) :])
    rows_ = tf.data.Dataset.from_tensor_slices((x, y))
    batches = rows_.batch(BATCH)
    watch = _watch(tmp_path)
    model = classifier(Mode(jit_compile=True))
    model.fit(batches, verbose=0, shuffle=False, callbacks=[watch])
    box = _load(watch, "step-3")
    assert box.batch == (None, None)
    assert "static shape" in box.manifest["notes"][0]
