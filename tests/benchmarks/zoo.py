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
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import distillc
from distillc.errors import DistillcError, PassError
from distillc.network import Network
from distillc.passes import (
    ApplyReplacements,
    AuditOperators,
    DistillBlocks,
    FindAttention,
    SynthesizeSurrogates,
    Trace,
)
from distillc.pipeline import Context
from distillc.runtime.verify import verify_bundle
from distillc.workdir import write_json
from tests.benchmarks.report import describe_machine, markdown

TIMEOUT_S = 14400
"""Longest time of one network."""

STAGES = ("trace", "audit", "find", "surrogates", "distil", "host", "aarch64")

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
smooth. A near tie that rounding decides would move every token between; none was met. The nearest
codes of RestoreFormer, CodeFormer, FeMaSR and AdaCode could flip likewise; one image was compared.

{table}

CodeFormer takes 512x512 alone, and its widths are fixed in its code: 399 GMACs
(counted by hand with torch's `FlopCounterMode`). Its teacher and hybrid ran side by side under
qemu, beside other work; `s` is the sum of both.

Real weights: `distillc convert craft_x4.pth --task sr:scale=4 --size 64 --budget smoke` (CRAFT,
MIT, Amazingren/NTIRE2024_ESR) and `dctlsa_x2.pt` with `sr:scale=2` (DCTLSA, zengkun301/DCTLSA) go
through to verified bundles, largest differences from torch 5.7e-07 and 7.2e-07 under qemu-aarch64;
after the ten training steps of `smoke` the hybrids are no faster than the networks.
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


class Stages:
    """The stages of one network; each gives what the table shows of it."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.net: Network
        self.stages: dict[str, Callable[[], str]] = {
            "trace": self.trace,
            "audit": self.audit,
            "find": self.find,
            "surrogates": self.surrogates,
            "distil": self.distil,
            "host": self.host,
            "aarch64": self.aarch64,
        }

    def trace(self) -> str:
        edge = self.model.get("input_size", 64)
        edge = edge[-1] if isinstance(edge, list) else edge
        module = Images(self.model).eval()
        net = distillc.trace(module, torch.rand(1, 3, edge, edge), name=self.model["id"])
        self.net = Trace()(net)
        return f"x{net.scale}, multiple of {net.multiple}"

    def audit(self) -> str:
        self.net = AuditOperators()(self.net)
        return "ok"

    def find(self) -> str:
        self.net = FindAttention()(self.net)
        found = Counter(
            f"{block.kind} {type(self.net.module.get_submodule(block.name)).__name__}"
            for block in self.net.blocks
        )
        said = ", ".join(f"{count} {block}" for block, count in found.items())
        wanted = EXPECTED.get(self.model["id"], said)
        if sorted(said.split(", ")) != sorted(wanted.split(", ")):
            raise PassError(f"found {said}, expected {wanted}")
        return said

    def surrogates(self) -> str:
        self.net = SynthesizeSurrogates(("conv", "mamba"))(self.net)
        return f"{len(self.net.candidates)} of {len(self.net.blocks)} blocks"

    def distil(self) -> str:
        task = f"sr:scale={self.net.scale}" if self.net.scale > 1 else "denoise:sigma=25"
        patch = self.net.size[0]
        self.net = DistillBlocks(None, task, steps=4, batch=1, patch=patch)(self.net, Context())
        labels = {name: found[-1].label for name, found in self.net.candidates.items()}
        self.net = ApplyReplacements(labels)(self.net)
        return f"{len(labels)} replaced"

    def host(self) -> str:
        return self._compiled("host")

    def aarch64(self) -> str:
        return self._compiled("generic-aarch64")

    def _compiled(self, target: str) -> str:
        errors = []
        for net in (self.net.with_(decisions={}), self.net):
            with tempfile.TemporaryDirectory() as folder:
                bundle = distillc.compile(net, target, net.size, directory=Path(folder))
                errors.append(verify_bundle(bundle, []).max_error)
        return ", ".join(f"{each:.0e}" for each in errors)


def run_one(model: dict[str, Any], until: str) -> dict[str, Any]:
    """Run the stages of one network in this process."""
    row: dict[str, Any] = {"network": model["id"], "attention": model["kind"], "seconds": {}}
    for name, stage in Stages(model).stages.items():
        start = time.monotonic()
        try:
            row[name] = stage()
        except Exception as error:
            own = isinstance(error, DistillcError)
            text = str(error) if own else repr(error)[:600]
            row |= {name: "FAILS", "error": " ".join(text.split()), "clear": own}
            break
        finally:
            row["seconds"][name] = round(time.monotonic() - start, 1)
        if name == until:
            break
    return row


def run_apart(zoo: Path, name: str, until: str) -> dict[str, Any]:
    """Run one network in a process of its own."""
    words = [sys.executable, "-m", "tests.benchmarks.zoo", str(zoo), "--one", name]
    try:
        done = subprocess.run(
            [*words, "--until", until], capture_output=True, text=True, timeout=TIMEOUT_S
        )
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        row = {"network": name, "error": f"not done after {TIMEOUT_S} s", "clear": False}
    except (IndexError, ValueError):
        row = {"network": name, "error": done.stderr[-600:], "clear": False}
    return row


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
        print(json.dumps(run_one(models[given.one], given.until)))
        return
    rows: dict[str, dict[str, Any]] = {}
    if given.json and given.json.exists():
        rows = {row["network"]: row for row in json.loads(given.json.read_text())["rows"]}
    for name in given.only or [each for each in models if each not in rows]:
        rows[name] = run_apart(given.zoo, name, given.until)
        print(rows[name], file=sys.stderr, flush=True)
        if given.json:
            write_json(given.json, {"machine": describe_machine(1), "rows": list(rows.values())})
    ordered = [{**rows[name], "s": _seconds(rows[name])} for name in models if name in rows]
    table = markdown({each: each for each in ("network", *STAGES, "s", "error")}, ordered)
    print(table)
    if given.docs:
        given.docs.write_text(DOCS.format(table=table))


def _seconds(row: dict[str, Any]) -> str:
    return f"{sum(row['seconds'].values()):.0f}" if "seconds" in row else ""


if __name__ == "__main__":
    main()
