# mypy: disable-error-code="no-untyped-call"
"""A planned network as sources that any C compiler takes, and an object file with its kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import relax, tirx

from distillc.codegen.build.plan import Operand, Plan
from distillc.errors import LoweringError

# DLPack's codes of types.
_CODES = {"int": 0, "uint": 1, "float": 2, "bool": 6}

WEIGHTS = "weights.bin"
"""The file of the constants."""

_WORD = 8
"""Bytes that the checksum takes at once."""


@dataclass(frozen=True)
class NetworkInfo:
    """What a library says of itself: names, and threads unless its caller asks for others."""

    name: str
    target: str
    threads: int


def emit_kernels(mod: tvm.IRModule, target: tvm.target.Target, path: Path) -> None:
    """Write the kernels of a scheduled module to an object file.

    They call `TVMBackendParallelLaunch`, `TVMBackendAllocWorkspace` and two more functions of TVM's
    runtime by name; `distillc/runtime/native/pool.c` has them.
    """
    named = relax.transform.AttachGlobalSymbol()(mod)
    kernels = tvm.IRModule(
        {name: func for name, func in named.functions_items() if isinstance(func, tirx.PrimFunc)}
    )
    # As a system library the object calls these functions directly, not through pointers that
    # TVM's loader would set. Only the plan calls them: checks of ranks, shapes and strides at
    # every call are half of the machine code, and cannot fail.
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        built = tvm.tirx.build(kernels.with_attr("system_lib_prefix", "distillc_"), target)
    built.write_to_file(str(path), "o")


def emit_table(mod: tvm.IRModule, folder: Path) -> Path:
    """Write `table.c`, which defines `dc_the_kernels` of `native/network.h`, and return it."""
    names = [
        f"__tvm_ffi_{name.name_hint}"
        for name, func in mod.functions_items()
        if isinstance(func, tirx.PrimFunc)
    ]
    lines = ['#include "network.h"', *(f"extern dc_kernel {name};" for name in names)]
    rows = ", ".join(f'{{"{name}", {name}}}' for name in names)
    lines.append(f"const dc_entry dc_the_kernels[] = {{{rows}, {{0, 0}}}};")
    path = folder / "table.c"
    path.write_text("\n".join(lines) + "\n")
    return path


def emit_network(plan: Plan, info: NetworkInfo, folder: Path, halves: bool) -> Path:
    """Write `network.c` to a folder, and `WEIGHTS`, the constants as they are stored.

    The first defines `dc_the_network` of `distillc/runtime/native/network.h`.

    Args:
        plan: The steps, operands and constants.
        info: Names and threads.
        folder: Where the files go.
        halves: Whether float32 constants are stored as float16.

    Raises:
        LoweringError: A constant is too large for float16.
    """
    weights = _halved(plan) if halves else plan.weights
    weights += bytes(-len(weights) % _WORD)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / "network.c").write_text(_network(plan, info, weights, halves))
    return folder / "network.c"


def emit_weights(folder: Path) -> Path:
    """Write `weights.S`, which puts `WEIGHTS` into what it is linked with, and return it."""
    path = folder / "weights.S"
    path.write_text(
        "    .section .rodata\n    .balign 4096\n    .globl dc_the_weights\n"
        "    .hidden dc_the_weights\n"
        f'dc_the_weights:\n    .incbin "{folder.resolve() / WEIGHTS}"\n    .byte 0\n'
        '    .section .note.GNU-stack,"",%progbits\n'
    )
    return path


def _halved(plan: Plan) -> bytes:
    numbers = np.frombuffer(plan.weights[: plan.float_bytes], np.float32)
    largest = float(np.abs(numbers).max(initial=0.0))
    if largest > float(np.finfo(np.float16).max):
        raise LoweringError(
            f"a constant of {largest:.3g} is too large for float16",
            hint="store the weights in float32: --precision fp32",
        )
    return numbers.astype(np.float16).tobytes() + plan.weights[plan.float_bytes :]


def _network(plan: Plan, info: NetworkInfo, weights: bytes, halves: bool) -> str:
    shapes = list(dict.fromkeys(each.shape for each in plan.operands))
    kernels = sorted({call.kernel for call in plan.calls})
    lines = ['#include "network.h"', ""]
    lines += [f"extern dc_kernel __tvm_ffi_{name};" for name in kernels]
    lines += [
        f"static const int64_t shape{number}[] = {_list(shape or (1,))};"
        for number, shape in enumerate(shapes)
    ]
    lines += [
        f"static const int32_t operands{number}[] = {_list(call.operands)};"
        for number, call in enumerate(plan.calls)
    ]
    lines.append("static const dc_operand operands[] = {")
    lines += [f"  {_operand(each, shapes.index(each.shape))}," for each in plan.operands]
    lines += ["};", "static const dc_call calls[] = {"]
    lines += [
        f'  {{__tvm_ffi_{call.kernel}, "{call.kernel}", {len(call.operands)}, operands{number}}},'
        for number, call in enumerate(plan.calls)
    ]
    image, result = (plan.operands[each].shape[1:] for each in (plan.input, plan.output))
    fields = {
        "name": _text(info.name),
        "target": _text(info.target),
        "threads": info.threads,
        "input": _list(image),
        "output": _list(result),
        "input_operand": plan.input,
        "output_operand": plan.output,
        "operand_count": len(plan.operands),
        "call_count": len(plan.calls),
        "operands": "operands",
        "calls": "calls",
        "arena_bytes": plan.arena_bytes,
        "weight_bytes": len(weights),
        "weight_checksum": f"UINT64_C({checksum(weights)})",
        "halves": plan.float_bytes // 4 if halves else 0,
    }
    lines += ["};", "const dc_network dc_the_network = {"]
    lines += [f"  .{key} = {value}," for key, value in fields.items()]
    return "\n".join([*lines, "};", ""])


def _operand(operand: Operand, shape: int) -> str:
    kind = operand.dtype.rstrip("0123456789")
    bits = int(operand.dtype[len(kind) :] or 8)
    numbers = (int(operand.constant), _CODES[kind], bits, len(operand.shape), operand.offset)
    return "{" + ", ".join(map(str, numbers)) + f", shape{shape}}}"


def _list(numbers: Iterable[int]) -> str:
    return "{" + ", ".join(map(str, numbers)) + "}"


def _text(text: str) -> str:
    """Return a string literal of C."""
    plain = "".join(each if " " <= each <= "~" else "_" for each in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def checksum(weights: bytes) -> int:
    """Return what `distillc_model_create` compares: words times odd numbers, summed mod 2^64."""
    words = np.frombuffer(weights, "<u8")
    odd = np.arange(1, 2 * len(words), 2, dtype=np.uint64)
    return int((words * odd).sum(dtype=np.uint64))
