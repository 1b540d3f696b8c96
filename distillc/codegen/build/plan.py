"""What a lowered network is once nothing is left to decide: a list of kernel calls on one arena."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from distillc.codegen.build.moves import Move, find_moves
from distillc.errors import LoweringError

ALIGNMENT = 128
"""Of every tensor, bytes: a cache line of the largest kind, and what TVM's kernels rely on."""

_ALLOCATION = "relax.builtin.alloc_tensor"
_VIEW = "relax.reshape"


@dataclass(frozen=True)
class Operand:
    """A tensor that a kernel reads or writes.

    Attributes:
        constant: Whether it lies among the weights, or else in the arena.
        offset: Where it starts there, bytes.
        shape: Its extents.
        dtype: Say `"float32"`.
    """

    constant: bool
    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class KernelCall:
    """One step: the kernel, and its operands as numbers of `Plan.operands`."""

    kernel: str
    operands: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All steps of a network.

    Attributes:
        operands: Every tensor.
        calls: The steps in order.
        input: Number of the operand that holds the image.
        output: Number of the operand that holds the result.
        arena_bytes: Size of the arena: what a run needs besides the kernels' own tiles.
        weights: The constants, one after the other as the operands' offsets say.
        float_bytes: Bytes of them, from the first on, that are float32 numbers.
    """

    operands: tuple[Operand, ...]
    calls: tuple[KernelCall, ...]
    input: int
    output: int
    arena_bytes: int
    weights: bytes
    float_bytes: int


def plan_text(plan: Plan) -> str:
    """Return a plan as text: a line for every step, and for every tensor its place and its life."""
    named = {plan.input: "image", plan.output: "result"}
    lines = [
        f"arena {plan.arena_bytes} bytes, weights {len(plan.weights)} bytes, "
        f"{len(plan.calls)} steps",
        "",
    ]
    for step, call in enumerate(plan.calls):
        operands = ", ".join(named.get(each, f"t{each}") for each in call.operands)
        lines.append(f"{step:4} {call.kernel}({operands})")
    lines += ["", "tensor  place      offset  steps        type"]
    for number, operand in enumerate(plan.operands):
        steps = [step for step, call in enumerate(plan.calls) if number in call.operands]
        life = f"{steps[0]}-{steps[-1]}" if steps else "-"
        place = "weights" if operand.constant else "arena"
        shape = " x ".join(map(str, operand.shape)) or "1"
        name = named.get(number, f"t{number}")
        lines.append(f"{name:7} {place:8} {operand.offset:8}  {life:11}  {operand.dtype} {shape}")
    return "\n".join([*lines, ""])


@dataclass
class Storage:
    """Memory of a tensor and of its views: constant, or alive from one step to another.

    Attributes:
        bytes: Its size; 0 where nothing lies in it.
        first: The step that writes it.
        last: The last step that reads it.
        value: Of a constant.
        offset: Where it was placed.
        within: The storage that it is a part of, and where it starts there.
    """

    bytes: int
    first: int
    last: int
    value: np.ndarray | None = None
    offset: int = -1
    within: tuple[Storage, int] | None = None


Tensor = tuple[int, int, tuple[int, ...], str]
"""A tensor by the number of its storage, its first byte there, its shape and its dtype."""


class _Storages:
    """Memory of all tensors, equal constants once."""

    def __init__(self) -> None:
        self.all: list[Storage] = []
        self._constants: dict[tuple[str, bytes], int] = {}

    def allocate(self, var: relax.Var, step: int) -> Tensor:
        shape, dtype = _shape(var), _dtype(var)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.all.append(Storage(size, step, step))
        return len(self.all) - 1, 0, shape, dtype

    def constant(self, value: np.ndarray) -> Tensor:
        number = self._constants.setdefault((str(value.dtype), value.tobytes()), len(self.all))
        if number == len(self.all):
            self.all.append(Storage(value.nbytes, 0, 0, value))
        return number, 0, value.shape, str(value.dtype)

    def moved(self, moves: Sequence[Move], operands: Sequence[Tensor]) -> Tensor | None:
        """Return a call's result where a kernel need not copy (rule 4), None where it must."""
        (result, _, shape, dtype) = operands[-1]
        size = np.dtype(dtype).itemsize
        if len(moves) == 1:
            ((operand, first, *_),) = moves
            source, begin, *_ = operands[operand]
            begin += first * size
            if begin % ALIGNMENT or self.all[source].value is not None:
                return None
            self.all[result].bytes = 0
            return source, begin, shape, dtype
        parts = [self.all[operands[each.operand][0]] for each in moves]
        if len({id(part) for part in parts}) < len(moves) or not moves:
            return None
        for part, each in zip(parts, moves, strict=True):
            whole = part.bytes == each.length * size and each.first == 0
            if part is self.all[0] or part.value is not None or part.within or not whole:
                return None
            if each.place * size % ALIGNMENT:
                return None
        for part, each in zip(parts, moves, strict=True):
            part.within = self.all[result], each.place * size
        return operands[-1]


