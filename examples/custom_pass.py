"""A pass of your own: keep the blocks that are too small to be worth replacing.

    python examples/custom_pass.py examples/checkpoints/restormer_tiny_denoise_sigma25.pth

A package makes such a pass known to `distillc passes` through an entry point:

    [project.entry-points."distillc.passes"]
    DropSmallBlocks = "mypackage.drop_small_blocks:DropSmallBlocks"
"""

from __future__ import annotations

import argparse

import distillc
from distillc.passes import FindAttention, Trace
from distillc.pipeline import Context, Pass, PassResult, require


class DropSmallBlocks(Pass):
    """Forget the blocks that hold less than a share of all blocks' MACs.

    Given:   Block("latent.0", macs=1% of all), Block("refinement.0", macs=20% of all)
    Result:  Block("refinement.0")
    """

    after = (FindAttention,)

    def __init__(self, share: float = 0.05) -> None:
        self.share = share

    def requires(self, net: distillc.Network) -> None:
        require(bool(net.blocks), "no blocks are known", "FindAttention")

    def run(self, net: distillc.Network, ctx: Context) -> PassResult:
        total = sum(block.cost.macs for block in net.blocks)
        large = tuple(block for block in net.blocks if block.cost.macs >= self.share * total)
        dropped = len(net.blocks) - len(large)
        return PassResult(net.with_(blocks=large), dropped > 0, (f"{dropped} blocks dropped",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--share", type=float, default=0.05)
    arguments = parser.parse_args()
    net = distillc.load(arguments.checkpoint)
    net = distillc.Pipeline([Trace(), FindAttention(), DropSmallBlocks(arguments.share)]).run(net)
    for block in net.blocks:
        print(f"{block.name:24} {block.kind:8} {block.cost.macs / 1e6:8.1f} M MACs")


if __name__ == "__main__":
    main()
