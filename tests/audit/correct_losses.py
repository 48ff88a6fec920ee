"""Correct losses as people write them, many best elsewhere than at y_true."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tests.audit.records import Correct, Inputs

__all__ = ["LOSSES"]


def focal_loss(gamma: float = 2.0, alpha: float = 0.25) -> Any:
    """Returns the focal loss of logits."""

    def focal(y_true: Any, y_pred: Any) -> Any:
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(y_true, y_pred)
        p = tf.sigmoid(y_pred)
        missed = y_true * (1.0 - p) + (1.0 - y_true) * p
        weight = y_true * alpha + (1.0 - y_true) * (1.0 - alpha)
        return tf.reduce_mean(weight * missed**gamma * entropy, axis=-1)

    return focal


def focal_probabilities(y_true: Any, y_pred: Any) -> Any:
    """Focal loss of probabilities."""
    p = ops.clip(y_pred, 1e-6, 1.0 - 1e-6)
    hit = ops.where(y_true > 0.5, p, 1.0 - p)
    return -ops.mean((1.0 - hit) ** 2 * ops.log(hit), axis=-1)


@tf.function
def dice_loss(y_true: Any, y_pred: Any) -> Any:
    """1 - Dice coefficient of each mask, smoothed."""
    overlap = tf.reduce_sum(y_true * y_pred, axis=-1)
    size = tf.reduce_sum(y_true, axis=-1) + tf.reduce_sum(y_pred, axis=-1)
    return 1.0 - (2.0 * overlap + 1.0) / (size + 1.0)


def batch_dice(y_true: Any, y_pred: Any) -> Any:
    """1 - Dice coefficient of the whole batch."""
    overlap = tf.reduce_sum(y_true * y_pred)
    size = tf.reduce_sum(y_true) + tf.reduce_sum(y_pred)
    return 1.0 - (2.0 * overlap + 1.0) / (size + 1.0)


def tversky_loss(y_true: Any, y_pred: Any, alpha: float = 0.7) -> Any:
    """Dice in which a miss counts more than a false alarm."""
    hits = tf.reduce_sum(y_true * y_pred, axis=-1)
    missed = tf.reduce_sum(y_true * (1.0 - y_pred), axis=-1)
    false = tf.reduce_sum((1.0 - y_true) * y_pred, axis=-1)
    wrong = alpha * missed + (1.0 - alpha) * false
    return 1.0 - (hits + 1.0) / (hits + wrong + 1.0)


def kl_of_gaussians(mean: Any, log_variance: Any) -> Any:
    """Divergence of a diagonal Gaussian from the standard one."""
    terms = 1.0 + log_variance - tf.square(mean) - tf.exp(log_variance)
    return -0.5 * tf.reduce_sum(terms, axis=-1)


def gaussian_likelihood(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood; y_pred holds mean and raw variance."""
    mean, raw = y_pred[:, :1], y_pred[:, 1:]
    variance = tf.nn.softplus(raw) + 1e-3
    error = tf.square(y_true - mean)
    return 0.5 * tf.reduce_mean(tf.math.log(variance) + error / variance, -1)


def label_smoothing(y_true: Any, y_pred: Any) -> Any:
    """Categorical crossentropy of logits with softened one-hot labels."""
    classes = tf.cast(tf.shape(y_pred)[-1], y_pred.dtype)
    soft = 0.9 * y_true + 0.1 / classes
    return -tf.reduce_sum(soft * tf.nn.log_softmax(y_pred), axis=-1)


