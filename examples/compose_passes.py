"""Compose passes in Python: replace every block of a checkpoint by the surrogate that fits best.

    python examples/compose_passes.py examples/checkpoints/restormer_tiny_denoise_sigma25.pth

No search: after distillation each block takes the candidate whose features are closest to the
block's own. The result is compiled for this machine, verified, and saved.
"""

from __future__ import annotations

import argparse

import distillc
from distillc.passes import (
    ApplyReplacements,
    DistillBlocks,
    FindAttention,
    SynthesizeSurrogates,
    Trace,
)
from distillc.runtime.verify import verify_bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", default="all_replaced.distillc")
    arguments = parser.parse_args()

    net = distillc.load(arguments.checkpoint).at((arguments.size, arguments.size))
    distil = distillc.Pipeline(
        [
            Trace(),
            FindAttention(),
            SynthesizeSurrogates(("conv", "mamba")),
            DistillBlocks(steps=arguments.steps),
        ]
    )
    net = distil.run(net)
    decisions = {
        name: min(candidates, key=lambda each: each.fidelity or 1.0).label
        for name, candidates in net.candidates.items()
    }
    net = distillc.Pipeline([ApplyReplacements(decisions)]).run(net)
    bundle = distillc.compile(net, target="host", size=net.size)
    check = verify_bundle(bundle)
    saved = bundle.save(arguments.out, overwrite=True)
    print(f"{saved.path}: {len(decisions)} blocks replaced, max error {check.max_error:.1e}")


if __name__ == "__main__":
    main()
