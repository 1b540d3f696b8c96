"""A torch program to a Relax module of fused kernels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import tvm
from torch import fx
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from distillc.codegen.kernels.argsort import argsort_kernel
from distillc.codegen.kernels.scatter import scatter_kernel
from distillc.codegen.kernels.selective_scan import Rates, selective_scan_kernel
from distillc.codegen.operators import legalize
from distillc.codegen.operators.complex_numbers import is_split, lacks_form
from distillc.codegen.operators.fold_constants import constant_values
from distillc.codegen.operators.prepare import decompose, prepare
from distillc.codegen.rewrites.defer_scales import DeferScales
from distillc.codegen.rewrites.fold_layouts import FoldLayouts
from distillc.codegen.rewrites.fold_views import FoldViews
from distillc.codegen.rewrites.fuse_kernels import FuseKernels
from distillc.codegen.rewrites.half_precision import HalfPrecision
from distillc.codegen.rewrites.merge_projection import MergeProjection
from distillc.codegen.rewrites.slice_splits import SliceSplits
from distillc.codegen.schedule.apply_rules import SCAN_SHAPE
from distillc.errors import DistillcError, LoweringError, reason
from distillc.frontend.graph import activations
from distillc.frontend.static_form import is_dynamic
from distillc.quiet import quiet_libraries
from distillc.targets.base import Target

legalize.register()

SCAN = "selective_scan.default"
SORT = "sort.stable"
WRITE = "index_put.default"

REDUCTIONS = {"amax.default": relax.op.max, "amin.default": relax.op.min}
"""What the importer lacks."""

RECURRENT = {"lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"}
MOST_STEPS = 64

EXTERNAL = {
    *("sort.default", "argsort.default", "topk.default", "median.default", "median.dim"),
    *("scatter.src", "scatter.value", "index.Tensor", "masked_select.default"),
    "grid_sampler_2d.default",
}
"""What the importer knows but no schedule rule: sorted, written or read at computed places."""


@quiet_libraries()
def audit(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program as it is imported, once every operator of it is known.

    Raises:
        LoweringError: Some cannot; the message lists all of them with module path and source line.
    """
    _refuse_dynamic(program)
    _refuse_recurrent(program)
    with compiler_errors("the network cannot be brought to core operators"):
        program = decompose(program)
    known = {*ExportedProgramImporter().convert_map, *REDUCTIONS, SORT, WRITE, SCAN} - EXTERNAL
    missing: dict[str, list[str]] = {}
    for node in activations(program):
        name = getattr(node.target, "__name__", "")
        if node.op == "call_function" and (
            lacks_form(node) if is_split(node) else name not in known or _is_other_write(node)
        ):
            missing.setdefault(name, []).append(_place(node))
    if missing:
        raise LoweringError(
            "operators that cannot be compiled yet:" + _listed(missing),
            hint="rewrite these lines with other operators, or report the network",
        )
    with compiler_errors("what is constant in the network cannot be computed"):
        return prepare(program)


def _refuse_dynamic(program: torch.export.ExportedProgram) -> None:
    """Refuse operators whose results have another size for every image."""
    missing: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        if is_dynamic(node) and not any(map(is_dynamic, node.all_input_nodes)):
            missing.setdefault(getattr(node.target, "__name__", ""), []).append(_place(node))
    if missing:
        raise LoweringError(
            "operators whose results depend in size on the values of the image:" + _listed(missing),
            hint="keep the size (`torch.where(mask, x, y)`): a masked read compiles where only "
            "elementwise operators stand between it and a write with the same mask",
        )


def _refuse_recurrent(program: torch.export.ExportedProgram) -> None:
    """Refuse recurrent layers over long sequences: each step would be kernels of its own."""
    found: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if name in RECURRENT:
            x, *_, batch_first = node.args
            if x.meta["val"].shape[1 if batch_first else 0] > MOST_STEPS:
                found.setdefault(name, []).append(_place(node))
    if found:
        raise LoweringError(
            f"recurrent layers over more than {MOST_STEPS} steps cannot be compiled:"
            + _listed(found),
            hint="`torch.ops.distillc.selective_scan` computes a recurrence in one kernel",
        )


def _listed(operators: dict[str, list[str]]) -> str:
    """Return a line for every operator, with all places where it is used."""
    lines = [f"{name}, used in {', '.join(sorted(set(at)))}" for name, at in operators.items()]
    return "".join(f"\n    {line}" for line in sorted(lines))


def _is_other_write(node: fx.Node) -> bool:
    """Whether a node writes at computed places in a way that is not our kernel's."""
    if node.target is not torch.ops.aten.index_put.default:
        return False
    x, (place, *more), _, *accumulate = cast("Any", node.args)
    flat = x.meta["val"].dim() == 1 and not more and place.meta["val"].dtype == torch.int64
    return not flat or any(accumulate)


