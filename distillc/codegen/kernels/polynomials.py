"""Transcendental functions as polynomials in fp32 that stay inside vector loops.

In a vectorised loop `exp`, `erf` and `tanh` would become one libm call per lane. `rewrite_math`
replaces them by arithmetic that every SIMD unit has. Error bounds, against the function in double
precision, at a sample of fp32 arguments of all magnitudes and results above 1e-36
(`tests/codegen/kernels/test_polynomials.py` measures them; nobody went through all 2^32 arguments):

| function | method | error |
|---|---|---|
| exp | r = x - n ln 2 (two-part ln 2), degree 6 | 2 ulp; saturates to 0 and inf |
| log, log1p | m in [sqrt(1/2), sqrt(2)), degree 11 | 3 ulp |
| erf | x P5(x^2) / Q5(x^2) on +-3.95 | 8 ulp |
| tanh | x P4(x^2) / Q4(x^2) on +-9.02 | 8 ulp |
| sigmoid | 1 / (1 + exp(-x)) | 4 ulp |

The coefficients are weighted least-squares fits on Chebyshev nodes, reweighted towards the
minimax error (Lawson's algorithm; for the quotients with a linearised denominator).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr

from distillc.codegen.kernels.extremes import begin_at_infinity, differ, keep_nan

_LN2_HIGH = 0.693359375
_LN2_LOW = -2.12194440e-4
# Adding 1.5 * 2^23 rounds to an integer, which then stands in the low mantissa bits.
_ROUND = 12582912.0
_ROUND_BITS = 0x4B400000
# exp(x) = 1 + x + x^2 * P(x)
_EXP = (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.0083687175065279,
        0.0013814596459269524)  # fmt: skip
_EXP_MIN, _EXP_MAX = -104.0, 88.722839
# log(1 + f) = f - f^2 / 2 + f^3 * P(f)
_LOG = (0.3333331346511841, -0.25000008940696716, 0.2000211924314499, -0.1666799634695053,
        0.14219550788402557, -0.12405591458082199, 0.11888174712657928, -0.11675640940666199,
        0.06746601313352585)  # fmt: skip
_ERF_P = (1.1283791065216064, 0.19155141711235046, 0.0528755858540535, 0.003808205248787999,
          0.0002846880233846605, 2.025891490120557e-06)  # fmt: skip
_ERF_Q = (1.0, 0.5030906796455383, 0.1145600751042366, 0.01505518052726984,
          0.0011707348749041557, 3.783164356718771e-05)  # fmt: skip
_TANH_P = (1.0, 0.13379719853401184, 0.003494036151096225, 2.0583505829563364e-05,
           1.3319102265541005e-08)  # fmt: skip
_TANH_Q = (1.0, 0.4671303331851959, 0.02587107941508293, 0.0003283095429651439,
           7.762032510072459e-07)  # fmt: skip


def rewrite_math(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Replace libm calls on float32 by polynomials, small powers and constant divisors by products.

    Extremes keep NaN. Powers other than 2, 3, 0.5 and -0.5 stay calls.
    """
    body = tvm_ffi.structural_map(
        begin_at_infinity(func.body),
        [
            *((Call, _rewrite_call), (tirx.Div, _rewrite_division), (tirx.Cast, _rewrite_cast)),
            *((tirx.Max, keep_nan), (tirx.Min, keep_nan), (tirx.NE, differ)),
        ],
        order="post",
    )
    return func.with_body(body)


def _rewrite_call(call: Call) -> Expr:
    name = getattr(call.op, "name", None)
    if (name not in _RULES and name != "tirx.pow") or str(call.ty.dtype) != "float32":
        return call
    return _power(call) if name == "tirx.pow" else _RULES[name](call.args[0])


def _rewrite_division(node: tirx.Div) -> Expr:
    if str(node.ty.dtype) == "float32" and isinstance(node.b, tirx.FloatImm) and node.b.value:
        return node.a * _f32(1.0 / node.b.value)
    return node


def _rewrite_cast(node: tirx.Cast) -> Expr:
    """Choose between 1 and 0: TVM cannot make vectors of the cast of a truth value."""
    if str(node.value.ty.dtype) != "bool":
        return node
    one, zero = (tirx.const(value, str(node.ty.dtype)) for value in (1, 0))
    return tirx.Select(node.value, one, zero)


def _f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def _i32(value: int) -> Expr:
    return tirx.const(value, "int32")


def _let(value: Expr, body: Callable[[tirx.Var], Expr]) -> Expr:
    """Name a value that `body` uses more than once, so that the tree does not grow.

    The value is a float: inside an index, TVM's bounds of a named integer contradict themselves
    (`Detected bound for t conflicts with memorization`).
    """
    var = tirx.Var("t", value.ty)
    return tirx.Let(var, value, body(var))


