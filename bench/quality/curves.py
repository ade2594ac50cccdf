"""What was compared, as curves in one plot (SVG)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

COLOURS = ("#2f6fb2", "#c98a3b", "#4d9a6a", "#8a5fa8", "#9aa5b1", "#b2504a")


def draw(
    file: Path, x: Sequence[Any], lines: Mapping[str, Sequence[float]], of: tuple[str, str], title: str,
    bounds: npt.NDArray[np.float64] | None = None,
) -> None:  # fmt: skip
    """`lines` over `x`, the first one the strongest; `of`: names of both axes; `bounds` of the first line, [2, len(x)]."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for place, (name, values) in enumerate(lines.items()):
        errors = np.abs(bounds - np.array(values)) if bounds is not None and not place else None
        style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "linewidth": 1 if place else 2, "zorder": -place}
        axes.errorbar(x, values, errors, fmt="o-", markersize=3, capsize=3, label=name, **style)
    axes.set(xlabel=of[0], ylabel=of[1], ylim=(0, None), title=title)
    if len(lines) > 1:
        axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
