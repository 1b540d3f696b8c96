"""Jobs, and what every executor does with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Job(Generic[T]):
    """A call that may be made on another machine, and again if that machine is lost.

    Attributes:
        name: What messages call it, say `"distill latent.0"`.
        work: A function at the top of a module. It depends on its inputs only, and leaves them
            as they are.
        inputs: Its arguments. What is `Pending` is waited for and replaced by its result.
        watch: Given to `work` as `watch` where the job runs in this process; left out elsewhere.
        gpu: Whether it needs a GPU to itself.
    """

    name: str
    work: Callable[..., T]
    inputs: tuple[Any, ...] = ()
    watch: Callable[..., object] | None = None
    gpu: bool = False


class Pending(ABC, Generic[T]):
    """A result that may still be on its way."""

    @abstractmethod
    def result(self) -> T:
        """Wait for the result and return it. Whoever changes it copies it first.

        Raises:
            ClusterError: What runs the job was lost again and again.
            Exception: What the job raised.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Let the job end without a result, if it has none yet."""


class Executor(ABC):
    """Runs jobs. Results do not depend on which executor that is, nor on its workers.

    Attributes:
        workers: How many jobs run at once.
    """

    workers: int

    @abstractmethod
    def share(self, value: T) -> Pending[T]:
        """Return a value as an input of many jobs, which travels to each worker once."""

    @abstractmethod
    def submit(self, job: Job[T]) -> Pending[T]:
        """Start a job, or note it for when its result is asked for."""

    def gather(self, pending: Iterable[Pending[T]]) -> Iterator[T]:
        """Yield results in the order of `pending`; where one fails, the others are cancelled."""
        waiting = list(pending)
        try:
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for each in waiting:
                each.cancel()
