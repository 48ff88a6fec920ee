"""Norms are right at every magnitude, for every kind of gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradwatch.capture.verdict import (
    HEAD,
    Step,
    Verdict,
    dense,
    judge,
)


def _step(*gradients: Any, **given: Any) -> Step:
    """A step with these gradients and nothing else but what is given."""
    nothing: dict[str, Any] = {
        "loss": tf.constant(1.0),
        "scale": None,
        "weights": (),
        "state": (),
        "batch": None,
        "told": (),
        "squared": False,
        "skips": False,
        "updates": tf.constant(True),
    }
    merged = [dense(g) for g in gradients]
    return Step(gradients=merged, **{**nothing, **given})


def _judge(
    *gradients: Any, latched: bool = False, guarded: bool = True, **given: Any
) -> Verdict:
    step = _step(*gradients, **given)
    return judge(step, tf.constant(latched), guarded)


def _pairs(*state: Any) -> list[tuple[Any, Any]]:
    return [(tf.zeros_like(now), now) for now in state]


def _head(verdict: Verdict) -> dict[str, float]:
    values = verdict.values.numpy()[: len(HEAD)]
    return dict(zip(HEAD, values.tolist(), strict=True))


def _norm(array: Any) -> Any:
    return np.linalg.norm(np.asarray(array, np.float64).ravel())


_COMPILED = {
    jit: tf.function(
        lambda *tensors: _judge(*tensors),
        jit_compile=jit,
        reduce_retracing=True,
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
    verdict = _COMPILED[jit](*[tf.constant(a) for a in arrays])
    want = [_norm(a) for a in arrays]
    # Entries below 1.2e-38 are subnormal, and flushed to zero by XLA.
    got = verdict.values[len(HEAD) :]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-37)
    head = _head(verdict)
    assert head["gradient_norm"] == pytest.approx(_norm(want), 1e-5, 1e-37)
    assert (head["nonfinite"], head["update_applied"]) == (0, 1)
    assert bool(verdict.allowed) is True


@pytest.mark.parametrize("size", [16_383, 16_384, 100_003, 3_000_000])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_norms_under_xla_of_any_size(size: int, dtype: str) -> None:
    """What XLA sums in slices is right, also where rounding has a bias."""
    gradient = tf.cast(tf.fill([size], 0.1), dtype)
    hurt = tf.tensor_scatter_nd_update(gradient, [[0]], [np.nan])
    compiled = tf.function(
        lambda *tensors: _judge(*tensors, compiled=True), jit_compile=True
    )
    want = _norm(tf.cast(gradient, tf.float64))
    verdict = compiled(gradient, tf.constant([3.0, 4.0]))
    got = verdict.values[len(HEAD) :]
    np.testing.assert_allclose(got, [want, 5.0], rtol=1e-5)
    assert verdict.allowed
    assert not compiled(hurt, tf.constant([3.0, 4.0])).allowed


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_entry_is_seen(bad: float, jit: bool) -> None:
    """A single NaN or Inf among 1e25 is not finite, and only its tensor."""
    hurt = np.full(1000, 1e25, np.float32)
    hurt[500] = bad
    fine = np.full(1000, 1e25, np.float32)
    zero = np.zeros(1000, np.float32)
    verdict = _COMPILED[jit](*map(tf.constant, (fine, hurt, zero)))
    got = verdict.values[len(HEAD) :]
    np.testing.assert_allclose(got[0], _norm(fine), rtol=1e-5)
    assert not np.isfinite(got[1])
    assert got[2] == 0
    assert _head(verdict)["nonfinite"] == 1
    assert not verdict.allowed


def test_a_norm_beyond_float32_is_no_bad_step() -> None:
    """Finite entries whose norm float32 cannot hold are finite all the same."""
    verdict = _judge(tf.fill([1000], 3e38))
    assert np.isinf(_head(verdict)["gradient_norm"])
    assert _head(verdict)["nonfinite"] == 0
    assert verdict.allowed


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype: str) -> None:
    """Half precision is summed in float32, double is not narrowed."""
    scale = 1e-30 if dtype == "float64" else 200.0
    tensor = tf.cast(tf.linspace(-1.0, 1.0, 4000), dtype) * tf.cast(
        scale, dtype
    )
    verdict = _judge(tensor)
    want = _norm(tf.cast(tensor, tf.float64))
    np.testing.assert_allclose(verdict.values[-1], want, rtol=1e-5)
    assert verdict.allowed


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
        return _judge(slices).values[-1], dense(slices)

    got, merged = both()
    table_gradient = np.zeros((1000, 3))
    np.add.at(table_gradient, ids, weight.numpy())
    np.testing.assert_allclose(got, _norm(table_gradient), rtol=1e-5)
    assert merged.shape == (32, 3)  # nothing of the size of the table


def test_state_is_named_one_by_one() -> None:
    """Large finite state is fine; each one with NaN or Inf is flagged."""
    state = (
        tf.constant([3e38, 1.0]),
        tf.constant([np.inf, 1.0]),
        tf.constant([0.0]),
        tf.constant([np.nan]),
    )
    verdict = _judge(tf.constant([1.0]), state=_pairs(*state))
    assert verdict.values[-4:].numpy().tolist() == [0, 1, 0, 1]
    assert not verdict.allowed
    fine = _judge(tf.constant([1.0]), state=_pairs(state[0], state[2]))
    assert fine.values[-2:].numpy().tolist() == [0, 0]
    assert fine.allowed


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_bad_loss_is_bad_without_any_gradient(loss: float) -> None:
    """The loss alone decides, also where no variable has a gradient."""
    verdict = _judge(loss=tf.constant(loss))
    assert verdict.bad
    assert _head(verdict)["gradient_norm"] == 0
    assert not verdict.allowed


def test_the_latch_forbids_healthy_steps() -> None:
    """After the latch a healthy step is measured, healthy, not applied."""
    verdict = _judge(tf.constant([3.0, 4.0]), latched=True)
    assert not verdict.bad
    assert not verdict.allowed
    assert _head(verdict) == {
        "loss": 1,
        "gradient_norm": 5,
        "nonfinite": 0,
        "nonfinite_batch": 0,
        "nonfinite_target": 0,
        "nonfinite_weight": 0,
        "update_applied": 0,
        "update_dropped": 1,
    }


def test_unguarded_steps_are_always_allowed() -> None:
    """Without the guard a bad step is only told."""
    verdict = _judge(tf.constant([np.nan]), guarded=False)
    assert verdict.bad
    assert verdict.allowed
    assert _head(verdict)["update_applied"] == 1


@pytest.mark.parametrize("place", ["x", "weight"])
def test_the_batch_is_looked_at_when_the_step_is_bad(place: str) -> None:
    """NaN anywhere in a nest is found; integers and None are passed over."""
    batch = {
        "x": tf.constant([1.0]),
        "ids": tf.constant([1]),
        "none": None,
        "weight": (tf.constant([1.0]),),
    }
    fine = _judge(tf.constant([np.nan]), batch=batch)
    assert _head(fine)["nonfinite_batch"] == 0
    bad = tf.constant([np.nan])
    batch[place] = bad if place == "x" else (bad,)
    assert _head(_judge(bad, batch=batch))["nonfinite_batch"] == 1
    assert _head(_judge(tf.constant([1.0]), batch=batch))["nonfinite"] == 0


def test_state_that_was_infinite_before_is_fine() -> None:
    """A mask of -inf is no fault; a new NaN beside it is."""
    mask = tf.constant([-np.inf, 0.0])
    assert _judge(state=[(mask, mask)]).allowed
    assert not _judge(state=[(mask, mask * [1.0, np.nan])]).allowed


@pytest.mark.parametrize(("squared", "bad"), [(True, 1), (False, 0)])
def test_gradients_that_the_optimizer_cannot_square(
    squared: bool, bad: float
) -> None:
    """A finite gradient of 1e25 is bad for Adam and fine for plain SGD."""
    verdict = _judge(tf.constant([1e25]), squared=squared)
    assert _head(verdict)["gradient_norm"] == pytest.approx(1e25)
    assert _head(verdict)["nonfinite"] == bad
    assert _judge(tf.constant([1e18]), squared=squared).allowed


def test_weights_that_were_lost_before_are_told() -> None:
    """A bad step says whether the weights were already not finite."""
    bad = tf.constant([np.nan])
    lost = _head(_judge(bad, weights=(tf.constant([np.inf]),)))
    kept = _head(_judge(bad, weights=(tf.constant([1.0]),)))
    assert (lost["nonfinite_weight"], kept["nonfinite_weight"]) == (1, 0)


@pytest.mark.parametrize("jit", [False, True])
def test_a_batch_that_looks_nothing_up(jit: bool) -> None:
    """No rows at all have the norm 0."""

    @tf.function(jit_compile=jit)
    def none() -> Any:
        rows = tf.zeros((0, 3))
        slices = tf.IndexedSlices(rows, tf.zeros(0, tf.int32), (10, 3))
        return dense(slices)

    assert none().shape == (0, 3)


@pytest.mark.parametrize("big", [1.0, 1e25])
def test_scaled_gradients_are_told_unscaled(big: float) -> None:
    """With a loss scale the norms are those of the true gradient."""
    scale = tf.constant(1024.0)
    verdict = _judge(tf.constant([3.0 * big, 4.0 * big]) * scale, scale=scale)
    assert _head(verdict)["gradient_norm"] == pytest.approx(5 * big)
    assert verdict.values[-1].numpy() == pytest.approx(5 * big)


def test_loss_scaling_drops_updates_by_itself() -> None:
    """Its skip is no bad step; a bad loss is one all the same."""
    bad = tf.constant([np.inf])
    skip = _judge(bad, scale=tf.constant(8.0), skips=True)
    assert skip.allowed
    assert not skip.bad
    head = _head(skip)
    assert (head["update_applied"], head["update_dropped"]) == (0, 1)
    loss = tf.constant(np.nan)
    assert _judge(bad, scale=tf.constant(8.0), skips=True, loss=loss).bad


@pytest.mark.parametrize("latched", [False, True])
def test_micro_steps_apply_nothing(latched: bool) -> None:
    """A step that only collects is neither applied nor dropped."""
    verdict = _judge(
        tf.constant([1.0]), updates=tf.constant(False), latched=latched
    )
    head = _head(verdict)
    assert head["update_applied"] == 0
    assert head["update_dropped"] == latched


def test_what_is_told_goes_into_the_values() -> None:
    """Scalars stand behind the head, in doubt or not."""
    for gradient in (1.0, np.nan):
        told = [tf.constant(0.5), tf.constant(7.0)]
        values = _judge(tf.constant([gradient]), told=told).values
        assert values[len(HEAD) : len(HEAD) + 2].numpy().tolist() == [0.5, 7]
