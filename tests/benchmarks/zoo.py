"""Which networks go how far: every architecture of spandrel with attention, stage by stage.

    python -m tests.benchmarks.zoo ../shared/zoo.json --json zoo.json --docs NETWORKS.md
    python -m tests.benchmarks.zoo ../shared/zoo.json --only SwinIR DAT --until find

Each network is built from its tiny configuration with random weights, in a process of its own. A
stage that fails ends its row with the error. Rows that a JSON file holds already are kept, unless
`--only` names their networks.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

import distillc
from distillc.network import Network
from tests.benchmarks.stages import Stages, run_rows, table

EXPECTED = {
    "Restormer": "8 channel TransformerBlock",
    "SwinIR": "4 window SwinTransformerBlock",
    "SwinIR-light-x2": "4 window SwinTransformerBlock",
    "Uformer": "6 window LeWinTransformerBlock, 3 global LeWinTransformerBlock",
    "Uformer-128": "8 window LeWinTransformerBlock, 1 global LeWinTransformerBlock",
    "DAT": "1 window DATB, 1 channel DATB",
    "HAT": "2 window HAB, 1 window OCAB",
    "SCUNet": "6 window Block, 1 global Block",
    "HVICIDNet": "5 channel I_LCA, 6 channel HV_LCA",
    "CRAFT": "4 window SRWAB, 2 channel HFB",
    "ATD": "1 window BasicBlock",
    "RGT": "2 window Block, 2 global Block",
    "IPT": "1 global TransformerEncoderLayer, 1 global TransformerDecoderLayer",
    "RestoreFormer": "5 global MultiHeadAttnBlock",
    "FFTformer": "4 frequency TransformerBlock",
    "FeMaSR": "24 window SwinTransformerBlock",
    "AdaCode": "48 window SwinTransformerBlock",
    "CodeFormer": "6 global AttnBlock, 1 global TransformerSALayer",
    "SRFormer": "2 window PSA_Block",
    "GRL": "2 window EfficientMixAttnTransformerBlock",
    "Swin2SR": "4 window SwinTransformerBlock",
    "DRCT": "5 window SwinTransformerBlock",
    "DITN": "1 channel ITL",
    "M3SNet": "1 channel Attention",
    "FDAT": "1 window SimplifiedDATBlock, 1 channel SimplifiedDATBlock",
    "OmniSR": "1 window Sequential",
    "DCTLSA": "24 linear WindowAttention",
    "RetinexFormer": "5 channel IGAB",
    "KBNet_l": "8 channel KBBlock_l",
}
"""What the sources of these networks and the depths in their configurations say there is. Three
need a word: ATD's two layers return an image and a dictionary, so their group is the block; the
window, grid and channel attention of OmniSR run on other layouts inside one branch, which is the
block; the output of a sixth I_LCA of HVICIDNet is never used."""

TASKS = {"HVICIDNet": "deblur"}
"""Where the first task that fits will not do: HVICIDNet raises the brightest of three colours to a
power, which is NaN where noise of `denoise` makes all of them less than 0."""

DOCS = """\
# Networks

What the passes and the compiler do with every attention architecture of spandrel and
spandrel_extra_arches, each in a tiny configuration with random weights at 64x64 (`make zoo`):

- `trace`: scale and size multiple that were found by trying.
- `audit`: whether every operator can be compiled.
- `find`: the attention blocks, by kind and class of the module that a surrogate would replace;
  other ones than the sources say (`EXPECTED` in `tests/benchmarks/zoo.py`) would fail here.
- `surrogates`, `distil`: how many blocks took surrogates, were distilled for four steps, replaced.
- `host`, `aarch64`: the largest difference of the compiled code from torch, teacher and hybrid; the
  latter under qemu-aarch64.
- `s`: seconds of all stages.

Sorted tokens (ATD) are compared in the stable order: torch's own sort leaves the order of equal
elements open, and on a CPU with AVX-512 it is another, which moves ATD's output by 4e-3. With that
order settled, compiled code and torch differ by 1.2e-6 at most on 60 images, 30 of noise and 30
smooth. A near tie that rounding decides moves every token between: none was met there, but
[ATD-light at 128x128](results.md#transformers-with-attention-in-windows) meets one. The nearest
codes of RestoreFormer, CodeFormer, FeMaSR and AdaCode could flip likewise; one image was compared.

{table}

HVICIDNet, made for dark images, is NaN inside where noise makes all three colours of a pixel less
than 0, so `denoise` is refused for it with that reason; its surrogates learn from `deblur`.

CodeFormer takes only 512x512, and its widths are fixed in its code: 399 GMACs
(counted by hand with torch's `FlopCounterMode`). Its teacher and hybrid ran side by side under
qemu, beside other work; `s` is the sum of both. Its row is of older code than the others.

Real weights: `distillc convert craft_x4.pth --task sr:scale=4 --size 64 --budget smoke` (CRAFT,
MIT, Amazingren/NTIRE2024_ESR) and `dctlsa_x2.pt` with `sr:scale=2` (DCTLSA, zengkun301/DCTLSA) go
through to verified bundles, largest differences from torch 5.7e-07 and 7.2e-07 under qemu-aarch64;
after the ten training steps of `smoke` the hybrids are no faster than the networks.

Seconds of `distillc inspect restormer.pth` on two cores (x86-64), the median of four runs (before:
the second of two), while other work was stopped; the file holds `Restormer(...).state_dict()` of
`distillc.frontend.restormer`:

| network               | nodes | s   | before |
|-----------------------|-------|----:|-------:|
| Restormer, 14 blocks  | 1026  | 4.0 |    7.5 |
| Restormer, 44 blocks  | 3156  | 6.8 |    9.7 |

Before, the process that reads the file started when it was asked, and imported torch while nothing
else ran; now it starts first. Python's search for cycles took a fifth of the rest and, at the end
of the process, a second of its own: `inspect` does without both. SciPy, scikit-image and matplotlib
wait until an image asks for them. The first network has
`num_blocks=(1, 2, 2, 2)` and `num_refinement_blocks=2`.
"""


class Images(nn.Module):
    """A network of some spandrel package, as a map from image to image."""

    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        module, _, name = model["cls"].partition(":")
        torch.manual_seed(0)
        self.net = getattr(importlib.import_module(module), name)(**model["kwargs"])
        self.options = model.get("forward_kwargs", {})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.net(x, **self.options)
        image: torch.Tensor = result[0] if isinstance(result, (tuple, list)) else result
        return image


def build(model: dict[str, Any]) -> Network:
    """Return a network of the zoo, as `distillc.trace` makes it."""
    edge = model.get("input_size", 64)
    edge = edge[-1] if isinstance(edge, list) else edge
    module = Images(model).eval()
    return distillc.trace(module, torch.rand(1, 3, edge, edge), name=model["id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--one", help="run this network here and print its row as JSON")
    parser.add_argument("--until", default="aarch64", help="last stage")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    models = {each["id"]: each for each in json.loads(given.zoo.read_text())["models"]}
    if given.one:
        model = models[given.one]
        name = model["id"]
        stages = Stages(lambda: build(model), EXPECTED.get(name), TASKS.get(name))
        print(json.dumps(stages.run(given.until)))
        return
    command = ["tests.benchmarks.zoo", str(given.zoo), "--until", given.until]
    rows = run_rows(command, list(models), given.only, given.json)
    print(shown := table("network", rows))
    if given.docs:
        given.docs.write_text(DOCS.format(table=shown))


if __name__ == "__main__":
    main()
