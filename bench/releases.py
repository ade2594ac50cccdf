"""Whether anybody notices a release: pushes of changed models under a steady load.

    python -m bench.releases [--pushes N] [--pairs N] [--seconds S] [--every S] [--rate R] [--kept FOLDER] [--json]

Everything is real and on this machine: broker, worker, Triton, and the model that the trainer released first. A push is what the trainer
does after its gate: a bundle of changed weights (20 exports in turn) with a vocabulary of its own, sealed, signed, published, proven, named
in `releases.v1`. The load is steady, half of what the machine gives in a closed loop unless `--rate` names it; latencies count from when a
request was due, so that a stall is not hidden.

First `--pushes` one after the other: `failed` and `degraded` answers, `mixed` ones (an item that only the version's own vocabulary has must
be first on the model's list: every answer's impression is read), `backwards` (a client that saw an older version after a newer one), the
CPU of the answering processes by request and its slope, Triton's memory. Then `--pairs` of blocks, one with a push every `--every` seconds
and one without: p99 of both. A block, of either kind, during which the machine's host gave more than 3 % of it to others is measured again
and told apart (`disturbed`). What is measured is kept, a hundred pushes or a block at a time: a run that was cut off goes on from there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from kafka import KafkaProducer
from torch import Tensor

from bench.fold import cpu_s, first
from bench.lists import Say, released, say, show
from bench.load import CLIENTS, Load, ask
from infra import control
from infra.bootstrap import DEMO_DATA, ROOT
from infra.settings import Settings
from infra.stack import TRAINER, Stack
from infra.supervisor import nicely
from learners import export, finetune
from learners.histories import LENGTH
from learners.sequence import SequenceModel
from serving import bundle
from serving.features import DEEP
from serving.publish import Claim, publish
from serving.vocabulary import Vocabulary
from streams import topics
from streams.events import Release, Stage, to_bytes, utc
from streams.timeline import Impression, unpack_ranks

EXPORTS, CHUNK, ASKED = 20, 100, 500
STEAL = 7
STOLEN, TRIES = 0.03, 4  # a block during which the host gave more of the machine to others is measured again, so many times in all


class Marked(SequenceModel):
    """The same model with an item more, the last one, that it always expects first: whose vocabulary an answer was read with is seen."""

    def scores(self, histories: Tensor) -> Tensor:
        scores = super().scores(histories)
        return torch.cat([scores, torch.zeros_like(scores[:, :1]) + 1e3], 1)


def disturb(model: SequenceModel, seed: int) -> None:
    """A little noise on its items."""
    torch.manual_seed(seed)
    with torch.no_grad():
        model.table.weight[1:] += 0.01 * model.table.weight[1:].std() * torch.randn_like(model.table.weight[1:])


def put(
    settings: Settings, folder: Path, claim: Claim, version: int, onnx: bytes, canary: Any, items: list[str], model: SequenceModel,
    keep: Callable[[], Sequence[int]],
) -> str:  # fmt: skip
    """Seal, sign and publish a bundle as the trainer does; returns its hash."""
    staged = Path(tempfile.mkdtemp(prefix=f"{version}-", dir=folder))
    bundle.assemble(staged, onnx, canary, items, items[:100], {"version": version}, lambda file: finetune.save(model, file))
    sha256 = bundle.seal(staged, version, settings.signing.key)
    publish(staged, claim, settings.triton.url, version, keep, settings.signing.trusted)
    return sha256


# --- pushes --------------------------------------------------------------------------------------------------------------
class Pusher:
    """Makes and publishes versions, as the trainer does once its gate has let one pass."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        kafka = settings.kafka
        self._producer, self._topic = KafkaProducer(**kafka.kafka_python(), acks="all"), kafka.prefix + topics.RELEASES
        self.fold, _ = control.releases(kafka)
        self.claim = Claim.after(settings.triton.repository, self.fold.epoch)
        live = bundle.folder_of(settings.triton.repository, self.fold.live)
        self._items = Vocabulary.load(live).items
        samples = np.load(live / "canary.npz")["histories"]
        assert samples.shape[1:] == (2, LENGTH)
        self._made = []
        for n in range(EXPORTS):
            model = finetune.load(live / "weights.safetensors", len(self._items), settings.training)
            disturb(model, n)
            model.__class__ = Marked
            onnx, canary, _ = export.export(model, samples)
            self._made.append((onnx, canary, model))

    def push(self) -> int:
        """The next version, live when this returns."""
        version = self.fold.newest + 1
        onnx, canary, model = self._made[version % EXPORTS]
        keep = partial(self.fold.loaded, self._settings.rollout.keep)
        sha256 = put(self._settings, self._folder, self.claim, version, onnx, canary, [*self._items, f"release-{version}"], model, keep)
        steps: list[tuple[Stage, str | None]] = [("candidate", sha256), ("live", None)]
        for stage, hash in steps:
            id, at = f"bench-{version}-{stage}", utc(time.time())
            record = Release(id=id, version=version, stage=stage, sha256=hash, epoch=self.claim.epoch, at=at)
            self._producer.send(self._topic, key=record.model.encode(), value=to_bytes(record)).get(10)
            assert record.apply_to(self.fold) is None
        return version


