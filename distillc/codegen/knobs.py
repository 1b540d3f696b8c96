"""The choices of a schedule, as data: a space that is learnt by asking.

A rule asks for each choice when it needs it, and lists the alternatives; later options may depend
on earlier answers. Without a record every answer is the default. What was asked is the
kernel's space, what was answered is a record that gives the same schedule again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Record = Mapping[str, int]
"""Values of knobs by name: tiles, chunks and numbers of threads, flags as 0 and 1."""


class ScheduleChoice(NamedTuple):
    """A rule, by its id, and the values that its knobs should have."""

    rule: str
    knobs: Record


class Knobs:
    """Answers the choices of one kernel's rule from a record.

    Args:
        record: Wanted values; those that are not an option of this kernel are ignored.

    Attributes:
        space: Options by knob, in the order of asking, each with its default first.
        values: What was answered.
        unseen: The knobs whose effect the code does not show.
    """

    def __init__(self, record: Record | None = None) -> None:
        self._record = dict(record or {})
        self.space: dict[str, tuple[int, ...]] = {}
        self.values: dict[str, int] = {}
        self.unseen: set[str] = set()

    def choose(self, name: str, options: Iterable[int], default: int, *, seen: bool = True) -> int:
        """Return the recorded value of a knob if it is an option, or else the default.

        Args:
            name: The knob; blocks of one kernel that ask for the same name share the value.
            options: All values that give a correct schedule; the default is one of them anyhow.
            default: The rule's own choice.
            seen: Whether the instructions show what it does; if not, caches or threads decide.
        """
        if not seen:
            self.unseen.add(name)
        known = tuple(dict.fromkeys((default, *options)))
        self.space.setdefault(name, known)
        wanted = self._record.get(name, default)
        value = wanted if wanted in known else default
        self.values.setdefault(name, value)
        return value
