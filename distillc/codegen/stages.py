"""All stages of code generation in order, from a torch program to scheduled kernels.

Each has the reason for its place. `--dump-dir` writes the network after each of them, numbered from
10 on: the passes of a pipeline stand before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import tvm
from tvm import relax

from distillc.codegen.dumps import NONE, Dumps
from distillc.codegen.lower import to_relax
from distillc.codegen.operators import legalize
from distillc.codegen.operators.audit import audit
from distillc.codegen.rewrites.defer_scales import DeferScales
from distillc.codegen.rewrites.fold_affine import FoldAffine
from distillc.codegen.rewrites.fold_layouts import FoldLayouts
from distillc.codegen.rewrites.fold_views import FoldViews
from distillc.codegen.rewrites.fuse_kernels import FuseKernels
from distillc.codegen.rewrites.half_precision import HalfPrecision
from distillc.codegen.rewrites.image_layout import ImageLayout
from distillc.codegen.rewrites.merge_pixel_sums import MergePixelSums
from distillc.codegen.rewrites.merge_projection import MergeProjection
from distillc.codegen.rewrites.part_vectors import PartVectors
from distillc.codegen.rewrites.slice_splits import SliceSplits
from distillc.codegen.rewrites.use_winograd import UseWinograd
from distillc.codegen.schedule.apply_rules import Kernel, Scheduled, schedule_module
from distillc.codegen.schedule.records import Records
from distillc.errors import compiler_errors
from distillc.targets.base import Target

FIRST = 10
"""Number of the first stage's dump."""


class Rewrite(NamedTuple):
    """A stage between import and schedules.

    Attributes:
        name: What `--print-after` and `--stop-after` call it.
        make: Returns its pass.
        why: The reason for its place.
        half: Whether only networks in float16 have it.
        single: Whether only networks in float32 have it.
        targeted: Whether it is made for a target.
    """

    name: str
    make: Callable[..., tvm.transform.Pass]
    why: str
    half: bool = False
    single: bool = False
    targeted: bool = False


_OF_TVM = relax.transform
REWRITES = (
    Rewrite(
        "decompose_inference",
        _OF_TVM.DecomposeOpsForInference,
        "batch norms become arithmetic, which all rewrites know",
    ),
    Rewrite("canonicalize", _OF_TVM.CanonicalizeBindings, "rewrites look at one name for a value"),
    Rewrite(
        "slice_splits",
        SliceSplits,
        "before views are folded: slices move to where views and products can be seen together",
    ),
    Rewrite(
        "image_layout",
        ImageLayout,
        "before anything that looks at products: tokens become images, and attention a kernel",
        targeted=True,
    ),
    Rewrite(
        "fold_affine",
        FoldAffine,
        "after products of tokens became convolutions, before constants are folded one by one",
    ),
    Rewrite(
        "use_winograd",
        UseWinograd,
        "after weights have taken in what scales them",
        single=True,
        targeted=True,
    ),
    Rewrite("merge_pixel_sums", MergePixelSums, "before views are folded, of which it makes some"),
    Rewrite("fold_views", FoldViews, "the next two look for products without views between"),
    Rewrite("defer_scales", DeferScales, "while q and k are still operands of one product"),
    Rewrite("merge_projection", MergeProjection, "after scales have left the attention's product"),
    Rewrite("fold_views_again", FoldViews, "the two before have left views side by side"),
    Rewrite("fold_layouts", FoldLayouts, "products are final: weights may change their layout"),
    Rewrite(
        "fold_constants", _OF_TVM.FoldConstant, "what rewrites did to weights is computed once"
    ),
    Rewrite(
        "half_precision",
        HalfPrecision,
        "looks at operators, so before they become kernels, and at weights as they will be",
        half=True,
    ),
    Rewrite("legalize", _OF_TVM.LegalizeOps, "operators become kernels; rewrites of them are over"),
    Rewrite("annotate_patterns", _OF_TVM.AnnotateTIROpPattern, "fusion asks for kinds of kernels"),
    Rewrite("part_vectors", PartVectors, "changes what fusion is told of kernels"),
    Rewrite(
        "fold_constants_again", _OF_TVM.FoldConstant, "casts of weights to float16 are computed"
    ),
    Rewrite("fuse_ops", _OF_TVM.FuseOps, "elementwise operators join what they follow"),
    Rewrite("fuse_tir", _OF_TVM.FuseTIR, "what was grouped becomes one function"),
    Rewrite(
        "fuse_kernels",
        FuseKernels,
        "what only reads pixels joins whole groups, by their loops",
        targeted=True,
    ),
    Rewrite(
        "share_views",
        _OF_TVM.RewriteDataflowReshape,
        "what is still a plain reshape becomes a view: once scheduled it would be a copy",
    ),
    Rewrite("drop_dead_code", _OF_TVM.DeadCodeElimination, "kernels that were merged have copies"),
)
PREPARE, IMPORT, SCHEDULE = "prepare", "import", "schedule"
REASONS = {
    PREPARE: "in torch, where errors still know modules and lines: real, known operators remain",
    IMPORT: "Relax sees the whole network as one function",
    **{each.name: each.why for each in REWRITES},
    SCHEDULE: "kernels are final, and each is a matter of its own",
}
"""All stages in order, and why each stands where it does."""
NAMES = tuple(REASONS)


