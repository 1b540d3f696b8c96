"""The plan: tensors alive at the same time lie apart, memory is shared and linear in the pixels."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tvm.script import from_source

from distillc.codegen.build.plan import (
    ALIGNMENT,
    Operand,
    Plan,
    Storage,
    place_storages,
    plan_network,
)
from distillc.codegen.stages import lower
from distillc.frontend.trace import export_program
from distillc.targets.base import get_target


def plan(module: nn.Module, *shape: int) -> Plan:
    return plan_network(lower(export_program(module.eval(), shape), get_target("host")))


def test_layers_share_memory() -> None:
    layers = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)]
    tensor = 4 * 16 * 16 * 4
    found = plan(nn.Sequential(*layers), 1, 4, 16, 16)
    assert found.arena_bytes == 2 * tensor
    assert [len(call.operands) for call in found.calls] == [4] * 6  # image, weight, bias, result


def test_steps_read_what_others_wrote(tiny_restormer: nn.Module) -> None:
    found = plan(tiny_restormer, 1, 3, 16, 16)
    written = {found.input}
    for call in found.calls:
        *read, result = (each for each in call.operands if not found.operands[each].constant)
        places = [found.operands[each] for each in written]
        for each in map(found.operands.__getitem__, read):  # views and slices of what was written
            assert any(other.offset <= each.offset <= _end(other) for other in places)
        written.add(result)
    assert found.output in written
    assert found.operands[found.output].shape == (1, 3, 16, 16)


def _end(operand: Operand) -> int:
    return operand.offset + 4 * prod(operand.shape)


def test_equal_constants_are_stored_once() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    once, twice = (plan(nn.Sequential(*[layer] * n), 1, 4, 16, 16).weights for n in (1, 2))
    assert len(once) == len(twice) == layer.weight.numel() * 4
    np.testing.assert_array_equal(
        np.frombuffer(once, np.float32), layer.weight.detach().numpy().ravel()
    )


def test_memory_is_linear_in_the_pixels(tiny_restormer: nn.Module) -> None:
    small, large = (plan(tiny_restormer, 1, 3, size, size).arena_bytes for size in (32, 64))
    assert 3.5 * small < large < 4.2 * small


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 8)), min_size=1))
def test_tensors_alive_together_lie_apart(tensors: list[tuple[int, int, int]]) -> None:
    storages = [Storage(size, first, first + more) for size, first, more in tensors]
    arena = place_storages(storages)
    assert all(each.offset % ALIGNMENT == 0 for each in storages)
    assert all(each.offset + each.bytes <= arena for each in storages)
    for number, a in enumerate(storages):
        for b in storages[:number]:
            together = a.first <= b.last and b.first <= a.last
            apart = a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
            assert not together or apart or not (a.bytes and b.bytes)


VIEWED = """
@I.ir_module
class Module:
    @T.prim_func(private=True, s_tir=True)
    def double(x: T.Buffer((24,), "float32"), y: T.Buffer((24,), "float32")):
        for i in range(24):
            with T.sblock("y"):
                v = T.axis.spatial(24, i)
                y[v] = x[v] * T.float32(2)

    @R.function
    def main(x: R.Tensor((24,), "float32")) -> R.Tensor((4, 6), "float32"):
        cls = Module
        with R.dataflow():
            a = R.call_tir(cls.double, (x,), out_ty=R.Tensor((24,), "float32"))
            b = R.reshape(a, R.shape([4, 6]))
            R.output(b)
        return b
"""


def test_a_view_shares_its_memory() -> None:
    found = plan_network(from_source(VIEWED))
    (call,) = found.calls
    written, result = (found.operands[each] for each in (call.operands[-1], found.output))
    assert (written.shape, result.shape) == ((24,), (4, 6))
    assert written.offset == result.offset
