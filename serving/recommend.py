"""From the online state and the deep model's lists to answers: candidates, features, order, exploration. Pure.

Time and randomness come in; nothing here knows Kafka, Triton or a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from learners.occurrences import best
from learners.online import Online
from serving.catalogue import Catalogue
from serving.exploration import plackett_luce
from serving.features import ABSENT, POPULAR, RANKER, SOURCES, Candidates, features, union
from serving.guard import Guard, merged
from serving.repeats import Repeats, never_happen

TAKEN = {"deep": 60, "after": 30, "covisited": 50, "neighbours": 40, "fresh": 10, "history": 10}  # per source; union ~150
POPULAR_TAKEN = 20
POPULAR_KEPT = 400  # popular items per half-life that are kept ready: enough to skip what a heavy user has had
FRESH_KEPT = 100
MAX_K = 100  # items of a list
SAMPLE = 20  # candidates not shown that an impression logs
DAY = 86_400.0

Scored = list[tuple[str, float]]


@dataclass(frozen=True)
class Ask:
    """One request. `recent` given: a session that overrides the user's own history (oldest first)."""

    user: str
    k: int = 10
    recent: tuple[str, ...] = ()
    exclude: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Answer:
    """One ranked list and what an impression logs of how it came about (`streams.timeline.Impression`)."""

    items: list[str]
    scores: npt.NDArray[np.float32]
    propensities: npt.NDArray[np.float32]
    reasons: list[str]
    sample: list[str]
    features: npt.NDArray[np.float16]
    candidates: list[str]
    ranks: npt.NDArray[np.uint8]
    seen: int


@dataclass(frozen=True)
class Shared:
    """What is the same for everybody for a moment; replaced as a whole, so that an answer never sees half of it."""

    scores: npt.NDArray[np.float32]  # [items, half-lives] decayed counts
    top: npt.NDArray[np.float32]  # [half-lives] the largest of them
    first: npt.NDArray[np.float64]  # [items] event time of the first choice, inf where there was none
    popular: list[Scored]  # best POPULAR_KEPT per half-life
    fresh: Scored
    ranking: npt.NDArray[np.float32]  # [features] merged weights of the ranker, empty before the first slate
    order: list[int]  # sources in the order in which they fill a list (serving.guard)
    once: bool  # this stream never brings an item back to a user


@dataclass
class View:
    """The online state as a server sees it: all partitions merged."""

    online: Online
    catalogue: Catalogue = field(default_factory=Catalogue)
    guards: dict[int, Guard] = field(default_factory=dict)
    repeats: dict[int, Repeats] = field(default_factory=dict)
    weights: dict[int, tuple[int, npt.NDArray[np.float64]]] = field(default_factory=dict)
    watermark: float = 0.0  # newest event time of the stream, Unix s
    fallback: list[str] = field(default_factory=list)  # popular items of the live bundle, for a start without Kafka

    def __post_init__(self) -> None:
        self.refresh()

    def knows(self, item: str) -> bool:
        """Has the item ever been chosen or announced? What a request merely names is not an item."""
        return item in self.online.items.row or item in self.catalogue.announced

    def refresh(self) -> None:
        """Bring what is the same for everybody up to date; cheap enough for a few times a second."""
        popularity = self.online.popularity
        scores = popularity.scores()
        names = self.online.items.names
        first = popularity.first_seen()[: len(scores)]
        k = min(POPULAR_KEPT, len(scores))
        popular: list[Scored] = []
        for column in range(scores.shape[1]):
            rows = np.argpartition(-scores[:, column], k - 1)[:k] if k else np.empty(0, np.intp)
            popular.append(best(names, rows, scores[rows, column], k))
        newest = np.argsort(-np.where(np.isfinite(first), first, -np.inf), kind="stable")[:FRESH_KEPT]
        fresh = {names[r]: float(first[r]) for r in newest if names[r] and np.isfinite(first[r])}
        fresh |= dict(list(self.catalogue.announced.items())[-FRESH_KEPT:])
        learned = list(self.weights.values())
        slates = sum(n for n, _ in learned)
        ranking = np.sum([w * (n / slates) for n, w in learned], axis=0) if slates else np.empty(0)
        self.shared = Shared(
            scores=scores,
            top=scores.max(0, initial=1e-9),
            first=first,
            popular=popular,
            fresh=sorted(fresh.items(), key=lambda entry: (-entry[1], entry[0]))[:FRESH_KEPT],
            ranking=np.asarray(ranking, np.float32),
            order=merged(list(self.guards.values())).order(),
            once=never_happen(list(self.repeats.values())),
        )

    def values(self, shared: Shared, candidates: Candidates, recent: Sequence[str]) -> npt.NDArray[np.float16]:
        """float16[items, features] of the candidates for a history `recent`."""
        rows = np.array([self.online.items.row.get(item, -1) for item in candidates.items], np.intp)
        known = (rows >= 0) & (rows < len(shared.scores))
        popularity = np.zeros((len(rows), shared.scores.shape[1]), np.float32)
        popularity[known] = shared.scores[rows[known]] / shared.top
        first = np.full(len(rows), np.inf)
        first[known] = shared.first[rows[known]]
        age = np.where(np.isfinite(first), np.maximum(self.watermark - first, 0.0) / DAY, 0.0).astype(np.float32)
        counts = Counter(recent)
        own = np.array([counts[item] for item in candidates.items], np.float32)
        taste = self.catalogue.affinity(recent[-20:])
        affinity = np.zeros(len(rows), np.float32)
        if taste:
            of = self.catalogue.categories
            affinity[:] = [sum(taste.get(c, 0.0) for c in of.get(i, ())) / max(len(of.get(i, ())), 1) for i in candidates.items]
        return features(candidates, popularity, age, own, affinity)


