"""The TIR kernel computes softmax(q kT scale + bias + mask) v, against torch in float64."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.attention import attention_kernel
from distillc.codegen.kernels.attention_plan import AttentionSizes, cut_evenly
from distillc.codegen.kernels.builder import built_from
from distillc.codegen.kernels.polynomials import rewrite_math
from distillc.codegen.kernels.token_runs import HeadRows
from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.apply_rules import schedule_func
from distillc.codegen.schedule.rules.rebuilt import schedule_attention
from distillc.targets.base import Target, get_target

HOST = get_target("host")
SSE = replace(HOST, vector_bits=128, registers=16)
ELITE = get_target("snapdragon8elite")

TOLERANCE = 2e-6
"""Of the largest result: what float32 leaves of scores near 10."""


def attention_sizes(
    windows: int = 2,
    heads: int = 2,
    tokens: tuple[int, int] = (64, 64),
    depth: tuple[int, int] = (10, 10),
    runs: tuple[int, int] = (8, 8),
    biased: int = 0,
    masks: int = 0,
) -> AttentionSizes:
    """Return sizes whose q, k and v lie in buffers of their own, each in another order."""
    (queries, keys), (qk, own) = tokens, depth
    q = HeadRows(heads * qk + 1, windows * queries, 1, qk, 1)
    k = HeadRows(heads * qk + 2, windows * keys, 2, 1, heads)
    v = HeadRows(2 * heads * own, windows * keys, 1, 2, 2 * heads)
    pixels = windows * queries
    return AttentionSizes(
        windows, heads, queries, keys, qk, own, *runs, q, k, v, pixels, biased, masks
    )


def random_operands(sizes: AttentionSizes, masked: float, zeros: bool) -> list[np.ndarray]:
    """Return operands whose runs lie in any order, some of those of keys nowhere."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    def table(tokens: int, run: int) -> np.ndarray:
        order = random.permutation(sizes.windows * tokens // run) * run
        return order.reshape(sizes.windows, -1).astype(np.int32)

    q, k, v = (normal(rows.channels, rows.pixels) for rows in (sizes.q, sizes.k, sizes.v))
    q_at, y_at = (table(sizes.queries, sizes.query_run) for _ in range(2))
    k_at, v_at = (table(sizes.keys, sizes.key_run) for _ in range(2))
    if zeros:
        nowhere = random.random(k_at.shape) < 0.3
        k_at[nowhere] = v_at[nowhere] = -1
    found = [q, k, v, q_at, k_at, v_at, y_at, random.random(sizes.heads, dtype=np.float32) + 0.1]
    if sizes.biased:
        found.append(sizes.table(normal(sizes.biased, sizes.keys, sizes.queries)))
    if sizes.masks:
        hidden = random.random((sizes.masks, sizes.keys, sizes.queries)) < 0.4
        hidden[:, random.integers(sizes.keys)] = False
        found.append(sizes.table(np.where(hidden, masked, 0).astype(np.float32)))
        found.append(random.integers(-1, sizes.masks, sizes.windows).astype(np.int32))
    return found


def expected(sizes: AttentionSizes, operands: list[np.ndarray]) -> np.ndarray:
    """Return the result in float64."""
    q, k, v, q_at, k_at, v_at, y_at, scale, *rest = map(torch.from_numpy, operands)

    def spots(table: torch.Tensor, run: int) -> torch.Tensor:
        starts = table.long()[..., None]
        return torch.where(starts < 0, -1, starts + torch.arange(run)).flatten(1)

    def tokens(x: torch.Tensor, rows: HeadRows, table: torch.Tensor, run: int, own: int) -> Any:
        heads = torch.arange(sizes.heads)[:, None] * rows.head
        padded = torch.nn.functional.pad(x.double(), (0, 1))
        taken = padded[rows.first + heads + torch.arange(own) * rows.step]
        return taken[:, :, spots(table, run)].permute(2, 0, 3, 1)

    qs = tokens(q, sizes.q, q_at, sizes.query_run, sizes.depth)
    ks = tokens(k, sizes.k, k_at, sizes.key_run, sizes.depth)
    vs = tokens(v, sizes.v, v_at, sizes.key_run, sizes.values)

    def by_query(table: torch.Tensor) -> torch.Tensor:
        return table.double().permute(0, 1, 3, 2).flatten(1, 2)

    scores = qs @ ks.mT * scale.double()[:, None, None]
    if sizes.biased:
        scores += by_query(rest.pop(0))
    if sizes.masks:
        masks, mask_of = rest
        padded = torch.nn.functional.pad(by_query(masks), (0, 0, 0, 0, 0, 1))
        scores += padded[mask_of.long()][:, None]
    result = torch.softmax(scores * math.log(2), -1) @ vs
    y = torch.full((sizes.heads * sizes.values, sizes.pixels), torch.nan, dtype=torch.float64)
    y[:, spots(y_at, sizes.query_run).flatten()] = result.permute(1, 3, 0, 2).reshape(len(y), -1)
    return y.numpy()


def check(
    sizes: AttentionSizes,
    target: Target = HOST,
    knobs: dict[str, int] | None = None,
    masked: float = -math.inf,
    zeros: bool = False,
) -> None:
    operands = random_operands(sizes, masked, zeros)
    kernel = rewrite_math(attention_kernel(sizes, target, Knobs(knobs)))
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    y = tvm.runtime.tensor(np.full((sizes.heads * sizes.values, sizes.pixels), np.nan, np.float32))
    tvm.compile(module, tvm_target(target))["main"](*map(tvm.runtime.tensor, operands), y)
    wanted = expected(sizes, operands)
    largest = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(y.numpy(), wanted, rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize("target", [HOST, SSE], ids=["host", "sse"])
@pytest.mark.parametrize(
    "sizes",
    [
        attention_sizes(tokens=(49, 49), depth=(9, 11), runs=(7, 7), biased=1, masks=3),
        attention_sizes(tokens=(256, 144), depth=(16, 16), runs=(16, 12), biased=2),
        attention_sizes(tokens=(64, 64), depth=(30, 30), runs=(4, 1), biased=2, masks=2),
    ],
    ids=["7x7", "overlapping", "shifted"],
)
def test_windows_of_networks(sizes: AttentionSizes, target: Target) -> None:
    check(sizes, target, zeros=True)


@pytest.mark.parametrize(("queries", "run"), [(1024, 1024), (768, 24), (521, 1)])
def test_a_window_of_many_queries(queries: int, run: int) -> None:
    check(attention_sizes(1, 1, (queries, 16), (4, 4), (run, 16), 1))


@pytest.mark.parametrize("together", [1, 2, 4])
def test_windows_together_change_no_number(together: int) -> None:
    sizes = attention_sizes(4, 2, (16, 16), (4, 4), (4, 8), 1, 2)
    check(sizes, knobs={"together": together}, zeros=True)


@pytest.mark.parametrize("block", [64, 700])
def test_blocks_of_keys_change_no_number(block: int) -> None:
    sizes = attention_sizes(1, 1, (32, 700), (8, 9), (8, 7), masks=1)
    check(sizes, knobs={"block": block}, zeros=True)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
@pytest.mark.parametrize("tile", [3, 6])
def test_tiles_change_no_number(vectors: int, tile: int) -> None:
    sizes = attention_sizes(1, 1, (52, 13), (7, 5), (4, 1), 1, 1)
    check(sizes, knobs={"vectors": vectors, "tile": tile})


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    counts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    runs=st.tuples(st.integers(1, 35), st.integers(1, 35)),
    many=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    depth=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    biased=st.integers(0, 2),
    masks=st.integers(0, 2),
    masked=st.sampled_from([-math.inf, -100 / math.log(2)]),
    zeros=st.booleans(),
)
def test_any_shape(
    counts: tuple[int, int],
    runs: tuple[int, int],
    many: tuple[int, int],
    depth: tuple[int, int],
    biased: int,
    masks: int,
    masked: float,
    zeros: bool,
) -> None:
    windows, heads = counts
    tokens = (runs[0] * many[0], runs[1] * many[1])
    tables = min(biased, 1) if biased < 2 else heads
    sizes = attention_sizes(windows, heads, tokens, depth, runs, tables, masks)
    check(sizes, masked=masked, zeros=zeros)


def test_its_record_builds_it_anew() -> None:
    kernel = attention_kernel(attention_sizes(biased=1, masks=2), HOST)
    again = schedule_attention(kernel, HOST, Knobs({"vectors": 1}))
    assert again is not None
    assert built_from(again.mod["main"]) == built_from(kernel)
    assert again.mod["main"].script() != kernel.script()


def test_neon_multiplies_by_elements_and_calls_nothing() -> None:
    kernel = schedule_func(attention_kernel(attention_sizes(biased=1), ELITE), ELITE, "attention")
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    text = str(tvm.compile(module, tvm_target(ELITE)).mod.inspect_source("asm"))
    assert len(re.findall(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[", text)) >= 30
    assert set(re.findall(r"\bbl\s+(\w+)", text)) <= {
        *("main_compute_", "TVMFFIErrorSetRaisedFromCStrParts"),
        *(name for name in re.findall(r"\w+", text) if name.startswith("__tvm_set_raised_")),
    }


def test_pieces_are_even_and_cover_the_range() -> None:
    for total in range(1, 40):
        for most in range(1, 9):
            found: list[int] = []
            for section in cut_evenly(total, most):
                assert section.start == sum(found)
                found += [section.size] * section.pieces
            assert sum(found) == total
            assert len(found) == -(-total // most)
            assert max(found) - min(found) <= 1
