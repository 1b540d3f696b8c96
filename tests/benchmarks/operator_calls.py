"""What the networks in a folder of sources call of torch: found by reading, nothing is imported."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

STRUCTURE = {
    *("Sequential", "ModuleList", "ModuleDict", "Module", "Parameter", "ParameterList", "Identity"),
    *("Dropout", "Dropout2d", "Dropout3d", "AlphaDropout", "dropout", "init", "DataParallel"),
    *("no_grad", "load", "save", "device", "manual_seed", "jit", "cuda", "utils", "distributed"),
    *("is_tensor", "finfo", "is_grad_enabled", "set_grad_enabled", "autocast", "amp", "autograd"),
    *("get_default_dtype", "compiler", "hub", "backends", "version", "checkpoint", "typename"),
    *("Tensor", "Size", "dtype", "Generator", "export", "enable_grad", "is_floating_point"),
    *("modules", "parallel", "quantization", "from_numpy"),
}
"""Names of torch that compute nothing when an image is restored: containers, drop-out, start values
of weights, files, devices."""

_OF_ANYTHING = {
    *(
        "size",
        "dim",
        "to",
        "cuda",
        "cpu",
        "item",
        "numpy",
        "detach",
        "type",
        "apply",
        "register_hook",
    ),
    *(
        "split",
        "index",
        "copy",
        "format",
        "numel",
        "nelement",
        "ndimension",
        "element_size",
        "storage",
    ),
    *("requires_grad_", "backward", "tolist", "is_contiguous", "stride", "data_ptr", "get_device"),
    *("normal_", "uniform_", "fill_", "zero_", "copy_", "trunc_normal_", "new", "retain_grad"),
    *("is_floating_point", "is_complex", "is_cuda", "log_normal_", "share_memory_", "set_", "map_"),
    *("values", "add_module", "get", "extend"),
}
"""Methods of tensors that compute nothing, or that lists, words and modules have as well."""


def calls_of(folder: Path) -> Counter[str]:
    """Count the calls of torch's functions, layers and methods of tensors in networks.

    A network is a class with a `forward` that is not a loss. A class that several files copy counts
    once. Of `__init__` only layers count: all else there runs once, in Python.

    Args:
        folder: Searched for `.py` files, below it as well.

    Returns:
        Names as they are mostly written: `torch.cat`, `F.gelu`, `nn.Conv2d`, `x.permute`.
    """
    found: Counter[str] = Counter()
    seen: set[str] = set()
    for path in sorted(folder.rglob("*.py")):
        try:
            tree = ast.parse(path.read_text(errors="replace"))
        except (SyntaxError, ValueError):  # Python 2, and files that are not text
            continue
        names = _imported(tree)
        for network in _networks(tree):
            text = ast.dump(network)
            if text not in seen:
                seen.add(text)
                found.update(_called(network, names))
    return found


def _networks(tree: ast.Module) -> Iterator[ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.lower().endswith("loss"):
            functions = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            if "forward" in functions:
                yield node


def _imported(tree: ast.Module) -> dict[str, str]:
    """Return what each name that a file imports stands for, in full."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                names[each.asname or each.name.partition(".")[0]] = (
                    each.name if each.asname else each.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                names[each.asname or each.name] = f"{node.module}.{each.name}"
    return names


def _called(network: ast.ClassDef, names: dict[str, str]) -> Iterator[str]:
    for part in network.body:
        once = isinstance(part, ast.FunctionDef) and part.name == "__init__"
        for name in _called_in(part, names):
            if not once or name.startswith("nn."):
                yield name


def _called_in(part: ast.stmt, names: dict[str, str]) -> Iterator[str]:
    for node in ast.walk(part):
        if isinstance(node, ast.Call):
            full = _full_name(node.func, names)
            if full is not None:
                yield from _of_torch(full)
            elif isinstance(node.func, ast.Attribute) and _may_be_tensor(node.func):
                yield f"x.{node.func.attr}"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield "x @ y"


def _full_name(node: ast.expr, names: dict[str, str]) -> str | None:
    """Return the dotted name of what a file imports; None for what it does not."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in names:
        return None
    return ".".join([names[node.id], *reversed(parts)])


def _of_torch(full: str) -> Iterator[str]:
    for start, short, owner in (
        ("torch.nn.functional.", "F.", nn.functional),
        ("torch.nn.", "nn.", nn),
        ("torch.fft.", "torch.fft.", torch.fft),
        ("torch.linalg.", "torch.linalg.", torch.linalg),
        ("torch.", "torch.", torch),
    ):
        if full.startswith(start):
            name = full.removeprefix(start)
            first = name.partition(".")[0]
            if first not in STRUCTURE and hasattr(owner, first) and not first.endswith("Loss"):
                yield short + name
            return
    if full.startswith("einops.") and not full.startswith("einops.layers"):
        yield full


def _may_be_tensor(function: ast.Attribute) -> bool:
    """Whether it may be a method of a tensor: not of `self`, whose attributes are layers."""
    name, owner = function.attr, function.value
    own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
    plain = isinstance(owner, (ast.Constant, ast.JoinedStr, ast.Dict, ast.List))
    known = hasattr(torch.Tensor, name) and not name.startswith("_") and name not in _OF_ANYTHING
    return known and not own and not plain
