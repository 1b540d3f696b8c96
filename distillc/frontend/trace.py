"""A module to an fx graph, through `torch.export`."""

from __future__ import annotations

import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import torch
from torch import Tensor, nn

from distillc.errors import TraceError
from distillc.frontend.exportable import exportable
from distillc.frontend.static_form import static_form
from distillc.network import Network

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Size multiples that are tried when a network's own is not known."""


def trace(module: nn.Module, example: Tensor, name: str | None = None) -> Network:
    """Make a `Network` of any module that maps an image to an image.

    Scale and size multiple are found by running it; where it runs on no size but the example's, its
    size is fixed. The graph itself is made by the pass `Trace`.

    Args:
        module: (1, C, H, W) float32 -> (1, C', H * scale, W * scale) float32.
        example: An input of the size to work at.
        name: A short name; the class name by default.

    Raises:
        TraceError: It does not run on the example, or gives no image.
    """
    module = module.eval()
    if not isinstance(example, Tensor) or example.dim() != 4:
        raise TraceError(f"the example must be an image (1, C, H, W), not {_what(example)}")
    output = _run(module, example)
    height, width = example.shape[2:]
    if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[2] % height:
        raise TraceError(
            f"the network must return an image (1, C, H, W), not {_what(output)}",
            hint="wrap it in a module that returns the restored image",
        )
    multiple = _find_multiple(module, example)
    return Network(
        module,
        (height, width),
        example.shape[1],
        name=name or type(module).__name__,
        scale=output.shape[2] // height,
        multiple=multiple or 1,
        fixed_size=multiple is None,
    )


def _what(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _run(module: nn.Module, example: Tensor) -> object:
    try:
        with torch.no_grad():
            return module(example)
    except Exception as error:
        if why := _why_not_image_alone(module, example):
            raise TraceError(
                f"{type(module).__name__}.forward must take an image alone: {why}",
                hint="wrap it in a module that gives it the rest: "
                "def forward(self, image): return self.network(image, ...)",
            ) from error
        multiple = _find_multiple(module, example[:, :, :1, :1].expand(-1, -1, 128, 128))
        height, width = example.shape[2:]
        if multiple and (height % multiple or width % multiple):
            raise TraceError(
                f"the network cannot take {height}x{width}: height and width must be multiples "
                f"of {multiple}",
                hint=f"try {-(-height // multiple) * multiple}x{-(-width // multiple) * multiple}",
            ) from error
        raise TraceError(
            f"the network does not run on {tuple(example.shape)}: {error}",
            where=_user_line(error),
            hint="check the number of channels, the size, and that it is float32 and on the CPU: "
            "module.float().cpu()",
        ) from error


def _why_not_image_alone(module: nn.Module, example: Tensor) -> str:
    """Say why a module cannot be called with one tensor, `""` where it can or nobody knows."""
    try:
        inspect.signature(module.forward).bind(example)
    except TypeError as error:
        return str(error)
    except ValueError:  # what TorchScript traced has no signature
        return ""
    return ""


def _find_multiple(module: nn.Module, example: Tensor) -> int | None:
    """Return the smallest multiple m that two images of other sizes need, None if none will do."""
    for multiple in MULTIPLES:
        edges = (3 * multiple, 2 * multiple) if multiple >= 16 else (16 + multiple, 32 + multiple)
        edges = tuple(-(-edge // multiple) * multiple for edge in edges)  # type: ignore[assignment]
        image = torch.zeros(1, example.shape[1], *edges)
        try:
            with torch.no_grad():
                output = module(image)
        except Exception:
            continue
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] % edges[0] == 0:
            return multiple
    return None


def export_program(module: nn.Module, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """Export a module for one float32 input of this shape, in its `static_form`.

    The graph's `nn_module_stack` ties every operator to the module that called it.

    Raises:
        TraceError: The message names the user's source line and what stands in the way.
    """
    try:
        with _silent(), torch.no_grad(), exportable():
            return static_form(torch.export.export(module.eval(), (torch.zeros(shape),)))
    except Exception as error:
        raise TraceError(
            f"the network cannot be exported: {_reason(error)}",
            where=_user_line(error),
            hint="avoid Python that depends on tensor values (if x.sum() > 0, .item(), lists of "
            "sizes); `torch.export.export(module, (image,))` shows the whole error",
        ) from error


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


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]


def _user_line(error: Exception) -> str | None:
    """Return `file:line in function` of the deepest frame that is not torch's own."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', str(error))
    traceback = error.__traceback__
    while traceback:
        code = traceback.tb_frame.f_code
        frames.append((code.co_filename, str(traceback.tb_lineno), code.co_name))
        traceback = traceback.tb_next
    own = [frame for frame in frames if "/torch/" not in frame[0] and "distillc" not in frame[0]]
    return "{}:{} in {}".format(*own[-1]) if own else None
