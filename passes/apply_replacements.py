"""Turn decisions into the hybrid."""

from __future__ import annotations

from collections.abc import Mapping

from distillc.errors import PassError
from distillc.frontend.cost import output_shape
from distillc.network import KEEP, Network
from distillc.passes.search_replacements import SearchReplacements
from distillc.pipeline import Context, Pass, PassResult, require


class ApplyReplacements(Pass):
    """Fix which block is replaced by what; `Network.hybrid()` is the result.

    1. Decisions given here win over those of the search.
    2. A block without a decision is kept.
    3. Weights healed for other decisions are dropped.

    Given:   decisions = {"refinement.0": "mamba"}
    Result:  decisions = {"encoder_level1.0": "keep", ..., "refinement.0": "mamba"}

    Args:
        decisions: Block name -> `"keep"` or a candidate's label.

    Raises:
        PreconditionError: Neither the search nor the user decided anything.
        PassError: A decision names an unknown block or candidate, or the hybrid's output has
            another shape than the teacher's.
    """

    after = (SearchReplacements,)

    def __init__(self, decisions: Mapping[str, str] | None = None) -> None:
        self.decisions = decisions

    def requires(self, net: Network) -> None:
        decided = self.decisions is not None or bool(net.decisions)
        require(decided, "nothing is decided", "SearchReplacements, or give decisions,")

    def run(self, net: Network, ctx: Context) -> PassResult:
        chosen = net.decisions if self.decisions is None else self.decisions  # rule 1
        for name, label in chosen.items():
            net.block(name)
            if label != KEEP:
                net.surrogate(name, label)
        complete = {block.name: chosen.get(block.name, KEEP) for block in net.blocks}  # rule 2
        same = complete == dict(net.decisions)
        healed = net.healed if same else None  # rule 3
        replaced = sum(label != KEEP for label in complete.values())
        note = f"{replaced} of {len(complete)} blocks replaced"
        return PassResult(net.with_(decisions=complete, healed=healed), not same, (note,))

    def ensures(self, net: Network) -> None:
        hybrid = net.hybrid()
        teacher = output_shape(net.module, net.input_shape)
        try:
            shape = output_shape(hybrid, net.input_shape)
        except Exception as error:
            raise PassError(f"the hybrid does not run: {error}", where=net.name) from error
        if shape != teacher:
            raise PassError(
                f"the hybrid's output is {shape}, the teacher's {teacher}",
                where=net.name,
                hint="a surrogate must keep the shape of its block",
            )
        for name, label in net.decisions.items():
            if label == KEEP:
                continue
            surrogate = net.surrogate(name, label)
            path = name if surrogate.scope == "block" else net.block(name).attention
            if type(hybrid.get_submodule(path)) is not type(surrogate.module):
                raise PassError("the surrogate is not in its place", where=path)
