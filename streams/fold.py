"""The fold: the online state of one partition is a deterministic function of its timeline, in order. Pure.

It needs no catalogue, no release and no other partition, and makes no choice about the stream as a whole: who merges
the partitions, decides. Every record has one effect (streams/once.py).
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

import msgspec

from feedback import attribution, signals
from feedback.attribution import Block, Early, Ledger, Logged, Pending
from feedback.harm import Judged
from learners import hidden, occurrences, popularity, profiles
from learners.online import Memory, Online
from learners.ranker import ListwiseRanker
from learners.ranks import ABSENT
from serving.features import CONTEXTS, DEEP, FEATURES, GAPS, SOURCES
from serving.guard import Guard, dcg
from serving.repeats import Repeats
from streams import topics
from streams.events import ANSWERS, Metric, to_bytes, utc
from streams.once import CHUNK, FRESH, WINDOW, Once
from streams.standing import POSITION, Standing, incompatible
from streams.timeline import Erased, Impression, Interacted, Moved, Reacted, Record, Shown, decode

REPORTED = 1_000  # records after which metrics are due within a second, too

_ledger = msgspec.msgpack.Decoder(Ledger)
_pack = msgspec.msgpack.Encoder().encode


class Log(NamedTuple):
    """One record of the log that a machine folds."""

    offset: int
    timestamp: int  # broker's append time, ms
    key: bytes | None
    value: bytes


class Output(NamedTuple):
    """A record for another topic, committed together with the state."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Step:
    """What a batch changed: records of the state topic (None is a tombstone) and records for other topics."""

    touched: dict[bytes, bytes | None] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)


