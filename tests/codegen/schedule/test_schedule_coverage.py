"""Schedules of networks we support: no kernel falls back, and long loops are parallel vectors."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from math import prod

import pytest
import torch
import tvm
from tvm import s_tir, tirx

from distillc.codegen.kernels.builder import SCHEDULED
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.schedule.rules.base import PARALLEL_MIN
from distillc.codegen.stages import lower
from distillc.frontend.restormer import Restormer
from distillc.frontend.trace import export_program
from distillc.surrogates.family import FAMILIES
from distillc.surrogates.specs import build_surrogate
from distillc.targets.base import get_target
from tests.codegen.schedule.rules.kernels import NEON, SSE

AVX2 = replace(SSE, name="avx2", cpu="x86-64-v3", vector_bits=256)
TARGETS = {"host": get_target("host"), "avx2": AVX2, "aarch64": NEON}


def kernels(mod: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    return {n.name_hint: f for n, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)}


def fallen(mod: tvm.IRModule) -> list[str]:
    return [name for name, f in kernels(mod).items() if f.attrs[SCHEDULED] == "schedule_fallback"]


def serial(func: tirx.PrimFunc) -> list[str]:
    """Return the innermost loops above PARALLEL_MIN that are not vectors in a parallel loop.

    Three kinds need not be vectors: a tile filled with one number, which LLVM makes a memset, the
    sum of the lanes of one register in a reduction of rows, and loops over vectors that stand there
    as such.
    """
    found = []
    for nest, leaf in nests(func.body, ()):
        size = prod(int(loop.extent) for loop in nest)
        fill = isinstance(leaf, tirx.BufferStore) and isinstance(leaf.value, tirx.FloatImm)
        scalar = fill or func.attrs[SCHEDULED] in ("schedule_row_reduction", "winograd")
        parallel = any(loop.kind == tirx.ForKind.PARALLEL for loop in nest)
        vector = any(loop.kind == tirx.ForKind.VECTORIZED for loop in nest)
        if size >= PARALLEL_MIN and not (parallel and (vector or scalar)):
            found.append(f"{[loop.loop_var.name for loop in nest]} of {size}")
    return found


def nests(
    stmt: tirx.Stmt, above: tuple[tirx.For, ...]
) -> Iterator[tuple[tuple[tirx.For, ...], tirx.Stmt]]:
    """Yield each statement that holds no loops, with the loops around it."""
    if isinstance(stmt, tirx.For):
        yield from nests(stmt.body, (*above, stmt))
    elif isinstance(stmt, tirx.SeqStmt):
        for each in stmt.seq:
            yield from nests(each, above)
    elif isinstance(stmt, s_tir.SBlockRealize):
        yield from nests(stmt.block.body, above)
    else:
        yield above, stmt


@functools.cache
def lowered(label: str, precision: str = "fp32") -> tvm.IRModule:
    """Lower Restormer, or a surrogate by its label; equal for all targets but for the scan."""
    if label == "restormer":
        torch.manual_seed(0)
        blocks = {"num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1}
        module, shape = Restormer(dim=16, **blocks), (1, 3, 64, 64)  # type: ignore[arg-type]
    else:
        family, _, scope = label.partition("@")
        module, shape = build_surrogate(family, 16, scope), (1, 16, 24, 40)  # type: ignore[arg-type]
    return lower(export_program(module, shape), TARGETS["host"], precision)


@pytest.mark.parametrize("name", TARGETS)
def test_restormer(name) -> None:
    mod = schedule_module(lowered("restormer"), TARGETS[name])
    assert fallen(mod) == []
    assert {n: found for n, f in kernels(mod).items() if (found := serial(f))} == {}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("scope", ["block", "attention"])
@pytest.mark.parametrize("family", FAMILIES.names())
def test_surrogates(family, scope, name) -> None:
    assert fallen(schedule_module(lowered(f"{family}@{scope}"), TARGETS[name])) == []


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    "label", ["restormer", *(f"{family}@attention" for family in FAMILIES.names())]
)
def test_half_precision(label, name) -> None:
    target = replace(TARGETS[name], half=name == "aarch64")
    mod = schedule_module(lowered(label, "fp16"), target)
    assert fallen(mod) == []
    if label == "restormer":
        assert {n: found for n, f in kernels(mod).items() if (found := serial(f))} == {}
