"""static_cost: blocks, jumps, and cycles of loops whose cycles are known."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from distillc.codegen.tuning import static_cost as module
from distillc.codegen.tuning.static_cost import (
    KernelCost,
    analyse,
    basic_blocks,
    disassemble,
    is_jump,
    jump_target,
    static_cost,
    tool,
)
from distillc.errors import LoweringError, UsageError
from distillc.runtime.instruction_count import Instruction
from distillc.targets.base import get_target

ARM = "aarch64-linux-gnu"
LINES = ["ldr q0, [x1], #16", "fmla v1.4s, v0.4s, v2.4s", "subs x3, x3, #1", "b.ne #-12"]
WORDS = (0x3CC10420, 0x4E22CC01, 0xF1000463, 0x54FFFFA1)

needs_llvm = pytest.mark.skipif(
    not any(shutil.which(f"llvm-mca{suffix}") for suffix in module.VERSIONS[:-1]),
    reason="needs Debian's llvm-19",
)


def code(*words: int, start: int = 64, count: int = 100) -> list[Instruction]:
    return [
        Instruction("/model.so", start + 4 * index, word.to_bytes(4, "little"), count)
        for index, word in enumerate(words)
    ]


def test_a_block_ends_where_executions_change_behind_jumps_and_at_gaps() -> None:
    prologue = code(WORDS[0], start=60, count=2)
    loop = code(*WORDS)
    behind = code(WORDS[0], start=80)
    far = code(WORDS[0], start=100)
    lines = [LINES[0], *LINES, LINES[0], LINES[0]]
    blocks = basic_blocks([*prologue, *loop, *behind, *far], lines)
    assert blocks == [(0, 1), (1, 5), (5, 6), (6, 7)]
    assert basic_blocks([], []) == []


JUMPS = ["b #-4", "b.ne #8", "cbz w0, #16", "tbnz x1, #3, #-8", "bl #4", "ret", "br x0"]
JUMPS += ["jne -48", "jmp 3", "callq *%rax", "retq"]


@pytest.mark.parametrize("line", ["fmla v0.8h, v1.8h, v2.h[3]", "fmls v0.4s, v1.4s, v2.4s"])
def test_multiply_adds_of_both_precisions_count(line: str) -> None:
    assert module.MULTIPLY_ADD.match(line)
    assert not module.MULTIPLY_ADD.match(line.replace("fml", "fmu"))


@pytest.mark.parametrize("line", JUMPS)
def test_jumps(line: str) -> None:
    assert is_jump(line.replace(" ", "\t", 1))


@pytest.mark.parametrize("line", ["bic v0.16b, v1.16b, v2.16b", "bfi w0, w1, #3, #4", "cmp x0, x1"])
def test_other_instructions_are_no_jumps(line: str) -> None:
    assert not is_jump(line)


def test_where_jumps_go() -> None:
    (last,) = code(WORDS[-1], start=76)
    assert jump_target(last, "b.ne\t#-12") == 64
    assert jump_target(last, "subs\tx3, x3, #1") is None
    assert jump_target(last, "ret") is None
    # x86 counts from the next instruction.
    assert jump_target(Instruction("", 100, b"\x75\xce", 1), "jne\t-50") == 52


def test_missing_tools_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="llvm-mca is not installed") as caught:
        tool("llvm-mca")
    assert "apt-get install llvm-19" in str(caught.value)


@needs_llvm
def test_cycles_of_one_loop() -> None:
    target = get_target("snapdragon8elite")
    kernels = {"dot": [*code(WORDS[0], start=60, count=1), *code(*WORDS)], "empty": []}
    costs = static_cost(kernels, target)
    assert costs["empty"] == KernelCost(())
    assert costs["empty"].hottest_loop is None
    loop = costs["dot"].hottest_loop
    assert loop is not None
    assert (loop.offset, loop.instructions, loop.multiply_adds, loop.count) == (64, 4, 1, 100)
    # One chain of multiply-adds: each waits for the one before it.
    assert loop.bound <= 1 < loop.cycles
    assert costs["dot"].multiply_adds == 100
    assert costs["dot"].cycles == pytest.approx(100 * loop.cycles, rel=0.1)


@needs_llvm
def test_four_multiply_adds_a_cycle_without_a_chain() -> None:
    independent = [f"fmla v{index}.4s, v30.4s, v31.4s" for index in range(24)]
    ((cycles, bound),) = analyse([independent], ARM, "oryon-1")
    assert cycles == pytest.approx(6, rel=0.1)
    assert bound == pytest.approx(6, rel=0.1)


@needs_llvm
def test_equal_blocks_are_analysed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    run = subprocess.run

    def record(words: list[str], **options: str) -> object:
        seen.append(options["input"])
        return run(words, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(module.subprocess, "run", record)
    first, second, third = analyse([LINES, LINES[:1], LINES], ARM, "oryon-1")
    assert first == third != second
    assert all(text.count("LLVM-MCA-BEGIN") == 2 for text in seen)


@needs_llvm
def test_what_llvm_cannot_read_is_an_error_of_ours() -> None:
    assert disassemble([word.to_bytes(4, "little") for word in WORDS], ARM, "oryon-1") == [
        line.replace(" ", "\t", 1) for line in LINES
    ]
    with pytest.raises(LoweringError, match=r"reads [0-9]+ of 1 instructions"):
        disassemble([b"\xff\xff\xff\xff"], ARM, "oryon-1")
    with pytest.raises(LoweringError, match="failed"):
        analyse([["no_such_instruction x0"]], ARM, "oryon-1")
