"""Jobs on a Ray cluster. Ray places them, moves what they need, and runs lost ones again."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from distillc.errors import ClusterError, OutOfMemoryError, reason
from distillc.executor.base import Executor, Job, Pending

T = TypeVar("T")

RETRIES = 5
"""How often a job is run again whose worker was lost."""


class OnRay(Executor):
    """Runs jobs on the workers of a Ray cluster, each with one processor or one GPU.

    Args:
        ray: The package, connected.
        workers: How many jobs run at once.
    """

    def __init__(self, ray: ModuleType, workers: int) -> None:
        self._ray = ray
        self.workers = workers
        self._remote = ray.remote(_work)

    def share(self, value: T) -> Pending[T]:
        try:
            return _Remote(self._ray, self._ray.put(value), "")
        except Exception as error:  # what pickle raises is anything
            raise ClusterError(
                f"the network cannot be sent to workers: {reason(error)}",
                hint="convert without --cluster",
            ) from error

    def submit(self, job: Job[T]) -> Pending[T]:
        inputs = [each.reference if isinstance(each, _Remote) else each for each in job.inputs]
        options = {"name": job.name, "num_cpus": 1, "num_gpus": int(job.gpu)}
        remote = self._remote.options(**options, max_retries=RETRIES)
        return _Remote(self._ray, remote.remote(job.work, *inputs), job.name)


def connect(ray: ModuleType, workers: int | None, address: str | None) -> OnRay:
    """Start a cluster of this machine with so many workers, or connect to the one at an address.

    Raises:
        ClusterError: It cannot be started, or nobody answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
    settings = {"OMP_NUM_THREADS": "1"}  # Ray's own choice too, unless the user's shell has another
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    quiet["runtime_env"] = {"env_vars": settings}
    try:
        if address is None:
            # The user's own network is imported there by its name.
            settings["PYTHONPATH"] = os.pathsep.join(sys.path)
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
        found = int(ray.cluster_resources().get("CPU", 0))
    except Exception as error:  # Ray has many kinds, and raises Python's own too
        raise ClusterError(
            f"the Ray cluster does not answer: {reason(error)}",
            where=address or f"local:{workers}",
            hint="look at `ray status` on its head node, or convert without --cluster",
        ) from error
    return OnRay(ray, max(1, found))


def _work(work: Callable[..., T], *inputs: Any) -> T:
    return work(*inputs)


class _Remote(Pending[T]):
    def __init__(self, ray: ModuleType, reference: Any, name: str) -> None:
        self._ray = ray
        self.reference = reference
        self._name = name

    def result(self) -> T:
        errors = self._ray.exceptions
        try:
            found: T = self._ray.get(self.reference)
        except errors.RayTaskError as error:
            cause = _cause(error)
            if isinstance(cause, ImportError | errors.RayError):
                raise ClusterError(
                    f"a worker of the cluster cannot start the job: {reason(cause)}",
                    where=self._name,
                    hint="install distillc, and the network's own code, on every node",
                ) from error
            raise cause from error
        except errors.OutOfMemoryError as error:
            raise OutOfMemoryError(
                "a worker of the cluster has too little memory",
                where=self._name,
                hint="give its node fewer workers, or more memory",
            ) from error
        except errors.RayError as error:
            raise ClusterError(
                f"the cluster lost the job {RETRIES + 1} times: {reason(error)}",
                where=self._name,
                hint="run the same command again: finished work is kept",
            ) from error
        return found

    def cancel(self) -> None:
        self._ray.cancel(self.reference, force=True)


def _cause(error: Any) -> BaseException:
    """Return what the job itself raised, at any depth of jobs that waited for it."""
    cause: BaseException = error
    while isinstance(inner := getattr(cause, "cause", None), BaseException):
        cause = inner
    return cause
