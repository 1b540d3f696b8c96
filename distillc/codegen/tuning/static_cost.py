"""Cycles of compiled code by a model of the CPU: no device, no clock.

Every basic block of a kernel goes through LLVM's machine code analyser, which knows the CPU's
ports, latencies and widths; the cycles of one run of a block times its executions under the
emulator (`distillc.runtime.instruction_count`) are the kernel's cycles. What this leaves out is in
docs/guide/static_cost.md: caches, branch misses, and whatever overlaps from one block to the next.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distillc.children import with_us
from distillc.errors import LoweringError, UsageError
from distillc.runtime.instruction_count import Instruction
from distillc.targets.base import Target

INSTALL = "sudo apt-get install llvm-19 (Debian 12 and later, Ubuntu 24.04 and later)"
VERSIONS = ("-19", "-20", "-21", "-22", "")
"""Suffixes of LLVM's programs, the tried ones first: Oryon's model came with LLVM 19."""
ITERATIONS = (10, 30)
"""Runs of a block in the analyser: the difference is the steady state, without filling up."""
MULTIPLY_ADD = re.compile(r"fml[as]\b.*\.([24][sd]|[48]h)|vfn?m(add|sub)\w*p[sd]\b")
JUMP = re.compile(r"(b|b\.\w+|bl|br|blr|cbn?z|tbn?z|ret\w*|j\w+|callq?)(\s|$)")


@dataclass(frozen=True)
class BlockCost:
    """A basic block: instructions that run one after the other, equally often.

    Attributes:
        offset: Where it starts in the library, bytes.
        instructions: Its length.
        multiply_adds: Vector multiply-adds among them.
        cycles: Modelled cycles of one run in a row of many.
        bound: Cycles that the busiest unit needs: `cycles` is more where latencies hold up.
        count: How often it ran.
        loop: Whether its last instruction jumps to its first: a whole innermost loop.
    """

    offset: int
    instructions: int
    multiply_adds: int
    cycles: float
    bound: float
    count: int
    loop: bool


@dataclass(frozen=True)
class KernelCost:
    """A kernel's blocks, in the order of offsets."""

    blocks: tuple[BlockCost, ...]

    @property
    def cycles(self) -> float:
        """Modelled cycles of one inference on one thread."""
        return sum(block.cycles * block.count for block in self.blocks)

    @property
    def multiply_adds(self) -> int:
        """Executed vector multiply-adds."""
        return sum(block.multiply_adds * block.count for block in self.blocks)

    @property
    def hottest_loop(self) -> BlockCost | None:
        """The innermost loop that takes most cycles."""
        loops = [block for block in self.blocks if block.loop]
        return max(loops, key=lambda block: block.cycles * block.count, default=None)


def static_cost(
    kernels: Mapping[str, Sequence[Instruction]], target: Target, cpu: str | None = None
) -> dict[str, KernelCost]:
    """Return the modelled cost of kernels.

    Args:
        kernels: Executed code by kernel, as `InstructionCount.kernels` has it.
        target: What the code is for.
        cpu: LLVM's name of the CPU whose model is used, by default the target's.

    Raises:
        UsageError: LLVM's programs are not installed.
        LoweringError: They cannot read the code or do not know the CPU.
    """
    pieces: list[tuple[str, list[Instruction], list[str]]] = []
    flat = [each for code in kernels.values() for each in code]
    text = iter(disassemble([each.code for each in flat], target.triple, target.cpu))
    for name, code in kernels.items():
        lines = [next(text) for _ in code]
        for first, last in basic_blocks(code, lines):
            pieces.append((name, list(code[first:last]), lines[first:last]))
    costs = analyse([lines for *_, lines in pieces], target.triple, cpu or target.cpu)
    found: dict[str, list[BlockCost]] = {name: [] for name in kernels}
    for (name, code, lines), (cycles, bound) in zip(pieces, costs, strict=True):
        multiply_adds = sum(bool(MULTIPLY_ADD.match(line)) for line in lines)
        found[name].append(
            BlockCost(
                code[0].offset,
                len(code),
                multiply_adds,
                cycles,
                bound,
                code[0].count,
                jump_target(code[-1], lines[-1]) == code[0].offset,
            )
        )
    return {name: KernelCost(tuple(blocks)) for name, blocks in found.items()}


