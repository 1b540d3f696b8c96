"""distillc.tune: networks in, records out."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import distillc
from distillc.codegen.schedule.records import read_records, user_records
from distillc.errors import UsageError
from distillc.targets.base import get_target


def test_records_land_in_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiled runner is in the user's cache, so that is not moved.
    path = tmp_path / "records.jsonl"
    monkeypatch.setattr("distillc.tuning.user_records", lambda target: path)
    network = nn.Conv2d(3, 16, 1)
    result = distillc.tune([network], "host", [(16, 16), (32, 32)], minutes=0.2)
    assert result.path == path
    assert len(result.records) + result.left == 2
    assert len(read_records(path, get_target("host"))) == len(result.records)


def test_the_users_file_is_named_after_the_target() -> None:
    assert user_records(get_target("snapdragon8elite")).name == "snapdragon8elite.jsonl"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"minutes": 0}, "no time"),
        ({"target": "snapdragon9"}, "snapdragon8elite"),
        ({"device": "phone"}, "known devices"),
        ({"precision": "int8"}, "known precisions"),
    ],
)
def test_wrong_options_are_said_before_anything_runs(options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        distillc.tune([nn.Identity()], **options)
