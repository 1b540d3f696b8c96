"""Jobs in this process, one after the other, when their results are asked for."""

from __future__ import annotations

from typing import TypeVar

from distillc.executor.base import Executor, Job, Pending

T = TypeVar("T")


class Here(Executor):
    """Runs every job in this process."""

    workers = 1

    def share(self, value: T) -> Pending[T]:
        return _Known(value)

    def submit(self, job: Job[T]) -> Pending[T]:
        return _Asked(job)


class _Known(Pending[T]):
    def __init__(self, value: T) -> None:
        self._value = value

    def result(self) -> T:
        return self._value

    def cancel(self) -> None:
        """It is there already."""


class _Asked(Pending[T]):
    def __init__(self, job: Job[T]) -> None:
        self._job: Job[T] | None = job
        self._results: list[T] = []

    def result(self) -> T:
        if not self._results and self._job:
            job = self._job
            inputs = [each.result() if isinstance(each, Pending) else each for each in job.inputs]
            more = {"watch": job.watch} if job.watch else {}
            self._results.append(job.work(*inputs, **more))
            self._job = None  # its inputs may be large
        return self._results[0]

    def cancel(self) -> None:
        self._job = None
