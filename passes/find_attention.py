"""Find the blocks that hold attention."""

from __future__ import annotations

from torch.fx import Node

from distillc.errors import PassError
from distillc.frontend.attention_graph import (
    AttentionSite,
    activations,
    boundary,
    enclosing,
    find_sites,
    is_residual,
    modules,
    shape,
)
from distillc.frontend.cost import count_costs
from distillc.network import Block, Cost, Network
from distillc.passes.trace import Trace
from distillc.pipeline import Context, Pass, PassResult, require


class FindAttention(Pass):
    """Find the residual blocks that hold attention, from the graph alone.

    1. An attention is a product of two activations, normalised by a softmax (scales, biases, masks
       and reshapes may stand between), multiplied with a third activation; or a fused operator.
       A softmax over anything else (a gate, a pooling) is none.
    2. Its module is the innermost one whose call made all three.
    3. Its block is the innermost module around that with one activation in and one out, of equal
       shape, and a residual connection: the input reaches the output through additions.
    4. The network itself is never a block; of nested blocks the outer one stays, and several
       attentions in one block are one block.
    5. The kind is `channel` when the matrix is channels x channels (the product sums over
       pixels), `global` when its rows are all pixels of the block, `window` otherwise.

    Given:   %softmax = softmax(matmul(%q, %k) * %temperature); matmul(%softmax, %v)
             in encoder_level1.0.attn
    Result:  Block("encoder_level1.0", attention="encoder_level1.0.attn", kind="channel", ...)

    Raises:
        PassError: There is no attention, or none in a block that could be replaced; the message
            says what was seen.
    """

    after = (Trace,)

    def requires(self, net: Network) -> None:
        require(net.program is not None, "the network has no graph", "Trace")

    def run(self, net: Network, ctx: Context) -> PassResult:
        assert net.program is not None
        live = activations(net.program)
        sites, refused = find_sites(net.program, live)  # rule 1
        if not sites:
            seen = "; ".join(
                f"softmax in {(modules(node) or ('the network',))[-1]}: {reason}"
                for node, reason in refused[:4]
            )
            raise PassError(
                "the network holds no attention: no softmax(q k) v was found"
                + (f" ({seen})" if seen else ""),
                where=net.name,
                hint="there is nothing to replace; `distillc.compile` compiles it as it is",
            )
        members = _members(net.program.graph.nodes)
        costs = count_costs(net.module, net.input_shape)
        blocks: dict[str, Block] = {}
        homeless = []
        for site in sites:
            attention = _common(site)  # rule 2
            block = self._block(site, attention, members, live, costs)
            if block is None:
                homeless.append(attention or "the network")
            elif block.name not in blocks:
                blocks[block.name] = block
        outer = tuple(  # rule 4
            block
            for name, block in blocks.items()
            if not any(around in blocks for around in enclosing(name.rpartition(".")[0]))
        )
        if not outer:
            raise PassError(
                "attention was found, but none inside a residual block with one input and one "
                f"output of equal shape: {', '.join(dict.fromkeys(homeless))}",
                where=net.name,
                hint="wrap attention and its residual in a module of their own",
            )
        notes = [f"{len(outer)} blocks"]
        notes += [f"{path}: attention outside any residual block" for path in homeless]
        notes += [f"a softmax in {modules(node)[-1:]} is no attention" for node, _ in refused]
        return PassResult(net.with_(blocks=outer), outer != net.blocks, tuple(notes))

    def _block(
        self,
        site: AttentionSite,
        attention: str,
        members: dict[str, set[Node]],
        live: set[Node],
        costs: dict[str, Cost],
    ) -> Block | None:
        """Apply rules 3 and 5."""
        for path in enclosing(attention):
            if path not in members:  # a list of modules is never called itself
                continue
            nodes = members[path]
            entering, leaving = boundary(nodes, live)
            if len(entering) != 1 or len(leaving) != 1:
                continue
            extent = shape(entering[0])
            same = extent == shape(leaving[0]) and len(extent) in (3, 4)
            if not same or not is_residual(entering[0], leaving[0], nodes):
                continue
            _, inner = boundary(members[attention], live)
            return Block(
                path,
                attention,
                _kind(site, extent),
                extent,
                shape(inner[0]) if inner else extent,
                costs[path],
                costs[attention],
            )
        return None


def _members(nodes: object) -> dict[str, set[Node]]:
    """Return the nodes that each module's call made."""
    members: dict[str, set[Node]] = {}
    for node in nodes:  # type: ignore[attr-defined]
        for path in modules(node):
            members.setdefault(path, set()).add(node)
    return members


def _common(site: AttentionSite) -> str:
    """Return the innermost module that made all nodes of an attention, `""` for the network."""
    stacks = [modules(node) for node in site.nodes]
    common = ""
    for path in stacks[0]:
        if all(path in stack for stack in stacks):
            common = path
    return common


def _kind(site: AttentionSite, extent: tuple[int, ...]) -> str:
    """Apply rule 5 to a block on (B, C, H, W) or (B, L, C)."""
    channels = extent[1] if len(extent) == 4 else extent[2]
    pixels = extent[2] * extent[3] if len(extent) == 4 else extent[1]
    rows = site.matrix[-2]
    heads = site.matrix[-3] if len(site.matrix) > 2 else 1
    if rows == pixels:
        return "global"
    if site.contraction == pixels:
        return "channel"
    tokens = channels in (site.contraction * heads, site.contraction)
    return "channel" if not tokens and channels in (rows * heads, rows) else "window"