def plan_network(mod: tvm.IRModule) -> Plan:
    """Return the steps of a lowered module, and a place for every tensor.

    1. Calls of kernels write into tensors that are allocated before them; views share storage.
    2. Constants are laid one after the other, float32 numbers first, equal ones once.
    3. A tensor lives from the step that writes it to the last that reads it. The largest are
       placed first, each at the lowest offset that no tensor alive at the same time has.
    4. A kernel that only copies whole runs is not called: a slice of channels is read where it
       lies, what is put one after the other is written there at once.

    Args:
        mod: A lowered module, scheduled or not.

    Raises:
        LoweringError: `main` holds something else than calls of kernels.
    """
    transforms = relax.transform
    mod = tvm.ir.transform.Sequential(
        [
            transforms.ToNonDataflow(),
            transforms.RemovePurityChecking(),
            transforms.CallTIRRewrite(),
        ]
    )(mod)
    main, storages = mod["main"], _Storages()
    moves = functools.cache(lambda name: find_moves(mod[name]))
    (image,) = main.params
    found: dict[relax.Var, Tensor] = {image: storages.allocate(image, 0)}
    calls: list[tuple[str, list[Tensor]]] = []

    def tensor(expr: relax.Expr) -> Tensor:
        if isinstance(expr, relax.Var):
            return found[expr]
        if isinstance(expr, tvm.ir.Constant):
            return storages.constant(expr.value.numpy())
        raise _unknown(expr)

    for var, value in ((each.var, each.value) for each in _bindings(main)):
        if not isinstance(value, relax.Call):
            found[var] = tensor(value)
        elif isinstance(value.op, tvm.ir.GlobalVar):  # rule 1
            operands = [tensor(each) for each in value.args]
            for storage, *_ in operands:
                storages.all[storage].last = len(calls)
            moved = storages.moved(moves(value.op), operands)  # rule 4
            if moved is None:
                calls.append((value.op.name_hint, operands))
            else:
                found[value.args[-1]] = moved
        elif value.op.name == _ALLOCATION:
            found[var] = storages.allocate(var, len(calls))
        elif value.op.name == _VIEW:
            storage, begin, *_ = tensor(value.args[0])
            found[var] = storage, begin, _shape(var), _dtype(var)
        else:
            raise _unknown(value)
    output = tensor(main.body.body)
    storages.all[output[0]].last = len(calls)
    weights, float_bytes = _lay_out_constants(storages.all)
    arena_bytes = place_storages(storages.all)
    tensors = [found[image], output, *(each for _, operands in calls for each in operands)]
    numbers = {each: number for number, each in enumerate(dict.fromkeys(tensors))}
    return Plan(
        tuple(
            _operand(storages.all[storage], begin, shape, dtype)
            for storage, begin, shape, dtype in numbers
        ),
        tuple(KernelCall(name, tuple(map(numbers.__getitem__, given))) for name, given in calls),
        numbers[found[image]],
        numbers[output],
        arena_bytes,
        weights,
        float_bytes,
    )


def _operand(storage: Storage, begin: int, shape: tuple[int, ...], dtype: str) -> Operand:
    return Operand(storage.value is not None, storage.offset + begin, shape, dtype)


def _bindings(main: relax.Function) -> Iterator[relax.Binding]:
    for block in main.body.blocks:
        yield from block.bindings


def _shape(var: relax.Var) -> tuple[int, ...]:
    return tuple(int(extent) for extent in var.ty.shape)


def _dtype(var: relax.Var) -> str:
    return str(var.ty.dtype)


def _unknown(expr: relax.Expr) -> LoweringError:
    return LoweringError(
        "the lowered network holds more than calls of kernels",
        where=str(expr)[:200],
        hint="please report the network",
    )


def _lay_out_constants(storages: Sequence[Storage]) -> tuple[bytes, int]:
    """Give every constant its offset, float32 numbers first; return all, and how many bytes these
    take."""
    weights, float_bytes = bytearray(), 0
    constants = [(each, each.value) for each in storages if each.value is not None]
    for each, value in sorted(constants, key=lambda it: it[1].dtype != np.float32):
        weights += bytes(-len(weights) % ALIGNMENT)
        each.offset = len(weights)
        weights += value.tobytes()
        if value.dtype == np.float32:
            float_bytes = len(weights)
    return bytes(weights), float_bytes


def place_storages(storages: Sequence[Storage]) -> int:
    """Give every tensor of the arena its offset (rule 3); return the arena's size."""
    placed: list[Storage] = []
    parts = [(each, *_whole(each)) for each in storages if each.within]
    for part, whole, _ in parts:
        whole.first = min(whole.first, part.first)
        whole.last = max(whole.last, part.last)
    own = [each for each in storages if each.value is None and not each.within]
    for each in sorted(own, key=lambda it: (-it.bytes, it.first)):
        offset = 0
        for other in sorted(placed, key=lambda it: it.offset):
            together = other.first <= each.last and each.first <= other.last
            if together and offset + each.bytes > other.offset:
                offset = max(offset, _aligned(other.offset + other.bytes))
        each.offset = offset
        placed.append(each)
    for part, whole, begin in parts:
        part.offset = whole.offset + begin
    return max((_aligned(each.offset + each.bytes) for each in placed), default=0)


def _whole(storage: Storage) -> tuple[Storage, int]:
    """Return the storage that one is a part of at last, and where it starts there."""
    begin = 0
    while storage.within:
        storage, before = storage.within
        begin += before
    return storage, begin


def _aligned(offset: int) -> int:
    return offset + -offset % ALIGNMENT