def _place(node: fx.Node) -> str:
    """Return module path and source line of a node."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    trace = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    lines = [line for line in trace if line.startswith("File ")]
    source = lines[-1].partition(", in ")[0] if lines else "an unknown line"
    return f"{path or 'the network'} ({source})"


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
    # Asked for by scans alone.
    constants = functools.cache(functools.partial(constant_values, program))
    with compiler_errors("the network cannot be lowered"):
        mod = from_exported_program(
            program,
            unwrap_unit_return_tuple=True,
            run_ep_decomposition=False,
            custom_convert_map={
                SCAN: functools.partial(_convert_scan, target, constants),
                SORT: _convert_sort,
                WRITE: _convert_write,
                **{
                    name: functools.partial(_convert_reduction, reduce)
                    for name, reduce in REDUCTIONS.items()
                },
            },
        )
        return fuse(mod, precision)


@contextmanager
def compiler_errors(what: str) -> Iterator[None]:
    """Turn what TVM raises, which is anything, into a `LoweringError` that begins with `what`."""
    try:
        yield
    except DistillcError:
        raise
    except Exception as error:
        raise LoweringError(
            f"{what}: {reason(error, -1, 300)}",
            hint="run with --debug for the compiler's own trace, and report the network",
        ) from error


def fuse(mod: tvm.IRModule, precision: str = "fp32") -> tvm.IRModule:
    """Rewrite an imported module, lower its operators to TIR and fuse them into kernels."""
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


def _convert_reduction(reduce: Any, node: fx.Node, importer: Any) -> relax.Var:
    given: dict[str, Any] = dict(zip(("x", "axes", "keepdim"), node.args, strict=False))
    axes = list(given.get("axes", ())) or None
    value = reduce(importer.env[given["x"]], axes, given.get("keepdim", False))
    return importer.block_builder.emit(value)


def _convert_sort(node: fx.Node, importer: Any) -> relax.Var:
    """Lower a stable sort along the last axis to our kernel, which gives the order."""
    emit = importer.block_builder.emit
    x = importer.env[node.args[0]]
    shape = [int(extent) for extent in x.ty.shape]
    rows = (math.prod(shape[:-1]), shape[-1])
    kernel = argsort_kernel(*rows, x.ty.dtype, bool(node.kwargs.get("descending", False)))
    function = importer.block_builder.add_func(kernel, "argsort")
    flat = emit(relax.op.reshape(x, rows))
    order = emit(relax.call_tir(function, [flat], relax.TensorType(rows, "int64")))
    order = emit(relax.op.reshape(order, shape))
    values = emit(relax.op.gather_elements(x, order, axis=len(shape) - 1))
    return emit(relax.Tuple([values, order]))


def _convert_write(node: fx.Node, importer: Any) -> relax.Var:
    """Lower writes into a flat tensor to our kernel."""
    x, (places,), values = cast("Any", fx.node.map_arg(node.args[:3], importer.env.get))
    (size,), (writes,) = ([int(each) for each in value.ty.shape] for value in (x, places))
    kernel = scatter_kernel(size, writes, x.ty.dtype)
    function = importer.block_builder.add_func(kernel, "scatter")
    result = relax.TensorType((size,), x.ty.dtype)
    return importer.block_builder.emit(relax.call_tir(function, [x, places, values], result))


def _convert_scan(
    target: Target,
    constants: Callable[[], dict[fx.Node, torch.Tensor]],
    node: fx.Node,
    importer: Any,
) -> relax.Var:
    """Lower `distillc::selective_scan` to our kernel; a gate is applied after it."""
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "delta_softplus", "reverse")
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    tensors = {
        name: importer.env[value] for name, value in given.items() if isinstance(value, fx.Node)
    }
    emit = importer.block_builder.emit

    def shape(name: str) -> tuple[int, ...]:
        return tuple(int(extent) for extent in tensors[name].ty.shape)

    batch, channels, length = shape("u")
    states = shape("A")[1]
    for name in ("B", "C"):
        if len(shape(name)) == 3:
            tensors[name] = emit(relax.op.expand_dims(tensors[name], 1))
    zeros = relax.op.zeros((channels,), "float32")
    options = (bool(given.get("delta_softplus", False)), bool(given.get("reverse", False)))
    arguments = (batch, channels, length, states, shape("B")[1], *options)
    known = constants().get(given["A"])
    rates = Rates.OWN if known is None else Rates.of(known.detach().numpy())
    kernel = selective_scan_kernel(*arguments, target, rates)
    kernel = kernel.with_attr(SCAN_SHAPE, list(map(int, (*arguments, rates))))
    operands = [tensors[name] for name in ("u", "delta", "A", "B", "C")]
    operands += [tensors.get(name, emit(zeros)) for name in ("D", "delta_bias")]
    function = importer.block_builder.add_func(kernel, "selective_scan")
    result = relax.TensorType((batch, channels, length), "float32")
    y = emit(relax.call_tir(function, operands, result))
    if "z" in tensors:
        y = emit(relax.op.multiply(y, relax.op.nn.silu(tensors["z"])))
    return y
