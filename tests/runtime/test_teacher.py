"""load_teacher: the file that the bundle was made from and no other, and no code of its choice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from distillc.errors import CheckpointError, UsageError
from distillc.frontend.load import load
from distillc.runtime.bundle import Bundle
from distillc.runtime.teacher import NoTeacher, load_teacher

PLAIN: Mapping[str, Any] = {"arch": None, "arch_args": None, "output": None, "trust_pickle": False}

OWN = """
import pathlib, torch
pathlib.Path(__file__).with_name("ran").touch()
class Net(torch.nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, width, 3, padding=1), torch.nn.Conv2d(width, 3, 3, padding=1)
        )
    def forward(self, x):
        return self.layers(x)
"""


@pytest.fixture
def made(bundle: Bundle, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle that says it was made from the checkpoint, which lies beside it."""
    monkeypatch.chdir("/")
    bundle.manifest["source"] = dict(load(tiny_checkpoint).source)
    return bundle


def test_a_file_beside_the_bundle(made: Bundle, tiny_restormer: torch.nn.Module) -> None:
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(load_teacher(made, None, PLAIN)(x), tiny_restormer(x))


def test_a_file_in_the_current_folder(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "tiny.pth").rename(tmp_path / "here" / "tiny.pth")
    with pytest.raises(NoTeacher, match=r"tiny\.pth is neither beside .* --teacher"):
        load_teacher(made, None, PLAIN)
    monkeypatch.chdir(tmp_path / "here")
    load_teacher(made, None, PLAIN)


def test_a_bundle_of_a_size_that_is_no_multiple(
    made: Bundle, tiny_restormer: torch.nn.Module
) -> None:
    for entry, shape in (("size", []), ("input_shape", [1, 3]), ("output_shape", [1, 3])):
        made.manifest[entry] = [*shape, 12, 16]
    assert load_teacher(made, None, PLAIN)(torch.rand(1, 3, 12, 16)).shape == (1, 3, 12, 16)


def test_another_file_of_that_name_is_not_taken(made: Bundle, tmp_path: Path) -> None:
    with (tmp_path / "tiny.pth").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(NoTeacher, match="neither beside"):
        load_teacher(made, None, PLAIN)
    with pytest.raises(UsageError, match="not the checkpoint that the bundle was made from"):
        load_teacher(made, tmp_path / "tiny.pth", PLAIN)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_teacher(made, tmp_path / "none.pth", PLAIN)


def test_a_manifest_names_no_place(made: Bundle, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "tiny.pth").rename(tmp_path / "deep" / "tiny.pth")
    made.manifest["source"]["path"] = str(tmp_path / "deep" / "tiny.pth")
    with pytest.raises(NoTeacher, match="neither beside"):
        load_teacher(made, None, PLAIN)


@pytest.mark.parametrize("name", ["", ".", "x\0y", "x" * 900, "\u00e9" * 200, "/dev/zero"])
def test_odd_names_name_nothing(made: Bundle, name: str) -> None:
    made.manifest["source"]["path"] = name
    with pytest.raises(NoTeacher, match="neither beside"):
        load_teacher(made, None, PLAIN)


def test_code_runs_when_the_user_names_it(made: Bundle, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN)
    arch = f"{own}:Net"
    weights = tmp_path / "own.pth"
    shapes = {"0.weight": (5, 3, 3, 3), "0.bias": (5,), "1.weight": (3, 5, 3, 3), "1.bias": (3,)}
    torch.save({f"layers.{name}": torch.rand(shape) for name, shape in shapes.items()}, weights)
    made.manifest["source"] = dict(load(weights, arch=arch, arch_args={"width": 5}).source)
    (tmp_path / "ran").unlink()
    with pytest.raises(NoTeacher, match="own network: give --arch again"):
        load_teacher(made, None, PLAIN)
    assert not (tmp_path / "ran").exists()
    y = load_teacher(made, None, {**PLAIN, "arch": arch})(torch.rand(1, 3, 16, 16))
    assert y.shape == (1, 3, 16, 16)


