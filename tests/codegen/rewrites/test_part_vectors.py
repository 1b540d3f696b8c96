"""PartVectors: vectors of channels are marked, images are not."""

from __future__ import annotations

import torch
from tvm import relax

from distillc.codegen.rewrites.part_vectors import OPAQUE, PartVectors
from tests.codegen.rewrites.graphs import graph
from tests.codegen.schedule.rules.kernels import random


def test_only_vectors_are_opaque() -> None:
    mod = graph(lambda x, v: torch.sigmoid(v) * x, random(1, 6, 8, 9), random(1, 6, 1, 1))
    mod = relax.transform.AnnotateTIROpPattern()(relax.transform.LegalizeOps()(mod))
    before = mod.script()
    after = PartVectors()(mod)
    assert mod.script() == before
    patterns = {
        name.name_hint: int(func.attrs["op_pattern"])
        for name, func in after.functions_items()
        if "op_pattern" in (func.attrs or {})
    }
    assert patterns["tir_sigmoid"] == OPAQUE
    assert patterns["multiply"] < OPAQUE
