"""What random networks are made of; importing it registers everything."""

from tests.fuzz.operators import (  # noqa: F401
    attention,
    convolutions,
    frequency,
    gates,
    indexing,
    norms,
    pairs,
    pointwise,
    reductions,
    resizing,
    scans,
    views,
)