def answer(view: View, ask: Ask, deep: Scored, temperature: float, rng: np.random.Generator) -> Answer:
    """The list for one ask; `deep` is the sequence model's best-first list for the same history, empty without one."""
    online, shared = view.online, view.shared
    profile = online.profiles.get(ask.user) if ask.user else None
    recent: Sequence[str] = ask.recent or (profile.recent if profile else ())
    # Where streams do not repeat, a session's own items are no news to it either.
    had = ask.exclude | (profile.had if profile else frozenset()) | set(ask.recent) if shared.once else ask.exclude

    def open_to(item: str) -> bool:
        return item not in ask.exclude and view.catalogue.allows(item, ask.categories)

    def wanted(item: str) -> bool:
        return item not in had and view.catalogue.allows(item, ask.categories)

    after, covisited, near = online.near(ask.user, recent, 80) if recent else ([], [], [])
    lists: dict[str, Scored] = {
        "deep": deep,
        "after": after,
        "covisited": covisited,
        "neighbours": near,
        "fresh": shared.fresh,
        "history": [] if shared.once else [(item, 1.0) for item in dict.fromkeys(reversed(recent)) if view.knows(item)],
    }
    best_of = partial(_first, wanted=wanted) if ask.categories else partial(_without, had, view.catalogue.unavailable)
    taken = [best_of(lists.get(name, []), TAKEN[name]) if name in TAKEN else [] for name in SOURCES]
    for source, popular in zip(POPULAR, shared.popular, strict=True):
        taken[source] = best_of(popular, POPULAR_TAKEN)
    _top_up(taken, view, shared, ask.k, wanted, open_to)
    candidates = union(taken)
    values = view.values(shared, candidates, recent)
    learned = values.astype(np.float32) @ shared.ranking if len(shared.ranking) else np.zeros(len(values), np.float32)
    candidates.ranks[np.argsort(-learned, kind="stable"), RANKER] = np.minimum(np.arange(len(values)), ABSENT - 1)
    if not len(shared.ranking):
        candidates.ranks[:, RANKER] = ABSENT
    scores = learned if shared.order[0] == RANKER and len(shared.ranking) else _filled(candidates, shared.order)
    drawn, propensities = plackett_luce(scores, ask.k, temperature, rng)
    shown = set(drawn.tolist())
    rest = np.array([row for row in range(len(values)) if row not in shown], np.intp)
    sample = rng.choice(rest, min(SAMPLE, len(rest)), replace=False) if len(rest) else rest
    first = np.argsort(-scores, kind="stable")
    return Answer(
        items=[candidates.items[row] for row in drawn],
        scores=scores[drawn],
        propensities=propensities,
        reasons=[reason(candidates.ranks[row]) for row in drawn],
        sample=[candidates.items[row] for row in sample],
        features=values[np.concatenate([drawn, sample]).astype(np.intp)],
        candidates=[candidates.items[row] for row in first],
        ranks=candidates.ranks[first],
        seen=profile.n if profile else 0,
    )


def _without(had: Collection[str], unavailable: Collection[str], entries: Scored, k: int) -> Scored:
    """`_first` where two sets say it all, at a tenth of the price."""
    return list(islice((entry for entry in entries if entry[0] not in had and entry[0] not in unavailable), k))


def _first(entries: Scored, k: int, wanted: Callable[[str], bool]) -> Scored:
    out: Scored = []
    for entry in entries:
        if wanted(entry[0]):
            out.append(entry)
            if len(out) == k:
                break
    return out


def _top_up(taken: list[Scored], view: View, shared: Shared, k: int, wanted: Callable[[str], bool], open_to: Callable[[str], bool]) -> None:
    """Where the sources name fewer than k items: popular ones down to the last; were there none, what the user has had."""
    named = {item for entries in taken for item, _ in entries}
    if len(named) >= k:
        return
    names, ever = view.online.items.names, shared.scores[:, -1]
    everything = [(names[row], float(ever[row])) for row in np.argsort(-ever, kind="stable") if names[row]]
    row = view.online.items.row  # an item that came since the last refresh has a row, but no score yet
    everything += [(item, 0.0) for item in (*view.catalogue.announced, *view.fallback) if row.get(item, len(ever)) >= len(ever)]
    for fits in (wanted, open_to):
        if fits is open_to and named:
            break
        more = _first([entry for entry in everything if entry[0] not in named], k - len(named), fits)
        taken[POPULAR[-1]] = [*taken[POPULAR[-1]], *more]
        named.update(item for item, _ in more)


def _filled(candidates: Candidates, order: Sequence[int]) -> npt.NDArray[np.float32]:
    """Scores that put the first source's list first, then what the second adds, and so on: -0, -1, -2, …"""
    n = len(candidates.items)
    keys = [candidates.ranks[:, source] for source in order]
    lead = np.argmax(np.stack([k != ABSENT for k in keys]), axis=0)  # first source in the order that names the item
    rank = np.stack(keys)[lead, np.arange(n)]
    place = np.empty(n, np.float32)
    place[np.lexsort((rank, lead))] = -np.arange(n, dtype=np.float32)
    return place


def reason(ranks: npt.NDArray[np.uint8]) -> str:
    """Which sources put an item there, best first: `covisited:1 deep:4` (ranks count from 1)."""
    named = sorted((int(rank), source) for source, rank in enumerate(ranks) if rank != ABSENT and source != RANKER)
    return " ".join(f"{SOURCES[source]}:{rank + 1}" for rank, source in named[:3])
