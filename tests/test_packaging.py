"""The wheel holds one package: nothing named `passes` or `targets` lands in site-packages."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import distillc

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("distillc", "passes", "targets", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source / name)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, cwd=folder)
    (built,) = folder.glob("distillc-*.whl")
    return built


def test_everything_is_in_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"distillc"}
    assert "distillc/passes/find_attention.py" in names
    assert "distillc/targets/host.py" in names
    assert "distillc/py.typed" in names


def test_the_version_is_that_of_the_package(wheel: Path) -> None:
    assert wheel.name.startswith(f"distillc-{distillc.__version__}-")
    (facts,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
    assert f"\nVersion: {distillc.__version__}\n" in zipfile.ZipFile(wheel).read(facts).decode()


def test_data_files_are_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("distillc/report/") and name.endswith(".html") for name in names)
    native = {name for name in names if name.startswith("distillc/runtime/native/")}
    assert {Path(name).name for name in native} >= {"distillc.h", "model.c", "pool.c", "runner.c"}


def test_installed_it_imports_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*command, str(site), str(wheel)], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import distillc, distillc.passes.find_attention, distillc.targets.snapdragon8elite\n"
        f"assert distillc.__file__.startswith({str(site)!r}), distillc.__file__\n"
        f"path = distillc.passes.find_attention.__file__\n"
        f"assert path.startswith({str(site)!r}), path\n"
    )
    # -S leaves out the editable install of the checkout; its dependencies are added back.
    paths = [path for path in sys.path if "site-packages" in path]
    code = f"import sys; sys.path += {paths!r}\n" + code
    subprocess.run([sys.executable, "-S", "-c", code], check=True, cwd=tmp_path)
