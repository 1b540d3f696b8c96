"""FoldViews: chains of reshapes are one reshape or none."""

from __future__ import annotations

import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import ir as I
from tvm.script import relax as R

from distillc.codegen.rewrites.fold_views import FoldViews
from tests.codegen.rewrites.graphs import check_nothing, check_same, operators
from tests.codegen.schedule.rules.kernels import random


def test_chain_of_views() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 4, 6), "float32")) -> R.Tensor((4, 6), "float32"):
            with R.dataflow():
                a = R.expand_dims(x, 0)
                b = R.broadcast_to(a, (1, 1, 4, 6))
                c = R.reshape(b, (2, 2, 6))
                d = R.add(c, c)
                e = R.squeeze(R.reshape(d, (1, 24)), [0])
                f = R.reshape(e, (4, 6))
                R.output(f)
            return f

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 4, 6), "float32")) -> R.Tensor((4, 6), "float32"):
            with R.dataflow():
                c = R.reshape(x, (2, 2, 6))
                d = R.add(c, c)
                f = R.reshape(d, (4, 6))
                R.output(f)
            return f

    tvm.ir.assert_structural_equal(FoldViews()(Before), After)


def test_lone_reshape_and_broadcast_that_repeats_stay() -> None:
    check_nothing(FoldViews(), lambda x: x.reshape(5, 84).exp(), random(1, 5, 12, 7))
    check_nothing(FoldViews(), lambda x: x.expand(4, 5, 7) + 1, random(1, 5, 7))


def test_reshape_that_is_the_output() -> None:
    after = check_same(FoldViews(), lambda x: x.reshape(35).reshape(7, 5), random(1, 5, 7))
    assert operators(after)["reshape"] == 1


def test_whole_function_that_does_nothing() -> None:
    after = check_same(FoldViews(), lambda x: x.reshape(35).reshape(1, 5, 7), random(1, 5, 7))
    assert not operators(after)


def test_view_that_is_read_twice() -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(35)
        return flat.reshape(5, 7) * flat.reshape(1, 5, 7) + flat.sum()

    assert operators(check_same(FoldViews(), twice, random(5, 7)))["reshape"] <= 2


@given(st.permutations([2, 3, 4, 5]), st.permutations([2, 3, 4, 5]))
@settings(max_examples=5, deadline=None)
def test_any_shapes(first, second) -> None:
    def views(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(first).reshape(second).transpose(0, 1).reshape(x.shape).unsqueeze(0)

    check_same(FoldViews(), views, random(6, 20))
