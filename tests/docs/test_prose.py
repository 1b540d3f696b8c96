"""Descriptions say something, and phrases that readers stumbled over do not come back."""

from __future__ import annotations

import re

import pytest

from tests.docs.passages import Passage, passages

_ARGUMENT = re.compile(r"^ {4,}(\w+): ([^\n]+)$", re.MULTILINE)
_STUMBLED = re.compile(
    r"\b(?:go(?:es)? by|bears?|dear(?:est)?|mend|for want of|without a word|the road|"
    r"(?<!there )(?<!There )(?:is|are) no (?!longer|more|faster|device that|product of))\b"
)


def empty_descriptions(passage: Passage) -> list[str]:
    """Return arguments and attributes whose description is one word, `threads: Threads.`"""
    found = _ARGUMENT.findall(passage.text)
    return [name for name, said in found if re.fullmatch(r"`?[\w.]+?`?\.", said)]


def test_descriptions_say_more_than_one_word() -> None:
    texts = [each for each in passages() if ".py" in each.place]
    assert [(each.place, name) for each in texts for name in empty_descriptions(each)] == []


@pytest.mark.parametrize("said", ["threads: Threads.", "device: Where.", "kind: `Kind`."])
def test_empty_descriptions_are_found(said: str) -> None:
    assert empty_descriptions(Passage("x.py", f"Do it.\n\nArgs:\n    {said}\n")) == [
        said.split(":")[0]
    ]


def test_readers_do_not_stumble() -> None:
    found = [(each.place, hit) for each in passages() for hit in _STUMBLED.findall(each.text)]
    assert found == []


def test_stumbling_blocks_are_found() -> None:
    text = "It is no block, which the limits go by. There is no other; it is no longer one."
    assert _STUMBLED.findall(text) == ["is no ", "go by"]
