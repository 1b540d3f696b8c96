"""The networks that are timed, and the files each engine loads, kept in a work directory."""

from __future__ import annotations

import argparse
import functools
import hashlib
import math
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import tvm
from torch import Tensor, nn

from distillc.codegen.build.library import build_library, tvm_target
from distillc.codegen.build.onnx_export import export_onnx
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.schedule.records import load_records
from distillc.codegen.stages import lower
from distillc.frontend.restormer import Restormer, TransformerBlock
from distillc.frontend.static_form import StableSorts
from distillc.frontend.trace import export_program
from distillc.network import KEEP
from distillc.stages import WorkDir
from distillc.surrogates.families.skip import SkipSurrogate
from distillc.surrogates.specs import build_surrogate, parse_label
from distillc.targets.base import get_target
from distillc.workdir import write_json
from tests.benchmarks.engines import random_input
from tests.benchmarks.published import PublishedNetwork
from tests.benchmarks.race import ROOT

TEACHER = "teacher"

# A file made by other code than today's would be timed as if it were today's.
ARCHITECTURES = ("distillc/frontend/restormer.py", "distillc/surrogates/*.py")
GENERATOR = (
    *ARCHITECTURES,
    "distillc/frontend/trace.py",
    "distillc/codegen/**/*.py",
    "distillc/runtime/native/*",
    "targets/*",
)


@dataclass(frozen=True)
class NetworkSpec:
    """A Restormer with random weights, as it is or with every block replaced.

    Attributes:
        family: `"teacher"`, or the spec of the surrogate that stands in for every block.
        dim: Channels of the first level.
        blocks: Blocks of the four levels, and of the refinement.
    """

    family: str = TEACHER
    dim: int = 48
    blocks: tuple[int, ...] = (4, 6, 6, 8, 4)

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.family

    def build(self) -> nn.Module:
        """Return the module in eval mode, (1, 3, H, W) float32 -> the same; always equal weights.

        Raises:
            UsageError: Unknown surrogate family.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = Restormer(
                dim=self.dim, num_blocks=self.blocks[:4], num_refinement_blocks=self.blocks[4]
            ).eval()
            if self.family != TEACHER:
                replace_blocks(module, dict.fromkeys(block_names(module), self.family))
        return module


Spec = NetworkSpec | PublishedNetwork


def block_names(module: nn.Module) -> list[str]:
    """Return the names of a Restormer's blocks."""
    return [name for name, each in module.named_modules() if isinstance(each, TransformerBlock)]


def replace_blocks(module: nn.Module, decisions: Mapping[str, str]) -> nn.Module:
    """Put random surrogates into a Restormer where the decisions say."""
    for seed, (name, label) in enumerate(decisions.items()):
        if label == KEEP:
            continue
        spec, scope = parse_label(label)
        block = module.get_submodule(name)
        assert isinstance(block, TransformerBlock)
        surrogate = build_surrogate(spec, block.attn.project_out.out_channels, scope, seed)
        wake(surrogate)
        module.set_submodule(name if scope == "block" else f"{name}.attn", surrogate)
    return module.eval()


def wake(surrogate: nn.Module) -> None:
    """Make a new surrogate's last projection random: at zero, a compiler may drop the rest."""
    if isinstance(surrogate, SkipSurrogate):  # which has no weights
        return
    projection = surrogate.get_submodule("project_out")
    assert isinstance(projection, nn.Conv2d)
    nn.init.kaiming_uniform_(projection.weight, a=math.sqrt(5))


@dataclass(frozen=True)
class Built:
    """A file that an engine loads, and the seconds it took to make."""

    path: Path
    seconds: float


