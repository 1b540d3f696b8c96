"""The share of operators that compile, of those that networks in public repositories call.

    python -m tests.benchmarks.operator_share FOLDER --docs docs/measurements/operators.md

FOLDER has a folder for each repository, with its sources (`git clone --depth 1`). They are read,
never run. An operator compiles where its call in `operator_samples.py` passes the audit and
compiled code gives what torch gives; a name without a call there counts as one that does not.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
import tvm
from torch import nn
from tvm import relax

from distillc.codegen.build.library import tvm_target
from distillc.codegen.operators.audit import audit
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.stages import lower
from distillc.targets.base import get_target
from tests.benchmarks.operator_calls import calls_of
from tests.benchmarks.operator_samples import FUNCTIONS, LAYERS, SHAPE, TOKENS, VOLUMES, Call

HOST = get_target("host")

_TOGETHER = 32
"""Calls in one program: most of the time goes into starting each."""

DOCS = """\
# Operators

Which of torch's functions, layers and methods the networks of {repositories} public repositories
of image restoration call, and which of them compile (`python -m tests.benchmarks.operator_share
FOLDER`, where FOLDER holds the repositories). Sources are read, not run. A network is a class with
a `forward` that is not a loss; a class that is copied counts once. Containers, drop-out and what
runs once in `__init__` do not count. An operator compiles where a call of it
(`tests/benchmarks/operator_samples.py`) passes the audit and compiled code gives what torch gives.

**{compiling} of {names} names compile, which are {share:.2f} % of {calls} calls.** One call of
each is tried: other options of the same operator may be refused.

{missing}

| operator | calls | repositories | compiles |
|---|--:|--:|---|
{rows}

The repositories, with the number of calls: {listed}.
"""


class _Sample(nn.Module):
    """One call on an image."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        torch.manual_seed(0)
        maker = LAYERS.get(name) or TOKENS.get(name) or VOLUMES.get(name)
        self.layer = maker().eval() if maker else None
        self.call: Call | None = FUNCTIONS.get(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.call is not None:
            return self.call(x)
        given = x.flatten(2) if self.name in TOKENS else x[None] if self.name in VOLUMES else x
        result: torch.Tensor = self.layer(given)  # type: ignore[misc]
        return result


class _Samples(nn.Module):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.samples = nn.ModuleList(map(_Sample, names))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(each(x) for each in self.samples)


def reasons(names: list[str]) -> dict[str, str]:
    """Return, for each name, why its call does not compile; "" where it does."""
    known = LAYERS.keys() | TOKENS.keys() | VOLUMES.keys() | FUNCTIONS.keys()
    found = {name: "no call was tried" for name in names if name not in known}
    tried = [name for name in names if name in known]
    for start in range(0, len(tried), _TOGETHER):
        found |= _compiled(tried[start : start + _TOGETHER])
    return found


@torch.no_grad()
def _compiled(names: list[str]) -> dict[str, str]:
    """Compile some calls as one program; where that fails, each half of them."""
    torch.manual_seed(0)
    x = torch.rand(SHAPE)
    try:
        module = _Samples(names).eval()
        program = torch.export.export(module, (x,))
        audit(program)
        mod = schedule_module(lower(program, HOST), HOST)
        vm = relax.VirtualMachine(tvm.compile(mod, tvm_target(HOST)), tvm.cpu())
        results = vm["main"](tvm.runtime.tensor(x.numpy()))
    except Exception as error:
        if len(names) == 1:
            return {names[0]: str(error).partition("\n")[0].rstrip(":") or type(error).__name__}
        half = len(names) // 2
        return _compiled(names[:half]) | _compiled(names[half:])
    found = {}
    for name, result, expected in zip(names, _flat(results, len(names)), module(x), strict=True):
        same = result.shape == expected.shape and result.dtype == expected.dtype
        same = same and torch.allclose(result, expected, rtol=1e-4, atol=1e-5)
        found[name] = "" if same else "other numbers than torch"
    return found


def _flat(results: object, count: int) -> list[torch.Tensor]:
    each = [results] if count == 1 and hasattr(results, "numpy") else list(results)  # type: ignore
    return [torch.from_numpy(result.numpy().copy()) for result in each]


def page(counts: Mapping[str, Counter[str]], why: Mapping[str, str]) -> str:
    """Return the page of the documentation.

    Args:
        counts: Calls of each repository.
        why: What `reasons` gives for all names.
    """
    total: Counter[str] = sum(counts.values(), Counter())
    rows = []
    for name, calls in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        used = sum(name in each for each in counts.values())
        rows.append(f"| `{name}` | {calls} | {used} | {'no' if why[name] else 'yes'} |")
    missing = [f"- `{name}`: {why[name]}" for name in sorted(total) if why[name]]
    right = sum(calls for name, calls in total.items() if not why[name])
    return DOCS.format(
        repositories=len(counts),
        compiling=sum(not why[name] for name in total),
        names=len(total),
        share=100 * right / max(total.total(), 1),
        calls=total.total(),
        missing="\n".join(["What does not:", "", *missing] if missing else ["All do."]),
        rows="\n".join(rows),
        listed=", ".join(f"{name} ({each.total()})" for name, each in sorted(counts.items())),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    folders = sorted(each for each in given.folder.glob("*") if each.is_dir())
    counts = {each.name.replace("+", "/"): calls_of(each) for each in folders}
    counts = {name: found for name, found in counts.items() if found}
    if not counts:
        print(f"no networks in {given.folder}: clone repositories into it, a folder each")
        return
    names = sorted(set().union(*counts.values()))
    shown = page(counts, reasons(names))
    print(shown)
    if given.docs:
        given.docs.write_text(shown)


if __name__ == "__main__":
    main()
