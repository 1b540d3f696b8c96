"""Reading exported programs (`.pt2`) without running anything that they carry.

`torch.export.load` trusts its file: it falls back to unpickling anything, loads compiled libraries,
evaluates symbolic sizes and guards as Python, calls whatever function of torch a node names, and
writes names into source that it executes. So every part is checked before it sees the file.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from distillc.errors import CheckpointError, reason
from distillc.frontend.inference_operators import is_allowed
from distillc.frontend.torch_file import require_stored

MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/\w+|version|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)"
)
"""What `torch.export.save` writes; the rest is compiled code, pickles and older layouts."""

LARGEST_VALUE = 2**31
"""Bytes of one tensor of a program; a Restormer's at 1080 x 1920 have half of it."""

WIDEST = 4
"""Bytes of an element, near enough."""

LONGEST_NAME = 1000
"""Letters of a name; those of modules in modules have about a hundred."""

NAMES = {"name", "as_name", "forward_arg_names"}
"""Keys whose strings become names in generated source."""

TABLES = {"tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values"}
"""Keys whose values are tables of such names."""

FORBIDDEN = {
    "as_expr": "sizes that are Python expressions",
    "as_operator": "functions as arguments",
    "as_custom_obj": "objects of other classes",
    "custom_obj_values": "objects of other classes",
    "guards_code": "guards that are Python source",
    "treespec_namedtuple_fields": "classes of its own",
}
"""Keys that must be absent or empty, and what they would hold."""

PLAIN = re.compile(r"[\w.+-]*")
FREE = {"as_string", "as_strings", "nn_module_stack", "torch_fn", "source_fn_stack"}
"""Keys whose strings are more than a dotted name: einsum's equation, say. A stack trace is free."""

WORDS = re.compile(r"[\w .,;:@<>\[\]+>/-]*")
"""No quotes, parentheses or line breaks: never source that does anything, wherever it ends up."""

CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def read_program(path: Path, trust: bool = False) -> torch.export.ExportedProgram:
    """Read a program that `torch.export.save` wrote.

    Args:
        path: The file.
        trust: Read it whatever it holds, which can run any code.

    Raises:
        CheckpointError: It is damaged, or holds something that could run code.
    """
    if not trust:
        require_stored(path)
    try:
        content = path.read_bytes()
        danger = None if trust else next(_dangers(content), None)
        excess = None if trust or danger else next(_excesses(content), None)
    except Exception as error:
        raise _unreadable(path, error) from error
    if excess:
        raise CheckpointError(
            f"the exported program is too large: {excess}",
            where=str(path),
            hint="export the network at a smaller size, or, if you made the file yourself, add "
            "--trust-pickle",
        )
    if danger:
        raise CheckpointError(
            f"the exported program holds what can run any code: {danger}",
            where=str(path),
            hint="export the network again at one fixed size, or, if you made the file yourself, "
            "add --trust-pickle",
        )
    try:
        return torch.export.load(io.BytesIO(content))  # the bytes that were checked
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the exported program cannot be read: {reason(error)}",
        where=str(path),
        hint="save it again with torch.export.save and this version of torch",
    )


def _dangers(content: bytes) -> Iterator[str]:
    """Yield what could run code, in words.

    1. The archive holds nothing but a graph, tensors and their tables; torch's reader and zip's
       agree on that, for torch falls back to the other.
    2. No tensor is pickled; the example inputs are a pickle of nothing but tensors.
    3. The graph names operators of inference, torch's or ours (`is_allowed`).
    4. No other string of it can become source.
    """
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    members = reader.get_all_records()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # rule 1
        listed = [name.partition("/")[2] for name in archive.namelist()]
    for name in (*members, *listed):
        if not MEMBERS.fullmatch(name):
            yield f"the member {name!r}"
    if sorted(members) != sorted(listed) or len(set(members)) < len(members):
        yield "members that are hidden or listed twice"
    for name in ("weights", "constants"):  # rule 2
        config = json.loads(reader.get_record(f"data/{name}/model_{name}_config.json"))
        for tensor, payload in config["config"].items():
            if payload["use_pickle"] is not False:
                yield f"{tensor!r} as a pickle"
            if not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
                yield f"{tensor!r} as an object"
        yield from _in_graph(config)
    sample = reader.get_record("data/sample_inputs/model.pt")
    try:
        torch.load(io.BytesIO(sample), weights_only=True)
    except Exception:
        yield "example inputs that are not plain tensors"
    yield from _in_graph(json.loads(reader.get_record("models/model.json")))


def _in_graph(value: Any, key: str = "") -> Iterator[str]:
    """Yield what breaks rules 3 and 4 in a serialised graph or table."""
    if key in FORBIDDEN and value:
        yield FORBIDDEN[key]
    elif isinstance(value, dict):
        for name, each in value.items():
            if len(name) > LONGEST_NAME:
                yield f"a name of {len(name)} letters"
            if not (name.isidentifier() if key in TABLES else PLAIN.fullmatch(name)):
                yield f"the name {name!r}"
            yield from _in_graph(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _in_graph(each, key)
    elif isinstance(value, str):
        free = key in FREE or key == "stack_trace" or key.endswith("_spec")
        if len(value) > LONGEST_NAME and not free:
            yield f"a text of {len(value)} letters"
        elif key == "target" and not is_allowed(value):
            yield f"a call of {value!r}, which is not an operator of inference"
        elif key in ("in_spec", "out_spec"):
            if value and not _is_plain_tree(json.loads(value)[1]):
                yield "inputs or outputs of classes of its own"
        elif key in NAMES and value and not value.isidentifier():
            yield f"the name {value!r}"
        elif key != "stack_trace" and not (WORDS if key in FREE else PLAIN).fullmatch(value):
            yield f"the text {value[:60]!r}"


def _excesses(content: bytes) -> Iterator[str]:
    """Yield which tensors of a graph or a table are larger than any network's."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    graph = json.loads(reader.get_record("models/model.json"))["graph_module"]["graph"]
    tensors = dict(graph["tensor_values"])
    for name in ("weights", "constants"):
        config = json.loads(reader.get_record(f"data/{name}/model_{name}_config.json"))
        tensors |= {key: each["tensor_meta"] for key, each in config["config"].items()}
    for name, meta in tensors.items():
        extents = [each["as_int"] for each in meta["sizes"]]
        if min(extents, default=0) < 0 or math.prod(extents) * WIDEST > LARGEST_VALUE:
            yield f"{name} has the shape {tuple(extents)}"


def _is_plain_tree(node: Any) -> bool:
    """Whether a tree of inputs or outputs is made of only tuples, lists and dicts (rule 4)."""
    keys = json.loads(node["context"] or "null")
    return (
        node["type"] in CONTAINERS
        and (keys is None or all(isinstance(key, str) and key.isidentifier() for key in keys))
        and all(map(_is_plain_tree, node["children_spec"]))
    )
