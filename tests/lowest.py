"""Print the lowest versions that pyproject.toml allows, as constraints for pip.

python -m tests.lowest > lowest.txt
pip install --constraint lowest.txt --editable '.[test]'
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest(project: Path = PROJECT) -> Iterator[str]:
    """Yield `name==version` for what the product and its tests need.

    Raises:
        ValueError: A requirement has no lower bound.
    """
    facts = tomllib.loads(project.read_text())["project"]
    for line in (*facts["dependencies"], *facts["optional-dependencies"]["test"]):
        requirement = Requirement(line)
        bounds = [each.version for each in requirement.specifier if each.operator in (">=", "==")]
        if len(bounds) != 1:
            raise ValueError(f"no lower bound: {line}")
        yield f"{requirement.name}=={bounds[0]}"


if __name__ == "__main__":
    print("\n".join(lowest()))
