"""The oracle: what the log says must have happened, against what the workers have committed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec

from feedback.policy import Policy
from infra import control
from streams import topics
from streams.fold import Fold, Log, Output
from streams.kafka import Kafka
from streams.monitor import Monitor
from streams.partition import Machine
from streams.standing import POSITION
from streams.timeline import Interacted, decode
from tests.chaos.cluster import wait
from tests.chaos.ledger import Ledger

CUT = 137  # the replay's batches: other cuts than the workers', the same state


@dataclass
class Verdict:
    """`lost`, `doubled`, `disordered`: acknowledged events. `missing`, `extra`: committed outputs against the replay's."""

    events: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    missing: int = 0
    extra: int = 0
    hashes: dict[str, tuple[str, str]] = field(default_factory=dict)  # partition -> (committed, replayed)
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return all(a == b for a, b in self.hashes.values())

    @property
    def passed(self) -> bool:
        return self.same and not (self.lost or self.doubled or self.disordered or self.missing or self.extra or self.notes)


def settle(kafka: Kafka, within_s: float = 90) -> None:
    """Wait until everything in the inputs and the timeline is folded, and nothing moves any more."""

    def still() -> bool:
        standings = control.standings(kafka).values()
        timeline = control.records_in(kafka, topics.TIMELINE)
        inputs = sum(control.records_in(kafka, name) for name in topics.INPUTS)
        done = sum(s.counts.get("folded", 0) + s.counts.get("duplicates", 0) for s in standings)
        letters = sum(letter["topic"] in topics.INPUTS for letter in control.letters(kafka))
        watched = [msgspec.msgpack.decode(r.value)["next"] for r in control.read(kafka, topics.MONITOR_STATE) if r.key == POSITION]
        metrics = [record.offset for record in control.read(kafka, topics.METRICS)]
        whole = bool(watched and metrics) and watched[-1] > metrics[-1]
        return whole and timeline == sum(s.next for s in standings) and inputs == done + letters

    wait(still, within_s, 0.5)


def judge(kafka: Kafka, ledger: Ledger, policy: Policy) -> Verdict:
    """Replay the timeline serially and compare everything; the workers should have ended before."""
    verdict = Verdict(events=ledger.events)
    logs = _logs(kafka, topics.TIMELINE)
    _effects(verdict, logs, ledger)
    committed = control.latest(kafka, topics.ONLINE_STATE)
    outputs: Counter[tuple[str, bytes, bytes]] = Counter()
    for partition in range(kafka.partitions):
        machine = Fold(partition, kafka.partitions)
        outputs += _replay(verdict, f"online-{partition}", machine, logs.get(partition, []), committed.get(partition, {}))
        _profiles(verdict, machine, ledger)
    metrics = _logs(kafka, topics.METRICS).get(0, [])
    outputs += _replay(verdict, "monitor", Monitor(policy), metrics, control.latest(kafka, topics.MONITOR_STATE).get(0, {}))
    found: Counter[tuple[str, bytes, bytes]] = Counter()
    for name in (topics.METRICS, topics.DRIFT_ALERTS, topics.RETRAINING_REQUESTS):
        found += Counter((name, record.key, record.value) for record in control.read(kafka, name))
    verdict.missing, verdict.extra = (outputs - found).total(), (found - outputs).total()
    return verdict


def _logs(kafka: Kafka, topic: str) -> dict[int, list[Log]]:
    logs: dict[int, list[Log]] = {}
    for record in control.read(kafka, topic):
        logs.setdefault(record.partition, []).append(Log(record.offset, record.timestamp, record.key, record.value))
    return logs


def _replay(
    verdict: Verdict, name: str, machine: Machine, logs: list[Log], committed: dict[bytes, bytes]
) -> Counter[tuple[str, bytes, bytes]]:
    """Fold `logs` from nothing, compare the state's hash with what was committed; returns the outputs."""
    state: dict[bytes, bytes | None] = {}
    outputs: Counter[tuple[str, bytes, bytes]] = Counter()
    for start in range(0, len(logs), CUT):
        step = machine.fold(logs[start : start + CUT])
        state.update(step.touched)
        outputs += Counter(_plain(output) for output in step.outputs)
    mine = {k: v for k, v in state.items() if v is not None}
    theirs = dict(committed)
    theirs_position = theirs.pop(POSITION, b"")
    if theirs_position:
        standing = msgspec.msgpack.decode(theirs_position)
        key, value = machine.position(standing["next"], standing["as_of"])
        mine[key], theirs[key] = value, theirs_position
    verdict.hashes[name] = _hash(theirs), _hash(mine)
    if verdict.hashes[name][0] != verdict.hashes[name][1]:
        differ = [k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)]
        verdict.notes.append(f"{name}: {len(differ)} of {len(mine)} records differ, {differ[:5]}")
    return outputs


def _plain(output: Output) -> tuple[str, bytes, bytes]:
    return output.topic, output.key, output.value


def _hash(state: dict[bytes, bytes]) -> str:
    digest = blake2b(digest_size=8)
    for key in sorted(state):
        digest.update(len(key).to_bytes(4, "big") + key + len(state[key]).to_bytes(4, "big") + state[key])
    return digest.hexdigest()


def _effects(verdict: Verdict, logs: dict[int, list[Log]], ledger: Ledger) -> None:
    """Each acknowledged event once, each user's events in their order, by the timeline as the fold reads it."""
    effects: dict[str, list[str]] = {}
    for records in logs.values():
        fences: dict[tuple[int, int], int] = {}
        known: set[str] = set()
        for log in records:
            record = decode(log.value)
            place = record.source.topic, record.source.partition
            if record.source.offset <= fences.get(place, -1):
                continue
            fences[place] = record.source.offset
            if isinstance(record, Interacted) and record.id is not None and record.id not in known:
                known.add(record.id)
                effects.setdefault(record.user, []).append(record.id)
    had = Counter(id for ids in effects.values() for id in ids)
    verdict.lost = len(ledger.acknowledged - had.keys())
    verdict.doubled = sum(n > 1 for n in had.values())
    for user, ids in ledger.sent.items():
        acknowledged = [id for id in ids if id in ledger.acknowledged]
        verdict.disordered += [id for id in effects.get(user, []) if id in ledger.acknowledged] != acknowledged


def _profiles(verdict: Verdict, fold: Fold, ledger: Ledger) -> None:
    """The state itself counts each user's events as the ledger does."""
    for user, ids in ledger.sent.items():
        if topics.partition_of(user, fold.shards) == fold.partition:
            counted, wanted = fold.online.profiles.seen(user), sum(id in ledger.acknowledged for id in ids)
            if counted != wanted:
                verdict.notes.append(f"{user}: {counted} events in the state, {wanted} acknowledged")
