"""The fault campaign: a seeded list of faults against two workers and a broker, and an oracle that replays the log.

    make chaos                                        # three seeds, in parts of minutes; what ran on this commit is not run again
    python -m tests.chaos.campaign --seed 1 --part 0  # one part again, the same faults

A part has its own broker, ledger and verdict. Faults come one after the other, as soon as the last one is recovered from; one in
five does not wait, and the time to recover from it together with its successor counts as `overlapping`. Exit code 0: nothing lost,
doubled or out of order, the committed state equal to the replay's, hash for hash.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feedback.policy import Policy
from infra.bootstrap import ROOT
from tests.chaos import oracle
from tests.chaos.cluster import Effects, prepare, wait
from tests.chaos.ledger import Ledger

RESULTS = ROOT / ".headrace" / "chaos.jsonl"
CAMPAIGN = {"kill": 100, "pause": 20, "broker": 10, "leave": 20, "join": 20, "cut": 8, "slow": 8, "disk": 4, "full": 2, "corrupt": 4}
SMOKE = {"kill": 3, "pause": 1, "broker": 1, "leave": 1, "join": 1, "cut": 1, "slow": 1, "disk": 1, "full": 1, "corrupt": 1}
PARTS = 6  # of a seed's campaign
WORKERS = ("worker-0", "worker-1")
PAUSE_S = 9.0  # more than a session
IMPATIENT = 0.2  # share of faults that the next one does not wait for
RECOVERY_S = 45.0


@dataclass(frozen=True)
class Fault:
    """`worker`: which of the two, where it is about one. `after_s`: pause since the last fault was recovered from."""

    kind: str
    worker: int
    after_s: float
    waits: bool


def plan(seed: int, part: int, parts: int, counts: dict[str, int]) -> list[Fault]:
    """The faults of one part, from the seed alone."""
    rng = random.Random(f"{seed}")
    kinds = [kind for kind, n in counts.items() for _ in range(n)]
    rng.shuffle(kinds)
    faults = [Fault(kind, rng.randrange(2), round(rng.uniform(0.1, 1.5), 2), rng.random() >= IMPATIENT) for kind in kinds]
    return faults[part::parts]


def run(faults: list[Fault], seed: int, events: int, events_s: float, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Every fault, then as many events as are still wanted, then the verdict."""
    began = time.monotonic()
    cluster = prepare(folder, workers=2)
    effects = Effects(cluster.kafka)
    ledger = Ledger(cluster.kafka, seed, events_s)
    recoveries: dict[str, list[float]] = {"worker": [], "broker": [], "network": [], "overlapping": []}
    recovered = True
    try:
        wait(lambda: all(effects.next.values()), 30)
        for number, fault in enumerate(faults, 1):
            time.sleep(fault.after_s)
            cluster.revive()
            name = WORKERS[fault.worker]
            kind, moment = _strike(cluster, fault.kind, name)
            if fault.waits or fault.kind == "broker":
                took = effects.after(moment, RECOVERY_S)
                recoveries[kind if recovered else "overlapping"].append(took)
            recovered = fault.waits or fault.kind == "broker"
            if fault.kind == "pause":
                time.sleep(max(0.0, moment + PAUSE_S - time.monotonic()))
                cluster.signal(name, signal.SIGCONT)
            say(f"{number}/{len(faults)} {fault.kind} {name}{f', next effects after {took:.1f} s' if fault.waits else ''}")
        while ledger.events < events:
            cluster.revive()
            say(f"{ledger.events} of {events} events")
            time.sleep(min(5, (events - ledger.events) / events_s + 0.1))
        ledger.stop()
        cluster.revive()
        oracle.settle(cluster.kafka)
        for name in cluster.workers:
            if cluster.workers[name].poll() is None:
                cluster.end(name, signal.SIGTERM)
        verdict = oracle.judge(cluster.kafka, ledger, Policy())
    finally:
        effects.close()
        cluster.close()
    return {
        "seed": seed, "events": verdict.events, "records": sum(ledger.records.values()), "failed": ledger.failed,
        "faults": {kind: sum(f.kind == kind for f in faults) for kind in CAMPAIGN if any(f.kind == kind for f in faults)},
        "lost": verdict.lost, "doubled": verdict.doubled, "disordered": verdict.disordered,
        "outputs_missing": verdict.missing, "outputs_extra": verdict.extra,
        "hash": "ok" if verdict.same else "DIFFERS", "notes": verdict.notes[:10], "passed": verdict.passed,
        "recoveries_s": {kind: [round(t, 2) for t in times] for kind, times in recoveries.items()},
        "workers_ended_by_themselves": cluster.restarts, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _strike(cluster: Any, kind: str, name: str) -> tuple[str, float]:
    """Do it; returns (what recovers, monotonic s from which recovery counts)."""
    if kind == "kill":
        cluster.end(name, signal.SIGKILL)
        moment = time.monotonic()
        cluster.start_worker(name)
    elif kind == "corrupt":
        cluster.end(name, signal.SIGKILL)
        moment = time.monotonic()
        cluster.corrupt(name)
        cluster.start_worker(name)
    elif kind == "pause":
        cluster.signal(name, signal.SIGSTOP)
        moment = time.monotonic()
    elif kind == "leave":
        cluster.end(name, signal.SIGTERM)
        moment = time.monotonic()
        cluster.start_worker(name)
    elif kind == "join":
        if "worker-2" in cluster.workers and cluster.workers["worker-2"].poll() is None:
            cluster.end("worker-2", signal.SIGTERM)
            moment = time.monotonic()
            del cluster.workers["worker-2"]
        else:
            cluster.start_worker("worker-2")
            wait(lambda: cluster.is_ready("worker-2"), 30)
            moment = time.monotonic()
    elif kind == "broker":
        cluster.kill_broker()
        time.sleep(1)
        cluster.start_broker()
        return "broker", time.monotonic()
    elif kind == "disk":  # the worker's: whatever it writes to a file fails
        with cluster.no_writes(cluster.workers[name].pid):
            moment = time.monotonic()
            time.sleep(3)
    elif kind == "full":  # the broker's: it halts, and is started again with room
        cluster.fill_disk()
        cluster.start_broker()
        return "broker", time.monotonic()
    elif kind == "cut":
        cluster.proxy.cut()
        time.sleep(2)
        cluster.proxy.refusing = False
        return "network", time.monotonic()
    elif kind == "slow":
        cluster.proxy.delay_s = 0.15
        time.sleep(3)
        cluster.proxy.delay_s = 0.0
        return "network", time.monotonic()
    else:
        raise ValueError(kind)
    return "worker", moment


def line(result: dict[str, Any], command: str) -> str:
    """The one line that a run ends with."""
    p95 = {kind: f"{np.percentile(times, 95):.1f}" for kind, times in result["recoveries_s"].items() if times}
    faults = ",".join(f"{kind}:{n}" for kind, n in result["faults"].items())
    return (
        f"seed={result['seed']} events={result['events']} faults={faults} lost={result['lost']} doubled={result['doubled']} "
        f"disordered={result['disordered']} outputs_missing={result['outputs_missing']} outputs_extra={result['outputs_extra']} "
        f"hash={result['hash']} rto_p95={','.join(f'{kind}:{s}' for kind, s in p95.items())} seconds={result['seconds']:.0f}  # {command}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.campaign", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="campaigns (1 2 3)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--part", type=int, help=f"only this part, 0 to {PARTS - 1}; run also where its result is there")
    parser.add_argument("--smoke", action="store_true", help="a few of each fault, in less than three minutes")
    parser.add_argument("--events", type=int, default=100_000, help="acknowledged events of a seed, at least (100,000)")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second (200)")
    parser.add_argument("--json", action="store_true", help="results as JSON lines")
    args = parser.parse_args(argv)
    if argv is None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # not before broker and workers are ended
    seeds, parts = [args.seed] if args.seed is not None else args.seeds, 1 if args.smoke else PARTS
    results = []
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    there = [json.loads(text) for text in RESULTS.read_text().splitlines()] if RESULTS.exists() and not args.smoke else []
    for seed in seeds:
        for part in range(parts) if args.part is None else [args.part]:
            same = {"seed": seed, "part": part, "events_wanted": args.events, "rate": args.rate, "commit": commit}
            known = next((r for r in there if same.items() <= r.items()), None)
            if known is not None and args.part is None:
                results.append(known)
                continue
            results.append(same | _one(args, seed, part, parts))
            if not args.smoke:
                RESULTS.parent.mkdir(exist_ok=True)
                with open(RESULTS, "a") as out:
                    out.write(json.dumps(results[-1]) + "\n")
    return 0 if all(result["passed"] for result in results) else 1


def _one(args: argparse.Namespace, seed: int, part: int, parts: int) -> dict[str, Any]:
    faults = plan(seed, part, parts, SMOKE if args.smoke else CAMPAIGN)
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-chaos-{seed}-{part}-"))
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    events = args.events if args.smoke else args.events // parts + 1
    say(f"seed {seed}, part {part} of {parts}: {json.dumps([asdict(f) for f in faults])}; logs in {folder}")
    result = {"part": part, **run(faults, seed * 100 + part, events, args.rate, folder, say)}
    result["seed"] = seed
    which = "--smoke" if args.smoke else f"--part {part}"
    command = f"python -m tests.chaos.campaign --seed {seed} {which} --events {args.events} --rate {args.rate:.0f}"
    print(json.dumps(result) if args.json else line(result, command), flush=True)
    for note in result["notes"]:
        say(note)
    if result["passed"]:
        shutil.rmtree(folder, ignore_errors=True)
    return result


if __name__ == "__main__":
    raise SystemExit(main())