class Pushing:
    """A `Pusher` in a session of its own, as nice as the trainer; it ends with us."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @staticmethod
    async def begin(settings: Settings, folder: Path) -> Pushing:
        command = [sys.executable, "-m", "bench.releases", "--push", str(folder)]
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f'{nicely(TRAINER)} "$@"', "sh", *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **settings.environment(), "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        made = Pushing(process)
        await made.push()
        return made

    async def push(self) -> float:
        """Seconds until the next version was live."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"\n")
        took = await self._process.stdout.readline()
        if not took:
            raise SystemExit(f"a push failed; the process that pushes ended with {await self._process.wait()}")
        return float(took)

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


def pushing(folder: Path) -> None:
    """A push for each line of standard input; says how long it took."""
    pusher = Pusher(Settings(), folder)
    for _ in sys.stdin:
        began = time.monotonic()
        pusher.push()
        print(time.monotonic() - began, flush=True)


# --- what it costs -------------------------------------------------------------------------------------------------------
def memory_mb(group: int) -> float:
    """Memory of Triton's processes, what they share counted once."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int((place / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                total += int(next(line for line in (place / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:")).split()[1])
        except (OSError, IndexError, StopIteration):
            continue
    return total / 1024


def times() -> np.ndarray[Any, Any]:
    """What all cores together have spent on what (proc_stat(5)), in ticks; `STEAL`: what the host gave to others."""
    with open("/proc/stat") as file:
        return np.array(file.readline().split()[1:9], np.int64)


def seen(rows: np.ndarray[Any, Any], failed: int) -> dict[str, Any]:
    """What clients saw."""
    latencies, by_client = rows[:, 2] * 1000, [rows[rows[:, 0] == number, 3] for number in range(CLIENTS)]
    p50, p99 = np.percentile(latencies, [50, 99])
    return {
        "answers": len(rows),
        "failed": failed,
        "degraded": int(rows[:, 4].sum()),
        "backwards": int(sum((np.diff(versions) < 0).sum() for versions in by_client)),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "max_ms": round(float(latencies.max()), 1),
    }


class Impressions:
    """Reads what was answered, and with which vocabulary."""

    def __init__(self, stack: Stack) -> None:
        kafka = stack.settings.kafka
        self._consumer = Consumer(kafka.confluent() | {"group.id": "bench", "enable.auto.commit": False})
        self._consumer.assign([TopicPartition(kafka.prefix + topics.RECOMMENDATIONS, p, OFFSET_BEGINNING) for p in range(kafka.partitions)])

    def mixed(self) -> tuple[int, int]:
        """Of the answers since the last call: those that the model had a part in, and those of another vocabulary than their version's."""
        read, mixed = 0, 0
        while batch := self._consumer.consume(1_000, 2.0):
            for message in batch:
                shown = msgspec.json.decode(message.value() or b"", type=Impression)
                ranks = unpack_ranks(shown.ranks, len(shown.candidates))[:, DEEP]
                marks = [(item, int(rank)) for item, rank in zip(shown.candidates, ranks, strict=True) if item.startswith("release-")]
                if shown.version and marks:
                    read += 1
                    mixed += marks != [(f"release-{shown.version}", 0)]
        return read, mixed

    def close(self) -> None:
        self._consumer.close()


