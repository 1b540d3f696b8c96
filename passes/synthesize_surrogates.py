"""Give every block its candidates."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from distillc.errors import PassError
from distillc.frontend.cost import count_cost
from distillc.network import Block, Network, Scope, Surrogate
from distillc.passes.find_attention import FindAttention
from distillc.pipeline import Context, Pass, PassResult, require
from distillc.surrogates.registry import build_surrogate, parse_label


class SynthesizeSurrogates(Pass):
    """Build untrained surrogates for every block.

    1. A block on images (B, C, H, W) gets one surrogate per label.
    2. A block on tokens (B, L, C) gets none, and a note.
    3. `@attention` needs a module of its own, beside the residual, on images; a block without one
       gets the other labels, and a note.
    4. A convolution that replaces a block starts from the block's own gated feed-forward, where
       it has one; every other surrogate starts idle.

    Given:   Block("refinement.0", shape=(1, 32, 256, 256))
    Result:  candidates["refinement.0"] = (Surrogate("conv"), Surrogate("scan1"), ...)

    Args:
        labels: Families with their hyper-parameters, say `"scan2:state=4"` for the whole block
            (attention and feed-forward), `"scan2:state=4@attention"` for the former alone.

    Raises:
        UsageError: A label is unknown.
        PassError: No block can take a surrogate.
    """

    after = (FindAttention,)

    def __init__(
        self,
        labels: Sequence[str] = ("conv", "scan1", "scan2"),
    ) -> None:
        self.choices = tuple(dict.fromkeys(parse_label(label) for label in labels))

    def requires(self, net: Network) -> None:
        require(bool(net.blocks), "no blocks are known", "FindAttention")

    def run(self, net: Network, ctx: Context) -> PassResult:
        candidates = {}
        notes = []
        for block in net.blocks:
            if len(block.shape) != 4:  # rule 2
                notes.append(f"{block.name}: works on tokens {block.shape}, kept")
                continue
            choices = self.choices
            if why := _why_whole(block):  # rule 3
                choices = tuple(each for each in choices if each[1] == "block")
                if choices != self.choices:
                    notes.append(f"{block.name}: no @attention, {why}")
            if choices:
                candidates[block.name] = tuple(  # rule 1
                    self._build(net, block, spec, scope, ctx.seed) for spec, scope in choices
                )
        if not candidates:
            raise PassError(
                "no block can take a surrogate: " + "; ".join(notes),
                where=net.name,
                hint="only blocks on images (B, C, H, W) are supported so far; labels without "
                "@attention replace a whole block",
            )
        count = sum(map(len, candidates.values()))
        notes.append(f"{count} candidates for {len(candidates)} blocks")
        return PassResult(net.with_(candidates=candidates), True, tuple(notes))

    def _build(self, net: Network, block: Block, spec: str, scope: Scope, seed: int) -> Surrogate:
        shape = block.shape if scope == "block" else block.attention_shape
        # A seed of its own, so that a candidate does not depend on which others are built.
        own = zlib.crc32(f"{seed}/{block.name}/{spec}@{scope}".encode())
        module = build_surrogate(spec, shape[1], scope, own, net.module.get_submodule(block.name))
        return Surrogate(block.name, spec, scope, module, count_cost(module, shape))


def _why_whole(block: Block) -> str:
    """Say why a block's attention cannot be replaced alone, `""` when it can."""
    if block.attention == block.name:
        return "its attention has no module of its own beside the residual"
    if len(block.attention_shape) != 4:
        return f"its attention works on tokens {block.attention_shape}"
    return ""
