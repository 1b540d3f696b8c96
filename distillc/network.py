"""What the passes transform: a network, its blocks, candidates and decisions. All immutable."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

from distillc.checks import check_size
from distillc.errors import PassError, TraceError

KEEP = "keep"
"""The decision that leaves a block as it is."""

Scope = Literal["block", "attention"]

Layout = Literal["image", "channels_last", "tokens", "tokens_first"]
"""(B, C, H, W), (B, H, W, C), (B, H * W, C) or (H * W, B, C), row by row."""


@dataclass(frozen=True)
class Cost:
    """Static cost at one input size: parameters, and multiply-accumulates of one inference."""

    params: int
    macs: int


@dataclass(frozen=True)
class Block:
    """A residual unit that holds attention: what a surrogate can stand in for.

    Attributes:
        name: Qualified module path, say `"encoder_level1.0"`.
        attention: Module path of the attention inside it, say `"encoder_level1.0.attn"`; the
            block's own where no module holds the attention and nothing of the residual.
        kind: `"channel"`, `"window"`, `"global"`, `"linear"` or `"frequency"`.
        shape: Shape of the block's input and output at `Network.size`.
        attention_shape: The same for the attention module.
        cost: Parameters and MACs of the whole block at `Network.size`.
        attention_cost: The same for only the attention module.
        latency_ms: Median measured latency, milliseconds; None until `ProfileBlocks`.
        layout: What the axes of `shape` are.
        attention_layout: The same for the attention module; None where positions and channels
            cannot be told, as of windows.
    """

    name: str
    attention: str
    kind: str
    shape: tuple[int, ...]
    attention_shape: tuple[int, ...]
    cost: Cost
    attention_cost: Cost
    latency_ms: float | None = None
    layout: Layout = "image"
    attention_layout: Layout | None = "image"


@dataclass(frozen=True)
class Surrogate:
    """A module with the signature of what it replaces, float32.

    Attributes:
        block: Name of the block it stands in for.
        spec: Family and hyper-parameters in canonical form, say `"mamba:state=4"`.
        scope: Whether it replaces the whole block or only the attention module.
        module: The surrogate itself.
        cost: Parameters and MACs at `Network.size`.
        fidelity: Relative error of its features on held-out images, ||s(x)-t(x)|| / ||t(x)-x||
            (1.0 is what the identity gets, lower is better); None until distilled.
        latency_ms: Median measured latency, milliseconds; None until `ProfileBlocks`.
    """

    block: str
    spec: str
    scope: Scope
    module: nn.Module
    cost: Cost
    fidelity: float | None = None
    latency_ms: float | None = None

    @property
    def label(self) -> str:
        """The name a decision uses: the spec, and `@attention` when that is the scope."""
        return self.spec if self.scope == "block" else f"{self.spec}@attention"


@dataclass(frozen=True)
class SearchPoint:
    """One evaluated set of decisions.

    Attributes:
        decisions: Block name -> `KEEP` or a surrogate's label, one entry per block.
        psnr: Mean PSNR on the search's held-out images, dB.
        cost: The search's cost objective, in the unit that `SearchReplacements` was given.
    """

    decisions: Mapping[str, str]
    psnr: float
    cost: float


@dataclass(frozen=True)
class PassRecord:
    """One line of the log: which pass ran, how long, and what it said."""

    name: str
    seconds: float
    modified: bool
    notes: tuple[str, ...] = ()


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Network:
    """A network on its way through the passes. Passes return a new one (`with_`).

    Attributes:
        module: Eager module in eval mode, (B, C, H, W) float32 -> (B, C', H*scale, W*scale);
            the source of truth for weights. Never trained or mutated in place.
        size: (H, W) in pixels at which the graph was traced and costs were counted.
        in_channels: Channels of the input image.
        name: A short name, used for file names.
        scale: Output size / input size.
        multiple: H and W must be multiples of this.
        square: Whether H and W must be equal.
        fixed_size: Whether it runs at `size` only (an exported program, a table of positions).
        out_channels: Channels of the output image; None for as many as of the input.
        program: `torch.export` program at (1, in_channels, *size); None until traced. Its
            `graph_module` is the fx graph, whose `nn_module_stack` ties every op to a module.
        blocks: What `FindAttention` found, in execution order.
        candidates: Block name -> the surrogates synthesised for it.
        front: The Pareto set of `SearchReplacements`, cheapest first.
        decisions: Block name -> `KEEP` or a surrogate's label; empty until decided.
        healed: Weights of the hybrid after `Heal`, by the names of `hybrid()`; None before it.
        source: Where it came from (path, sha256, architecture, parameters).
        metrics: Figures that passes measured, for the manifest and the report; JSON values.
        log: One record per pass that made it.
    """

    module: nn.Module
    size: tuple[int, int]
    in_channels: int = 3
    name: str = "network"
    scale: int = 1
    multiple: int = 1
    square: bool = False
    fixed_size: bool = False
    out_channels: int | None = None
    program: torch.export.ExportedProgram | None = None
    blocks: tuple[Block, ...] = ()
    candidates: Mapping[str, tuple[Surrogate, ...]] = field(default_factory=_empty)
    front: tuple[SearchPoint, ...] = ()
    decisions: Mapping[str, str] = field(default_factory=_empty)
    healed: Mapping[str, torch.Tensor] | None = None
    source: Mapping[str, Any] = field(default_factory=_empty)
    metrics: Mapping[str, Any] = field(default_factory=_empty)
    log: tuple[PassRecord, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of the traced input, (1, C, H, W)."""
        return (1, self.in_channels, *self.size)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels of input and output."""
        return self.in_channels, self.out_channels or self.in_channels

    def with_(self, **changes: Any) -> Network:
        """Return a copy with these attributes changed."""
        return replace(self, **changes)

    def at(self, size: tuple[int, int]) -> Network:
        """Return the network for another input size, as it was before tracing.

        Args:
            size: (H, W) in pixels.

        Raises:
            UsageError: An edge is out of range.
            TraceError: The network cannot take this size; the message says which multiple it
                needs and the nearest size.
        """
        check_size(size)
        if size == self.size:
            return self
        if self.fixed_size:
            raise TraceError(
                f"{self.name} runs at {self.size[0]}x{self.size[1]} only",
                hint=f"use --size {self.size[0]}x{self.size[1]}; an exported program can be "
                "exported again at another size",
            )
        if size != self.fitting(size):
            near = [max(1, round(extent / self.multiple)) * self.multiple for extent in size]
            near = [max(near)] * 2 if self.square else near
            raise TraceError(
                f"{self.name} cannot take {size[0]}x{size[1]}: height and width must be "
                f"{'equal, and ' if self.square else ''}multiples of {self.multiple}",
                hint=f"try {near[0]}x{near[1]}",
            )
        return self.with_(size=size, program=None, blocks=(), candidates=_empty())

    def fitting(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the smallest size, (H, W), that holds this one and that the network takes."""
        if self.fixed_size and all(map(operator.le, size, self.size)):
            return self.size
        height, width = (-(-extent // self.multiple) * self.multiple for extent in size)
        return (max(height, width),) * 2 if self.square else (height, width)

    def window(self, edge: int) -> tuple[int, int]:
        """Return the size, (H, W), of windows of about this edge that the network takes."""
        return self.size if self.fixed_size else self.fitting((edge, edge))

    def block(self, name: str) -> Block:
        """Return the block of this name.

        Raises:
            PassError: There is none; the message lists the known.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        known = ", ".join(block.name for block in self.blocks) or "none"
        raise PassError(f"no block named {name!r}", hint=f"known blocks: {known}")

    def surrogate(self, block: str, label: str) -> Surrogate:
        """Return a block's candidate by its label.

        Raises:
            PassError: There is none; the message lists the known.
        """
        candidates = self.candidates.get(block, ())
        for candidate in candidates:
            if candidate.label == label:
                return candidate
        known = ", ".join(candidate.label for candidate in candidates) or "none"
        raise PassError(
            f"block {block!r} has no surrogate {label!r}", hint=f"known surrogates: {known}"
        )

    def hybrid(self, decisions: Mapping[str, str] | None = None) -> nn.Module:
        """Build the eager network that a set of decisions describes, in eval mode.

        Surrogates are copied in, so training the result leaves the candidates alone. With the
        network's own decisions (the default) and `healed` set, the healed weights are loaded.

        Raises:
            PassError: A decision names an unknown block or surrogate.
        """
        own = decisions is None
        chosen = self.decisions if decisions is None else decisions
        module = copy.deepcopy(self.module)
        for name, label in chosen.items():
            block = self.block(name)
            if label == KEEP:
                continue
            surrogate = self.surrogate(name, label)
            path = block.name if surrogate.scope == "block" else block.attention
            module.set_submodule(path, copy.deepcopy(surrogate.module))
        if own and self.healed is not None:
            module.load_state_dict(dict(self.healed))
        return module.eval()
