"""aarch64_classes: words as an assembler writes them fall into the right classes."""

from __future__ import annotations

import pytest

from distillc.runtime.aarch64_classes import CLASSES, by_class, classify

WORDS = [
    (0x4E22CC20, "vector multiply-add"),  # fmla v0.4s, v1.4s, v2.4s
    (0x4EA2CC20, "vector multiply-add"),  # fmls v0.4s, v1.4s, v2.4s
    (0x4FA21820, "vector multiply-add"),  # fmla v0.4s, v1.4s, v2.s[3]
    (0x4F825020, "vector multiply-add"),  # fmls v0.4s, v1.4s, v2.s[0]
    (0x4E420C20, "vector multiply-add"),  # fmla v0.8h, v1.8h, v2.8h
    (0x4EC20C20, "vector multiply-add"),  # fmls v0.8h, v1.8h, v2.8h
    (0x4F321020, "vector multiply-add"),  # fmla v0.8h, v1.8h, v2.h[3]
    (0x4F025020, "vector multiply-add"),  # fmls v0.8h, v1.8h, v2.h[0]
    (0x4F029020, "other vector"),  # fmul v0.8h, v1.8h, v2.h[0]
    (0x0E217820, "other vector"),  # fcvtl v0.4s, v1.4h
    (0x4E22D420, "other vector"),  # fadd v0.4s, v1.4s, v2.4s
    (0x4F829020, "other vector"),  # fmul v0.4s, v1.4s, v2.s[0]
    (0x4EA21C20, "other vector"),  # orr v0.16b, v1.16b, v2.16b
    (0x1F020C20, "scalar float"),  # fmadd s0, s1, s2, s3
    (0x1E222820, "scalar float"),  # fadd s0, s1, s2
    (0x3DC00420, "load"),  # ldr q0, [x1, #16]
    (0xAD400420, "load"),  # ldp q0, q1, [x1]
    (0x4D40C820, "load"),  # ld1r { v0.4s }, [x1]
    (0x58000040, "load"),  # ldr x0, #8
    (0xB9800020, "load"),  # ldrsw x0, [x1]
    (0xB8A27820, "load"),  # ldrsw x0, [x1, x2, lsl #2]
    (0x3D800420, "store"),  # str q0, [x1, #16]
    (0xAD000420, "store"),  # stp q0, q1, [x1]
    (0x3C810420, "store"),  # str q0, [x1], #16
    (0x4C007820, "store"),  # st1 { v0.4s }, [x1]
    (0xB9000020, "store"),  # str w0, [x1]
    (0x54000001, "branch"),  # b.ne #0
    (0xD65F03C0, "branch"),  # ret
    (0x8B020020, "integer"),  # add x0, x1, x2
    (0x91000420, "integer"),  # add x0, x1, #1
]


@pytest.mark.parametrize(("word", "expected"), WORDS, ids=lambda each: str(each))
def test_classes(word: int, expected: str) -> None:
    assert classify(word) == expected


def test_executions_add_up() -> None:
    code = [(word.to_bytes(4, "little"), 10) for word, _ in WORDS]
    totals = by_class(code)
    assert tuple(totals) == CLASSES
    assert totals["vector multiply-add"] == 80
    assert sum(totals.values()) == 10 * len(WORDS)
    assert set(by_class([]).values()) == {0}