def _horner(coefficients: Sequence[float], x: Expr) -> Expr:
    """Evaluate a polynomial whose constant term comes first."""
    result = _f32(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + _f32(coefficient)
    return result


def _bits(x: Expr) -> Expr:
    return tirx.reinterpret("int32", x)


def _float(bits: Expr) -> Expr:
    return tirx.reinterpret("float32", bits)


def _clamp(x: Expr, low: float, high: float) -> Expr:
    """Clamp; a NaN stays a NaN because both comparisons fail."""
    upper = tirx.Select(x > _f32(high), _f32(high), x)
    return tirx.Select(x < _f32(low), _f32(low), upper)


def exp(x: Expr) -> Expr:
    """Return e^x."""

    def scaled(n: Expr, r: Expr) -> Expr:
        # 2^n in two factors: n reaches 128 and -150, which one exponent field cannot hold.
        half = tirx.shift_right(n, _i32(1))
        value = _horner(_EXP, r) * r * r + r + _f32(1.0)

        def power(k: Expr) -> Expr:
            return _float(tirx.shift_left(k + _i32(127), _i32(23)))

        return value * power(half) * power(n - half)

    def reduced(v: Expr) -> Expr:
        def with_rounded(t: Expr) -> Expr:
            n = t - _f32(_ROUND)

            def with_n(count: Expr) -> Expr:
                r = (v - count * _f32(_LN2_HIGH)) - count * _f32(_LN2_LOW)
                return _let(r, lambda rest: scaled(_bits(t) - _i32(_ROUND_BITS), rest))

            return _let(n, with_n)

        return _let(v * _f32(1.0 / math.log(2.0)) + _f32(_ROUND), with_rounded)

    def saturated(v: Expr) -> Expr:
        inside = _let(_clamp(v, _EXP_MIN, _EXP_MAX), reduced)
        return tirx.Select(v > _f32(_EXP_MAX), _f32(math.inf), inside)

    return _let(x, saturated)


def log(x: Expr) -> Expr:
    """Return the natural logarithm; -inf at 0, NaN below."""

    def normal(v: Expr) -> Expr:
        """Logarithm of a positive normal number: exponent plus polynomial in the mantissa."""
        offset = 0x3F3504F3  # the bits of sqrt(1/2)

        e = tirx.shift_right(_bits(v) - _i32(offset), _i32(23))
        mantissa = _float(_bits(v) - tirx.shift_left(e, _i32(23)))
        k = tirx.Cast("float32", e)

        def polynomial(f: Expr) -> Expr:
            tail = _horner(_LOG, f) * f * f * f + k * _f32(_LN2_LOW)
            return (tail - f * f * _f32(0.5)) + f + k * _f32(_LN2_HIGH)

        return _let(mantissa - _f32(1.0), polynomial)

    def special(v: Expr) -> Expr:
        tiny = v < _f32(1.17549435e-38)
        # Subnormal numbers are scaled by 2^23 first.
        scaled = tirx.Select(tiny, v * _f32(8388608.0), v)
        shift = tirx.Select(tiny, _f32(23.0 * math.log(2.0)), _f32(0.0))
        value = _let(scaled, normal) - shift
        below = tirx.Select(v < _f32(0.0), _f32(math.nan), _f32(-math.inf))
        value = tirx.Select(v > _f32(0.0), value, below)
        # What is neither below infinity nor finite is infinity or NaN: pass it through.
        return tirx.Select(v < _f32(math.inf), value, v)

    return _let(x, special)


def log1p(x: Expr) -> Expr:
    """Return log(1 + x), exact to rounding for small x too."""

    def corrected(v: Expr) -> Expr:
        # (v - (u - 1)) / u is what rounding 1 + v to u lost.
        finite = _let(v + _f32(1.0), lambda u: log(u) + (v - (u - _f32(1.0))) / u)
        inside = tirx.all(v > _f32(-1.0), v < _f32(math.inf))
        return tirx.Select(inside, finite, log(v + _f32(1.0)))

    return _let(x, corrected)


def _odd_quotient(x: Expr, limit: float, p: Sequence[float], q: Sequence[float]) -> Expr:
    """Return x * P(x^2) / Q(x^2) of x clamped to +-limit, clamped to +-1."""

    def quotient(v: Expr) -> Expr:
        return _let(v * v, lambda s: v * _horner(p, s) / _horner(q, s))

    return _let(_let(_clamp(x, -limit, limit), quotient), lambda value: _clamp(value, -1.0, 1.0))


def erf(x: Expr) -> Expr:
    """Return the error function."""
    return _let(x, lambda v: _odd_quotient(v, 3.95, _ERF_P, _ERF_Q))


def tanh(x: Expr) -> Expr:
    """Return the hyperbolic tangent."""
    return _let(x, lambda v: _odd_quotient(v, 9.02, _TANH_P, _TANH_Q))


def sigmoid(x: Expr) -> Expr:
    """Return 1 / (1 + e^-x)."""
    return _f32(1.0) / (_f32(1.0) + exp(_f32(0.0) - x))


def _power(call: Call) -> Expr:
    base, exponent = call.args
    if not isinstance(exponent, tirx.FloatImm):
        return call
    if exponent.value == 2.0:
        return _let(base, lambda v: v * v)
    if exponent.value == 3.0:
        return _let(base, lambda v: v * v * v)
    if exponent.value == 0.5:
        return tirx.sqrt(base)
    if exponent.value == -0.5:
        return _f32(1.0) / tirx.sqrt(base)
    return call


_RULES: dict[str | None, Callable[[Expr], Expr]] = {
    "tirx.exp": exp,
    "tirx.log": log,
    "tirx.log1p": log1p,
    "tirx.erf": erf,
    "tirx.tanh": tanh,
    "tirx.sigmoid": sigmoid,
}