def basic_blocks(code: Sequence[Instruction], lines: Sequence[str]) -> list[tuple[int, int]]:
    """Return (first, end) of the basic blocks of executed code.

    A block ends behind a jump, where code was never executed, and where the executions change.

    Args:
        code: Instructions in the order of offsets.
        lines: The same as assembly.
    """
    if not code:
        return []
    starts = [0]
    for index in range(1, len(code)):
        before, after = code[index - 1], code[index]
        follows = before.offset + len(before.code) == after.offset
        if not follows or before.count != after.count or is_jump(lines[index - 1]):
            starts.append(index)
    return list(zip(starts, [*starts[1:], len(code)], strict=True))


def is_jump(line: str) -> bool:
    """Return whether an instruction of aarch64 or x86 ends a basic block."""
    return bool(JUMP.match(line))


def jump_target(last: Instruction, line: str) -> int | None:
    """Return where a direct jump goes, bytes; None for other instructions."""
    distance = re.search(r"#?(-?\d+)$", line)
    if not is_jump(line) or not distance:
        return None
    # x86 counts from the next instruction.
    origin = last.offset + (len(last.code) if line.startswith(("j", "call")) else 0)
    return origin + int(distance[1])


def disassemble(code: Sequence[bytes], triple: str, cpu: str) -> list[str]:
    """Return the assembly of instructions, a line each.

    Raises:
        UsageError: LLVM's programs are not installed.
        LoweringError: Something is not an instruction.
    """
    text = "\n".join(" ".join(f"0x{byte:02x}" for byte in each) for each in code)
    words = [tool("llvm-mc"), "-disassemble", f"-triple={triple}", f"-mcpu={cpu}"]
    lines = [line.strip() for line in _run(words, text).splitlines()]
    lines = [line for line in lines if line and not line.startswith(".")]
    if len(lines) != len(code):
        raise LoweringError(
            f"{words[0]} reads {len(lines)} of {len(code)} instructions for {cpu}",
            hint=f"it may be too old: {INSTALL}",
        )
    return lines


def analyse(blocks: Sequence[Sequence[str]], triple: str, cpu: str) -> list[tuple[float, float]]:
    """Return (cycles of one run, cycles of the busiest unit) of blocks of assembly.

    Raises:
        UsageError: LLVM's programs are not installed.
        LoweringError: The analyser has no model of the CPU or cannot read the code.
    """
    distinct = {tuple(block): index for index, block in enumerate(blocks)}
    text = "".join(
        "\n".join((f"# LLVM-MCA-BEGIN {index}", *block, f"# LLVM-MCA-END {index}\n"))
        for block, index in distinct.items()
    )
    words = [tool("llvm-mca"), f"-mtriple={triple}", f"-mcpu={cpu}", "--json"]
    words.append("--skip-unsupported-instructions=lack-sched")

    def run(iterations: int) -> dict[int, dict[str, float]]:
        regions = json.loads(_run([*words, f"-iterations={iterations}"], text))["CodeRegions"]
        return {int(region["Name"]): region["SummaryView"] for region in regions}

    few, many = map(run, ITERATIONS)
    found = []
    for block in blocks:
        index = distinct[tuple(block)]
        cycles = many[index]["TotalCycles"] - few[index]["TotalCycles"]
        bound = many[index]["BlockRThroughput"]
        found.append((cycles / (ITERATIONS[1] - ITERATIONS[0]), bound))
    return found


def tool(name: str) -> str:
    """Return the path of one of LLVM's programs.

    Raises:
        UsageError: It is not installed.
    """
    for suffix in VERSIONS:
        if path := shutil.which(name + suffix):
            return path
    raise UsageError(
        f"{name} is not installed",
        hint=INSTALL,
    )


def _run(words: list[str], text: str) -> str:
    done = subprocess.run(with_us(words), input=text, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        raise LoweringError(
            f"{words[0]} failed: {done.stderr.strip()[-300:]}",
            hint=f"the CPU must be one that it knows: {words[0]} -mcpu=help",
        )
    return done.stdout
