"""A hybrid to ONNX, for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import torch
from onnx import inliner
from onnx_graphsurgeon.logger import G_LOGGER
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript import optimizer
from torch.export import ExportedProgram

from distillc.codegen.build.onnx_scans import OPSET, check_scans, define_scans
from distillc.codegen.operators.forms import TRANSLATIONS
from distillc.codegen.operators.prepare import decompose, prepare
from distillc.data.metrics import TOLERANCE, largest_error
from distillc.errors import LoweringError, StorageError, reason
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.trace import image_shapes
from distillc.quiet import quiet_libraries
from distillc.workdir import write_whole

Example = tuple[torch.Tensor, torch.Tensor]
"""An image, and what torch makes of it."""


def export_onnx(
    program: ExportedProgram, path: Path, scans: str = "fused", example: Example | None = None
) -> None:
    """Export a program of `distillc.frontend.trace.export_program`, and check it against torch.

    Args:
        program: The network.
        path: The file.
        scans: One of `SCANS`. Where the installed ONNX Runtime lacks the operator, `"fused"` is
            `"standard"`, with a warning.
        example: What the file is checked by; by default the program is run on random numbers.

    What ONNX Runtime cannot take as it is (complex numbers, layers without channels) goes the way
    that the compiler's import goes.

    Raises:
        LoweringError: An operator has no ONNX form, or ONNX Runtime's output differs from torch's
            by more than 1e-4, of its largest value where that is above 1.
        UsageError: `scans` is unknown.
    """
    fused = check_scans(scans) == "fused"
    example = example or _example(program)
    try:
        _export(program, path, fused, example)
    except LoweringError:
        _export(prepare(decompose(program)), path, fused, example)


def _example(program: ExportedProgram) -> Example:
    x = torch.rand(image_shapes(program)[0], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x, program.module()(x)


def _export(program: ExportedProgram, path: Path, fused: bool, example: Example) -> None:
    x, wanted = example
    try:
        model = _convert(program, fused)
        write_whole(path, lambda temporary: onnx.save(model, str(temporary)))
        y = OnnxRuntime(path)(x)
    except StorageError:
        raise
    except Exception as error:
        root: BaseException = error  # the exporter's own message is its address, not the reason
        while root.__cause__:
            root = root.__cause__
        path.unlink(missing_ok=True)
        raise LoweringError(
            f"the network cannot be exported to ONNX: {reason(root, longest=300)}",
            hint="run with --debug for the exporter's own trace",
        ) from error
    error_size = largest_error(y, wanted)
    if not error_size <= TOLERANCE:
        path.unlink()
        raise LoweringError(f"the ONNX file differs from torch by {error_size:.2e}")


def _convert(program: ExportedProgram, fused: bool) -> onnx.ModelProto:
    with quiet_libraries(), G_LOGGER.suppress(), torch.no_grad():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["restored"],
            custom_translation_table=TRANSLATIONS,
            verbose=False,
            optimize=False,
        )
        assert exported is not None
        # What the exporter itself would do, but for its rules: one drops sums with less than
        # 1e-8, which keep quotients finite.
        optimizer.inline(exported.model)
        optimizer.fold_constants(exported.model)
        # GraphSurgeon reads floats that are listed in a node as double.
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(exported.model)
        model = inliner.inline_local_functions(define_scans(exported.model_proto, fused))
        graph = gs.import_onnx(model)
        graph.cleanup().toposort()
        graph.fold_constants().cleanup()
        tidy = gs.export_onnx(graph)
        onnx.checker.check_model(tidy, full_check=True)
    return tidy
