"""Zig runs in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillc.zig import run_zig


def test_what_is_compiled_in_one_folder_is_known_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "empty.c").write_text("")
    cached = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert run_zig("cc", "-c", tmp_path / "empty.c", "-o", tmp_path / name / "empty.o") is None
        cached.append({each.name for each in (tmp_path / "cache" / "h").iterdir()})
    assert cached[0] == cached[1]
