"""From the online state and the deep model's lists to answers: candidates, features, order, exploration. Pure.

Time and randomness come in; nothing here knows Kafka, Triton or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from learners import weights
from learners.compiled import compiled
from learners.online import Online
from learners.ranks import ABSENT
from learners.weights import Layers, Weights
from serving.candidates import MOST, Found, sought
from serving.catalogue import Catalogue
from serving.exploration import plackett_luce
from serving.features import RANKER, SOURCES, context
from serving.guard import Guard, merged
from serving.order import ordered
from serving.repeats import Repeats, never_happen

POPULAR_KEPT = 400  # popular items per half-life that are kept ready: enough to skip what a heavy user has had
FRESH_KEPT = 100
MAX_K = 100  # items of a list
SAMPLE = 20  # candidates not shown that an impression logs

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.integer]

NOTHING = np.empty(0, np.int32)
NO_AFFINITY = np.empty(0)
UNTAUGHT = Layers(*(np.zeros(shape, np.float32) for shape in ((2, 1), (1,), (1, 1), (1, 1))))


class Scored(NamedTuple):
    """What the sequence model expects next, best first; `rows` says in which these items are now, where that need not be looked up."""

    items: Sequence[str] = ()
    scores: npt.NDArray[np.float32] = np.empty(0, np.float32)
    rows: Callable[[], npt.NDArray[np.int64]] | None = None


@dataclass(frozen=True)
class Ask:
    """One request. `recent` given: a session that overrides the user's own history (oldest first)."""

    user: str
    k: int = 10
    recent: tuple[str, ...] = ()
    exclude: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Considered:
    """An ask's candidates, best first: `features` (`serving.features`), uint8 `ranks` by source, float32 `scores`; how many of the user's
    choices were known, the ranker's context, and the positions of what is the same for everybody.
    """

    items: list[str]
    features: npt.NDArray[np.float32]
    ranks: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32]
    seen: int
    context: int
    refreshed: dict[str, int]


@dataclass(frozen=True)
class Answer:
    """One ranked list and what an impression logs of how it came about (`streams.timeline.Impression`)."""

    items: list[str]
    scores: npt.NDArray[np.float32]
    propensities: npt.NDArray[np.float32]
    reasons: list[str]
    sample: list[str]
    features: npt.NDArray[np.float32]
    candidates: list[str]
    ranks: npt.NDArray[np.uint8]
    seen: int
    context: int
    positions: dict[str, int]
    refreshed: dict[str, int]


@dataclass(frozen=True)
class Shared:
    """What is the same for everybody for a moment; replaced as a whole, so that an answer never sees half of it."""

    scores: npt.NDArray[np.float32]  # [items, half-lives] decayed counts
    top: npt.NDArray[np.float32]  # [half-lives] the largest of them
    first: npt.NDArray[np.float64]  # [items] event time of the first choice, inf where there was none
    popular: npt.NDArray[np.int64]  # [half-lives, POPULAR_KEPT] best rows per half-life, -1 where there are no more
    fresh: list[str]  # newest first
    fresh_rows: npt.NDArray[np.int64]  # of the same, -1 where nobody chose it yet
    ranker: Layers | None  # of all partitions; None before the first slate
    order: npt.NDArray[np.int64]  # sources in the order in which they fill a list (serving.guard)
    once: bool  # this stream never brings an item back to a user
    positions: dict[str, int]  # that all this rests on


