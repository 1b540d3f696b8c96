"""Compute in torch what does not depend on the image."""

from __future__ import annotations

import torch
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node

from distillc.frontend.graph import operator

REPEATING = {"expand", "repeat", "full", "full_like", "zeros", "ones", "arange", "scalar_tensor"}
"""What a kernel makes as fast as it reads it: stored, it would only be larger."""

PREFIX = "folded_"


def fold_constants(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Replace everything that depends only on weights: position tables, masks, indices.

    1. An operator whose inputs are all constant is computed, unless it draws random numbers.
    2. Its result becomes a constant of the program where something that depends on the image
       reads it, unless it only repeats or fills: then its inputs become constants.

    It also computes what the importer or the code generator could not: index arithmetic, and layers
    without channels.

    Args:
        program: In core operators; changed in place.
    """
    graph = program.graph_module.graph
    values = constant_values(program)
    names = {spec.arg.name for spec in program.graph_signature.input_specs}
    first = next(node for node in graph.nodes if _is_image(node, program))
    position = next(
        index
        for index, spec in enumerate(program.graph_signature.input_specs)
        if spec.kind is InputKind.USER_INPUT
    )
    for node in [each for each in graph.nodes if _is_folded(each, values)]:
        name = f"{PREFIX}{len(names)}"
        names.add(name)
        with graph.inserting_before(first):
            constant = graph.placeholder(name)
        constant.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(constant)
        spec = InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(constant.name), name)
        program.graph_signature.input_specs.insert(position, spec)
        position += 1
        program.constants[name] = values[node].detach().contiguous()
    for node in graph.nodes:
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.erase_node(node)  # true of every image, and would keep alive what it looks at
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def constant_values(program: torch.export.ExportedProgram) -> dict[Node, torch.Tensor]:
    """Return the values of all nodes that depend only on weights."""
    values = _stored(program)
    for node in program.graph_module.graph.nodes:
        if _is_constant(node, values):
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)  # type: ignore[misc]
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values


def _stored(program: torch.export.ExportedProgram) -> dict[Node, torch.Tensor]:
    """Return the program's parameters, buffers and constants by their nodes."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    stored = {**program.constants, **program.state_dict}
    return {
        nodes[spec.arg.name]: stored[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.target in stored and isinstance(stored[spec.target], torch.Tensor)
    }


def _is_constant(node: Node, values: dict[Node, torch.Tensor]) -> bool:
    return (  # rule 1
        node.op == "call_function"
        and all(each in values for each in node.all_input_nodes)
        and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())
    )


def _is_folded(node: Node, values: dict[Node, torch.Tensor]) -> bool:
    """Whether rule 2 makes a constant of a node."""
    return (
        node.op == "call_function"
        and isinstance(values.get(node), torch.Tensor)
        and not _repeats(node, values[node])
        and any(user not in values or _repeats(user, values[user]) for user in node.users)
    )


def _repeats(node: Node, value: object) -> bool:
    if not isinstance(value, torch.Tensor):  # several results
        return False
    if operator(node) in REPEATING:
        return True
    extents = zip(value.shape, value.stride(), strict=True)
    return any(extent > 1 and stride == 0 for extent, stride in extents)


def _is_image(node: Node, program: torch.export.ExportedProgram) -> bool:
    return node.op == "placeholder" and node.name in program.graph_signature.user_inputs
