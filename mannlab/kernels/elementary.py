"""Elementary functions for code compiled by numba, in a form that uses vector units.

A call of the C library in a loop keeps the compiler from working on many numbers at once. In single
precision these are polynomials without branches (with the coefficients of Cephes, S. L. Moshier 1989-2000),
good to a few units in the last place; in double precision they are the C library's.
"""

# mypy: ignore-errors

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

# Nothing may be reordered here: the last bits of a constant are in the order.
exact: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


@intrinsic
def _float_of_bits(typingctx, bits):
    def build(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), build


@intrinsic
def _bits_of_float(typingctx, value):
    def build(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.int32))

    return types.int32(types.float32), build


@exact
def _exp32(x):
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = np.int32(x * np.float32(1.44269504) + np.float32(127.5)) - np.int32(127)
    count = np.float32(n)
    r = x - count * np.float32(0.693359375)
    r = r + count * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    return p * _float_of_bits(np.int32((n + np.int32(127)) << np.int32(23)))


@exact
def _log32(x):
    bits = _bits_of_float(x)
    e = np.float32((bits >> np.int32(23)) - np.int32(127))
    m = _float_of_bits(np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)))
    high = m > np.float32(1.41421356)
    m = m * np.float32(0.5) if high else m
    e = e + np.float32(1) if high else e
    f = m - np.float32(1)
    z = f * f
    p = np.float32(7.0376836292e-2)
    p = p * f - np.float32(1.1514610310e-1)
    p = p * f + np.float32(1.1676998740e-1)
    p = p * f - np.float32(1.2420140846e-1)
    p = p * f + np.float32(1.4249322787e-1)
    p = p * f - np.float32(1.6668057665e-1)
    p = p * f + np.float32(2.0000714765e-1)
    p = p * f - np.float32(2.4999993993e-1)
    p = p * f + np.float32(3.3333331174e-1)
    low = f * z * p - e * np.float32(2.12194440e-4) - np.float32(0.5) * z
    # The bits of a NaN look like those of a number.
    return f + low + e * np.float32(0.693359375) if x == x else x


@exact
def _tanh32(x):
    z = x * x
    p = np.float32(-5.70498872745e-3)
    p = p * z + np.float32(2.06390887954e-2)
    p = p * z - np.float32(5.37397155531e-2)
    p = p * z + np.float32(1.33314422036e-1)
    p = p * z - np.float32(3.33332819422e-1)
    near = x + x * z * p
    t = _exp32(np.float32(-2) * abs(x))
    far = (np.float32(1) - t) / (np.float32(1) + t)
    far = -far if x < np.float32(0) else far
    return near if abs(x) < np.float32(0.625) else far


@exact
def _sigmoid32(x):
    return np.float32(1) / (np.float32(1) + _exp32(-x))


@exact
def _softplus32(x):
    t = _exp32(-abs(x))
    # What 1 + t forgets of t, its logarithm is given back in proportion.
    sum_ = np.float32(1) + t
    kept = sum_ - np.float32(1)
    return max(x, np.float32(0)) + (_log32(sum_) * (t / kept) if kept > np.float32(0) else t)


def exp(x):
    """The exponential; beyond what single precision holds, its largest or smallest result."""
    return math.exp(x)


def log(x):
    """The natural logarithm of a positive, normal number."""
    return math.log(x)


def tanh(x):
    return math.tanh(x)


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x):
    """``log(1 + exp(x))``."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _overload(function: Any, single: Any) -> None:
    """In single precision the polynomial, else what ``function`` itself says."""

    @overload(function, jit_options={"error_model": "numpy"})
    def choose(x):
        if isinstance(x, types.Float) and x.bitwidth == 32:
            return lambda x: single(x)
        return function


_overload(exp, _exp32)
_overload(log, _log32)
_overload(tanh, _tanh32)
_overload(sigmoid, _sigmoid32)
_overload(softplus, _softplus32)


# ---------------------------------------------------------------------- of whole arrays, in place


@exact
def each_tanh(x):
    for n in range(len(x)):
        x[n] = tanh(x[n])


@exact
def each_sigmoid(x):
    for n in range(len(x)):
        x[n] = sigmoid(x[n])


@exact
def each_softplus(x):
    for n in range(len(x)):
        x[n] = softplus(x[n])


@exact
def through_tanh(y, on):
    """Gradient of what ``y`` is the tanh of, from that of ``y``."""
    one = y.dtype.type(1)
    for n in range(len(y)):
        on[n] *= one - y[n] * y[n]


@exact
def through_sigmoid(y, on):
    """Gradient of what ``y`` is the sigmoid of, from that of ``y``."""
    one = y.dtype.type(1)
    for n in range(len(y)):
        on[n] *= y[n] * (one - y[n])
