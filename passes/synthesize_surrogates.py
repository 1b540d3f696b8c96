"""Give every block its candidates."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from torch import nn

from distillc.errors import PassError
from distillc.frontend.calls import Bound, Call, record_calls
from distillc.frontend.cost import count_cost, on_meta
from distillc.network import Block, Network, Scope, Surrogate
from distillc.passes.find_attention import AS_IS, FindAttention
from distillc.pipeline import Context, Pass, PassResult, require
from distillc.surrogates.answering import Answering
from distillc.surrogates.layouts import OnLayout, find_grid
from distillc.surrogates.specs import build_surrogate, parse_label
from distillc.surrogates.stand_in import StandIn


class SynthesizeSurrogates(Pass):
    """Build untrained surrogates for every block.

    1. A block gets one surrogate per label. Surrogates work on images: one for a block on tokens
       or with channels last, or with more arguments than its input, is wrapped in `OnLayout`, one
       for a block that returns several values in `Answering`.
    2. A block on tokens whose number fits no grid of the image's sides gets none, and a note.
    3. `@attention` needs a module of its own, beside the residual, on images; a block without one
       gets the other labels, and a note.
    4. A surrogate starts from weights of its block where its family can use them, else idle.

    Given:   Block("refinement.0", shape=(1, 32, 256, 256))
    Result:  candidates["refinement.0"] = (Surrogate("conv"), Surrogate("mamba"), ...)

    Args:
        labels: Families with their hyper-parameters, say `"mamba:state=4"` for the whole block
            (attention and feed-forward), `"mamba:state=4@attention"` for only the former.

    Raises:
        UsageError: A label is unknown.
        PassError: No block can take a surrogate.
    """

    after = (FindAttention,)

    def __init__(
        self,
        labels: Sequence[str] = ("conv", "mamba"),
    ) -> None:
        self.choices = tuple(dict.fromkeys(parse_label(label) for label in labels))

    def requires(self, net: Network) -> None:
        require(bool(net.blocks), "no blocks are known", "FindAttention")

    def run(self, net: Network, ctx: Context) -> PassResult:
        candidates = {}
        notes = []
        paths = [path for block in net.blocks for path in (block.name, block.attention)]
        twin, (image,) = on_meta(net.module, [net.input_shape])
        calls = record_calls(twin, paths, image)
        for block in net.blocks:
            if not find_grid(block.shape, block.layout, net.size):  # rule 2
                notes.append(f"{block.name}: {_no_grid(block.shape, net.size)}, kept")
                continue
            if block.name not in calls:
                notes.append(f"{block.name}: {_SEVERAL}, kept")
                continue
            choices = self.choices
            if why := _why_whole(block, net.size, calls):  # rule 3
                choices = tuple(each for each in choices if each[1] == "block")
                if choices != self.choices:
                    notes.append(f"{block.name}: no @attention, {why}")
            if choices:
                candidates[block.name] = tuple(  # rule 1
                    self._build(net, twin, block, calls, spec, scope, ctx.seed)
                    for spec, scope in choices
                )
        if not candidates:
            parts_only = all(scope == "attention" for _, scope in self.choices)
            raise PassError(
                "no block can take a surrogate: " + "; ".join(notes),
                where=net.name,
                hint="labels without @attention replace a whole block"
                if parts_only
                else f"there is nothing to replace; {AS_IS}",
            )
        count = sum(map(len, candidates.values()))
        notes.append(f"{count} candidates for {len(candidates)} blocks")
        return PassResult(net.with_(candidates=candidates), True, tuple(notes))

    def _build(
        self,
        net: Network,
        twin: nn.Module,
        block: Block,
        calls: Mapping[str, Call],
        spec: str,
        scope: Scope,
        seed: int,
    ) -> Surrogate:
        whole = scope == "block"
        shape = block.shape if whole else block.attention_shape
        layout = block.layout if whole else block.attention_layout
        assert layout is not None
        channels = shape[1] if layout == "image" else shape[-1]
        # A seed of its own, so that a candidate does not depend on which others are built.
        own = zlib.crc32(f"{seed}/{block.name}/{spec}@{scope}".encode())
        source = net.module.get_submodule(block.name)
        module: StandIn = build_surrogate(spec, channels, scope, own, source)
        path = block.name if whole else block.attention
        call = calls[path]
        if layout != "image" or (call.has_more and not call.nests):
            grid = find_grid(shape, layout, net.size)
            assert grid is not None
            module = OnLayout(module, layout, grid)
        if call.nests:
            module = Answering(module, call, layout)
        module.stand_in_for(twin.get_submodule(path))
        module.eval()
        cost = count_cost(Bound(module, call), tuple(call.given.shape))
        return Surrogate(block.name, spec, scope, module, cost)


def _no_grid(shape: tuple[int, ...], size: tuple[int, int]) -> str:
    return f"works on tokens {shape}, which fit no grid of an image of {size[0]}x{size[1]}"


_SEVERAL = "takes no tensor, or returns none of its shape"


def _why_whole(block: Block, size: tuple[int, int], calls: Mapping[str, Call]) -> str:
    """Say why a block's attention cannot be replaced by itself, `""` when it can."""
    if block.attention == block.name:
        return "its attention has no module of its own beside the residual"
    if block.attention not in calls:
        return f"its attention {_SEVERAL}"
    if not find_grid(block.attention_shape, block.attention_layout, size):
        return f"its attention {_no_grid(block.attention_shape, size)}"
    return ""