# --- run -----------------------------------------------------------------------------------------------------------------
class Kept:
    """Results by name, in one file, written as a whole."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def keep(self, name: str, result: dict[str, Any]) -> None:
        self.found[name] = result
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self.found, indent=1))
        fresh.replace(self._file)


async def block(pusher: Pushing | None, seconds: float, every: float) -> None:
    """So long, with a push every so often if somebody pushes."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        began = time.monotonic()
        if pusher is not None:
            await pusher.push()
        await asyncio.sleep(min(left, max(0.0, every - (time.monotonic() - began))))


async def measure(stack: Stack, users: list[str], folder: Path, args: argparse.Namespace, kept: Kept, say: Say) -> None:
    url, group = stack.settings.triton.url, stack.supervisor.running["triton"].pid
    pusher = await Pushing.begin(stack.settings, folder)
    if not args.rate:
        await ask(url, users, CLIENTS, 3)  # warm
        args.rate = round((await ask(url, users, CLIENTS, 5))["lists"] / 10)
    say(f"load: {args.rate} lists/s")
    impressions = Impressions(stack)
    try:
        await asyncio.to_thread(impressions.mixed)
        for begin in range(0, args.pushes, CHUNK):
            name, n = f"pushes {begin}", min(CHUNK, args.pushes - begin)
            if name in kept.found:
                continue
            running = await Load.begin(url, args.rate, users, folder / "load.npz")
            await asyncio.sleep(2)
            points, took = list[dict[str, float]](), list[float]()
            for nth in range(n):
                took.append(await pusher.push())
                if nth % 20 == 19 or nth == n - 1:
                    at = {"at": time.time(), "cpu_s": cpu_s(group), "mb": round(memory_mb(group), 1)}
                    points.append({"push": begin + nth + 1, **at})
                    say(f"{begin + nth + 1} of {args.pushes} pushes, {np.mean(took):.2f} s each, {points[-1]['mb']:.0f} MB")
            rows, failed = await running.end()
            read, mixed = await asyncio.to_thread(impressions.mixed)
            whole = seen(rows, failed) | {"read": read, "mixed": mixed, "push_s": round(float(np.mean(took)), 2), "rate": args.rate}
            for before, after in pairwise(points):
                part = rows[(rows[:, 1] >= before["at"]) & (rows[:, 1] < after["at"])]
                after["cpu_ms"] = round((after["cpu_s"] - before["cpu_s"]) / max(len(part), 1) * 1000, 3)
                after["p50_ms"], after["p99_ms"] = (round(float(p), 1) for p in np.percentile(part[:, 2] * 1000, [50, 99]))
            kept.keep(name, whole | {"points": points})
        for pair in range(args.pairs):
            for kind in ("with", "without") if pair % 2 else ("without", "with"):
                disturbed = sum(name.startswith(f"disturbed {kind} {pair} ") for name in kept.found)
                while f"{kind} {pair}" not in kept.found:
                    running, spent = await Load.begin(url, args.rate, users, folder / "load.npz"), -times()
                    await block(pusher if kind == "with" else None, args.seconds, args.every)
                    rows, failed = await running.end()
                    spent += times()
                    read, mixed = await asyncio.to_thread(impressions.mixed)
                    stolen = round(float(spent[STEAL] / spent.sum()), 4)
                    found = seen(rows, failed) | {"read": read, "mixed": mixed, "rate": args.rate, "stolen": stolen}
                    if stolen > STOLEN and disturbed + 1 < TRIES:
                        kept.keep(f"disturbed {kind} {pair} {disturbed}", found)
                        disturbed += 1
                        say(f"{kind} pushes, {pair + 1} of {args.pairs}, disturbed, once more: {found}")
                    else:
                        kept.keep(f"{kind} {pair}", found)
                        say(f"{kind} pushes, {pair + 1} of {args.pairs}: {found}")
    finally:
        impressions.close()
        await pusher.end()


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """All that was kept as one."""
    chunks, of = [value for name, value in found.items() if name.startswith("pushes")], {}
    points = [point for chunk in chunks for point in chunk["points"]]
    if chunks:
        of = {name: sum(chunk[name] for chunk in chunks) for name in ("answers", "failed", "degraded", "backwards", "read", "mixed")}
        of |= {"pushes": points[-1]["push"], "push_s": round(float(np.mean([chunk["push_s"] for chunk in chunks])), 2)}
        of |= {"rate": chunks[-1]["rate"], "max_ms": max(chunk["max_ms"] for chunk in chunks)}
        of["memory_mb"] = {"after_20": points[0]["mb"], "at_the_end": points[-1]["mb"]}
        costs = np.array([(point["push"], point["cpu_ms"]) for point in points if "cpu_ms" in point])
        if len(costs) > 2:
            slope, level = np.polyfit(costs[:, 0], costs[:, 1], 1)
            error = (costs[:, 1] - slope * costs[:, 0] - level).std(ddof=2) / (costs[:, 0].std() * len(costs) ** 0.5)
            of["cpu_ms"] = round(float(costs[:, 1].mean()), 3)
            of["cpu_ms_slope_1000"] = [round(float(slope + z * error) * 1000, 3) for z in (0, -1.96, 1.96)]
    blocks = {kind: [value for name, value in sorted(found.items()) if name.startswith(f"{kind} ")] for kind in ("with", "without")}
    pairs = list(zip(blocks["with"], blocks["without"], strict=False))
    if pairs:
        quiet = [block["p99_ms"] for block in blocks["without"]]
        of["pairs"] = {
            "p99_ratios": [round(one["p99_ms"] / other["p99_ms"], 2) for one, other in pairs],
            "median": round(float(np.median([one["p99_ms"] / other["p99_ms"] for one, other in pairs])), 2),
            "without_ratios": [round(b / a, 2) for a, b in pairwise(quiet)],
            "with": blocks["with"],
            "without": blocks["without"],
            "disturbed": {name: value for name, value in sorted(found.items()) if name.startswith("disturbed")},
        }
    return of | {"points": points}


