# mypy: disable-error-code="no-untyped-call"
"""Explicit SIMD vectors in TIR that is written by a builder: places, shuffles, exp2, softplus.

A vector is an expression of `lanes` float32 (one lane: a plain number). `keep` gives a value a
place; it stands for a register, since TVM keeps small constant buffers on the stack and LLVM
promotes them. Values that are only bound to a variable would be repeated at every use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

LOG2_E = 1.4426950408889634
UNROLLED = 8
"""Vectors of one kind that get a register each; more of them are walked by a loop."""

# 2^r = 1 + r P(r) on [-1/2, 1/2] within 9.2e-8 relative, log(1 + t) = t Q(t) on [0, 1] within
# 1.3e-6 relative, enough for the size of a step: least squares, reweighted towards the minimax
# error (Lawson's algorithm).
_EXP2 = (0.6931469775989925, 0.24022242085262313, 0.05550733743497153, 0.009671512644824421,
         0.0013264727123548968)  # fmt: skip
_LOG1P = (0.9999987315352823, -0.499869656400608, 0.3310944898814209, -0.23503860419165842,
          0.1492238754898811, -0.06640180041550015, 0.014141023893734344)  # fmt: skip


def lanes_of(vector: Expr) -> int:
    """Return the number of lanes."""
    _, _, lanes = str(vector.ty.dtype).partition("x")
    return int(lanes or 1)


def lane_index(start: Expr | int, lanes: int) -> Expr | int:
    """Return the index of `lanes` neighbours."""
    return start if lanes == 1 else T.ramp(start, 1, lanes)


def broadcast(value: Expr, lanes: int) -> Expr:
    """Return a vector whose lanes are all one number."""
    return value if lanes == 1 else T.broadcast(value, lanes)


def constant(value: float, lanes: int) -> Expr:
    """Return a vector whose lanes are all one constant."""
    return broadcast(T.float32(value), lanes)


def keep(vector: Expr) -> Expr:
    """Give a vector a register."""
    lanes = lanes_of(vector)
    # TVM puts buffers of scope "global", and no others, on the stack when they are small.
    buffer = T.sblock_alloc_buffer((lanes,), "float32", scope="global")
    T.buffer_store(buffer, vector, [lane_index(0, lanes)])
    return buffer[lane_index(0, lanes)]


class Vectors:
    """Vectors that change: `count` registers, or an array of vectors when there are many."""

    def __init__(self, count: int, lanes: int) -> None:
        self.count, self.lanes = count, lanes
        self._apart = count <= UNROLLED
        sizes = [lanes] * count if self._apart else [count * lanes]
        self._buffers = [T.sblock_alloc_buffer((n,), "float32", scope="global") for n in sizes]

    def groups(self) -> Iterator[Sequence[Expr | int]]:
        """Iterate over groups of vectors: all of them, or one at a time in a loop of the kernel."""
        if self._apart:
            yield range(self.count)
        else:
            with T.serial(self.count) as n:
                yield (n,)

    def __getitem__(self, n: Expr | int) -> Expr:
        if self._apart:
            return self._buffers[n][lane_index(0, self.lanes)]
        return self._buffers[0][lane_index(n * self.lanes, self.lanes)]

    def __setitem__(self, n: Expr | int, vector: Expr) -> None:
        if self._apart:
            T.buffer_store(self._buffers[n], vector, [lane_index(0, self.lanes)])
        else:
            T.buffer_store(self._buffers[0], vector, [lane_index(n * self.lanes, self.lanes)])

    def set_lane(self, n: Expr | int, lane: Expr | int, value: Expr) -> None:
        """Store one number of a vector."""
        buffer, start = (self._buffers[n], 0) if self._apart else (self._buffers[0], n * self.lanes)
        T.buffer_store(buffer, value, [start + lane])


class Powers:
    """The powers x, x^2, x^3, ... of a vector, in groups as `Vectors.groups` gives them."""

    def __init__(self, x: Expr) -> None:
        self._x = x
        self._last = Vectors(1, lanes_of(x))  # of the groups before
        self._last[0] = constant(1.0, lanes_of(x))

    def next(self, count: int) -> list[Expr]:
        """Return the next powers: one of them, or all where there is but one group."""
        if count == 1:
            self._last[0] = self._last[0] * self._x
            return [self._last[0]]
        powers = [self._x]
        for n in range(2, count + 1):  # from two halves: products side by side
            powers.append(keep(powers[n // 2 - 1] * powers[n - n // 2 - 1]))
        return powers


def transpose(rows: Sequence[Expr]) -> list[Expr]:
    """Transpose a square of vectors: rows swap blocks of 1, 2, 4, ... lanes (Eklundh)."""
    rows = list(rows)
    size, step = len(rows), 1
    while step < size:
        low = [j if not j & step else size + j - step for j in range(size)]
        high = [j + step if not j & step else size + j for j in range(size)]
        for a in (a for a in range(size) if not a & step):
            pair = [rows[a], rows[a + step]]
            rows[a], rows[a + step] = (
                keep(tirx.Shuffle(pair, [tirx.IntImm("int32", k) for k in order]))
                for order in (low, high)
            )
        step *= 2
    return rows


def exp2(exponents: Sequence[Expr]) -> list[Expr]:
    """Return 2^x of each x <= 126, below -126 as at -126; 3 ulp of the exact power; NaN of NaN.

    The vectors take every step side by side, so that the latency of one hides behind the others.
    """
    lanes = lanes_of(exponents[0])
    ints, floats = (kind if lanes == 1 else f"{kind}x{lanes}" for kind in ("int32", "float32"))
    least = constant(-126.0, lanes)
    xs = [keep(T.Select(x < least, least, x)) for x in exponents]
    wholes = [keep(T.nearbyint(x)) for x in xs]
    powers = _horner((1.0, *_EXP2), [keep(x - n) for x, n in zip(xs, wholes, strict=True)])
    results = []
    for power, whole in zip(powers, wholes, strict=True):
        exponent = T.shift_left(T.cast(whole, ints), broadcast(T.int32(23), lanes))
        results.append(keep(T.reinterpret(floats, T.reinterpret(ints, power) + exponent)))
    return results


def softplus(xs: Sequence[Expr]) -> list[Expr]:
    """Return log(1 + e^x) = max(x, 0) + log(1 + e^-|x|) of each x, side by side as `exp2` does."""
    lanes = lanes_of(xs[0])
    ts = exp2([T.abs(x) * constant(-LOG2_E, lanes) for x in xs])
    return [
        keep(T.max(x, constant(0.0, lanes)) + quotient * t)
        for x, t, quotient in zip(xs, ts, _horner(_LOG1P, ts), strict=True)
    ]


def _horner(coefficients: Sequence[float], xs: Sequence[Expr]) -> list[Expr]:
    lanes = lanes_of(xs[0])
    results = [constant(coefficients[-1], lanes) for _ in xs]
    for coefficient in reversed(coefficients[:-1]):
        term = constant(coefficient, lanes)
        results = [keep(result * x + term) for result, x in zip(results, xs, strict=True)]
    return results
