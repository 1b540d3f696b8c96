"""A module to an fx graph, through `torch.export`."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any

import torch
from torch import Tensor, nn

from distillc.errors import TraceError
from distillc.frontend.constants import read_inputs
from distillc.frontend.cpu_attention import allow_math
from distillc.frontend.finite import check_finite
from distillc.frontend.inputs import fix_inputs, fixing, needed_inputs
from distillc.frontend.old_spectral import bring_back
from distillc.frontend.outputs import described, take_image, whole_scale
from distillc.frontend.scans import adopt_scans
from distillc.frontend.sizes import SQUARES, find_edge, find_sizes
from distillc.frontend.static_form import is_dynamic, static_form
from distillc.frontend.user_code import advice, user_line
from distillc.frontend.values.advice import instead, why_not
from distillc.frontend.values.module_state import kept_attributes
from distillc.frontend.values.running_state import run_frozen
from distillc.frontend.values.settle import settle
from distillc.frontend.values.specialise import fix_choices
from distillc.network import Network
from distillc.quiet import quiet_libraries

SIZE = (64, 64)
"""Size that a network is tried at when none is known."""


class _OtherSize(TraceError):
    """A network does not take the example's size, but one that it takes was found.

    Attributes:
        size: (H, W) that it takes.
    """

    size: tuple[int, int]


@quiet_libraries()
def trace(
    module: nn.Module,
    example: Tensor,
    name: str | None = None,
    *,
    output: str | int | None = None,
    inputs: Mapping[str, Any] | None = None,
    specialise: bool = False,
) -> Network:
    """Make a `Network` of any module that maps an image to an image.

    Scale and sizes are found by running it (see `find_sizes`); where it runs on no size but the
    example's, its size is fixed. The graph itself is made by the pass `Trace`.

    Args:
        module: (1, C, H, W) float32 -> (1, C', H * scale, W * scale) float32, or a tuple, list,
            dict or object that holds this image.
        example: An input of the size to work at.
        name: A short name; the class name by default.
        output: Name or index of the image in what is returned, with dots for what is deeper;
            needed where there are several.
        inputs: Name -> constant of every further input: a number, a text, None, nested lists of
            numbers, an array or tensor, or the `Path` of a file that holds one. What was fixed, and
            in which form, is logged.
        specialise: Whether what its Python chooses by values is fixed as it is for the example,
            whose size it then has. What was fixed is in the `source`.

    Raises:
        TraceError: It does not run on the example, gives no image, or several.
        UsageError: It returns nothing of the name `output`, has no input of a name, a value is not
            a constant, or there is nothing to specialise.
        CheckpointError: Weights are NaN or infinite.
    """
    module = module.eval()
    if not isinstance(example, Tensor) or example.dim() != 4:
        raise TraceError(f"the example must be an image (1, C, H, W), not {described(example)}")
    check_finite(module)
    adopt_scans(module)
    if constants := read_inputs(inputs or {}):
        module = _fix(module, example, constants)
    module, returned = run_frozen(module, lambda: _run(module, example))
    module, image = take_image(module, example, returned, output)
    height, width = example.shape[2:]
    scale = scale_of(example.shape, image)
    assert isinstance(image, Tensor)  # or it would have no scale
    sizes, source = None, {}
    if specialise:
        module, fixed = fix_choices(module, example)
        source["specialised"] = list(fixed)
    else:
        sizes = find_sizes(module, example)
    return Network(
        module,
        (height, width),
        example.shape[1],
        name=name or type(module).__name__,
        scale=scale,
        multiple=sizes.multiple if sizes else 1,
        square=bool(sizes and sizes.square),
        fixed_size=sizes is None,
        out_channels=image.shape[1],
        source=source,
    )


def trace_module(
    module: nn.Module,
    *sizes: tuple[int, int],
    output: str | int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Network:
    """Make a `Network` of a module whose channels are not known, by trying.

    Args:
        module: As of `trace`.
        sizes: (H, W) in pixels to try, in order; then one that it takes, if any is found.
        output: As of `trace`.
        inputs: As of `trace`.

    Raises:
        TraceError: It runs on no image that was tried, gives no image, or several.
        UsageError: As of `trace`.
        CheckpointError: Weights are NaN or infinite.
    """
    layers = (nn.Conv2d, nn.ConvTranspose2d)
    first = next((each for each in module.modules() if isinstance(each, layers)), None)
    own = first.in_channels if first else 3
    # The first convolution may see pixels rearranged, the image and what was made of it, or a part.
    likely = [own, 3, 1, 4, 6, 2 * own, *(each for each in (own // 4, own // 16) if each)]
    errors = []
    for size in dict.fromkeys(sizes):
        for channels in dict.fromkeys(likely):
            try:
                example = torch.zeros(1, channels, *size)
                return trace(module, example, output=output, inputs=inputs)
            except _OtherSize as error:
                example = torch.zeros(1, channels, *error.size)
                return trace(module, example, output=output, inputs=inputs)
            except TraceError as error:
                errors.append(error)
    # What it says where it ran tells more than that it does not run with other channels.
    raise next((error for error in errors if error.__cause__ is None), errors[0])


def as_network(network: Network | nn.Module, size: tuple[int, int]) -> Network:
    """Return a network as it is, a module as one: see `trace_module`.

    Args:
        network: Either; a module is left in the mode that it has, training or not.
        size: (H, W) in pixels that it will work at; where it does not, `SIZE` is tried, from which
            the multiple that it needs can be learned.

    Raises:
        TraceError: As of `trace_module`.
        CheckpointError: Weights are NaN or infinite.
    """
    if isinstance(network, Network):
        return network
    modes = {each: each.training for each in network.modules()}
    try:
        return trace_module(network, size, SIZE)
    finally:
        for each, mode in modes.items():
            each.training = mode


def scale_of(given: Sequence[int], output: object) -> int:
    """Return how much larger than its input a network's output is.

    Raises:
        TraceError: It is not one float32 image, larger by a whole number in both directions.
    """
    scale = whole_scale(given, output)
    if scale is not None:
        return scale
    raise TraceError(
        f"the network must return an image (1, C, H * scale, W * scale), float32 and with a whole "
        f"scale, not {described(output)} for {tuple(given)}",
        hint="wrap it in a module that returns the restored image, or inherit from its class",
    )


def _run(module: nn.Module, example: Tensor) -> object:
    try:
        with torch.no_grad():
            return module(example)
    except Exception as error:
        if allow_math(error) or bring_back(error):
            return _run(module, example)
        if further := needed_inputs(module)[1:]:
            raise TraceError(
                f"{type(module).__name__}.forward must take only an image: it needs "
                f"{', '.join(map(repr, further))} too",
                hint=fixing(further),
            ) from error
        if other := _other_size(module, example):
            raise other from error
        raise TraceError(
            f"the network does not run on {tuple(example.shape)}: {error}",
            where=user_line(error),
            hint=advice(error)
            or "check the number of channels, the size, and that it is float32 and on the CPU: "
            "module.float().cpu()",
        ) from error


def _fix(module: nn.Module, example: Tensor, constants: Mapping[str, Any]) -> nn.Module:
    """Fix inputs by the example, or by an image of another size where the network needs one."""
    try:
        return fix_inputs(module, example, constants)
    except TraceError as error:
        for edge in SQUARES:
            with suppress(TraceError):
                square = torch.zeros(1, example.shape[1], edge, edge)
                return fix_inputs(module, square, constants)
        raise error


def _other_size(module: nn.Module, example: Tensor) -> _OtherSize | None:
    """Say which sizes a network takes, if a square is found and the example has none of them."""
    channels, name = example.shape[1], type(module).__name__
    edge = find_edge(module, channels)
    if edge is None:
        return None
    net = Network(module, (edge, edge), channels, name, fixed_size=True)
    if sizes := find_sizes(module, torch.zeros(1, channels, edge, edge)):
        net = net.with_(fixed_size=False, multiple=sizes.multiple, square=sizes.square)
    size = (example.shape[2], example.shape[3])
    try:
        net.at(size)
    except TraceError as refusal:
        error = _OtherSize(refusal.what, hint=refusal.hint)
        error.size = net.size if net.fixed_size else net.fitting(size)
        return error
    return None  # it fails for another reason


def export_program(module: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """Export a module; see `export_settled`."""
    return export_settled(module, shape)[1]


def export_settled(
    module: nn.Module, shape: tuple[int, ...]
) -> tuple[nn.Module, torch.export.ExportedProgram]:
    """Export a module for one float32 input of this shape, in its `static_form`.

    Where its Python looks at values, what can be settled is: see `settle`. The graph's
    `nn_module_stack` ties every operator to the module that called it.

    Returns:
        The module, with what was settled, and its program.

    Raises:
        TraceError: The message names the user's source line, what stands in the way, and the
            change that would do.
    """
    module = module.eval()
    with suppress(Exception):
        program = _export(module, shape)
        if not any(map(is_dynamic, program.graph.nodes)):
            return module, program
    settled = settle(module, shape)
    try:
        return settled.module, _export(settled.module, shape)
    except Exception as error:
        raise TraceError(
            f"the network cannot be exported: {why_not(error, settled)}",
            where=str(settled.open[0].place) if settled.open else user_line(error),
            hint=instead(error, settled),
        ) from error


def _export(module: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    image = torch.zeros(shape)
    with _silent(), torch.no_grad():
        with kept_attributes(module) as changed:
            program = torch.export.export(module, (image,))
            again = changed()
        if again:  # it makes something of this size once: what it made here has no values
            module(image)
            with kept_attributes(module):
                program = torch.export.export(module, (image,))
        return static_form(program)


@contextmanager
def _silent() -> Iterator[None]:
    """Within it, torch keeps its warnings, and the graph so far where export fails, to itself."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def image_shapes(
    program: torch.export.ExportedProgram,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of a program's input and output, one image each."""
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    names = (signature.user_inputs[0], signature.user_outputs[0])
    input_shape, output_shape = (tuple(nodes[name].meta["val"].shape) for name in names)
    return input_shape, output_shape


def image_scale(program: torch.export.ExportedProgram) -> int:
    """Return how much larger than its input a program's image is.

    Raises:
        TraceError: It returns no float32 image, or one whose scale is not whole.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    outputs = [values.get(name) for name in signature.user_outputs]
    given = values[signature.user_inputs[0]]
    return scale_of(given.shape, outputs[0] if len(outputs) == 1 else tuple(outputs))
