"""One meaning and one size for everything in a program, whatever the image.

Files and compiled code have static shapes, and torch leaves the order of equal elements open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

STABLE = {aten.sort.default: aten.sort.stable, aten.argsort.default: aten.argsort.stable}
"""Sorts that leave the order of equal elements open, and those that need not."""


def static_form(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program that computes the same, with as few sizes that depend on values as can be.

    1. Sorts keep the order of equal elements: one of the orders that torch allows.
    2. The number of a weight, `k.item()`, is that number.
    3. What a mask reads, elementwise operators change and the same mask writes is computed
       everywhere, and the mask chooses.

    Given:   y[m] = f(x[m])
    Result:  y = where(m, f(x), y)

    Args:
        program: As exported at static shapes; changed in place, or replaced.
    """
    for node in program.graph.nodes:  # rule 1
        if node.op == "call_function":
            node.target, node.args, node.kwargs = _stable(node.target, node.args, node.kwargs)
    if any(map(is_dynamic, program.graph.nodes)):
        program = program.run_decompositions({})  # nothing is changed in place any more
        for node in program.graph.nodes:
            node.meta.pop("from_node", None)  # a second copy of the graph, as text, in every file
        _inline_numbers(program)
        _choose(program.graph)
        _erase_checks(program.graph)
        if not any(map(is_dynamic, program.graph.nodes)):
            program.range_constraints.clear()
    program.graph_module.recompile()
    return program


class StableSorts(TorchDispatchMode):
    """Within it, sorts of a module that is run keep the order of equal elements."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        target, args, kwargs = _stable(func, args, kwargs or {})
        return target(*args, **kwargs)


def is_dynamic(node: Node) -> bool:
    """Whether a size or number that a node gives depends on values."""
    given = node.meta.get("val")
    values = given if isinstance(given, tuple | list) else (given,)
    extents = [each for value in values if isinstance(value, Tensor) for each in value.shape]
    kinds = torch.SymInt | torch.SymFloat | torch.SymBool
    return any(isinstance(each, kinds) for each in (*values, *extents))


def _stable(target: Any, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    stable = STABLE.get(target, target)
    if stable not in STABLE.values():
        return target, args, dict(kwargs)
    given = dict(zip(("dim", "descending"), args[1:], strict=False))
    return stable, args[:1], {**given, **kwargs, "stable": True}


def _inline_numbers(program: torch.export.ExportedProgram) -> None:
    """Apply rule 2."""
    signature = program.graph_signature
    weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node in program.graph.nodes:
        if node.target is aten.item.default and node.args[0].name in weights:
            number = program.state_dict[weights[node.args[0].name]].item()
            for user in list(node.users):
                user.args, user.kwargs = _replaced((user.args, user.kwargs), {node: number})


def _choose(graph: Graph) -> None:
    """Apply rule 3."""
    first = _first_of_equals(graph)
    dense: dict[Any, Node] = {}  # what a mask reads or what is made of it: the same everywhere
    masks: dict[Any, Node] = {}
    for node in list(graph.nodes):
        read = [each for each in node.all_input_nodes if each in dense]
        if node.target is aten.index.Tensor and (mask := _mask(node)):
            dense[node], masks[node] = node.args[0], first[mask]
        elif node.target is aten.index_put.default and (mask := _mask(node)):
            x, _, values, *accumulate = node.args
            if masks.get(values) is first[mask] and not any(accumulate):
                rest = x.meta["val"].dim() - mask.meta["val"].dim()
                column = [*mask.meta["val"].shape, *[1] * rest]
                chosen = _call(node, aten.reshape.default, (mask, column))
                node.target, node.args, node.kwargs = (
                    aten.where.self,
                    (chosen, dense[values], x),
                    {},
                )
        elif read and _is_elementwise(node, read) and len({masks[each] for each in read}) == 1:
            args, kwargs = _replaced((node.args, node.kwargs), dense)
            dense[node], masks[node] = _call(node, node.target, args, kwargs), masks[read[0]]


def _first_of_equals(graph: Graph) -> dict[Node, Node]:
    """Return for every node the first that computes the same."""
    first: dict[Any, Node] = {}
    known: dict[str, Node] = {}
    for node in graph.nodes:
        key = node.name
        if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            key = f"{node.target}{_replaced((node.args, node.kwargs), first)}"
        first[node] = known.setdefault(key, node)
    return first


def _mask(node: Node) -> Node | None:
    """Return the mask that an `index` or `index_put` has, if it has nothing else."""
    indices: Any = node.args[1]
    alone = len(indices) == 1 and indices[0].meta["val"].dtype == torch.bool
    return indices[0] if alone else None


def _is_elementwise(node: Node, read: list[Node]) -> bool:
    """Whether a node changes each of the elements that a mask read by itself."""
    return (
        torch.Tag.pointwise in getattr(node.target, "tags", ())
        and all(each in read or not is_dynamic(each) for each in node.all_input_nodes)
        and all(each.meta["val"].dim() == node.meta["val"].dim() for each in read)
    )


def _call(like: Node, target: Any, args: Any, kwargs: Any = None) -> Node:
    """Insert a call before a node, as if it came from the same line."""
    with like.graph.inserting_before(like):
        node = like.graph.call_function(target, args, kwargs)
    values = map_arg((args, kwargs or {}), lambda each: each.meta["val"])
    node.meta = {**like.meta, "val": target(*values[0], **values[1])}
    return node


def _replaced(args: Any, table: Mapping[Any, Any]) -> Any:
    return map_arg(args, lambda each: table.get(each, each))


def _erase_checks(graph: Graph) -> None:
    """Erase what is left of sizes that nothing depends on any more."""
    for node in reversed(list(graph.nodes)):
        unused = not node.users and is_dynamic(node)
        if unused or node.target is aten._assert_scalar.default:
            graph.erase_node(node)