def weighted_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Categorical crossentropy of logits, rare classes weighted."""
    weights = tf.constant([0.5, 1.0, 4.0], dtype=tf.float32)
    logs = tf.nn.log_softmax(tf.cast(y_pred, tf.float32), axis=-1)
    return -tf.reduce_sum(weights * tf.cast(y_true, tf.float32) * logs, -1)


@tf.custom_gradient
def manual_weighted(y_true: Any, y_pred: Any) -> Any:
    """Binary crossentropy of logits; a positive counts five times."""
    loss = tf.nn.weighted_cross_entropy_with_logits(y_true, y_pred, 5.0)

    def grad(upstream: Any) -> Any:
        p = tf.sigmoid(y_pred)
        slope = p * (1.0 + 4.0 * y_true) - 5.0 * y_true
        return None, upstream * slope

    return loss, grad


def sparse_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """Crossentropy of logits and class numbers."""
    classes = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(classes, y_pred)


def ordinal_loss(y_true: Any, y_pred: Any) -> Any:
    """Grades 0 to 3 as three questions: is it above 0, above 1, above 2?"""
    steps = tf.range(3, dtype=y_pred.dtype)
    above = tf.cast(y_true > steps, y_pred.dtype)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(above, y_pred)
    return tf.reduce_sum(loss, axis=-1)


def sequence_loss(y_true: Any, y_pred: Any) -> Any:
    """Crossentropy of tokens; 0 is padding and does not count."""
    tokens = tf.cast(y_true, tf.int32)
    keep = tf.cast(tokens > 0, y_pred.dtype)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(tokens, y_pred)
    return tf.reduce_sum(loss * keep) / tf.maximum(tf.reduce_sum(keep), 1.0)


def masked_error(y_true: Any, y_pred: Any) -> Any:
    """Mean squared error where the target is known; 0 = unknown."""
    known = tf.cast(tf.not_equal(y_true, 0.0), y_pred.dtype)
    total = tf.reduce_sum(known * tf.square(y_pred - y_true), axis=-1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(known, axis=-1))


def pair_contrast(left: Any, right: Any) -> Any:
    """InfoNCE: each row of `left` is to find its partner in `right`."""
    a = tf.math.l2_normalize(left, axis=-1, epsilon=1e-6)
    b = tf.math.l2_normalize(right, axis=-1, epsilon=1e-6)
    logs = tf.nn.log_softmax(tf.matmul(a, b, transpose_b=True) / 0.2)
    return -tf.reduce_mean(tf.linalg.diag_part(logs))


def poisson(y_true: Any, log_rate: Any) -> Any:
    """Negative log-likelihood of counts, without its constant."""
    return tf.reduce_mean(tf.exp(log_rate) - y_true * log_rate, axis=-1)


def student_loss(y_true: Any, y_pred: Any) -> Any:
    """Negative log-likelihood of Student's t with 3 degrees of freedom."""
    error = tf.square(y_true - y_pred)
    return tf.reduce_mean(2.0 * tf.math.log1p(error / 3.0), axis=-1)


def log_error(y_true: Any, y_pred: Any) -> Any:
    """Squared error of logarithms."""
    gap = tf.math.log1p(tf.nn.relu(y_pred)) - tf.math.log1p(y_true)
    return tf.reduce_mean(tf.square(gap), axis=-1)


def percentage_error(y_true: Any, y_pred: Any) -> Any:
    """Symmetric absolute percentage error."""
    size = tf.abs(y_true) + tf.abs(y_pred) + 1e-2
    return 200.0 * tf.reduce_mean(tf.abs(y_true - y_pred) / size, axis=-1)


def ridge_error(y_true: Any, y_pred: Any) -> Any:
    """Squared error with a small preference for small forecasts."""
    error = tf.square(y_pred - y_true) + 1e-3 * tf.square(y_pred)
    return tf.reduce_mean(error, axis=-1)


def wasserstein(y_true: Any, y_pred: Any) -> Any:
    """Distance of two samples: sorted, then compared."""
    gap = tf.sort(y_true, axis=-1) - tf.sort(y_pred, axis=-1)
    return tf.reduce_mean(tf.abs(gap), axis=-1)


def hardest_examples(y_true: Any, y_pred: Any) -> Any:
    """Squared error of the quarter of the batch that is worst."""
    error = tf.reduce_mean(tf.square(y_pred - y_true), axis=-1)
    worst, _ = tf.math.top_k(error, tf.shape(error)[0] // 4)
    return tf.reduce_mean(worst)


def price_error(y_true: Any, y_pred: Any) -> Any:
    """Mean squared error of prices nobody has scaled."""
    return tf.reduce_mean(tf.square(y_pred - y_true), axis=-1)


def faint_penalty(y_true: Any, y_pred: Any) -> Any:
    """Squared error in the unit of a very small term of a sum."""
    return 1e-8 * tf.reduce_mean(tf.square(y_pred - y_true), axis=-1)


def mapped_error(y_true: Any, y_pred: Any) -> Any:
    """Root of the squared error of one example after the other."""

    def one(pair: Any) -> Any:
        error = tf.reduce_mean(tf.square(pair[0] - pair[1]))
        return tf.sqrt(error + 1e-4)

    pairs = (y_true, y_pred)
    return tf.map_fn(one, pairs, fn_output_signature=y_pred.dtype)


class Charbonnier(keras.losses.Loss):
    """Smooth absolute error."""

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, y_true: Any, y_pred: Any) -> Any:
        error = ops.square(y_pred - y_true)
        return ops.mean(ops.sqrt(error + self.epsilon**2), axis=-1)


