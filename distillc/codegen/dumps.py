"""What a compiler engineer wants to see: the network after each stage, kernels, the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from distillc.workdir import write_text


class Stopped(BaseException):
    """Code generation was asked to stop after a stage, and has.

    That is not an error: it passes what makes errors of ours out of others.
    """


@dataclass(frozen=True)
class Dumps:
    """What is shown of code generation, and where it ends.

    Attributes:
        folder: Where every stage is written to; None writes nothing.
        print_after: Name of the stage after which the network is printed.
        stop_after: Name of the last stage to run.
        emit: Called with the text that `print_after` asks for.
    """

    folder: Path | None = None
    print_after: str | None = None
    stop_after: str | None = None
    emit: Callable[[str], object] = print

    def inside(self, name: str) -> Dumps:
        """Return the same with a folder of this name inside the folder."""
        return replace(self, folder=self.folder / name) if self.folder else self

    def write(self, name: str, text: Callable[[], str]) -> None:
        """Write a file into the folder, which may hold one of this name.

        Raises:
            StorageError: It cannot be written.
        """
        if self.folder:
            write_text(self.folder / name, text())

    def after(self, stage: str, name: str, text: Callable[[], str]) -> None:
        """Show the network after a stage, in a file `name`.

        Raises:
            Stopped: It was the last stage to run.
            StorageError: The file cannot be written.
        """
        self.write(name, text)
        if self.print_after == stage:
            self.emit(text())
        if self.stop_after == stage:
            raise Stopped(stage)


NONE = Dumps()
"""Shows nothing and runs everything."""
