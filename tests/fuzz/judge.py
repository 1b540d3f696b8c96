"""Random networks compiled together, and what became of each."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from distillc.codegen.build.library import build_library
from distillc.codegen.build.onnx_export import export_onnx
from distillc.errors import DistillcError
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.trace import export_program
from distillc.runtime.devices import get_device
from distillc.targets.base import get_target
from tests.c_api import Library
from tests.fuzz.network import Cut, Expected, RandomNetwork, build, expect

WAYS = ("host", "aarch64", "onnx")
REFUSALS = (
    "operators that cannot be compiled yet",
    "operators whose results depend in size",
    "recurrent layers over more than",
)
"""How messages begin that say a network cannot be compiled; whatever else is raised is a fault."""


@dataclass(frozen=True)
class Verdict:
    """What became of a network.

    Attributes:
        cut: The network.
        kind: `right`, `wrong`, `refused`, `failed` (an error that is not a refusal) or `crashed`.
        text: Why it is not `right`.
    """

    cut: Cut
    kind: str
    text: str = ""


class Pack(nn.Module):
    """Networks side by side: one image with all that is given to them, one with all they return.

    A network alone takes its own image, and returns its own where it is one.
    """

    def __init__(self, networks: Sequence[RandomNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.shapes = [[tuple(x.shape) for x in each.given.values()] for each in networks]

    def image(self) -> Tensor:
        """Return the input."""
        given = [x for network in self.networks for x in network.given.values()]
        return (
            given[0] if self._alone else torch.cat([x.flatten() for x in given])[None, None, None]
        )

    @property
    def _alone(self) -> bool:
        if not len(self.shapes) == len(self.shapes[0]) == 1:
            return False
        (shape,) = self.shapes[0]
        return len(shape) == 4 and shape[0] == 1  # a library takes one image

    def forward(self, image: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        if self._alone:
            outputs.extend(self.networks[0](image))
            if len(outputs) == 1 and outputs[0].dim() == 4 and outputs[0].shape[0] == 1:
                return outputs[0]
        else:
            pieces = iter(image.flatten().split([int(np.prod(s)) for g in self.shapes for s in g]))
            for network, shapes in zip(self.networks, self.shapes, strict=True):
                outputs.extend(network(*(next(pieces).view(shape) for shape in shapes)))
        return torch.cat([each.flatten() for each in outputs])[None, None, None]


def judge(cuts: Sequence[Cut], way: str, precision: str = "fp32") -> list[Verdict]:
    """Compile networks together and compare each with float64; where that fails, fewer together.

    Args:
        cuts: The networks.
        way: One of `WAYS`.
        precision: As `build_library` takes it; the bound of `"fp16"` is 5 % of the largest value.
    """
    networks = [build(each) for each in cuts]
    expected = [expect(each) for each in networks]
    try:
        found = run(networks, way, precision)
    except Exception as error:
        reasons = _refusals(error)
        refused = {number: text for number, text in reasons.items() if number < len(cuts)}
        if refused:
            others = [cut for number, cut in enumerate(cuts) if number not in refused]
            rest = iter(judge(others, way, precision) if others else ())
            return [
                Verdict(cut, "refused", refused[number]) if number in refused else next(rest)
                for number, cut in enumerate(cuts)
            ]
        if len(cuts) > 1:
            half = len(cuts) // 2
            return judge(cuts[:half], way, precision) + judge(cuts[half:], way, precision)
        return [Verdict(cuts[0], "failed", f"{_named(error)}{error}")]
    verdicts, start = [], 0
    for cut, wanted in zip(cuts, expected, strict=True):
        assert wanted is not None
        count = sum(each.numel() for each in wanted.outputs)
        text = compare(wanted, found[start : start + count], precision)
        verdicts.append(Verdict(cut, "wrong" if text else "right", text))
        start += count
    assert start == found.numel()
    return verdicts


def _refusals(error: Exception) -> dict[int, str]:
    """Return which networks of a pack an error refuses, and the operators that are why."""
    found: dict[int, list[str]] = {}
    if isinstance(error, DistillcError) and str(error).startswith(REFUSALS):
        for operator, places in re.findall(r"^ +(\S+), used in (.*)$", str(error), re.MULTILINE):
            for number in sorted(set(re.findall(r"\bnetworks\.(\d+)\.", places))):
                found.setdefault(int(number), []).append(operator)
    return {number: ", ".join(operators) for number, operators in found.items()}


def _named(error: Exception) -> str:
    return "" if isinstance(error, DistillcError) else f"{type(error).__name__}: "


def compare(wanted: Expected, found: Tensor, precision: str = "fp32") -> str:
    """Say which output of a network is beyond its bound; `""` if none is."""
    start = 0
    for position, (output, bound) in enumerate(zip(wanted.outputs, wanted.bounds, strict=True)):
        own = found[start : start + output.numel()].view(output.shape).double()
        start += output.numel()
        allowed = bound if precision == "fp32" else 0.05 * float(output.abs().max())
        errors = (own - output).abs()
        error = float(errors.max())
        if not error <= allowed:  # NaN is not
            at = np.unravel_index(int(errors.nan_to_num(np.inf).argmax()), tuple(output.shape))
            off = float((errors > allowed).double().mean())
            return (
                f"output {position} {tuple(output.shape)}: error {error:.2e}, allowed "
                f"{allowed:.2e}, worst at {tuple(map(int, at))}: {float(own[at]):.6g} instead of "
                f"{float(output[at]):.6g}; {off:.0%} of it wrong"
            )
    return ""


def run(networks: Sequence[RandomNetwork], way: str, precision: str = "fp32") -> Tensor:
    """Compile networks together, run them, return all their outputs flat, float32."""
    pack = Pack(networks).eval()
    image = pack.image()
    program = export_program(pack, tuple(image.shape))
    with tempfile.TemporaryDirectory(prefix="distillc-fuzz-") as folder:
        if way == "onnx":
            path = Path(folder) / "model.onnx"
            export_onnx(program, path)
            return OnnxRuntime(path)(image).flatten()
        path = Path(folder) / "library.so"
        target = get_target("host" if way == "host" else "snapdragon8elite")
        info = build_library(program, target, path, precision=precision)
        if way == "host":
            library = Library(path, threads=2)
            y = library.run(image.contiguous().numpy())
            library.close()
        else:
            device = get_device("emulator")
            y, _ = device.run([path], image.numpy(), info.output_shape, threads=2)
        return torch.from_numpy(y.flatten())
