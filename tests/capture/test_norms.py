"""Norms are right at every magnitude, for every kind of gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradwatch.capture.norms import (
    all_finite,
    global_norm,
    merge_duplicates,
    norms,
)


def _norm(array: Any) -> Any:
    return np.linalg.norm(np.asarray(array, np.float64).ravel())


_COMPILED = {
    jit: tf.function(
        lambda *tensors: norms(tensors), jit_compile=jit, reduce_retracing=True
    )
    for jit in (False, True)
}


@pytest.mark.parametrize("jit", [False, True])
@settings(deadline=None, max_examples=60)
@given(
    arrays=st.tuples(
        *[
            st.builds(
                lambda array, exponent: (array * 10.0**exponent).astype(
                    np.float32
                ),
                hnp.arrays(np.float64, 7, elements=st.floats(-9.0, 9.0)),
                st.integers(-30, 30),
            )
            for _ in range(3)
        ]
    )
)
def test_norms_are_those_of_float64(arrays: tuple[Any, ...], jit: bool) -> None:
    """From 1e-30 to 1e+30 the error is below 1e-5, compiled or not."""
    got, finite = _COMPILED[jit](*[tf.constant(a) for a in arrays])
    want = [_norm(a) for a in arrays]
    # Entries below 1.2e-38 are subnormal, and flushed to zero by XLA.
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-37)
    assert finite.numpy().all()
    np.testing.assert_allclose(
        global_norm(got), _norm(want), rtol=1e-5, atol=1e-37
    )


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_entry_is_seen(bad: float, jit: bool) -> None:
    """A single NaN or Inf among 1e25 is not finite, and only its tensor."""
    hurt = np.full(1000, 1e25, np.float32)
    hurt[500] = bad
    fine = np.full(1000, 1e25, np.float32)
    zero = np.zeros(1000, np.float32)
    got, finite = _COMPILED[jit](*map(tf.constant, (fine, hurt, zero)))
    assert finite.numpy().tolist() == [True, False, True]
    np.testing.assert_allclose(got[0], _norm(fine), rtol=1e-5)
    assert not np.isfinite(got[1])
    assert got[2] == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype: str) -> None:
    """Half precision is summed in float32, double is not narrowed."""
    scale = 1e-30 if dtype == "float64" else 200.0
    tensor = tf.cast(tf.linspace(-1.0, 1.0, 4000), dtype) * tf.cast(
        scale, dtype
    )
    got, finite = norms([tensor])
    want = _norm(tf.cast(tensor, tf.float64))
    np.testing.assert_allclose(got[0], want, rtol=1e-5)
    assert finite[0]


@pytest.mark.parametrize("jit", [False, True])
def test_rows_of_an_embedding_are_summed_first(jit: bool) -> None:
    """The norm is that of the gradient, not of the rows that make it up."""
    random = np.random.default_rng(1)
    ids = random.integers(0, 5, (4, 8))
    table = tf.Variable(random.normal(size=(1000, 3)).astype(np.float32))
    weight = tf.constant(random.normal(size=(4, 8, 3)).astype(np.float32))

    @tf.function(jit_compile=jit)
    def both() -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table, ids) * weight)
        slices = tape.gradient(loss, table)
        return norms([slices])[0][0], merge_duplicates(slices)

    got, merged = both()
    dense = np.zeros((1000, 3))
    np.add.at(dense, ids, weight.numpy())
    np.testing.assert_allclose(got, _norm(dense), rtol=1e-5)
    assert merged.shape == (32, 3)  # nothing of the size of the table


def test_state_is_looked_at_only_when_in_doubt() -> None:
    """Large finite values are finite, NaN and Inf are not."""
    tensors = [
        tf.constant([3e38, 1.0]),
        tf.constant([np.inf, 1.0]),
        tf.constant([0.0]),
        tf.constant([np.nan]),
    ]
    assert all_finite(tensors).numpy().tolist() == [True, False, True, False]