class WeightedMean(keras.losses.Loss):
    """Squared error divided by the sum of the weights."""

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        loss = ops.mean(ops.square(y_pred - y_true), axis=-1)
        if sample_weight is None:
            return ops.mean(loss)
        weight = ops.cast(ops.reshape(sample_weight, (-1,)), loss.dtype)
        return ops.sum(weight * loss) / (ops.sum(weight) + 1e-6)


class QuantileLoss(keras.losses.Loss):
    """Three quantiles at once, one a column of y_pred."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        quantiles = ops.convert_to_tensor([0.1, 0.5, 0.9], y_pred.dtype)
        error = y_true - y_pred
        cost = ops.maximum(quantiles * error, (quantiles - 1.0) * error)
        return ops.mean(cost, axis=-1)


def _binary(rows: int, width: int, low: float, high: float) -> Inputs:
    shape = (rows, width)
    return {"y_true": (shape, 0, 1), "y_pred": (shape, low, high)}


LOGITS = _binary(8, 3, -4.0, 4.0)
SHARES = _binary(8, 6, 0.0, 1.0)
GAUSS: Inputs = {
    "mean": ((8, 3), -2.0, 2.0),
    "log_variance": ((8, 3), -4.0, 4.0),
}
MOMENTS: Inputs = {"y_true": ((8, 1), -1.0, 1.0), "y_pred": ((8, 2), -2.0, 2.0)}
CLASSES: Inputs = {"y_true": ((8,), 0, 3), "y_pred": ((8, 4), -3.0, 3.0)}
GRADES: Inputs = {"y_true": ((8, 1), 0, 3), "y_pred": ((8, 3), -3.0, 3.0)}
TOKENS: Inputs = {"y_true": ((3, 5), 0, 3), "y_pred": ((3, 5, 4), -3.0, 3.0)}
KNOWN: Inputs = {"y_true": ((8, 4), 0, 5), "y_pred": ((8, 4), 0.0, 5.0)}
RATES: Inputs = {"y_true": ((8, 3), 0, 9), "log_rate": ((8, 3), -3.0, 3.0)}
AMOUNTS: Inputs = {"y_true": ((8, 3), 0.0, 9.0), "y_pred": ((8, 3), 0.0, 9.0)}
PRICES: Inputs = {"y_true": ((8, 2), 1e4, 1e5), "y_pred": ((8, 2), 1e4, 1e5)}
BANDS: Inputs = {"y_true": ((8, 1), -1.0, 1.0), "y_pred": ((8, 3), -2.0, 2.0)}


def _fine(loss: Any, inputs: Inputs | None = None) -> Correct:
    make = loss if isinstance(loss, type) else lambda: loss
    return Correct(f"loss_{loss.__name__}", make, inputs)


LOSSES = (
    _fine(focal_loss(), LOGITS),
    _fine(focal_probabilities, SHARES),
    _fine(dice_loss, SHARES),
    _fine(batch_dice, SHARES),
    _fine(tversky_loss, SHARES),
    _fine(kl_of_gaussians, GAUSS),
    _fine(gaussian_likelihood, MOMENTS),
    _fine(label_smoothing, LOGITS),
    _fine(weighted_crossentropy, LOGITS),
    _fine(manual_weighted, LOGITS),
    _fine(sparse_crossentropy, CLASSES),
    _fine(ordinal_loss, GRADES),
    _fine(sequence_loss, TOKENS),
    _fine(masked_error, KNOWN),
    _fine(pair_contrast),
    _fine(poisson, RATES),
    _fine(student_loss),
    _fine(log_error, AMOUNTS),
    _fine(percentage_error, AMOUNTS),
    _fine(ridge_error),
    _fine(wasserstein),
    _fine(hardest_examples),
    _fine(price_error, PRICES),
    _fine(faint_penalty),
    _fine(mapped_error),
    _fine(Charbonnier),
    _fine(WeightedMean),
    _fine(QuantileLoss, BANDS),
)
