"""The batch of a bad step, kept on the device: replicas, XLA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.capture.test_replicas import _mirrored, _small
from tests.models import BATCH, WHOLE, Mode, classifier, data
from tests.test_blackbox import BAD, _fit, _hurt, _load, _watch


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_each_replica_has_its_share(policy: str, tmp_path: Path) -> None:
    """Where the run goes on, the first replica's alone is known."""
    x, y = _hurt(256)
    watch = _watch(tmp_path, on_nonfinite=policy)
    _fit(_small(_mirrored()), x, y, watch)
    batch = _load(watch).batch
    if policy == "skip":
        batch = [batch]
        assert len(_load(watch).manifest["notes"]) == 1
    wanted = x[BAD * BATCH : (BAD + 1) * BATCH]
    assert [len(share[0]) for share in batch] == [16] * len(batch)
    got = np.concatenate([share[0] for share in batch])
    np.testing.assert_array_equal(got, wanted[: len(got)])


@pytest.mark.autopsy
def test_the_share_that_was_not_finite_is_explained(tmp_path: Path) -> None:
    """On a single device; where it was not kept that is said."""
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
    _fit(_small(_mirrored()), x, y, watch)
    assert "the share of the batch of replica 1" in watch.findings[0].message


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
