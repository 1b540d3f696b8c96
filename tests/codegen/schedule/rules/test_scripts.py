"""Every rule before and after, as scripts to read: where loops go, what is parallel, how large.

The target is NEON: four lanes, 32 registers.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distillc.codegen.schedule.apply_rules import Kernel, Scheduled, schedule_module
from distillc.codegen.schedule.rules import RULES
from distillc.codegen.stages import kernel_text
from tests.codegen.schedule.rules.kernels import NEON, Function, lower, random

KERNELS = {
    "schedule_elementwise": (Function(lambda x: F.gelu(x) * x), random(1, 4, 8, 16)),
    "schedule_gram": (Function(lambda x: x @ x.mT), random(2, 8, 256)),
    "schedule_long_sum": (Function(lambda x: x.mT @ x), random(1, 4096, 8)),
    "schedule_contraction": (nn.Conv2d(8, 16, 1), random(1, 8, 8, 16)),
    "schedule_convolution": (nn.Conv2d(4, 8, 3, padding=1), random(1, 4, 8, 16)),
    "schedule_row_reduction": (nn.Softmax(-1), random(2, 4, 64)),
    "schedule_channel_norm": (
        Function(lambda x: x / (x.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()),
        random(1, 8, 8, 16),
    ),
    "schedule_fallback": (nn.MaxPool2d(2), random(1, 4, 8, 16)),
}


def test_every_rule_has_a_script() -> None:
    """Some kernels come with their loops; tests/codegen/kernels has them."""
    built = {"attention", "axial_scan", "selective_scan", "winograd"}
    assert {*KERNELS, *built} == {entry.id for entry in RULES}


@pytest.mark.parametrize("rule", KERNELS)
def test_scripts(rule: str, golden: Callable[[str, str], None]) -> None:
    texts: dict[str, str] = {}

    def show(name: str, kernel: Kernel, scheduled: Scheduled) -> None:
        before = kernel.merged.func.script()
        after = kernel_text(kernel, scheduled)
        texts[scheduled.rule] = f"# Before.\n{before}\n\n# After.\n{after}"

    module, x = KERNELS[rule]
    torch.manual_seed(0)
    schedule_module(lower(module, x), NEON, {}, show)
    assert rule in texts, f"taken by {', '.join(texts)}"
    golden(f"rules/{rule}.txt", texts[rule])
