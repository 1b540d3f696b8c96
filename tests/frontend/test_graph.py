"""Reading an exported graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from distillc.frontend.graph import (
    activations,
    boundary,
    calls,
    enclosing,
    modules,
    operands,
    operator,
    shape,
)


class Calls(nn.Module):
    """An image (B, 3, 4, 4) through a function and a 1x1 convolution."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.change(x))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x).relu())


def export(module: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(module.eval(), (torch.zeros(1, 3, 4, 4),))


def test_in_place_operators_have_the_plain_name() -> None:
    program = export(Calls(lambda x: (x * 2).mul_(0.5).masked_fill_(x > 0, -1.0)))
    names = [operator(node) for node in program.graph.nodes]
    assert names.count("mul") == 2
    assert "masked_fill" in names
    assert not any(name.endswith("_") for name in names)


@pytest.mark.parametrize(
    "product",
    [
        torch.matmul,
        lambda q, k: torch.einsum("bchw,bcwd->bchd", q, k),
        lambda q, k: torch.baddbmm(torch.zeros(3, 4, 4), q[0], k[0])[None],
    ],
    ids=["matmul", "einsum", "baddbmm"],
)
def test_operands_of_a_product(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    program = export(Calls(lambda x: product(x.relu(), x.sigmoid())))
    (node,) = [
        each for each in program.graph.nodes if operator(each) in {"matmul", "einsum", "baddbmm"}
    ]
    assert [source(each) for each in operands(node)] == ["relu", "sigmoid"]


def source(node: Node) -> str:
    """Return what made an operand, through reshapes."""
    while operator(node) not in {"relu", "sigmoid"}:
        (node,) = node.all_input_nodes
    return operator(node)


def test_activations_are_what_depends_on_the_image() -> None:
    program = export(Calls(lambda x: x + torch.ones(3, 1, 1).exp()))
    live = activations(program)
    assert {operator(node) for node in live} >= {"add", "conv2d"}
    assert not any(operator(node) == "exp" for node in live)
    assert not any(str(node.target).startswith("p_conv") for node in live)


def test_a_node_names_the_modules_that_made_it() -> None:
    program = export(Outer())
    convs = [node for node in program.graph.nodes if operator(node) == "conv2d"]
    assert [modules(node) for node in convs] == [("inner", "inner.conv")] * 2
    assert [shape(node) for node in convs] == [(1, 3, 4, 4)] * 2


def test_calls_of_one_module_are_told_apart() -> None:
    found = calls(export(Outer()))
    assert [len(nodes) for nodes in found["inner"]] == [2, 2]
    assert [len(nodes) for nodes in found["inner.conv"]] == [1, 1]
    assert "" not in found


def test_what_enters_and_leaves_a_call() -> None:
    program = export(Outer())
    first, second = calls(program)["inner"]
    live = activations(program)
    (image,), (total,) = boundary(first, live)
    assert (image.op, operator(total)) == ("placeholder", "add")
    (entering,), (leaving,) = boundary(second, live)
    assert (operator(entering), operator(leaving)) == ("relu", "add")


def test_enclosing_modules() -> None:
    assert list(enclosing("a.0.b")) == ["a.0.b", "a.0", "a"]
    assert list(enclosing("")) == []