def plot(points: list[dict[str, float]], file: Path) -> None:
    """p50 and p99 over the pushes."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    told = [point for point in points if "p99_ms" in point]
    for name, colour in (("p50_ms", "#2f6fb2"), ("p99_ms", "#b2562f")):
        axes.plot([point["push"] for point in told], [point[name] for point in told], "o-", color=colour, label=name[:3], markersize=3)
    axes.set(xlabel="pushes, one after the other", ylabel="ms, from when a request was due", ylim=(1, None), yscale="log")
    axes.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})


async def run(args: argparse.Namespace, kept: Kept, say: Say) -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = Path(temporary)
        source = first(args.data, args.events, folder)
        async with released(source, args.events, folder, True, say) as (stack, _, users):  # its trainer is paused: releases are ours
            await measure(stack, users[:ASKED], folder, args, kept, say)


def main() -> None:
    if sys.argv[1:2] == ["--push"]:
        pushing(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    parser.add_argument("--events", type=int, default=20_000, help="learned before anything is asked")
    parser.add_argument("--pushes", type=int, default=1_000)
    parser.add_argument("--pairs", type=int, default=5, help="of blocks, with and without pushes")
    parser.add_argument("--seconds", type=float, default=60, help="of a block")
    parser.add_argument("--every", type=float, default=5, help="seconds from push to push in a block")
    parser.add_argument("--rate", type=int, default=0, help="lists a second (half of what a closed loop gives)")
    parser.add_argument("--kept", type=Path, default=ROOT / ".headrace" / "bench-releases.json", help="file of what was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw p50 and p99 over the pushes (SVG)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    kept = Kept(args.kept)
    asyncio.run(run(args, kept, say))
    found = figures(kept.found)
    if args.plot:
        plot(found["points"], args.plot)
    show(found, args.json)


if __name__ == "__main__":
    main()
