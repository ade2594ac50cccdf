"""What a model would have earned on lists that were drawn: inverse propensities at the first position. Pure.

A logged answer that was drawn (`serving.temperature` above 0) says with which probability its first item stood there, and the user's next
choice whether that was right. A model is a policy too: of the answer's candidates it puts its best first. Where both agree, the answer
counts 1 / propensity. Self-normalised (Swaminathan, Joachims: The self-normalized estimator for counterfactual learning, 2015), and doubly
robust with the mean reward as its model (Dudik, Langford, Li: Doubly robust policy evaluation and learning, 2011).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from learners.evaluation import Scores
from learners.histories import Questions

BATCH = 256
LEAST = 50.0  # effective answers, below which there is no support


class Drawn(NamedTuple):
    """A logged answer: its first item, the probability that this stood first, and what else might have."""

    first: str
    propensity: float
    candidates: Sequence[str]


def estimated(
    models: Mapping[str, Scores], asked: Questions, drawn: Mapping[tuple[str, int], Drawn], row: Mapping[str, int]
) -> dict[str, Any]:
    """Of each model the estimated hit rate of its first item, for the release card; or why there is none.

    `drawn`: (user, how many choices the answer knew) -> answer; those of them that are gate questions count. `row` of each item.
    """
    found = [(n, drawn[key]) for n, key in enumerate(asked.choices) if key in drawn]
    if not found:
        return {"why_not": "no question's answer was drawn at random (serving.temperature), so no other list can be valued by it"}
    out: dict[str, Any] = {"answers": len(found)}
    rewards = np.array([float(row.get(answer.first, 0) == asked.answers[n] != 0) for n, answer in found])
    for name, scores in models.items():
        weights = np.zeros(len(found))
        for start in range(0, len(found), BATCH):
            part = found[start : start + BATCH]
            for place, (values, (_, answer)) in enumerate(zip(scores(asked.histories[[n for n, _ in part]]), part, strict=True), start):
                rows = np.array([row.get(item, 0) for item in answer.candidates], np.int64)
                known = rows[(rows > 0) & (rows < len(values))]
                if len(known) and known[values[known].argmax()] == row.get(answer.first):
                    weights[place] = 1.0 / answer.propensity
        effective = float(weights.sum() ** 2 / max((weights**2).sum(), 1e-12))
        if effective < LEAST:
            return {**out, "why_not": f"{name}: {effective:.0f} effective answers, {LEAST:.0f} are wanted"}
        out[name] = {
            "effective": round(effective, 1),
            "snips": round(float((weights * rewards).sum() / weights.sum()), 5),
            "dr": round(float(rewards.mean() + (weights * (rewards - rewards.mean())).mean()), 5),
        }
    return out
