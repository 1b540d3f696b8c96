"""Things against the clock: rounds in which a device was slow are repeated after a pause."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from distillc.runtime.native import FLAGS, FOLDER
from distillc.zig import run_zig

# Every call takes as many milliseconds as the next word says; the last word holds on.
HARNESS = """
#include <time.h>
#include "race.h"
static int place, count;
static char **words;
static void call(void *context, int index) {
  (void)context, (void)index;
  const int ms = atoi(words[place < count - 1 ? place++ : count - 1]);
  const struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
  nanosleep(&time, NULL);
}
int main(int argc, char **argv) {
  words = argv + 5, count = argc - 5;
  printf("{");
  dc_race(atoi(argv[1]), atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), call, NULL);
  printf(", \\"called\\": %d}", place);
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("race")
    (folder / "main.c").write_text(HARNESS)
    made = folder / "race"
    assert run_zig("cc", *FLAGS, "-o", made, folder / "main.c", FOLDER / "race.c") is None
    return made


def race(program: Path, count: int, warmup: int, runs: int, repeats: int, *ms: int) -> Any:
    words = [str(each) for each in (program, count, warmup, runs, repeats, *ms, 0)]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_a_slow_round_is_repeated(program: Path) -> None:
    found = race(program, 2, 1, 3, 8, 300, 300, *(40, 80), *(200, 400), *(40, 80), *(40, 80))
    assert found["repeated"] == 1
    assert found["called"] == 10
    assert all(35 < each < 200 for each in found["ms"][0])
    assert all(75 < each < 400 for each in found["ms"][1])


def test_what_is_slow_alone_is_called_again(program: Path) -> None:
    found = race(program, 3, 0, 2, 8, *(40, 40, 40), *(40, 300, 40), 40)
    assert found["repeated"] == 0
    assert found["called"] == 7
    assert all(35 < each < 300 for own in found["ms"] for each in own)


def test_a_device_that_stays_slow_is_waited_for_no_longer_than_said(program: Path) -> None:
    found = race(program, 1, 0, 3, 2, 20, *[200] * 4)
    assert found["repeated"] == 2
    assert max(found["ms"][0]) > 150


def test_without_repeats_everything_is_called_once(program: Path) -> None:
    found = race(program, 1, 0, 3, 0, 20, 200, 20)
    assert (found["repeated"], found["called"]) == (0, 3)
    assert found["ms"][0][1] > 150