class Artifacts:
    """The files of networks at one input size, made when they are missing.

    Args:
        root: The work directory.
    """

    def __init__(self, root: Path) -> None:
        self._work = WorkDir(root)

    def file(self, engine: str, spec: Spec, size: int) -> Built:
        """Return what an engine loads; raises whatever making it raises."""
        if engine == "distillc":
            return self.library(str(spec), spec.build, (1, 3, size, size))
        if engine == "tvm-vm":
            return self._make(
                "vm",
                {"network": asdict(spec), "size": size, "code": source_digest(GENERATOR)},
                "network.so",
                lambda path: _build_for_vm(spec.build(), size, path),
            )
        if engine in ("onnxruntime", "openvino"):
            return self.onnx(str(spec), spec.build, (1, 3, size, size))
        if engine == "ncnn":
            return self._make(
                "ncnn",
                {"network": asdict(spec), "size": size, "code": source_digest(ARCHITECTURES)},
                "network.ncnn.param",
                lambda path: _convert_to_ncnn(spec.build(), size, path),
            )
        return self._make(
            "torch",
            {"network": asdict(spec), "code": source_digest(ARCHITECTURES)},
            "network.pt",
            lambda path: torch.save(spec.build(), path),
        )

    def library(self, name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Built:
        """Return a module compiled for this machine; `name` and shape tell it from others."""
        return self._make(
            "library",
            {"network": name, "shape": shape, "code": source_digest(GENERATOR)},
            "network.so",
            lambda path: build_library(export_program(build(), shape), get_target("host"), path),
        )

    def onnx(self, name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Built:
        """Return a module as ONNX; `name` and shape tell it from others."""
        files = (*ARCHITECTURES, "distillc/codegen/build/onnx_export.py")
        return self._make(
            "onnx",
            {"network": name, "shape": shape, "code": source_digest(files)},
            "network.onnx",
            lambda path: export_onnx(export_program(build(), shape), path),
        )

    def reference(self, spec: Spec, size: int) -> np.ndarray:
        """Return torch's output on `random_input`; equal elements keep their order in sorts."""

        def run(path: Path) -> None:
            with torch.inference_mode(), StableSorts():
                output = spec.build()(torch.from_numpy(random_input((1, 3, size, size))))
            np.save(path, output.numpy())

        files = (*ARCHITECTURES, "distillc/frontend/static_form.py")
        key = {"network": asdict(spec), "size": size, "code": source_digest(files)}
        return np.load(self._make("reference", key, "output.npy", run).path)

    def _make(
        self, kind: str, key: dict[str, object], name: str, make: Callable[[Path], object]
    ) -> Built:
        with self._work.stage(kind, key) as stage:
            path, note = stage.path(name), stage.path("seconds")
            assert path
            assert note
            # The note comes last: it says that the file is complete.
            if not note.exists():
                start = time.perf_counter()
                make(path)
                write_json(note, round(time.perf_counter() - start, 2))
            return Built(path, float(note.read_text()))


@functools.cache
def source_digest(patterns: tuple[str, ...]) -> str:
    """Return 16 hex digits that name the content of source files, given as patterns of paths."""
    sha = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        if path.is_file():
            sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _build_for_vm(module: nn.Module, size: int, path: Path) -> None:
    """Build what `build_library` does, up to the plan, for TVM's virtual machine."""
    target = get_target("host")
    mod = lower(export_program(module, (1, 3, size, size)), target)
    mod = schedule_module(mod, target, load_records(target))
    tvm.compile(mod, tvm_target(target)).export_library(str(path))


def _convert_to_ncnn(module: nn.Module, size: int, path: Path) -> None:
    """Convert through pnnx, which finds everything but `F.normalize` in ncnn."""
    import pnnx

    def normalize(x: Tensor, dim: int) -> Tensor:
        return x / torch.sqrt((x * x).sum(dim, keepdim=True) + 1e-24)

    traced = path.with_name("network.pt")
    patch = mock.patch("torch.nn.functional.normalize", normalize)
    with patch, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.zeros(1, 3, size, size)).save(str(traced))
    words = [traced.name, f"inputshape=[1,3,{size},{size}]f32", "fp16=0"]
    done = subprocess.run([pnnx.EXEC_PATH, *words], cwd=path.parent, capture_output=True, text=True)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "unsupported" in line]
    if done.returncode or said or not path.exists():
        raise RuntimeError(said[0] if said else f"pnnx ended with {done.returncode}")


def add_network_arguments(
    parser: argparse.ArgumentParser, dim: int = 48, blocks: tuple[int, ...] = (4, 6, 6, 8, 4)
) -> None:
    """Add the options that say which Restormer, where built files are kept, and how to run."""
    parser.add_argument("--dim", type=int, default=dim, help="channels of the first level")
    parser.add_argument(
        "--blocks", type=int, nargs=5, default=list(blocks), help="blocks of each level"
    )
    parser.add_argument("--runs", type=int, default=10, help="timed rounds")
    add_work_arguments(parser)


def add_work_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how many threads run, and where things are kept."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("results/benchmarks"),
        help="where built files are kept for the next time",
    )
