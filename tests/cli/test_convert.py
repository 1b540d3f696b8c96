from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from distillc.runtime.bundle import Bundle
from distillc.runtime.devices.local import missing_parts
from tests.conftest import Converted

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.skipif(
    bool(missing_parts()), reason=f"the emulator is not complete: {missing_parts()}"
)


def test_a_killed_conversion_goes_on_to_a_verified_bundle(converted: Converted) -> None:
    bundle = Bundle.open(converted.bundle)
    assert bundle.manifest["verified"] is True
    assert bundle.manifest["metrics"]["verification"]["device"] == "emulator"
    assert bundle.manifest["metrics"]["verification"]["max_error"] <= 1e-4
    journal = next(converted.bundle.parent.glob("work/search-*/hybrids.jsonl"))
    assert len(journal.read_text().splitlines()) > converted.journal_before
    assert not list(converted.bundle.parent.glob(".distillc-new-*"))


def test_the_bundle_holds_what_the_readme_says(converted: Converted) -> None:
    names = {path.name for path in converted.bundle.iterdir()}
    assert names >= {
        "model.so",
        "distillc.h",
        "manifest.json",
        "report.html",
        "hybrid.pt2",
        "weights.safetensors",
        "model.onnx",
        "reference.safetensors",
    }
    manifest = json.loads((converted.bundle / "manifest.json").read_text())
    assert set(manifest["decisions"]) == {block["name"] for block in manifest["blocks"]}
    assert len(manifest["blocks"]) == 8
    quality = manifest["metrics"]["quality"]
    assert quality["drop_db"] == pytest.approx(
        quality["teacher"]["psnr"] - quality["hybrid"]["psnr"]
    )
    assert set(manifest["versions"]) >= {"distillc", "torch", "apache-tvm"}


def test_the_summary_names_the_figures(converted: Converted) -> None:
    assert "times as fast" in converted.log
    assert "verified on emulator" in converted.log


def test_an_existing_bundle_is_not_overwritten(converted: Converted, run: Run) -> None:
    before = (converted.bundle / "manifest.json").read_bytes()
    code, _, error = run(*converted.arguments)
    assert code == 11
    assert "--overwrite" in error
    assert (converted.bundle / "manifest.json").read_bytes() == before


def test_verify_and_bench(converted: Converted, run: Run) -> None:
    code, out, _ = run("verify", converted.bundle, "--images", 1, "--json")
    assert code == 0
    assert json.loads(out)["max_error"] <= 1e-4
    quality = json.loads((converted.bundle / "manifest.json").read_text())["metrics"]["quality"]
    assert json.loads(out)["quality"] == quality
    code, out, _ = run("verify", converted.bundle, "--images", 1)
    assert "teacher on the conversion's" in out
    assert f"{quality['teacher']['psnr']:.2f} dB" in out
    code, _, error = run("bench", converted.bundle)
    assert code == 2
    assert "--target host" in error


def test_a_changed_file_is_found(converted: Converted, run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy.distillc"
    subprocess.run(["cp", "-r", converted.bundle, copy], check=True)
    with (copy / "model.so").open("ab") as stream:
        stream.write(b"x")
    code, _, error = run("verify", copy)
    assert code == 8
    assert "model.so" in error


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_no_bundle(tiny_disk: Path, tiny_checkpoint: Path, run: Run) -> None:
    out = tiny_disk.parent / "x.distillc"
    words = ["--size", 32, "--budget", "smoke", "--out", out, "--work-dir", tiny_disk / "work"]
    code, _, error = run("convert", tiny_checkpoint, *words)
    assert code == 11, error
    assert "disk is full" in error
    assert not out.exists()


def test_stop_after_writes_no_bundle(tiny_checkpoint: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "x.distillc"
    words = ["--size", 32, "--out", out, "--work-dir", tmp_path / "work"]
    words += ["--stop-after", "find_attention", "--dump-dir", tmp_path / "dumps"]
    code, printed, _ = run("convert", tiny_checkpoint, *words)
    assert code == 0
    assert "block encoder_level1.0 channel" in printed
    assert not out.exists()
    assert sorted(path.name for path in (tmp_path / "dumps").glob("*.txt")) == [
        "00_trace.txt",
        "01_audit_operators.txt",
        "02_find_attention.txt",
    ]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--target", "snapdragon9"], 2, "snapdragon8elite"),
        (["--budget", "huge"], 2, "smoke, quick, full"),
        (["--family", "scan9"], 2, "known families: conv"),
        (["--family", "mamba:state=99"], 2, "1 to 16"),
        (["--task", "dehaze"], 2, "denoise"),
        (["--task", "sr:scale=2"], 2, "scale"),
        (["--precision", "fp64"], 2, "known precisions: fp32, fp16"),
        (["--size", "axb"], 2, "256x256"),
        (["--data", "/nonexistent"], 10, "does not exist"),
        (["--stop-after", "nothing"], 2, "find_attention"),
    ],
)
def test_bad_options_end_before_any_work(
    words: list[str], code: int, said: str, tiny_checkpoint: Path, run: Run, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    got, _, error = run("convert", tiny_checkpoint, *words, "--work-dir", work)
    assert (got, said in error) == (code, True), error
    assert not work.exists()
    assert "Traceback" not in error


def test_a_network_without_attention(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plain.pth"
    torch.save(torch.nn.Conv2d(3, 3, 3, padding=1), path)
    words = ["--trust-pickle", "--size", 32, "--work-dir", tmp_path / "work"]
    code, _, error = run("convert", path, *words)
    assert code == 5
    assert "no attention" in error


def test_errors_as_json(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("convert", tmp_path / "missing.pth", "--json")
    assert code == 3
    assert json.loads(out)["exit_code"] == 3
