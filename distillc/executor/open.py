"""The executor that a word names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from distillc.errors import UsageError
from distillc.executor.base import Executor
from distillc.executor.here import Here
from distillc.executor.on_ray import connect

_FORMS = "local:N, auto, ray://HOST:PORT"


def check_cluster(cluster: str | None) -> None:
    """Check a word for a cluster; None is this process.

    Raises:
        UsageError: It is none of the forms, or names no worker.
    """
    if cluster is not None and not re.fullmatch(r"local:0*[1-9]\d*|auto|ray://\S+:\d+", cluster):
        raise UsageError(f"unknown cluster {cluster!r}", hint=f"one of: {_FORMS}")


@contextmanager
def open_executor(cluster: str | None) -> Iterator[Executor]:
    """Open the executor of a cluster.

    Args:
        cluster: None for this process; `"local:N"` for N workers on this machine; `"auto"` for
            the Ray cluster that this machine belongs to; `"ray://host:port"` for another one.

    Raises:
        UsageError: It is none of these, or Ray is not installed.
        ClusterError: The cluster cannot be started or does not answer.
    """
    check_cluster(cluster)
    if cluster is None:
        yield Here()
        return
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "a cluster needs Ray, which is not installed",
            where=f"--cluster {cluster}",
            hint="pip install 'distillc[cluster]'",
        ) from error
    kind, _, count = cluster.partition(":")
    local = kind == "local"
    try:
        yield connect(ray, int(count) if local else None, None if local else cluster)
    finally:
        ray.shutdown()
