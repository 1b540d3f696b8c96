"""A network to a bundle: library, weights, program, ONNX, manifest."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillc.checks import check_size
from distillc.codegen.build.library import build_library
from distillc.codegen.build.onnx_export import export_onnx
from distillc.codegen.build.onnx_scans import check_scans
from distillc.codegen.build.self_check import check_image, self_check
from distillc.codegen.dumps import Dumps
from distillc.errors import StorageError, UsageError
from distillc.frontend.padding import Padded
from distillc.frontend.static_form import StableSorts
from distillc.frontend.trace import as_network, export_program, image_scale
from distillc.network import Network
from distillc.quiet import quiet_libraries
from distillc.runtime import app, native
from distillc.runtime.bundle import Bundle, create_bundle
from distillc.runtime.manifest import HEADER, LIBRARY, PARTS, Manifest, weights_of
from distillc.runtime.precision import get_precision
from distillc.targets.base import Target, get_target
from distillc.workdir import full_disk, storage_errors, write_tensors

log = logging.getLogger(__name__)


@quiet_libraries()
@full_disk()
def compile(
    network: Network | nn.Module,
    target: str | Target = "host",
    size: tuple[int, int] = (256, 256),
    *,
    precision: str = "fp32",
    directory: Path | None = None,
    reference: Tensor | None = None,
    manifest: Mapping[str, Any] | None = None,
    records: Path | None = None,
    weights_beside: bool = False,
    onnx_scans: str = "fused",
    dumps: Dumps | Path | None = None,
) -> Bundle:
    """Compile a network, with its decisions applied, to a bundle.

    The bundle is not verified yet: `Bundle.save` refuses it until `verify_bundle` has run.

    Args:
        network: A `Network`, or any module (1, C, H, W) float32 -> (1, C', H * scale, W * scale)
            float32, whose channels, scale and size multiple are found by trying.
        target: A target or its name.
        size: (H, W) of the input in pixels. Where the network needs multiples, the compiled code
            mirrors the image at its lower and right edges and cuts the result.
        precision: `"fp32"`; `"fp16"`: the network computes in float16 where that loses little;
            `"fp16-weights"`: weights are stored as float16, half as large, and made float32 when a
            model is created. Input, output and the bundle's other forms stay float32.
        weights_beside: Put the weights of the libraries into a file of their own, `model.weights`,
            which all processes that run the network share.
        onnx_scans: How scans leave in `model.onnx`: `"fused"`, as the operator `LinearAttention` of
            ONNX Runtime, or `"standard"`, as loops that any runtime knows.
        directory: Where the files go, empty or not there yet; a temporary folder by default.
        reference: The input whose output is stored for checks, (1, C, H, W) float32; by default
            `check_image`.
        manifest: Further entries of the manifest, JSON values.
        records: A file of tuning records beside the shipped and the user's own.
        dumps: A folder for the network after each stage of code generation, every kernel and the
            plan; `Dumps` also prints or stops.

    Raises:
        Stopped: `dumps` says so.
        UsageError: Unknown target, precision or ONNX scans, a size out of range, or entries that
            the manifest has already.
        StorageError: The directory is not empty, or cannot be written.
        TraceError: The network cannot take this size, or cannot be exported.
        LoweringError: An operator cannot be compiled, or linking fails.
    """
    check_size(size)
    further = _check_entries(manifest)
    chosen = get_target(target)
    numbers = get_precision(precision)
    check_scans(onnx_scans)
    if numbers.arithmetic == "fp16" and not chosen.half:
        log.warning("%s has no float16 arithmetic: fp16 is right there, but slow", chosen.name)
    net = as_network(network, size)
    module, fitting = net.hybrid(), net.fitting(size)
    net = net.at(fitting)
    if fitting != size:
        module = Padded(module, fitting, net.scale)
    shape = (1, net.in_channels, *size)
    folder = _empty_folder(directory)
    program = export_program(module, shape)
    scale = image_scale(program)
    stem = file_stem(net.name)
    files = {"bench": f"{stem}-bench"}
    if chosen.android:
        files["android"] = f"lib{stem}.so"
    check = self_check(module, shape, numbers.max_error)
    library = build_library(
        program,
        chosen,
        folder / LIBRARY,
        records,
        numbers.name,
        net.name,
        folder / files["android"] if chosen.android else None,
        (folder / files["bench"], check),
        weights_of(folder / LIBRARY) if weights_beside else None,
        dumps if isinstance(dumps, Dumps) else Dumps(dumps),
    )
    for path in (native.FOLDER / HEADER, *(app.FOLDER / name for name in app.FILES)):
        shutil.copy(path, folder)
    torch.export.save(program, folder / "hybrid.pt2")
    write_tensors(folder / "weights.safetensors", module.state_dict())
    if reference is None:  # a run of a large network takes seconds
        reference, output = torch.from_numpy(check_image(shape)), torch.from_numpy(check.output)
    else:
        with torch.no_grad(), StableSorts():
            output = module(reference)
    write_tensors(folder / "reference.safetensors", {"input": reference, "output": output})
    export_onnx(program, folder / "model.onnx", onnx_scans, (reference, output))
    facts = {
        "name": net.name,
        "target": chosen.name,
        "devices": list(chosen.devices),
        "precision": numbers.name,
        **files,
        "size": list(size),
        "scale": scale,
        "input_shape": list(library.input_shape),
        "output_shape": list(library.output_shape),
        "planned_bytes": library.planned_bytes,
        "source": dict(net.source),
        **further,
    }
    names = [*PARTS, *app.FILES, *files.values()]
    if weights_beside:
        names.append(weights_of(folder / LIBRARY).name)
    return create_bundle(folder, facts, names)


OURS = frozenset(Manifest.model_fields) - {"task", "decisions", "metrics"}
"""Entries of the manifest that `compile` writes, or that say what was checked."""


def _check_entries(manifest: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the caller's entries, which must not speak for us: `verified` above all."""
    if taken := sorted(OURS & (manifest or {}).keys()):
        raise UsageError(
            f"the manifest has these entries already: {', '.join(taken)}",
            hint="give yours other names",
        )
    return manifest or {}


def _empty_folder(directory: Path | None) -> Path:
    """Return a folder that holds nothing that could be overwritten."""
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="distillc-"))
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        found = sorted(each.name for each in directory.iterdir())
    if found:
        raise StorageError(
            f"the folder for the bundle is not empty: it holds {found[0]}",
            where=str(directory),
            hint="give an empty folder, or one that does not exist yet",
        )
    return directory


def file_stem(name: str) -> str:
    """Return what files of a network are called: small letters, digits, underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "network"
