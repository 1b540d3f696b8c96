"""Random networks, and smaller ones cut out of them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import tests.fuzz.operators  # noqa: F401 - registers the operators
from distillc.frontend.static_form import StableSorts
from tests.fuzz.draw import FAMILIES, PAIRS, Draw, Layer, described

EXTENTS = (1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 11, 12, 13, 16, 16, 17, 19, 24)
MOST_ELEMENTS = 4000
COSTLY = {"frequency": 0.2, "scan": 0.4}
"""Families whose networks take long to compile, and the share that may have them."""
LARGEST = 1e3
RANK = 6
NOISE = 1e-6
"""Relative noise on every value by which a network's conditioning is found: eight units in the last
place of float32."""
WORST = 1e-3
"""Networks where such noise, or float32 itself, changes more than this are not well conditioned."""


@dataclass(frozen=True)
class Cut:
    """A network by its seed, and what is left of it.

    Attributes:
        seed: Decides everything.
        outputs: Values that are compared; all that no step reads by default.
        sources: Values that are given from outside instead of being computed.
        skipped: Steps whose first operand is their result.
    """

    seed: int
    outputs: tuple[int, ...] = ()
    sources: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """Value number `result` is `layer` of the values `operands`."""

    result: int
    layer: Layer
    operands: tuple[int, ...]


class RandomNetwork(nn.Module):
    """Steps on numbered values.

    Args:
        given: The values from outside, float32, by number.
        steps: In order.
        outputs: Numbers of the results.
    """

    def __init__(
        self, given: Mapping[int, Tensor], steps: Sequence[Step], outputs: Sequence[int]
    ) -> None:
        super().__init__()
        self.given = dict(given)
        self.steps = list(steps)
        self.layers = nn.ModuleList(step.layer for step in steps)
        self.outputs = tuple(outputs)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return self.run(given)

    def run(
        self, given: Sequence[Tensor], noise: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Return the outputs, where asked with noise on every value between."""
        values = dict(zip(self.given, given, strict=True))
        for step, layer in zip(self.steps, self.layers, strict=True):
            y = layer(*(values[each] for each in step.operands))
            if noise is not None:
                spread = torch.randn(y.shape, generator=noise, dtype=y.dtype)
                y = y + NOISE * spread * (y.abs() + y.abs().mean() / 4)
            values[step.result] = y
        return tuple(values[each] for each in self.outputs)

    def __str__(self) -> str:
        lines = [f"v{number} = given{tuple(x.shape)}" for number, x in self.given.items()]
        for step in self.steps:
            operands = ", ".join(f"v{each}" for each in step.operands)
            shapes = "".join(str(list(w.shape)) for w in step.layer.weights)
            lines.append(f"v{step.result} = {step.layer.text} of {operands} {shapes}".rstrip())
        return "\n".join([*lines, f"return {', '.join(f'v{each}' for each in self.outputs)}"])


@dataclass(frozen=True)
class Expected:
    """What float64 says of a network's outputs, and how far from it float32 may be.

    Attributes:
        outputs: Each output in float64.
        bounds: Largest absolute error of each.
    """

    outputs: tuple[Tensor, ...]
    bounds: tuple[float, ...]


def expect(network: RandomNetwork) -> Expected | None:
    """Run a network in float64 and float32; return None where it is not well conditioned.

    The bound of an output is eight times the larger of what float32 in torch and noise of 1e-6 on
    every value change in it, and 2e-5 of its largest value.
    """
    given = tuple(network.given.values())
    exact = copy.deepcopy(network).double()
    wide = tuple(each.double() for each in given)
    with torch.no_grad(), StableSorts():
        wanted = exact.run(wide)
        others = [tuple(each.double() for each in network.run(given))]
        others += [exact.run(wide, torch.Generator().manual_seed(seed)) for seed in range(2)]
    bounds = []
    for position, output in enumerate(wanted):
        size = float(output.abs().max())
        errors = [float((each[position] - output).abs().max()) for each in others]
        if not all(error <= WORST * size for error in errors):  # NaN is not
            return None
        bounds.append(8 * max(errors) + 2e-5 * size + 1e-30)
    return Expected(wanted, tuple(bounds))