@dataclass
class View:
    """The online state as a server sees it: all partitions merged."""

    online: Online
    catalogue: Catalogue = field(default_factory=Catalogue)
    guards: dict[int, Guard] = field(default_factory=dict)
    repeats: dict[int, Repeats] = field(default_factory=dict)
    weights: dict[int, Weights] = field(default_factory=dict)
    watermark: float = 0.0  # newest event time of the stream, Unix s
    positions: dict[str, int] = field(default_factory=dict)  # {timeline partition: next offset} of the state
    fallback: list[str] = field(default_factory=list)  # popular items of the live bundle, for a start without Kafka
    found: Found = field(default_factory=lambda: Found.nothing(0))  # of the answer before

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Bring what is the same for everybody up to date; cheap enough for a few times a second."""
        popularity, items, names = self.online.popularity, self.online.items, self.online.items.names
        scores = popularity.scores()
        n = len(scores)
        ties, alive = items.ties(n), items.alive(n)
        first = popularity.first_seen()[:n]
        k = min(POPULAR_KEPT, n)
        popular = np.full((scores.shape[1], k), -1)
        columns = np.negative(scores.T, order="C")
        for column, into in zip(columns, popular, strict=True):
            rows = np.argpartition(column, k - 1)[:k] if k else np.empty(0, np.intp)
            rows = rows[alive[rows]]
            into[: len(rows)] = rows[np.lexsort((ties[rows], column[rows]))]
        since = np.where(np.isfinite(first), first, -np.inf)
        newest = np.flatnonzero(since >= np.partition(since, -FRESH_KEPT)[-FRESH_KEPT]) if n > FRESH_KEPT else np.arange(n)
        newest = newest[np.lexsort((ties[newest], -since[newest]))][:FRESH_KEPT]
        fresh = {names[r]: float(first[r]) for r in newest if names[r] and np.isfinite(first[r])}
        fresh |= dict(list(self.catalogue.announced.items())[-FRESH_KEPT:])
        announced = sorted(fresh, key=lambda item: (-fresh[item], item))[:FRESH_KEPT]
        self.shared = Shared(
            scores=scores,
            top=-columns.min(1, initial=-1e-9),
            first=first,
            popular=popular,
            fresh=announced,
            fresh_rows=items.named(announced),
            ranker=weights.merged(list(self.weights.values())),
            order=np.array(merged(list(self.guards.values())).order()),
            once=never_happen(list(self.repeats.values())),
            positions=dict(self.positions),
        )

    def had(self, ask: Ask) -> npt.NDArray[np.int32]:
        """Rows of what the user had, and of the ask's own session."""
        past = self.online.profiles.get(ask.user) if ask.user else None
        recent = self.online.items.named(ask.recent).astype(np.int32)
        return np.concatenate([past.had, recent]) if past else recent

    def open_to(self, ask: Ask, n: int) -> Mask:
        """bool[n]: rows that the ask and the catalogue allow."""
        row = self.online.items.row
        if ask.categories:
            mask = np.zeros(n, np.bool_)
            mask[[r for item in self.catalogue.members(ask.categories) if (r := row.get(item, n)) < n]] = True
        else:
            mask = self.online.items.alive(n)
        if closed := [r for items in (ask.exclude, self.catalogue.unavailable) for item in items if (r := row.get(item, n)) < n]:
            mask = mask.copy()
            mask[closed] = False
        return mask

    def keys(
        self, ask: Ask, items: Sequence[str], rows: npt.NDArray[np.int64], n: int, had: Collection[str], nameless: dict[str, int]
    ) -> npt.NDArray[np.int64]:
        """Keys of `items` (`serving.candidates`): their `rows`; of one in no row that may be shown n and its place in `nameless`, to which
        it is added; else -1.
        """
        row = self.online.items.row
        if len(self.online.items.names) > n:  # some came since
            rows = np.where(rows < n, rows, -1)
        if missing := (rows < 0).nonzero()[0].tolist():
            rows = rows.copy()
        for place in missing:
            item = items[place]
            if (since := row.get(item)) is not None:  # it has one by now
                rows[place] = since if since < n else -1
            elif item not in ask.exclude and item not in had and self.catalogue.allows(item, ask.categories):
                rows[place] = n + nameless.setdefault(item, len(nameless))
        return rows

    def affinity(self, names: Sequence[str], past: Rows) -> npt.NDArray[np.float64]:
        """Of each of the items called `names`, the share of the history of items in the rows `past` that is in its categories."""
        taste = self.catalogue.affinity([self.online.items.names[r] for r in past[-20:].tolist() if r >= 0])
        out = np.zeros(len(names))
        if taste:
            categories = self.catalogue.categories
            out[:] = [sum(taste.get(c, 0.0) for c in categories.get(i, ())) / max(len(categories.get(i, ())), 1) for i in names]
        return out


def answer(view: View, ask: Ask, deep: Scored, temperature: float, rng: np.random.Generator) -> Answer:
    """The list for one ask; `deep` is the sequence model's best-first list for the same history, empty without one."""
    found = consider(view, ask, deep)
    drawn, propensities = plackett_luce(found.scores, ask.k, temperature, rng)
    left = np.ones(len(found.items), np.bool_)
    left[drawn] = False
    sample = rng.permutation(left.nonzero()[0])[:SAMPLE]
    items = found.items
    return Answer(
        items=[items[place] for place in drawn.tolist()],
        scores=found.scores[drawn],
        propensities=propensities,
        reasons=reasons(found.ranks[drawn]),
        sample=[items[place] for place in sample.tolist()],
        features=found.features[np.concatenate([drawn, sample])],
        candidates=items,
        ranks=found.ranks,
        seen=found.seen,
        context=found.context,
        positions=dict(view.positions),
        refreshed=found.refreshed,
    )


