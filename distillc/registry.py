"""What packages add to distillc by name: passes, targets, families, devices, tasks, metrics.

Each kind has a group of entry points, which holds ours and those of every installed package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from distillc.errors import DistillcError, UsageError, named_reason

T = TypeVar("T")


class Registry(Generic[T]):
    """The members of one group of entry points. A member is imported when it is asked for.

    Args:
        group: The group, say `"distillc.targets"`; the last word is the plural that users see.
        kind: One of them, in words: `"target"`.
        accept: Makes a member of what an entry point names; raises `TypeError` where it is none.
        named: The name that a member has itself, which its entry point must have too.
        gone: Members that older versions had, and what to take instead.
    """

    def __init__(
        self,
        group: str,
        kind: str,
        accept: Callable[[Any], T],
        named: Callable[[T], str],
        gone: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.group = group
        self.kind = kind
        self.plural = group.rpartition(".")[2]
        self._accept = accept
        self._named = named
        self._gone = gone
        self._found: dict[str, T] = {}

    def names(self) -> list[str]:
        """Return the names of all members, sorted; nothing is imported."""
        return sorted({entry.name for entry in entry_points(group=self.group)})

    def find(self, name: str) -> T:
        """Return a member by name.

        Raises:
            UsageError: None has this name (the message lists the known), two packages offer it, or
                it cannot be imported or is not of this kind.
        """
        if name not in self._found:
            self._found[name] = self._load(self.entry(name))
        return self._found[name]

    def entry(self, name: str) -> EntryPoint:
        """Return the entry point of a member.

        Raises:
            UsageError: There is none of this name, or there are several.
        """
        found = [each for each in entry_points(group=self.group) if each.name == name]
        if not found and name in self._gone:
            raise UsageError(
                f"the {self.kind} {name!r} was taken out", hint=f"use {self._gone[name]}"
            )
        if not found:
            known = ", ".join(self.names())
            raise UsageError(
                f"unknown {self.kind} {name!r}",
                hint=f"known {self.plural}: {known}; see `distillc {self.plural}`"
                if known
                else f"no package registers {self.plural}: install distillc again "
                "(`pip install --no-deps --editable .` in a checkout)",
            )
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} packages offer the {self.kind} {name!r}",
                where=", ".join(_origin(each) for each in found),
                hint="uninstall one of them, or rename its entry point",
            )
        return found[0]

    def load_all(self) -> tuple[dict[str, T], list[DistillcError]]:
        """Return all members by name, sorted, and an error for each that `find` would refuse."""
        members: dict[str, T] = {}
        errors: list[DistillcError] = []
        for name in self.names():
            try:
                members[name] = self.find(name)
            except DistillcError as error:
                errors.append(error)
        return members, errors

    def _load(self, entry: EntryPoint) -> T:
        try:
            member = self._accept(entry.load())
        except DistillcError:
            raise
        except (Exception, SystemExit) as error:  # another package's code may raise anything
            raise UsageError(
                f"the {self.kind} {entry.name!r} cannot be imported: {named_reason(error)}",
                where=_origin(entry),
                hint="update or uninstall that package",
            ) from error
        if self._named(member) != entry.name:
            raise UsageError(
                f"the {self.kind} {entry.name!r} calls itself {self._named(member)!r}",
                where=_origin(entry),
                hint="its entry point must have the same name",
            )
        return member


def _origin(entry: EntryPoint) -> str:
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    return f"{entry.value} of {package}"
