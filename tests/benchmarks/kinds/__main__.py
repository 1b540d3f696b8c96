"""Which kinds of networks go how far: see `Kind`.

    python -m tests.benchmarks.kinds --json results/kinds.json --docs docs/measurements/kinds.md
    python -m tests.benchmarks.kinds --only "several outputs" --until find

Each has random weights and 32x32 pixels, and runs in a process of its own. A kind that is to be
refused must be refused in the words that it names. Rows that the JSON file holds already are kept,
unless `--only` names them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.benchmarks.kinds import finding, finding_more, interfaces, operators, tracing
from tests.benchmarks.kinds.kind import KINDS, Kind
from tests.benchmarks.stages import STAGES, Stages, run_rows, table

SECTIONS = (interfaces, tracing, finding, finding_more, operators)
"""The files that list kinds."""

DOCS = """\
# Kinds of networks

What the passes and the compiler do with one small network for each kind of thing that people's
networks do (`python -m tests.benchmarks.kinds`; the networks are in `tests/benchmarks/kinds`). The
columns are those of [networks](networks.md). Where a kind is refused, the message is in the last
column.

{summary}

{table}
"""


def run_one(kind: Kind, until: str) -> dict[str, Any]:
    """Run the stages of a kind in this process."""
    row = Stages(kind.build, kind.found).run(until)
    refused = row.get("clear") is True and kind.refused != "" and kind.refused in row["error"]
    return {**row, "right": refused if kind.refused or "error" in row else True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=KINDS, metavar="NAME")
    parser.add_argument("--one", choices=KINDS, metavar="NAME", help="print its row as JSON")
    parser.add_argument("--until", default=STAGES[-1], choices=STAGES, help="last stage")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run_one(KINDS[given.one], given.until)))
        return
    command = ["tests.benchmarks.kinds", "--until", given.until]
    rows = run_rows(command, list(KINDS), given.only, given.json)
    through = sum(given.until in row and "error" not in row for row in rows)
    refused = sum("error" in row and row.get("right", False) for row in rows)
    ended = sum("error" not in row for row in rows) - through
    summary = f"{through} of {len(rows)} go through, {refused} are refused as they should be."
    if ended:
        summary += f" {ended} were not run to the end: nothing failed as far as they were."
    print(f"{summary}\n\n{(shown := table('kind', rows))}")
    if given.docs:
        given.docs.write_text(DOCS.format(summary=summary, table=shown))
    raise SystemExit(through + refused < len(rows))


if __name__ == "__main__":
    main()
