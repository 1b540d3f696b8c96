"""Find the blocks that hold attention."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch.fx import Node

from distillc.errors import PassError
from distillc.frontend.attention_graph import (
    AttentionSite,
    activations,
    boundary,
    calls,
    enclosing,
    find_sites,
    is_residual,
    modules,
    operator,
    shape,
)
from distillc.frontend.axes import channel_axis, counts_channels, follow_axes
from distillc.frontend.cost import count_costs
from distillc.network import Block, Layout, Network
from distillc.passes.trace import Trace
from distillc.pipeline import Context, Pass, PassResult, require


class FindAttention(Pass):
    """Find the residual blocks that hold attention, from the graph alone.

    1. An attention is a product of two activations, normalised by a softmax, multiplied with a
       third activation; or a fused operator. Scales, biases, masks and reshapes may stand between,
       heads be mixed, the best keys be chosen, and other products be joined. A sum over products of
       elements is a product too, as where pixels attend to a neighbourhood. So is a linear one, the
       product of an activation with that of two others, and one in frequencies, the inverse
       Fourier transform of the product of two transformed activations. A softmax over anything
       else (a gate, a pooling) is none.
    2. A surrogate can stand in for a module that, in each of its calls, takes one activation and
       returns one of equal shape and layout, (B, C, H, W), (B, H, W, C), (B, H W, C) or
       (H W, B, C). A module that adds to one of them, at its end or inside, may take further ones
       (the keys of a cross attention, a guide): surrogates see the one that is added to.
    3. An attention's block is the innermost such module around it with a residual connection (the
       input reaches the output through additions and norms); the innermost such module where none
       has one.
    4. What maps image to image is a network, never a block. Of nested blocks the outer one stays,
       and several attentions in one block are one block.
    5. Its attention is the innermost module as in rule 2 that holds all attentions of the block
       and has no residual connection, parallel branches included; the block where there is none.
    6. The kind is `frequency` or `linear` by rule 1; else `channel` when the q k product sums over
       positions (the matrix is channels x channels), `global` when its rows are all positions of
       the block, and `window`.

    Given:   %softmax = softmax(matmul(%q, %k) * %temperature); matmul(%softmax, %v)
             in encoder_level1.0.attn
    Result:  Block("encoder_level1.0", attention="encoder_level1.0.attn", kind="channel", ...)

    Raises:
        PassError: There is no attention, or none in a block that could be replaced; the message
            says what was looked for, what was seen, and why each was refused.
    """

    after = (Trace,)

    def requires(self, net: Network) -> None:
        require(net.program is not None, "the network has no graph", "Trace")

    def run(self, net: Network, ctx: Context) -> PassResult:
        assert net.program is not None
        graph = _Modules(net.program, net.input_shape)
        sites, refused = find_sites(net.program, graph.live)  # rule 1
        if not sites:
            raise _no_attention(net, refused)
        held: dict[str, list[AttentionSite]] = defaultdict(list)
        homeless: dict[str, str] = {}
        for site in sites:
            around = [path for path in enclosing(_common([site])) if path in graph.calls]
            fitting = [path for path in around if graph.is_block(path)]  # rule 3
            fitting += [path for path in around if graph.is_part(path)]
            home = fitting[0] if fitting else None
            if home:
                held[home].append(site)
            else:
                path = around[0] if around else ""
                homeless[path or "the network"] = graph.why_not(path)
        outer = [  # rule 4
            path for path in held if not any(each in held for each in list(enclosing(path))[1:])
        ]
        if not outer:
            raise PassError(
                "attention was found, but none inside a module with one output and an input of "
                "equal shape: "
                + "; ".join(f"{path} {reason}" for path, reason in homeless.items()),
                where=net.name,
                hint="wrap attention and its residual in a module of their own",
            )
        costs = count_costs(net.module, net.input_shape)
        blocks = []
        for path in outer:
            inside = [each for home in held for each in held[home] if path in enclosing(home)]
            extent = graph.extent(path)
            within = [each for each in enclosing(_common(inside)) if path in enclosing(each)]
            attention = next((each for each in within if graph.is_part(each)), path)  # rule 5
            layout = graph.layout(path)
            assert layout is not None  # by rule 2
            kind = _kind(inside[0], extent, layout, graph)
            inner = graph.extent(attention)
            blocks.append(
                Block(
                    path,
                    attention,
                    kind,
                    extent,
                    inner,
                    costs[path],
                    costs[attention],
                    layout=layout,
                    attention_layout=graph.layout(attention),
                )
            )
        notes = [f"{len(blocks)} blocks"]
        notes += [f"{path}: attention outside any block: {why}" for path, why in homeless.items()]
        notes += [f"{_place(node)}: a softmax, but {reason}" for node, reason in refused]
        found = tuple(blocks)
        return PassResult(net.with_(blocks=found), found != net.blocks, tuple(notes))


class _Modules:
    """The modules of a program as a surrogate sees them: what goes in and out.

    Attributes:
        live: Nodes whose value depends on the image.
        calls: Module path -> the nodes that each of its calls made.
        axes: What the axes of an activation count.
    """

    def __init__(self, program: torch.export.ExportedProgram, image: tuple[int, ...]) -> None:
        self.live = activations(program)
        self.calls = calls(program)
        self.axes = follow_axes(program)
        self._image = image

    def why_not(self, path: str) -> str:
        """Say why a module is no block, `""` when it is one."""
        if path not in self.calls:
            return "is not inside any module"
        for nodes in self.calls[path]:
            entering, leaving = boundary(nodes, self.live)
            main = self._main(nodes)
            if not main:
                return f"takes {len(entering)} activations and returns {len(leaving)}"
            before, after = shape(main), shape(leaving[0])
            if before != after or len(before) not in (3, 4):
                return f"maps {before} to {after}"
            if before != self.extent(path):
                return "is called with different shapes"
            if self._layout(main) is None:
                return f"has neither images nor tokens as axes of {before}"
            if self._layout(main) != self.layout(path):
                return "is called with different layouts"
            if before == self._image:
                return "maps the image to an image"
        if not all(self._adds(nodes) for nodes in self.calls[path]):
            return _NO_RESIDUAL
        return ""

    def is_part(self, path: str) -> bool:
        """Whether a surrogate can stand in for a module (rule 2) that lies beside a residual."""
        return self.why_not(path) == _NO_RESIDUAL

    def is_block(self, path: str) -> bool:
        """Whether a surrogate can stand in for a module that has a residual (rules 2 and 3)."""
        return not self.why_not(path)

    def extent(self, path: str) -> tuple[int, ...]:
        """Return the shape of a module's main input in its first call."""
        main = self._main(self.calls[path][0])
        return shape(main) if main else ()

    def layout(self, path: str) -> Layout | None:
        """Return the layout of a module's main input in its first call, None for any other."""
        main = self._main(self.calls[path][0])
        return self._layout(main) if main else None

    def _main(self, nodes: set[Node]) -> Node | None:
        """Return the activation that a module's call maps, of several the one it adds to."""
        entering, leaving = boundary(nodes, self.live)
        if len(leaving) != 1 or not entering:
            return None
        if len(entering) == 1:
            return entering[0]
        added = [each for each in entering if is_residual(each, leaving[0], nodes)]
        if not added:
            sums = [node for node in nodes if self._is_sum(node)]
            added = [
                each for each in entering if any(is_residual(each, node, nodes) for node in sums)
            ]
        return added[0] if len(added) == 1 else None

    def _is_sum(self, node: Node) -> bool:
        terms = [each for each in node.all_input_nodes if each in self.live]
        return operator(node) == "add" and len(terms) > 1

    def _layout(self, node: Node) -> Layout | None:
        extents = shape(node)
        channels = channel_axis(self.axes.get(node, ()))
        if len(extents) == 4 and channels in (None, 1):
            return "image"
        if len(extents) == 4 and channels == 3:
            return "channels_last"
        if len(extents) == 3 and extents[0] == 1 and channels in (None, 2):
            return "tokens"
        if len(extents) == 3 and extents[1] == 1 and channels in (None, 2):
            return "tokens_first"
        return None

    def _adds(self, nodes: set[Node]) -> bool:
        main, (leaving,) = self._main(nodes), boundary(nodes, self.live)[1]
        return main is not None and is_residual(main, leaving, nodes)


