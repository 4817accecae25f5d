"""Elementary functions for compiled loops, against the library's."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from mannlab.kernels import elementary

REFERENCES = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
}


def applied(name: str, x: np.ndarray) -> np.ndarray:
    function = getattr(elementary, name)

    @njit
    def loop(x, out):
        for n in range(len(x)):
            out[n] = function(x[n])

    out = np.empty_like(x)
    loop(x, out)
    return out


def arguments(name: str) -> np.ndarray:
    sizes = 10.0 ** np.linspace(-12, 1.9, 4001)
    return sizes if name == "log" else np.concatenate([-sizes[::-1], [0.0], sizes])


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-7), (np.float64, 1e-14)])
def test_equals_the_library(name, dtype, tolerance):
    x = arguments(name).astype(dtype)
    expected = REFERENCES[name](x.astype(np.float64))
    # A logarithm crosses zero, where only the absolute error can be small.
    absolute = tolerance if name == "log" else 1e-37
    np.testing.assert_allclose(applied(name, x), expected, rtol=tolerance, atol=absolute)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_stays(name, dtype):
    assert np.isnan(applied(name, np.full(9, np.nan, dtype))).all()


def test_single_precision_neither_overflows_nor_underflows_to_nan():
    x = np.array([-1e30, -200, 200, 1e30], np.float32)
    for name in ("exp", "tanh", "sigmoid", "softplus"):
        assert np.isfinite(applied(name, x)).all(), name
