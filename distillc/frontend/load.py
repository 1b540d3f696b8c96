"""A checkpoint to a `Network`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillc.errors import CheckpointError, UsageError, named_reason
from distillc.frontend.changes import tell
from distillc.frontend.constants import described_inputs, read_inputs
from distillc.frontend.fill import fill
from distillc.frontend.finite import check_finite
from distillc.frontend.formats import is_onnx, read_checkpoint, require_file
from distillc.frontend.program_trial import input_shape, program_limits
from distillc.frontend.programs import read_program
from distillc.frontend.recognise import recognise
from distillc.frontend.trace import SIZE, image_shapes, scale_of, trace, trace_module
from distillc.frontend.user_code import (
    advice,
    import_class,
    importing_from,
    user_line,
    weights_part,
)
from distillc.network import Network
from distillc.quiet import quiet_libraries
from distillc.sandbox import outcome
from distillc.workdir import file_digest

OPERATORS = ("distillc.surrogates.axial_scan", "distillc.surrogates.selective_scan")
"""Modules that register operators of ours; the front end does not know of them."""


@quiet_libraries()
def load(
    path: str | Path,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    output: str | int | None = None,
    inputs: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
    specialise: str | Path | None = None,
    trust_pickle: bool = False,
    sandbox: bool = True,
    size: tuple[int, int] | None = None,
) -> Network:
    """Load a checkpoint, and log what was left out of it or renamed.

    1. With `arch`, the user's class is built and takes the weights.
    2. A `.pt2` file is an exported program; its size is fixed.
    3. An `.onnx` file is a graph without modules: it is compiled as it is.
    4. A pickled module is taken as it is, if the user trusts it.
    5. Parameters named like the public Restormer checkpoints go into our Restormer.
    6. Anything else is what spandrel recognises.

    Args:
        path: `.pth`, `.pt`, `.safetensors`, `.pt2` or `.onnx`.
        arch: `package.module:Class`, found in the current folder or installed, or `file.py:Class`.
        arch_args: Keyword arguments of that class.
        output: Name or index of the image in what that class, a pickled module or an ONNX graph
            returns; see `distillc.trace`.
        inputs: Name -> constant of every further input of that class, of a pickled module or of an
            ONNX file; see `distillc.trace`.
        weights_key: Where the weights are in a file that holds several state dicts: keys of dicts
            and a prefix of the names, with dots between; `"."` is the outermost dict.
        specialise: A picture: whatever that class's Python chooses by values of the image is fixed
            as it is for this one, whose size the network then has.
        trust_pickle: Accept a pickled module, and a `.pt2` file that holds more than a graph and
            tensors. Loading one can run any code, in this process.
        sandbox: Read the file in a process without network, in bounded memory and time, first or
            only.
        size: (H, W) in pixels that it will work at. A network that runs at one size only, which
            nothing in the file says, is tried at it.

    Raises:
        CheckpointError: Unreadable, unsafe, several state dicts, weights are not finite, or no
            architecture fits.
        UsageError: `arch` cannot be imported or built; nothing returned has the name `output`, or
            there is nothing to choose from; no weights are under `weights_key`; the system has no
            such process.
        LoweringError: An ONNX file has operators that are not supported.
        TraceError: An ONNX file runs at no size that was tried.
    """
    path = Path(path)
    if output is not None and path.suffix == ".pt2":
        raise _nothing_to_choose(path)
    constants = read_inputs(inputs or {})
    if constants and path.suffix == ".pt2":
        raise _nothing_to_fix("an exported program")
    if weights_key is not None and (is_onnx(path) or path.suffix == ".pt2"):
        raise _no_state_dict("graph")
    if specialise is not None and not arch:
        raise UsageError(
            "only networks of a class of yours are specialised",
            where="--specialise",
            hint="name your class with --arch, or leave --specialise out",
        )
    if is_onnx(path):
        # Here, for ONNX and its runtime take most of a second to import.
        from distillc.frontend.onnx_graph.load import load_onnx

        net, name = load_onnx(path, sandbox, constants, output=output, size=size)  # rule 3
    elif path.suffix == ".pt2" and path.exists():
        net, name = _load_program(path, trust_pickle, sandbox), "exported program"  # rule 2
    else:
        sizes = (SIZE, size) if size else (SIZE,)
        # A pickled module names its class.
        with importing_from(Path()) if trust_pickle else nullcontext():
            content = read_checkpoint(path, trust_pickle, sandbox, weights_key)
        if isinstance(content, nn.Module):  # rule 4
            if weights_key is not None:
                raise _no_state_dict("module")
            net = trace_module(content, *sizes, output=output, inputs=constants)
            name = type(content).__name__
        elif arch:  # rule 1
            own = _load_own(arch, arch_args or {}, content, path)
            name = arch
            if specialise is None:
                net = trace_module(own, *sizes, output=output, inputs=constants)
            else:
                image = _read_image(Path(specialise))
                net = trace(own, image, output=output, inputs=constants, specialise=True)
        elif output is not None:
            raise _nothing_to_choose(path)
        elif constants:
            raise _nothing_to_fix("what is known by the names of its weights")
        else:  # rules 5 and 6
            net, name = recognise(content, path)
    if not is_onnx(path):  # whose constants were checked
        check_finite(net.module, str(path))
    source: dict[str, Any] = {
        "path": path.name,
        "sha256": file_digest(path),
        "architecture": name,
        "parameters": sum(each.numel() for each in net.module.parameters()),
    }
    if arch:
        source["arch_args"] = dict(arch_args or {})
    if output is not None:
        source["output"] = str(output)
    if constants:
        source["inputs"] = described_inputs(constants)
    if weights_key is not None:
        source["weights_key"] = weights_key
    if specialise is not None:
        source |= {"specialise": Path(specialise).name, **net.source}
    return replace(net, name=path.stem, source=source)


def _read_image(path: Path) -> Tensor:
    """Return a picture as a network gets it, (1, C, H, W) float32 in [0, 1].

    Raises:
        DataError: It cannot be read.
    """
    from distillc.data.files import read_picture  # here, for what decodes pictures takes a while

    picture = read_picture(path)
    pixels = torch.from_numpy(picture.pixels.astype("float32") / picture.white)
    return pixels.permute(2, 0, 1)[None].contiguous()


def _load_program(path: Path, trust: bool, sandbox: bool) -> Network:
    require_file(path)
    if not trust:
        trial = "distillc.frontend.program_trial:try_program"
        known = [name for name in OPERATORS if name in sys.modules]
        limits = program_limits(path) if sandbox else None
        with outcome(trial, path, known, limits=limits) as (tried, _):
            pass
        if tried["sha256"] != file_digest(path):
            raise CheckpointError("the file changes while it is read", where=str(path))
    program = read_program(path, trust)
    shape = input_shape(program, path)
    module = torch.export.unflatten(program)  # keeps the modules that blocks are known by
    if trust:
        with torch.no_grad():
            scale = scale_of(shape, module(torch.zeros(shape)))
    else:
        scale = tried["scale"]
    _, channels, height, width = shape
    return Network(
        module,
        (height, width),
        channels,
        scale=scale,
        program=program,
        fixed_size=True,
        out_channels=image_shapes(program)[1][1],
    )


def _nothing_to_choose(path: Path) -> UsageError:
    return UsageError(
        f"{path.name} is not of a class of yours: what it returns is the image",
        where="--output",
        hint="name your class with --arch, or leave --output out",
    )


def _nothing_to_fix(what: str) -> UsageError:
    return UsageError(
        f"{what} takes only an image: there is no further input to fix",
        where="--input",
        hint="name your class with --arch, or leave --input out",
    )


def _no_state_dict(what: str) -> UsageError:
    return UsageError(
        f"the file holds a {what}: there is no state dict to choose",
        where="--weights-key",
        hint="leave --weights-key out",
    )


def _load_own(
    arch: str, arguments: Mapping[str, Any], state: dict[str, Tensor], path: Path
) -> nn.Module:
    def build() -> nn.Module:
        module: nn.Module = import_class(arch)(**arguments)
        return module

    try:
        module = build()
    except Exception as error:  # the user's code may raise anything
        raise UsageError(
            f"--arch {arch} cannot be built: {named_reason(error)}",
            where=user_line(error),
            hint=advice(error, arch)
            or "write package.module:Class or file.py:Class, and its keyword arguments as "
            "--arch-args JSON",
        ) from error
    names = state.keys()
    part, prefix = weights_part(module, names)
    fill(part, state, path, arch, lambda: weights_part(build(), names)[0])
    if prefix:
        tell(path, [f"added the prefix {prefix} to the names, as {arch} wraps that network"])
    return module.eval()
