"""No loop of aarch64 code calls libm: its functions appear in no library, as calls or as copies.

Zig's own runtime brings copies of some, so a call need not show as an undefined symbol.
"""

from __future__ import annotations

from pathlib import Path

import distillc
from distillc.codegen.build.library import build_library
from distillc.codegen.build.link import link
from distillc.frontend.trace import export_program
from distillc.passes import FindAttention, SynthesizeSurrogates, Trace
from distillc.runtime.elf import read_symbols
from distillc.targets.base import get_target

TEACHER = Path(__file__).parents[3] / "examples/checkpoints/restormer_tiny_denoise_sigma25.pth"
STEMS = "exp exp2 exp10 expm1 log log2 log10 log1p pow sqrt erf erfc sin cos tan tanh sinh cosh "
STEMS += "atan floor ceil round rint trunc fma fmod"
LIBM = {stem + suffix for stem in STEMS.split() for suffix in ("", "f")}


def libm_symbols(library: Path) -> set[str]:
    return {symbol.name.partition("@")[0] for symbol in read_symbols(library)} & LIBM


def test_a_hybrid_of_attention_and_scans(tmp_path: Path) -> None:
    label = "mamba:state=2"
    passes = [Trace(), FindAttention(), SynthesizeSurrogates((label,))]
    net = distillc.Pipeline(passes).run(distillc.load(TEACHER).at((16, 16)))
    module = net.hybrid({block.name: label for block in net.blocks[::2]})
    library = tmp_path / "model.so"
    program = export_program(module, net.input_shape)
    build_library(program, get_target("snapdragon8elite"), library)
    assert not libm_symbols(library)


def test_a_call_would_be_seen(tmp_path: Path) -> None:
    source, library = tmp_path / "calls.c", tmp_path / "calls.so"
    source.write_text("float expf(float); float f(float x) { return expf(x); }\n")
    link(library, get_target("snapdragon8elite"), [source], (), "f")
    assert libm_symbols(library) == {"expf"}
