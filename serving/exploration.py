"""Exploration: Plackett-Luce sampling of a list, with the propensity of every position."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def plackett_luce(
    scores: npt.NDArray[np.float32], k: int, temperature: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Rows of the k items drawn without replacement with odds exp(score / temperature), and each draw's propensity.

    Scores stand best first. The propensity of a position is the probability of its item given the positions before it. Temperature 0 is
    the deterministic ranking, propensities 1. Gumbel top-k: Kool et al., ICML 2019.
    """
    k = min(k, len(scores))
    if temperature <= 0 or k == 0:
        return np.arange(k), np.ones(k, np.float32)
    logits = scores.astype(np.float64) / temperature
    order = np.argsort(-(logits + rng.gumbel(size=len(logits))), kind="stable")
    left = np.logaddexp.accumulate(logits[order][::-1])[::-1][:k]  # ln of what was left to draw from, exact at any temperature
    return order[:k], np.exp(logits[order[:k]] - left).astype(np.float32)
