"""A torch program to a Relax module of fused kernels."""

from __future__ import annotations

import functools

import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from distillc.codegen.operators import legalize
from distillc.codegen.operators.audit import audit
from distillc.codegen.operators.fold_constants import constant_values
from distillc.codegen.operators.forms import CONVERSIONS
from distillc.codegen.operators.lowering import Lowering
from distillc.codegen.rewrites.defer_scales import DeferScales
from distillc.codegen.rewrites.fold_layouts import FoldLayouts
from distillc.codegen.rewrites.fold_views import FoldViews
from distillc.codegen.rewrites.fuse_kernels import FuseKernels
from distillc.codegen.rewrites.half_precision import HalfPrecision
from distillc.codegen.rewrites.merge_projection import MergeProjection
from distillc.codegen.rewrites.slice_splits import SliceSplits
from distillc.errors import compiler_errors
from distillc.targets.base import Target


def lower(
    program: torch.export.ExportedProgram, target: Target, precision: str = "fp32"
) -> tvm.IRModule:
    """Import a program into Relax and fuse it into kernels; weights become constants.

    Args:
        program: Exported at static shapes; one float32 image in, one out.
        target: Decides the shape of the scan kernel.
        precision: `"fp32"` or `"fp16"`; see `HalfPrecision`.

    Returns:
        A module whose `main` calls PrimFuncs: `selective_scan` (with the attribute
        `distillc.scheduled`), convolutions, matrix products, reductions, and fused elementwise
        functions, none of the others scheduled yet.

    Raises:
        LoweringError: An operator cannot be imported; all of them are listed.
    """
    program = audit(program)
    context = Lowering(target, functools.cache(functools.partial(constant_values, program)))
    with compiler_errors("the network cannot be lowered"):
        mod = from_exported_program(
            program,
            unwrap_unit_return_tuple=True,
            run_ep_decomposition=False,
            custom_convert_map={
                operator.__name__: functools.partial(convert, context)
                for operator, convert in CONVERSIONS.items()
            },
        )
        return fuse(mod, precision)


def fuse(mod: tvm.IRModule, precision: str = "fp32") -> tvm.IRModule:
    """Rewrite an imported module, lower its operators to TIR and fuse them into kernels."""
    legalize.register()
    transforms = relax.transform
    return tvm.ir.transform.Sequential(
        [
            transforms.DecomposeOpsForInference(),
            transforms.CanonicalizeBindings(),
            SliceSplits(),
            FoldViews(),
            DeferScales(),
            MergeProjection(),
            FoldViews(),
            FoldLayouts(),
            transforms.FoldConstant(),
            *([HalfPrecision()] if precision == "fp16" else []),
            transforms.LegalizeOps(),
            transforms.AnnotateTIROpPattern(),
            transforms.FoldConstant(),
            transforms.FuseOps(),
            transforms.FuseTIR(),
            FuseKernels(),
            # What is still a plain reshape becomes a view: once scheduled it is a copy like any.
            transforms.RewriteDataflowReshape(),
            transforms.DeadCodeElimination(),
        ]
    )(mod)