_NO_RESIDUAL = "has no residual connection"


def _no_attention(net: Network, refused: list[tuple[Node, str]]) -> PassError:
    reasons: dict[str, list[str]] = defaultdict(list)
    for node, reason in refused:
        reasons[reason].append(_place(node))
    seen = "".join(
        f"; {len(places)} refused, {reason}: {', '.join(places[:4])}"
        + (", ..." if len(places) > 4 else "")
        for reason, places in reasons.items()
    )
    return PassError(
        "the network holds no attention: looked for softmax(q k) v of activations and for fused "
        f"attention, saw {len(refused)} softmaxes{seen}",
        where=net.name,
        hint="there is nothing to replace; `distillc.compile` compiles it as it is",
    )


def _place(node: Node) -> str:
    return (modules(node) or ("the network",))[-1]


def _common(sites: list[AttentionSite]) -> str:
    """Return the innermost module that made all nodes of some attentions, `""` for the network."""
    first, *rest = [modules(node) for site in sites for node in site.nodes]
    return next((path for path in reversed(first) if all(path in each for each in rest)), "")


def _kind(site: AttentionSite, extent: tuple[int, ...], layout: Layout, graph: _Modules) -> str:
    """Apply rule 6 to a block."""
    if site.form != "softmax":
        return site.form
    operand, axis = site.contracted
    if operand in graph.axes and not counts_channels(graph.axes[operand][axis]):
        return "channel"
    positions = math.prod(extent) // extent[1 if layout == "image" else -1]
    return "global" if site.matrix[-2] == positions else "window"
