"""Networks timed in turn, and what cannot be timed is refused."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from distillc.errors import UsageError
from distillc.runtime.benchmark import time_libraries
from distillc.runtime.bundle import Bundle


def test_two_networks_in_turn(verified: Bundle, other: Bundle) -> None:
    shape, output = verified.facts.input_shape, verified.facts.output_shape
    files = [verified.library, other.library]
    stats = time_libraries(files, shape, output, threads=1, runs=5, warmup=1)
    assert [each.runs for each in stats] == [5, 5]
    for each in stats:
        assert 0 < each.p10_ms <= each.median_ms <= each.p90_ms < 1000
        assert each.peak_bytes > 1 << 20
        assert (each.device, each.threads) == ("host", 1)


def test_one_bundle(verified: Bundle) -> None:
    assert verified.benchmark(threads=1, runs=3).runs == 3


def test_memory_is_the_networks_own(verified: Bundle) -> None:
    """A process inherits the peak of the one that starts it."""
    ballast = np.ones(1 << 29, np.uint8)
    own = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
    assert own > ballast.nbytes
    peak = verified.benchmark(threads=1, runs=1).peak_bytes
    assert 1 << 20 < peak < 100 << 20


def test_what_a_device_cannot_run(verified: Bundle) -> None:
    entries = {"devices": ["emulator"], "target": "snapdragon8elite"}
    phone = Bundle(Path("x"), {**verified.manifest, **entries})
    with pytest.raises(UsageError, match="snapdragon8elite does not run on host") as caught:
        phone.benchmark()
    assert "--target host" in str(caught.value)
    with pytest.raises(UsageError, match="unknown device"):
        phone.benchmark(device="phone")


@pytest.mark.parametrize("options", [{"runs": 0}, {"runs": -1}, {"threads": 0}, {"warmup": -1}])
def test_counts_that_make_no_sense(verified: Bundle, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        verified.benchmark(**options)  # type: ignore[arg-type]