class FoldError(Exception):
    """A valid record made the fold raise; memory is no longer the state of any position."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the record at offset {offset} made the fold raise")
        self.offset = offset


def shape(shards: int, memory: Memory) -> str:
    """Hash of every constant that shapes the state: a state folded with others must be rebuilt, not continued."""
    facts = (
        shards, memory.users, memory.items, memory.ledgers,
        popularity.HALF_LIVES, occurrences.KEPT, occurrences.LEAST, profiles.KEPT, profiles.LATE, profiles.SESSION_GAP,
        WINDOW, CHUNK, FEATURES, GAPS, SOURCES, hidden.WIDTH, hidden.SCALE,
        attribution.PENDING, attribution.EARLY, attribution.WAIT_MS, signals.FULL, signals.IDLE_MS,
    )  # fmt: skip
    return blake2b(repr(facts).encode(), digest_size=8).hexdigest()


class Fold:
    """The online state of timeline partition `partition` of `shards`."""

    def __init__(self, partition: int, shards: int, memory: Memory | None = None) -> None:
        self.partition, self.shards, self.memory = partition, shards, memory or Memory()
        self.reset()

    def reset(self) -> None:
        """Back to the state before the first record."""
        self.standing = Standing(shape=shape(self.shards, self.memory))
        self.online = Online(1, self.shards, self.memory, serves=False)
        self.ranker = ListwiseRanker(len(FEATURES), CONTEXTS)
        self.ledgers: dict[str, Ledger] = {}
        self.logged: dict[str, bytes] = {}  # "place·user" -> packed `Logged` of an answer that waits: 5 kB that are written once
        self._open: set[str] = set()  # users with an open block
        self.once = Once()
        self._guard = Guard()
        self._repeats = Repeats()
        self.newest: deque[str] = deque(maxlen=8)  # users heard of last; no part of the state

    # --- restore -----------------------------------------------------------------------------------------------------
    def load(self, key: bytes, value: bytes | None) -> None:
        """Take one record of the state topic over; later records of a key replace earlier ones."""
        try:
            self._load(key, value)
        except msgspec.DecodeError as error:  # its position, which says so, may come last
            raise incompatible(f"another format ({key.decode()}: {error})", shape(self.shards, self.memory)) from error

    def _load(self, key: bytes, value: bytes | None) -> None:
        if self.online.load(0, key, value):
            return
        kind, _, rest = key.decode().partition("·")
        if key == POSITION:
            self._load_standing(Standing.load(value or b""))
        elif kind == "w":
            self.ranker.load(value)
        elif kind == "a":
            ledger = _ledger.decode(value) if value is not None else Ledger()
            self.ledgers[rest] = ledger
            (self._open.add if ledger.block else self._open.discard)(rest)
            if value is None:
                del self.ledgers[rest]
        elif kind == "l" and value is not None:
            self.logged[rest] = value
        elif kind == "l":
            self.logged.pop(rest, None)
        elif kind == "x":
            self.once.load(int(rest), value)

    def _load_standing(self, standing: Standing) -> None:
        standing.check(shape(self.shards, self.memory))
        self.standing = standing
        self.once.fences, self.once.ids = standing.fences, standing.ids
        self.online.popularity.clock[0] = standing.clock
        self.online.items.next, self.online.profiles.next = standing.items, standing.users
        self._guard = Guard(standing.guard, standing.judged)
        self._repeats = Repeats(*standing.repeats)

    @property
    def next(self) -> int:
        """Timeline offset of the first record that this state does not hold."""
        return self.standing.next

    def position(self, next_offset: int, as_of: int) -> tuple[bytes, bytes]:
        """The record that says where the state stands, to be committed with it."""
        s = self.standing
        s.next, s.as_of, s.clock = next_offset, as_of, self.online.popularity.clock[0]
        s.fences, s.ids = self.once.fences, self.once.ids
        s.items, s.users = self.online.items.next, self.online.profiles.next
        s.guard, s.judged = self._guard.sums.tolist(), self._guard.weight
        s.repeats = (self._repeats.n, self._repeats.repeated, self._repeats.recent)
        return POSITION, s.dump()

    # --- fold --------------------------------------------------------------------------------------------------------
    def fold(self, records: Sequence[Log], skip: Collection[int] = ()) -> Step:
        """Fold a batch; `skip` are offsets to leave out (they are dead letters). Raises `FoldError`."""
        step, touched = Step(), set[str]()
        for log in records:
            if log.offset in skip:
                self._count("fold_errors")
                continue
            try:
                record = decode(log.value)
                now = record.source.appended
                if now // 1000 > self.standing.second:  # at the record, not at the batch: any cut gives the same state
                    self._close_idle(now, touched)
                    step.outputs += self._metrics(now, log.offset)
                    self.standing.second = now // 1000
                told = self.standing.counts.get(FRESH, 0) // REPORTED
                self._one(record, touched)
                if self.standing.counts.get(FRESH, 0) // REPORTED > told:  # the last second of a burst is closed by nothing
                    step.outputs += self._metrics(now, log.offset + 1)
            except Exception as error:
                raise FoldError(log.offset) from error
        step.touched = self.online.changes()
        step.touched |= {f"x·{chunk}".encode(): value for chunk, value in self.once.changes()}
        for name in sorted(touched):
            step.touched[name.encode()] = self._dump(name)
        return step

    def _dump(self, name: str) -> bytes | None:
        kind = name[0]
        if kind == "a":
            ledger = self.ledgers.get(name[2:])
            return None if ledger is None else _pack(ledger)
        if kind == "l":
            return self.logged.get(name[2:])
        return self.ranker.dump()

    def _count(self, what: str) -> None:
        self.standing.counts[what] = self.standing.counts.get(what, 0) + 1

    def _one(self, record: Record, touched: set[str]) -> None:
        verdict = self.once.verdict(record)
        if isinstance(record, Moved):  # it is about the timeline, not about a user
            return
        self._count(verdict)
        if verdict != FRESH:
            return
        if isinstance(record, Interacted):
            self._count("backfilled" if record.backfill else "interactions")
            self._interacted(record, touched)
        elif isinstance(record, Shown):
            self._shown(record.impression, record.source.appended, touched)
        elif isinstance(record, Reacted):
            self._reacted(record, touched)
        else:
            self._erased(record, touched)

    def _interacted(self, event: Interacted, touched: set[str]) -> None:
        self.standing.watermark = max(self.standing.watermark, event.at)
        ledger = self.ledgers.get(event.user)
        self.newest.append(event.user)
        seen, entered, repeat = self.online.learn_one(event.user, event.item, event.at)
        if seen:
            self._repeats.learn(repeat)
        if ledger is not None and ledger.pending and entered:
            for pending in ledger.due(seen):
                logged = attribution.unpack(self._taken(event.user, pending, touched))
                self._judge(event.user, ledger, pending, logged, event.item, event.source.appended, touched)

    def _shown(self, shown: Impression, now: int, touched: set[str]) -> None:
        self._count("impressions")
        if shown.probe:
            self._count("probes")
        ledger = self._ledger(shown.user, now, touched)
        self._drop_expired(ledger, now)
        pending = Pending(shown.id, shown.seen, shown.version, ledger.free(), shown.degraded, shown.assigned)
        logged = Logged(
            shown.shown, shown.sample, base64.b64decode(shown.features), shown.candidates, base64.b64decode(shown.ranks), shown.context
        )
        early = [e for e in ledger.early if e.recommendation_id == shown.id]
        ledger.early = [e for e in ledger.early if e.recommendation_id != shown.id]
        for _ in early:
            self._count("attributed")
        chosen = next((e.item for e in early if e.positive), None) or self.online.profiles.after(shown.user, shown.seen)
        if chosen is not None:
            self._judge(shown.user, ledger, pending, logged, chosen, now, touched)
            return
        ledger.pending.append(pending)
        self.logged[f"{pending.place}·{shown.user}"] = attribution.pack(logged)
        touched.add(f"l·{pending.place}·{shown.user}")
        if len(ledger.pending) > attribution.PENDING:
            self._unjudged(shown.user, ledger.pending.pop(0), touched)

    def _reacted(self, reaction: Reacted, touched: set[str]) -> None:
        self._count("reactions")
        now, positive = reaction.source.appended, attribution.is_positive(reaction.kind)
        ledger = self._ledger(reaction.user, now, touched)
        self._drop_expired(ledger, now)
        if reaction.recommendation_id in ledger.judged:
            self._count("attributed")
        elif any(p.id == reaction.recommendation_id for p in ledger.pending):
            self._count("attributed")
            if positive and (pending := ledger.take(reaction.recommendation_id)):
                logged = attribution.unpack(self._taken(reaction.user, pending, touched))
                self._judge(reaction.user, ledger, pending, logged, reaction.item, now, touched)
        else:
            ledger.early.append(Early(reaction.recommendation_id, reaction.item, positive, now))
            self._drop_expired(ledger, now)

    def _erased(self, erasure: Erased, touched: set[str]) -> None:
        self._count("erasures")
        self.online.forget(erasure.user)
        if (ledger := self.ledgers.pop(erasure.user, None)) is not None:
            for pending in ledger.pending:
                self._taken(erasure.user, pending, touched)
            self._open.discard(erasure.user)
            touched.add(f"a·{erasure.user}")

    def _ledger(self, user: str, now: int, touched: set[str]) -> Ledger:
        touched.add(f"a·{user}")
        if user not in self.ledgers and len(self.ledgers) >= self.memory.ledgers * 1.01:
            by_age = sorted(self.ledgers, key=lambda name: (self.ledgers[name].touched, name))
            for old in by_age[: len(self.ledgers) - self.memory.ledgers]:
                ledger = self.ledgers.pop(old)
                for pending in ledger.pending:
                    self._unjudged(old, pending, touched)
                self._close([ledger.block] if ledger.block else [])
                self._open.discard(old)
                touched.add(f"a·{old}")
        ledger = self.ledgers.setdefault(user, Ledger())
        ledger.touched = now
        return ledger

    def _taken(self, user: str, pending: Pending, touched: set[str]) -> bytes:
        """What it logged, packed, which is kept no longer."""
        touched.add(f"l·{pending.place}·{user}")
        return self.logged.pop(f"{pending.place}·{user}")

    def _unjudged(self, user: str, pending: Pending, touched: set[str]) -> None:
        self._taken(user, pending, touched)
        self._count("unjudged")

    def _drop_expired(self, ledger: Ledger, now: int) -> None:
        for _ in range(ledger.expired(now)):
            self._count("unattributed")

    # --- judge -------------------------------------------------------------------------------------------------------
    def _judge(
        self, user: str, ledger: Ledger, pending: Pending, logged: Logged, item: str, now: int, touched: set[str]
    ) -> None:  # fmt: skip
        self._count("judged")
        ranks = attribution.verdict(logged, item, len(SOURCES))
        ndcgs = dcg(ranks)
        slate = attribution.slate(logged, item, len(FEATURES))
        if slate is not None:
            self.ranker.learn_slate(*slate, min(logged.context, CONTEXTS - 1))
            touched.add("w·")
        ledger.remember(pending.id)
        touched.add(f"a·{user}")
        judged = Judged(crc32(user.encode()) & 0xFFFF, round(float(ndcgs[-1]), 4), float(ranks[DEEP] != ABSENT), int(pending.degraded))
        self.standing.answers.append((pending.assigned, judged))
        if pending.degraded:
            return
        self._guard.learn(ndcgs[:-1])
        ledger.block, closed = signals.add(ledger.block, pending.version, ranks < 10, ndcgs, ranks != ABSENT, now)
        (self._open.add if ledger.block else self._open.discard)(user)
        self._close(closed)

    def _close(self, blocks: Sequence[Block]) -> None:
        for b in blocks:
            hits, ndcgs, recalls = ([round(total / b.n, 6) for total in totals] for totals in (b.hits, b.ndcgs, b.recalls))
            self.standing.closed.append((b.version, b.n, hits, ndcgs, recalls))

    def _close_idle(self, now: int, touched: set[str]) -> None:
        for user in sorted(self._open):
            ledger = self.ledgers[user]
            if ledger.block is not None and ledger.block.touched < now - signals.IDLE_MS:
                self._close([ledger.block])
                ledger.block = None
                self._open.discard(user)
                touched.add(f"a·{user}")

    def _metrics(self, now: int, offset: int) -> list[Output]:
        """What was judged since the last ones as metrics: one signal per source and version, and the totals of this partition."""
        at, closed, self.standing.closed = utc(now / 1000), self.standing.closed, []
        answers, self.standing.answers = self.standing.answers, []
        where = {str(self.partition): offset}
        metrics = [Metric(signal=f"stream/{self.partition}", at=at, positions=where, counts=dict(self.standing.counts))]
        for version in sorted({version for version, *_ in closed}):
            blocks = [means for v, _, *means in closed if v == version]
            asks = {"asks": sum(n for v, n, *_ in closed if v == version)}
            for column, source in enumerate([*SOURCES, "served"]):
                if source == "deep" and version == 0:
                    continue
                hits, ndcgs, recalls = ([round(block[kind][column], 4) for block in blocks] for kind in range(3))
                metrics.append(
                    Metric(
                        signal=source, version=version, at=at, n=len(blocks), hits=hits, ndcgs=ndcgs, recalls=recalls,
                        positions=where, counts=asks,
                    )
                )  # fmt: skip
        for version in sorted({version for version, _ in answers}):
            users, shown, found, degraded = (
                list(values) for values in zip(*(judged for v, judged in answers if v == version), strict=True)
            )
            metrics.append(
                Metric(
                    signal=ANSWERS,
                    version=version,
                    at=at,
                    n=len(users),
                    users=users,
                    ndcgs=shown,
                    recalls=found,
                    degraded=degraded,
                    positions=where,
                )
            )
        return [Output(topics.METRICS, m.signal.encode(), to_bytes(m)) for m in metrics]
