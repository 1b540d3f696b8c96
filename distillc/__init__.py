"""distillc: compile transformer image-restoration networks into fast hybrids for phone CPUs.

The names below are the public API; they load on first use, so `import distillc` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from distillc.lazy import loader

if TYPE_CHECKING:
    from distillc.as_is import convert_as_is as convert_as_is
    from distillc.as_is import convert_onnx as convert_onnx
    from distillc.budgets import Budget as Budget
    from distillc.compilation import compile as compile
    from distillc.conversion import Result as Result
    from distillc.conversion import convert as convert
    from distillc.errors import DistillcError as DistillcError
    from distillc.frontend.load import load as load
    from distillc.frontend.trace import trace as trace
    from distillc.network import Block as Block
    from distillc.network import Network as Network
    from distillc.network import Surrogate as Surrogate
    from distillc.pipeline import Context as Context
    from distillc.pipeline import Pass as Pass
    from distillc.pipeline import PassResult as PassResult
    from distillc.pipeline import Pipeline as Pipeline
    from distillc.runtime.bundle import Bundle as Bundle
    from distillc.stages import WorkDir as WorkDir
    from distillc.targets.base import Target as Target
    from distillc.tuning import tune as tune

__version__ = "0.1.0"

_HOME = {
    "Block": "network",
    "Budget": "budgets",
    "Bundle": "runtime.bundle",
    "Context": "pipeline",
    "DistillcError": "errors",
    "Network": "network",
    "Pass": "pipeline",
    "PassResult": "pipeline",
    "Pipeline": "pipeline",
    "Result": "conversion",
    "Surrogate": "network",
    "Target": "targets.base",
    "WorkDir": "stages",
    "compile": "compilation",
    "convert": "conversion",
    "convert_as_is": "as_is",
    "convert_onnx": "as_is",
    "load": "frontend.load",
    "trace": "frontend.trace",
    "tune": "tuning",
}

__all__ = [*_HOME, "__version__"]


_load = loader(__name__, _HOME)


def __getattr__(name: str) -> Any:
    if name == "load":  # programs that it reads may call our operators
        for module in import_module("distillc.frontend.load").OPERATORS:
            import_module(module)
    return _load(name)


def __dir__() -> list[str]:
    return sorted(__all__)
