"""The campaign of hostile inputs, a few of each kind; and its judge sees what is wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.fuzz import trial
from tests.fuzz.hostile.damage import damaged
from tests.fuzz.inputs import KINDS, campaign, kind_of, table
from tests.fuzz.trial import Trial, forked, judged

FAST = 30
"""Cases of the campaign in the suite."""


def test_a_short_campaign_finds_nothing(tmp_path: Path) -> None:
    tallies = campaign(FAST, seed=1, keep=tmp_path, whole_every=0)
    assert not any(each.wrong for each in tallies.values()), table(tallies)
    assert sum(each.tried for each in tallies.values()) == FAST


def test_every_kind_comes_in_its_share() -> None:
    turn = [kind_of(index) for index in range(sum(share for _, share in KINDS))]
    assert all(turn.count(maker) == share for maker, share in KINDS)


@pytest.mark.parametrize(
    ("end", "wrong"),
    [
        (Trial(0, 1, 0, "fine"), None),
        (Trial(3, 1, 0, "error: the checkpoint is damaged"), None),
        (Trial(1, 1, 0, "error"), "exit code 1"),
        (Trial(-11, 1, 0, ""), "exit code -11"),
        (Trial(3, 1, 0, "Traceback (most recent call last)"), "Traceback"),
        (Trial(3, 1, 0, "unexpected TypeError: x"), "unexpected TypeError"),
        (Trial(3, 1, 0, "\x1b[31m"), "control characters in the output"),
        (Trial(3, 1, 0, ""), "failed without a word"),
        (Trial(3, 1, 0, "x" * 200_000), "wrote 200000 characters"),
        (Trial(3, 1, int(5e9), "x"), "took 5.0 GB"),
        (Trial(3, 21, 0, "x"), "took 21 s"),
    ],
)
def test_the_judge(end: Trial, wrong: str | None) -> None:
    assert judged(end).wrong == wrong


def test_ends_of_a_fork_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import distillc.cli

    def crash(words: list[str]) -> None:
        os.kill(os.getpid(), 11)

    def hang(words: list[str]) -> None:
        time.sleep(1000)

    monkeypatch.setattr(distillc.cli, "main", crash)
    assert forked([], tmp_path).wrong == "exit code -11"
    monkeypatch.setattr(distillc.cli, "main", hang)
    monkeypatch.setattr(trial, "HANGS", 0.5)
    assert forked([], tmp_path).wrong == "exit code -9"


def test_damage_is_repeatable() -> None:
    from random import Random

    content = bytes(range(256))
    assert damaged(content, Random(3)) == damaged(content, Random(3))
    assert any(damaged(content, Random(seed)) != content for seed in range(5))