@functools.lru_cache(maxsize=64)
def whole(seed: int) -> tuple[RandomNetwork, dict[int, Tensor]]:
    """Return the network of a seed and all its values: the first well-conditioned one drawn."""
    attempt = 0
    while True:
        network, values = _draw(Draw(1000 * seed + attempt))
        if len(network.steps) >= 5 and expect(network) is not None:
            return network, values
        attempt += 1


def _draw(draw: Draw) -> tuple[RandomNetwork, dict[int, Tensor]]:
    shape = (1, draw.some(1, 7), draw.one(*EXTENTS), draw.one(*EXTENTS))
    image = torch.rand(shape, generator=draw.generator)
    image = draw.one(image, image, image, 6 * image - 3, draw.normal(*shape))
    values, steps = {0: image}, []
    wanted = draw.some(5, 9)
    palette = _palette(draw)
    for _ in range(12 * wanted):
        if len(steps) == wanted:
            break
        operands = [len(steps) if draw.chance(0.85) else draw.some(0, len(steps))]
        x = values[operands[0]]
        try:
            if x.dim() != 4 and draw.chance(0.4):
                layer = _to_image(draw, x)
            elif draw.chance(0.2):
                operands.append(draw.some(0, len(steps)))
                layer = draw.one(*PAIRS)(draw, x, values[operands[1]])
            else:
                layer = draw.one(*FAMILIES[draw.one(*palette)])(draw, x)
            with torch.no_grad(), StableSorts():
                y = layer(*(values[each].clone() for each in operands))
        except Exception:  # torch refuses the shape: draw again
            continue
        if _is_usable(y):
            values[len(steps) + 1] = y
            steps.append(Step(len(steps) + 1, layer, tuple(operands)))
    used = {each for step in steps for each in step.operands}
    return RandomNetwork({0: image}, steps, [each for each in values if each not in used]), values


def _palette(draw: Draw) -> list[str]:
    """Choose the families of a network: few at a time meet each other more often."""
    families = [each for each in FAMILIES if each not in COSTLY or draw.chance(COSTLY[each])]
    draw.random.shuffle(families)
    return ["convolution", *families[: draw.some(2, 6)]]


def _to_image(draw: Draw, x: Tensor) -> Layer:
    shape = [1, *draw.shape(x.numel(), 3)]
    return Layer(described("to image", {"shape": shape}), lambda x: x.reshape(shape))


def _is_usable(y: Tensor) -> bool:
    return (
        y.dtype == torch.float32
        and 1 <= y.dim() <= RANK
        and 1 <= y.numel() <= MOST_ELEMENTS
        and float(y.abs().max()) < LARGEST  # NaN is not
    )


def build(cut: Cut) -> RandomNetwork:
    """Return what a cut leaves of its seed's network."""
    network, values = whole(cut.seed)
    if cut == Cut(cut.seed):
        return network
    alias = {step.result: step.operands[0] for step in network.steps if step.result in cut.skipped}

    def of(number: int) -> int:
        while number in alias and number not in cut.sources:
            number = alias[number]
        return number

    outputs = [of(each) for each in cut.outputs or network.outputs]
    needed, steps = set(outputs), []
    for step in reversed(network.steps):
        if step.result in needed and step.result not in cut.sources:
            operands = tuple(map(of, step.operands))
            needed.update(operands)
            steps.append(Step(step.result, step.layer, operands))
    computed = {step.result for step in steps}
    given = {each: values[each] for each in sorted(needed - computed)}
    return RandomNetwork(given, steps[::-1], outputs)


def smaller(cut: Cut) -> list[Cut]:
    """Return cuts that leave less, those that leave least first."""
    network = build(cut)
    results = [step.result for step in network.steps]
    found = [Cut(cut.seed, (each,), cut.sources, cut.skipped) for each in results]
    found += [
        Cut(cut.seed, cut.outputs, (*cut.sources, each), cut.skipped)
        for each in reversed(results)
        if each not in network.outputs
    ]
    found += [Cut(cut.seed, cut.outputs, cut.sources, (*cut.skipped, each)) for each in results]
    return [each for each in found if _is_less(each, len(results))]


def _is_less(cut: Cut, steps: int) -> bool:
    """Whether a cut leaves something that runs, of fewer steps."""
    try:
        network = build(cut)
        return 0 < len(network.steps) < steps and expect(network) is not None
    except Exception:  # shapes do not fit once a step is skipped
        return False