def test_the_output_that_was_chosen_is_chosen_again(made: Bundle, tmp_path: Path) -> None:
    code = "from torch import nn\nclass Net(nn.Conv2d):\n    def forward(self, x):\n"
    (tmp_path / "two.py").write_text(f"{code}        return x, super().forward(x)\n")
    module, path, arch = torch.nn.Conv2d(3, 3, 1), tmp_path / "two.pth", f"{tmp_path}/two.py:Net"
    torch.save(module.state_dict(), path)
    words = {"in_channels": 3, "out_channels": 3, "kernel_size": 1}
    net = load(path, arch=arch, arch_args=words, output=1)
    made.manifest["source"] = dict(net.source)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(load_teacher(made, None, {**PLAIN, "arch": arch})(x), module(x))


def test_the_weights_that_were_chosen_are_taken_again(made: Bundle, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("from torch import nn\nclass Net(nn.Conv2d):\n    pass\n")
    states = [{"weight": torch.full((1, 1, 1, 1), v), "bias": torch.zeros(1)} for v in (1.0, 2.0)]
    weights = tmp_path / "two.pth"
    torch.save({"params": states[0], "second": states[1]}, weights)
    options = {"in_channels": 1, "out_channels": 1, "kernel_size": 1}
    arch = f"{own}:Net"
    chosen = load(weights, arch=arch, arch_args=options, weights_key="second")
    made.manifest["source"] = dict(chosen.source)
    image = torch.ones(1, 1, 8, 8)
    given = {**PLAIN, "arch": arch}
    for key, factor in ((None, 2), ("params", 1)):
        teacher = load_teacher(made, None, {**given, "weights_key": key})
        assert teacher(image).mean().item() == factor


def test_a_pickled_module_needs_trust_again(made: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(torch.nn.Conv2d(3, 3, 3, padding=1), path)
    made.manifest["source"] = dict(load(path, trust_pickle=True).source)
    with pytest.raises(NoTeacher, match=r"whole\.pth cannot be loaded: .*pickle"):
        load_teacher(made, None, PLAIN)
    with pytest.raises(CheckpointError, match="pickle"):
        load_teacher(made, path, PLAIN)
    load_teacher(made, None, {**PLAIN, "trust_pickle": True})


@pytest.mark.parametrize(
    ("source", "words"),
    [({}, "of a module"), ({"path": "x.onnx", "sha256": "ab" * 32}, "nothing was distilled")],
)
def test_what_has_no_teacher(bundle: Bundle, source: dict[str, str], words: str) -> None:
    bundle.manifest["source"] = source
    with pytest.raises(NoTeacher, match=words):
        load_teacher(bundle, None, PLAIN)


LEVELLED = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)
    def forward(self, x, level, prompt):
        return self.layer(x) * level + prompt
"""


def test_further_inputs(made: Bundle, tmp_path: Path) -> None:
    """Values come from the manifest; a tensor is given again, and must be the same."""
    (tmp_path / "own.py").write_text(LEVELLED)
    torch.save(
        {"layer.weight": torch.ones(3, 3, 1, 1), "layer.bias": torch.ones(3)}, tmp_path / "own.pth"
    )
    prompt, arch = torch.full((1, 3, 1, 1), 0.25), f"{tmp_path}/own.py:Net"
    first = load(tmp_path / "own.pth", arch=arch, inputs={"level": 2, "prompt": prompt})
    made.manifest["source"] = dict(first.source)
    asked = {**PLAIN, "arch": arch}
    x = torch.rand(1, 3, 16, 16)
    teacher = load_teacher(made, None, {**asked, "inputs": {"prompt": prompt}})
    torch.testing.assert_close(teacher(x), first.module(x))
    with pytest.raises(NoTeacher, match="input 'prompt' of the teacher was a file"):
        load_teacher(made, None, asked)
    for other in ({"prompt": prompt + 1}, {"prompt": prompt, "level": 3}):
        with pytest.raises(UsageError, match="made with other inputs"):
            load_teacher(made, tmp_path / "own.pth", {**asked, "inputs": other})
