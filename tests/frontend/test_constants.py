"""Constants that the user gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from distillc.errors import CheckpointError, UsageError
from distillc.frontend.constants import described_inputs, parse_input, read_inputs


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("sigma=0.1", ("sigma", 0.1)),
        ("t=3", ("t", 3)),
        ("on=true", ("on", True)),
        ("none=null", ("none", None)),
        ('kind="rain"', ("kind", "rain")),
        ("list=[[1, 2], [3, 4]]", ("list", [[1, 2], [3, 4]])),
        ("input.1=1", ("input.1", 1)),
        ("prompt=a=b/prompt.PT", ("prompt", Path("a=b/prompt.PT"))),
    ],
)
def test_what_the_command_line_says(text: str, wanted: tuple[str, Any]) -> None:
    assert parse_input(text) == wanted


@pytest.mark.parametrize("text", ["x", "=1", " =1", "a=", "a=rain", "a=NaN", "a={}", "a=[1, [2]]"])
def test_what_it_cannot_say(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=FILE"):
        parse_input(text)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9))
def test_files_of_one_tensor(values: list[float]) -> None:
    import tempfile

    wanted = torch.tensor(values)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "a.npy", wanted.double().numpy())
        np.savez(folder / "a.npz", prompt=wanted.numpy())
        torch.save(wanted, folder / "a.pt")
        torch.save({"prompts": [wanted]}, folder / "a.pth")
        save_file({"prompt": wanted}, folder / "a.safetensors")
        for path in folder.iterdir():
            found = read_inputs({"prompt": path})["prompt"]
            assert found.dtype == torch.float32, path
            assert torch.equal(found, wanted), path


def test_a_picture_is_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (255, 0, 51)).save(tmp_path / "x.png")
    found = read_inputs({"guide": tmp_path / "x.png"})["guide"]
    assert found.shape == (1, 3, 4, 6)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1, 0, 0.2]))


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([1, 2], np.int16))
    assert read_inputs({"x": tmp_path / "x.npy"})["x"].dtype == torch.int64


@pytest.mark.parametrize("content", [b"text", {"a": torch.ones(1), "b": torch.ones(1)}, {}])
def test_files_that_hold_no_tensor(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        read_inputs({"x": path})


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([print], object))
    torch.save(torch.nn.Linear(1, 1), tmp_path / "x.pt")
    for name in ("x.npy", "x.pt"):
        with pytest.raises(CheckpointError):
            read_inputs({"x": tmp_path / name})


def test_what_a_manifest_says() -> None:
    found = described_inputs({"t": 3, "kind": "rain", "prompt": torch.ones(2)})
    assert found["t"] == 3
    assert found["kind"] == "rain"
    assert found["prompt"]["shape"] == [2]
    assert len(found["prompt"]["sha256"]) == 64
