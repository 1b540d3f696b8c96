"""The polynomials: error in double precision, special values, no call in the machine code."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import s_tir, te, tirx

from distillc.codegen.kernels.polynomials import rewrite_math

COUNT = 1 << 14
AVX512 = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "znver4"})
ORYON = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "oryon-1"})


def kernel(op, lanes: int = 16) -> tirx.PrimFunc:
    """Y[i] = op(X[i]) with the loop in vectors and the mathematics rewritten."""
    x = te.placeholder((COUNT,), "float32", "x")
    y = te.compute((COUNT,), lambda i: op(x(i)), "y")
    sch = s_tir.Schedule(te.create_prim_func([x, y]))
    _, lane = sch.split(sch.get_loops("y")[0], [None, lanes])
    sch.vectorize(lane)
    return rewrite_math(sch.mod["main"]).with_attr("global_symbol", "main")


def evaluate(op, values: np.ndarray) -> np.ndarray:
    run = tvm.compile(tvm.IRModule({"main": kernel(op, 4)}), target="llvm")["main"]
    results = []
    for start in range(0, len(values), COUNT):
        part = values[start : start + COUNT]
        x = tvm.runtime.tensor(np.pad(part, (0, COUNT - len(part))))
        y = tvm.runtime.tensor(np.zeros(COUNT, "float32"))
        run(x, y)
        results.append(y.numpy()[: len(part)])
    return np.concatenate(results)


def arguments() -> np.ndarray:
    """Finite floats of all magnitudes, and a dense grid where the functions bend."""
    bits = np.arange(0, 2**32, 40009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    grids = [np.linspace(-110, 95, 40001), np.linspace(-4, 4, 40001)]
    return np.concatenate([bits[np.isfinite(bits)], *grids]).astype(np.float32)


def erf(x: np.ndarray) -> np.ndarray:
    import torch

    return torch.erf(torch.from_numpy(x)).numpy()


ULP = {
    "exp": (tirx.exp, np.exp, 2),
    "log": (tirx.log, np.log, 3),
    "log1p": (tirx.log1p, np.log1p, 3),
    "erf": (tirx.erf, erf, 8),
    "tanh": (tirx.tanh, np.tanh, 8),
    "sigmoid": (tirx.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 4),
}


@pytest.mark.parametrize("name", ULP)
def test_error_in_units_of_the_last_place(name: str) -> None:
    op, reference, bound = ULP[name]
    x = arguments()
    got = evaluate(op, x)
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64))
        rounded = exact.astype(np.float32)
        error = np.abs(got - exact) / np.spacing(np.abs(rounded))
    # Smaller results flush: e^-x overflows before 1 / (1 + e^-x) leaves the normal range.
    usual = np.isfinite(rounded) & (np.abs(rounded) > 1e-36)
    worst = np.argmax(np.where(usual, error, 0))
    assert error[worst] <= bound, f"{name}({x[worst]}) = {got[worst]}, exact {exact[worst]}"
    assert np.array_equal(np.isfinite(rounded), np.isfinite(got))


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        (tirx.exp, [np.inf, -np.inf, 89.0, -105.0, 0.0], [np.inf, 0.0, np.inf, 0.0, 1.0]),
        (tirx.log, [np.inf, 0.0, 1.0], [np.inf, -np.inf, 0.0]),
        (tirx.erf, [np.inf, -np.inf, 0.0], [1.0, -1.0, 0.0]),
        (tirx.tanh, [np.inf, -np.inf, 0.0], [1.0, -1.0, 0.0]),
        (tirx.sigmoid, [np.inf, -np.inf, 0.0], [1.0, 0.0, 0.5]),
        (tirx.log1p, [np.inf, -1.0, 0.0], [np.inf, -np.inf, 0.0]),
    ],
)
def test_special_values(op, x, expected) -> None:
    assert np.array_equal(evaluate(op, np.array(x, np.float32)), np.array(expected, np.float32))


@pytest.mark.parametrize("op", [tirx.exp, tirx.log, tirx.log1p, tirx.erf, tirx.tanh, tirx.sigmoid])
def test_nan_stays_nan(op) -> None:
    assert np.isnan(evaluate(op, np.array([np.nan], np.float32))).all()


@pytest.mark.parametrize("target", [AVX512, ORYON], ids=["avx512", "neon"])
@pytest.mark.parametrize("op", [tirx.exp, tirx.log, tirx.log1p, tirx.erf, tirx.tanh, tirx.sigmoid])
def test_no_libm_call_is_left(op, target) -> None:
    lanes = 16 if target is AVX512 else 4
    built = tvm.compile(tvm.IRModule({"main": kernel(op, lanes)}), target=target)
    assembly = built.mod.inspect_source("asm")
    for name in ("expf", "logf", "log1pf", "erff", "tanhf", "expm1f"):
        assert name not in assembly
    assert ("zmm" if target is AVX512 else ".4s") in assembly


@pytest.mark.parametrize("op", [tirx.exp, tirx.log, tirx.log1p, tirx.erf, tirx.tanh, tirx.sigmoid])
def test_results_may_become_indices(op) -> None:
    def index(x):
        return tirx.Cast("int32", tirx.min(tirx.Cast("int64", op(x) * 4.0), tirx.const(3, "int64")))

    x = np.linspace(0.01, 0.99, COUNT).astype(np.float32)
    found = evaluate(lambda x: tirx.Cast("float32", index(x)), x)
    assert np.array_equal(found, np.clip(np.trunc(evaluate(op, x) * np.float32(4)), None, 3))


def test_small_powers_and_constant_divisors_become_products() -> None:
    text = kernel(lambda x: tirx.pow(x, tirx.const(2.0, "float32")) / 16.0).script()
    assert "T.pow" not in text
    assert "0.0625" in text


def test_leaves_other_functions_alone() -> None:
    x = te.placeholder((8,), "float32", "x")
    func = te.create_prim_func([x, te.compute((8,), lambda i: x[i] + 1.0, "y")])
    tvm.ir.assert_structural_equal(rewrite_math(func), func)