def lower(
    program: torch.export.ExportedProgram,
    target: Target,
    precision: str = "fp32",
    dumps: Dumps = NONE,
) -> tvm.IRModule:
    """Run all stages before the last.

    Args:
        program: Exported at static shapes; one float32 image in, one out.
        target: Decides the shape of the scan kernel.
        precision: `"fp32"` or `"fp16"`; see `HalfPrecision`.
        dumps: What is shown.

    Returns:
        A module whose `main` calls PrimFuncs: `selective_scan` (with the attribute
        `distillc.scheduled`), convolutions, matrix products, reductions, and fused elementwise
        functions, none of the others scheduled yet.

    Raises:
        LoweringError: An operator cannot be imported; all of them are listed.
        Stopped: `dumps` says so.
        StorageError: A dump cannot be written.
    """
    program = audit(program)
    dumps.after(PREPARE, _file(PREPARE), lambda: program.graph_module.print_readable(False))
    with compiler_errors("the network cannot be lowered"):
        mod = to_relax(program, target)
    _show(mod, IMPORT, dumps)
    return fuse(mod, target, precision, dumps)


def fuse(
    mod: tvm.IRModule, target: Target, precision: str = "fp32", dumps: Dumps = NONE
) -> tvm.IRModule:
    """Run the rewrites on an imported module; see `lower`."""
    legalize.register()
    for stage in REWRITES:
        if stage.single if precision == "fp16" else stage.half:
            continue
        with compiler_errors("the network cannot be lowered"):
            # As a sequence of one, a pass is subject to TVM's own switches.
            made = stage.make(target) if stage.targeted else stage.make()
            mod = tvm.transform.Sequential([made])(mod)
        _show(mod, stage.name, dumps)
    return mod


def compile_kernels(
    program: torch.export.ExportedProgram,
    target: Target,
    records: Records,
    precision: str = "fp32",
    dumps: Dumps = NONE,
) -> tvm.IRModule:
    """Run all stages; returns a module of scheduled kernels. See `lower`.

    Args:
        program: As `lower` takes it.
        target: What it is compiled for.
        records: Tuned choices.
        precision: As `lower` takes it.
        dumps: What is shown; each kernel gets a file of its own.
    """

    def show(name: str, kernel: Kernel, scheduled: Scheduled) -> None:
        dumps.write(f"kernels/{name}.py", lambda: kernel_text(kernel, scheduled))

    mod = schedule_module(lower(program, target, precision, dumps), target, records, show)
    _show(mod, SCHEDULE, dumps)
    return mod


def kernel_text(kernel: Kernel, scheduled: Scheduled) -> str:
    """Return a scheduled kernel as TVMScript, below what it computes and what was chosen."""
    chosen = [
        f"# {name} = {scheduled.knobs.values[name]}, of {', '.join(map(str, sorted(options)))}"
        for name, options in scheduled.knobs.space.items()
    ]
    lines = [f"# workload {kernel.workload}", f"# rule {scheduled.rule}", *chosen]
    return "\n".join([*lines, scheduled.func.script(), ""])


def _file(stage: str) -> str:
    return f"{FIRST + NAMES.index(stage)}_{stage}.{'txt' if stage == PREPARE else 'py'}"


def _show(mod: tvm.IRModule, stage: str, dumps: Dumps) -> None:
    dumps.after(stage, _file(stage), lambda: mod.script(show_meta=False) + "\n")
