"""Both executors do the same; the Ray cluster is a real one, of this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from distillc.errors import ClusterError, DataError, UsageError
from distillc.executor.base import Executor, Job
from distillc.executor.here import Here
from distillc.executor.open import check_cluster, open_executor
from distillc.passes.distill_blocks import DistillBlocks
from distillc.pipeline import Context
from tests.passes.toy import same_candidates, toy_network

pytest.importorskip("ray", reason="needs distillc[cluster]")

DISTILL = DistillBlocks(steps=5, batch=2, patch=16, lr=1e-2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Executor]:
    with open_executor("local:3") as executor:
        yield executor


@pytest.fixture(params=["here", "cluster"])
def executor(request: pytest.FixtureRequest) -> Executor:
    found: Executor = Here() if request.param == "here" else request.getfixturevalue("cluster")
    return found


def double(values: torch.Tensor) -> torch.Tensor:
    return 2 * values


def refuse(name: str) -> None:
    raise DataError("the image is damaged", where=name, hint="leave it out")


def die_once(marker: Path) -> int:
    """Kill the worker, as a machine that goes away does; the second time, live."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_order_and_feed_other_jobs(executor: Executor) -> None:
    shared = executor.share(torch.arange(4.0))
    first = [executor.submit(Job(f"double {n}", double, (shared,))) for n in range(3)]
    second = [executor.submit(Job("double again", double, (each,))) for each in first]
    for result in executor.gather(second):
        assert torch.equal(result, 4 * torch.arange(4.0))


def test_an_error_keeps_its_parts(executor: Executor) -> None:
    jobs = [executor.submit(Job("read", refuse, (f"{n}.png",))) for n in range(2)]
    with pytest.raises(DataError) as caught:
        list(executor.gather(jobs))
    assert (caught.value.what, caught.value.where) == ("the image is damaged", "0.png")
    assert caught.value.hint == "leave it out"


def test_a_job_whose_worker_is_killed_runs_again(cluster: Executor, tmp_path: Path) -> None:
    job = cluster.submit(Job("die once", die_once, (tmp_path / "died",)))
    assert job.result() != os.getpid()
    assert (tmp_path / "died").exists()


def test_a_job_that_kills_every_worker_is_an_error(cluster: Executor) -> None:
    job = cluster.submit(Job("distill latent.0", die))
    with pytest.raises(ClusterError) as caught:
        job.result()
    assert caught.value.where == "distill latent.0"


def test_a_worker_that_lacks_a_module_is_an_error(cluster: Executor) -> None:
    module = ModuleType("only_here")
    exec("class Network: pass", module.__dict__)
    sys.modules["only_here"] = module
    try:
        job = cluster.submit(Job("distill latent.0", double, (module.Network(),)))
    finally:
        del sys.modules["only_here"]
    with pytest.raises(ClusterError, match="No module named 'only_here'") as caught:
        job.result()
    assert caught.value.where == "distill latent.0"


def test_what_cannot_be_pickled_is_an_error(cluster: Executor) -> None:
    with pytest.raises(ClusterError, match="cannot be sent to workers"):
        cluster.share(iter([]).__next__.__self__ for _ in ())


def test_blocks_learn_the_same_on_any_executor(executor: Executor) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as on a worker: sums of other threads round otherwise
    try:
        expected = DISTILL(toy_network(), Context())
        assert same_candidates(DISTILL(toy_network(), Context(executor=executor)), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("cluster", ["local", "local:0", "local:-1", "ray://host", "here", ""])
def test_an_unknown_cluster_lists_the_forms(cluster: str) -> None:
    with pytest.raises(UsageError, match="unknown cluster") as caught:
        check_cluster(cluster)
    assert caught.value.hint == "one of: local:N, auto, ray://HOST:PORT"
