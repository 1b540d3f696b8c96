"""Find the blocks that hold attention."""

from __future__ import annotations

import math
from collections import defaultdict

from torch.fx import Node

from distillc.errors import PassError
from distillc.frontend.attention_graph import AttentionSite, find_sites
from distillc.frontend.axes import counts_channels
from distillc.frontend.cost import count_costs
from distillc.frontend.graph import enclosing, modules
from distillc.frontend.replaceable import ReplaceableModules
from distillc.network import Block, Layout, Network
from distillc.passes.trace import Trace
from distillc.pipeline import Context, Pass, PassResult, require

AS_IS = (
    "compile the network as it is: `distillc convert --no-distill`, or `distillc.compile` in Python"
)


class FindAttention(Pass):
    """Find the residual blocks that hold attention, from nothing but the graph.

    1. An attention is a product of two activations, normalised by a softmax, multiplied with a
       third activation; or a fused operator. Scales, biases, masks and reshapes may stand between,
       heads be mixed, the best keys be chosen, and other products be joined. The softmax may be
       written out, or be another function of the scores (ReLU, sigmoid, sparsemax), the queries be
       weights, and the scores come from another attention. A sum over products of elements is a
       product too, as where pixels attend to a neighbourhood, and so is a distance. An attention
       is also a linear one, the product of an activation with that of two others, and one in
       frequencies, the inverse Fourier transform of the product of two transformed activations. A
       softmax over anything else (a gate, a pooling) is none.
    2. A surrogate can stand in for a module that, in each of its calls, takes one activation and
       returns one of equal shape and layout, (B, C, H, W), (B, H, W, C), (B, H W, C) or
       (H W, B, C). A module that adds to one of them, at its end or inside, may take further ones
       (the keys of a cross attention, a guide): surrogates see the one that is added to. It may
       return further ones with the same grid, which surrogates make too, or of the shape of what
       it takes (attention maps), which they hand on.
    3. An attention's block is the innermost such module around it with a residual connection (the
       input reaches the output through additions and norms); the innermost such module where none
       has one.
    4. What maps image to image is a network, never a block. Of nested blocks the outer one stays,
       and several attentions in one block are one block.
    5. Its attention is the innermost module as in rule 2 that holds all attentions of the block
       and has no residual connection, parallel branches included; the block where there is none.
    6. The kind is `frequency` or `linear` by rule 1; else `channel` when the q k product sums over
       positions (the matrix is channels x channels), `global` when its rows or columns are all
       positions of the block, and `window`.

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
        graph = ReplaceableModules(net.program, net.input_shape)
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
                hint=f"wrap attention and its residual in a module of their own, or {AS_IS}",
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


def _no_attention(net: Network, refused: list[tuple[Node, str]]) -> PassError:
    reasons: dict[str, list[str]] = defaultdict(list)
    for node, reason in refused:
        reasons[reason].append(_place(node))
    seen = "".join(
        f"; {len(places)} refused, {reason}: {', '.join(places[:4])}"
        + (", ..." if len(places) > 4 else "")
        for reason, places in reasons.items()
    )
    assert net.program is not None
    scans = sum("selective_scan" in str(node.target) for node in net.program.graph.nodes)
    if scans:
        seen += f"; it holds {scans} selective scans, which is what attention is replaced by"
    return PassError(
        "the network holds no attention: looked for softmax(q k) v of activations and for fused "
        f"attention, saw {len(refused)} softmaxes{seen}",
        where=net.name,
        hint=f"there is nothing to replace; {AS_IS}",
    )


def _place(node: Node) -> str:
    return (modules(node) or ("the network",))[-1]


def _common(sites: list[AttentionSite]) -> str:
    """Return the innermost module that made all nodes of some attentions, `""` for the network."""
    first, *rest = [modules(node) for site in sites for node in site.nodes]
    return next((path for path in reversed(first) if all(path in each for each in rest)), "")


def _kind(
    site: AttentionSite, extent: tuple[int, ...], layout: Layout, graph: ReplaceableModules
) -> str:
    """Apply rule 6 to a block."""
    if site.form != "softmax":
        return site.form
    operand, axis = site.contracted
    if operand in graph.axes and not counts_channels(graph.axes[operand][axis]):
        return "channel"
    positions = math.prod(extent) // extent[1 if layout == "image" else -1]
    return "global" if positions in site.matrix[-2:] else "window"