def consider(view: View, ask: Ask, deep: Scored) -> Considered:
    """All that is known and thought of an ask's candidates; the same for the same state, whatever the order in which it came."""
    online, shared = view.online, view.shared
    names = online.items.names
    n = len(names)  # other threads may add items: these are the ones that this answer knows
    past = online.profiles.head(ask.user) if ask.user else None
    recent = online.items.named(ask.recent).astype(np.int32) if ask.recent else NOTHING
    open_to = view.open_to(ask, n)
    had, had_by_name = NOTHING, frozenset[str]()
    if shared.once:  # where streams do not repeat, a session's own items are no news to it either
        had, had_by_name = view.had(ask) if ask.recent else online.profiles.late(ask.user), frozenset(ask.recent)
    own = past.place if past else (-1, -1)
    nameless = dict[str, int]()  # candidates that are in no row: n and above
    in_rows = deep.rows() if deep.rows else online.items.named(deep.items)
    deep_keys = view.keys(ask, deep.items, in_rows, n, had_by_name, nameless)
    fresh = view.keys(ask, shared.fresh, shared.fresh_rows, n, had_by_name, nameless)
    if len(view.found.voted) != n:
        view.found = Found.nothing(n)
    found, ever = view.found, online.popularity.table()

    def seek(more: Sequence[int]) -> Any:
        return sought(
            *found, recent, *own, *online.tables(), ever, deep_keys, deep.scores, fresh, shared.popular,
            np.array(more, np.int64), open_to, had, not shared.once, online.items.ties(n), n + len(nameless), MOST,
        )  # fmt: skip

    chosen, (keys, ranks, scored, ranked) = seek(())
    if len(keys) < ask.k:  # popular ones down to the last; were there none, what the user has had
        everything, taken = _everything(view, shared), set(keys.tolist())
        had = view.had(ask) if shared.once else had
        for rows, hidden in ((had, had_by_name),) if taken else ((had, had_by_name), (NOTHING, frozenset[str]())):
            wanted = open_to.copy()
            wanted[rows[(rows >= 0) & (rows < n)]] = False
            numbers = view.keys(ask, everything, online.items.named(everything), n, hidden, nameless)
            more = [key for key in numbers.tolist() if key not in taken and (key >= n or (key >= 0 and wanted[key]))][: ask.k - len(taken)]
            if taken or more:
                break
        chosen, (keys, ranks, scored, ranked) = seek(more)
    of_all = list(nameless)

    def called(keys: npt.NDArray[np.int64]) -> list[str]:
        return [names[key] if key < n else of_all[key - n] for key in keys.tolist()] if nameless else [names[key] for key in keys.tolist()]

    affinity = view.affinity(called(keys), chosen) if view.catalogue.categories else NO_AFFINITY
    situation = context(view.watermark - past.last) if past and not ask.recent else 0
    keys, ranks, values, scores = ordered(
        keys, ranks, scored, ranked, found.near, found.voted, found.eased, found.counts, shared.scores, shared.top, shared.first, ever,
        *online.popularity.stands(), view.watermark, len(chosen), affinity,
        shared.ranker is not None, *(shared.ranker or UNTAUGHT), situation, shared.order,
    )  # fmt: skip
    return Considered(called(keys), values, ranks, scores, past.n if past else 0, situation, shared.positions)


def _everything(view: View, shared: Shared) -> list[str]:
    """Every item there is, most often chosen first; then those that nobody chose yet."""
    names = view.online.items.names
    counted = (names[row] for row in np.argsort(-shared.scores[:, -1], kind="stable").tolist())
    return [item for item in dict.fromkeys([*counted, *view.catalogue.announced, *view.fallback]) if item]


_TEXT = [[f"{source}:{rank + 1}" for rank in range(ABSENT)] for source in SOURCES]


def reasons(ranks: npt.NDArray[np.uint8]) -> list[str]:
    """Which sources put each item there, best first: `covisited:1 deep:4` (ranks count from 1)."""
    return [
        " ".join([_TEXT[source][row[source]] for source in three if source >= 0])
        for row, three in zip(ranks.tolist(), _leading(ranks).tolist(), strict=True)
    ]


@compiled
def _leading(ranks: Any) -> Any:
    """int64[n, 3]: the sources that rank each item highest, the first of equals; -1 where there are no more."""
    out = np.full((len(ranks), 3), -1)
    for item in range(len(ranks)):
        for source in range(ranks.shape[1]):
            rank, at = ranks[item, source], 2
            if source == RANKER or rank == ABSENT or (out[item, 2] >= 0 and rank >= ranks[item, out[item, 2]]):
                continue
            while at > 0 and (out[item, at - 1] < 0 or rank < ranks[item, out[item, at - 1]]):
                out[item, at] = out[item, at - 1]
                at -= 1
            out[item, at] = source
    return out
