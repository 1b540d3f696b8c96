"""Reading exported programs (`.pt2`) without running anything that they carry.

`torch.export.load` trusts its file: it falls back to unpickling anything, loads compiled libraries,
evaluates symbolic sizes and guards as Python, calls whatever function of torch a node names, and
writes names into source that it executes. So every part is checked before it sees the file.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from distillc.errors import CheckpointError, reason

MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/\w+|version|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)"
)
"""What `torch.export.save` writes; the rest is compiled code, pickles and older layouts."""

NAMESPACES = ("aten", "distillc")
FILES = ("from_file", "save")
"""Operators that read or write files by name."""

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
    try:
        content = path.read_bytes()
        danger = None if trust else next(_dangers(content), None)
    except Exception as error:
        raise _unreadable(path, error) from error
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
    2. No tensor is pickled; the example inputs are a pickle of tensors alone.
    3. The graph names operators of torch or ours, and none that touches files.
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
        yield "example inputs that are no plain tensors"
    yield from _in_graph(json.loads(reader.get_record("models/model.json")))


def _in_graph(value: Any, key: str = "") -> Iterator[str]:
    """Yield what breaks rules 3 and 4 in a serialised graph or table."""
    if key in FORBIDDEN and value:
        yield FORBIDDEN[key]
    elif isinstance(value, dict):
        for name, each in value.items():
            if not (name.isidentifier() if key in TABLES else PLAIN.fullmatch(name)):
                yield f"the name {name!r}"
            yield from _in_graph(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _in_graph(each, key)
    elif isinstance(value, str):
        if key == "target" and not _is_operator(value):
            yield f"a call of {value!r}, which is no operator"
        elif key in ("in_spec", "out_spec"):
            if value and not _is_plain_tree(json.loads(value)[1]):
                yield "inputs or outputs of classes of its own"
        elif key in NAMES and value and not value.isidentifier():
            yield f"the name {value!r}"
        elif key != "stack_trace" and not (WORDS if key in FREE else PLAIN).fullmatch(value):
            yield f"the text {value[:60]!r}"


def _is_operator(target: str) -> bool:
    """Whether a node's target is an operator of a known namespace that keeps off files (rule 3)."""
    parts = re.fullmatch(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)", target)
    if not parts or parts[1] not in NAMESPACES or parts[2] in FILES:
        return False
    packet = getattr(getattr(torch.ops, parts[1]), parts[2], None)
    return isinstance(getattr(packet, parts[3], None), torch._ops.OpOverload)


def _is_plain_tree(node: Any) -> bool:
    """Whether a tree of inputs or outputs is made of tuples, lists and dicts alone (rule 4)."""
    keys = json.loads(node["context"] or "null")
    return (
        node["type"] in CONTAINERS
        and (keys is None or all(isinstance(key, str) and key.isidentifier() for key in keys))
        and all(map(_is_plain_tree, node["children_spec"]))
    )
