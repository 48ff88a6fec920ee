"""What to do about an operation that is not finite."""

from __future__ import annotations

__all__ = ["advice"]

_LOG = (
    "Compute on logits (`from_logits=True`, `log_softmax`, `log_sigmoid`), or "
    "clip the argument to [1e-7, ...] before the logarithm."
)
_ROOT = (
    "The root's derivative at 0 is infinite: add an epsilon inside of it, "
    "`sqrt(x + 1e-12)`; behind a `where`, choose a safe argument first."
)
_DIVISION = (
    "The divisor is 0: use `divide_no_nan`, or add an epsilon to it; behind a "
    "`where`, choose a safe divisor first."
)
_OVERFLOW = (
    "The argument is too large: subtract the maximum first, or use "
    "`logsumexp`, `softplus` or `log_softmax`."
)
_PRODUCT = (
    "The numbers are too large to be multiplied: scale inputs, weights or "
    "the loss down."
)
_EDGE = (
    "The derivative at -1 and 1 is infinite: clip the argument to a little "
    "less than that."
)
_MASKED = (
    "A row whose entries are all masked has no softmax: let each row have an "
    "entry that is not, or mask with a large finite number."
)
_POWER = (
    "A power below 1 has an infinite derivative at 0, and none of a negative "
    "number is real: keep the base above 0."
)
_ADVICE = {
    ("Log", "Log1p", "Xlogy", "Xlog1py"): _LOG,
    ("Sqrt", "Rsqrt", "EuclideanNorm"): _ROOT,
    ("RealDiv", "Div", "Reciprocal", "Inv", "FloorDiv", "Mod"): _DIVISION,
    ("Exp", "Expm1", "Sinh", "Cosh"): _OVERFLOW,
    (
        "MatMul",
        "BatchMatMulV2",
        "Mul",
        "Square",
        "Einsum",
        "Conv2D",
        "Sum",
        "SquaredDifference",
        "AddN",
        "AddV2",
        "Sub",
        "Prod",
    ): _PRODUCT,
    ("Acos", "Asin", "Acosh", "Atanh"): _EDGE,
    ("Softmax", "LogSoftmax"): _MASKED,
    ("Pow",): _POWER,
}
_PRECISION = "It is finite in float64: these numbers are out of {}'s range. "
_CAST = "Keep this part of the model in float32, or scale its values down."


def advice(operation: str, precision: str = "") -> str:
    """Returns one or two sentences.

    Args:
        operation: its type.
        precision: dtype whose precision is too low, `""` where another one
            would not help.
    """
    known = (said for types, said in _ADVICE.items() if operation in types)
    if operation == "Cast":
        return _CAST
    said = next(known, "Look at the values that this operation gets.")
    return (_PRECISION.format(precision) if precision else "") + said
