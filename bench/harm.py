"""Whether a model that fooled the gate is gone in seconds: canaries that no gate has seen, harmful and healthy ones.

    python -m bench.harm [--data FILE] [--events N] [--rate R] [--harmful N] [--healthy N] [--json]

Everything is real and on this machine: broker, worker, Triton, the trainer and the model it released first. The data comes in any order, so
that its users ask side by side, as many users do. Then a steady load: at each turn a user is asked for, and then chooses what the data
says, by which the answer is judged. Into that come models put into the repository and named as candidates of a request, as by a trainer
that was ended after its gate; the trainer that runs rolls them out by its own rules. `harmful` ones are the live model with its scores
inverted, `healthy` ones the live model with a little noise. A harmful one that goes live ends the run.

Of each: the stage it ended in, `judged` answers until then, seconds from its canary record to its last one, and to the last answer by it;
the share of users that were answered by it. Reported over all: failed and degraded answers, latencies.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from tritonclient.grpc import service_pb2

from bench.fold import first
from bench.gate import SPOILT
from bench.lists import Flow, Say, released, say, show, to_trainer, undisturbed
from bench.load import METHOD, request
from bench.releases import disturb, put
from infra import control
from infra.bootstrap import DEMO_DATA
from infra.interactions import Row
from infra.stack import Stack
from learners import export, finetune
from serving import bundle
from serving.publish import Claim
from serving.vocabulary import Vocabulary
from streams import topics
from streams.events import Release, RetrainingRequest, utc
from streams.kafka import Kafka

SETTLED = ("live", "refused", "rolled_back", "superseded")


class Load:
    """Asks and choices at a steady rate; `rows`: time (Unix s), latency (s), user's number, version, degraded."""

    def __init__(self, stack: Stack, source: list[Row], rate: float) -> None:
        self._url, self._flow, self._rate, self._source = stack.settings.triton.url, Flow(stack, source, "h"), rate, source
        self.rows, self.failed = list[tuple[float, float, int, int, int]](), 0

    async def run(self) -> None:
        numbers = {user: n for n, user in enumerate(dict.fromkeys(row.user for row in self._source))}
        requests, running = {user: request(user) for user in numbers}, set[asyncio.Task[None]]()
        async with grpc.aio.insecure_channel(self._url) as channel:
            call = channel.unary_unary(METHOD, response_deserializer=service_pb2.ModelInferResponse.FromString)

            async def turn(user: str) -> None:
                began = time.time()
                try:
                    answer = await call(requests[user], timeout=10)
                    found = {o.name: raw for o, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
                    version, degraded = int.from_bytes(found["model_version"][:8], "little"), found["degraded"][0]
                    self.rows.append((began, time.time() - began, numbers[user], version, degraded))
                except grpc.aio.AioRpcError:
                    self.failed += 1

            began, n = time.monotonic(), 0
            while True:
                await asyncio.sleep(max(0.0, began + n / self._rate - time.monotonic()))
                row = self._source[n % len(self._source)]

                async def one(row: Row = row) -> None:
                    await turn(row.user)
                    self._flow.send_row(row)

                task = asyncio.create_task(one())
                running.add(task)
                task.add_done_callback(running.discard)
                n += 1


def plant(stack: Stack, folder: Path, kind: str, seed: int) -> tuple[int, str]:
    """Put a model into the repository and name it as the candidate of a request, which is then made; returns version and request."""
    repository, fold = stack.settings.triton.repository, control.releases(stack.settings.kafka)[0]
    live, version = bundle.folder_of(repository, fold.live), fold.newest + 1
    vocabulary = Vocabulary.load(live)
    model = finetune.load(live / "weights.safetensors", len(vocabulary.items), stack.settings.training)
    if kind == "harmful":
        with torch.no_grad():
            SPOILT["inverted scores"](model)
    else:
        disturb(model, seed)
    keep = partial(fold.loaded, stack.settings.rollout.keep)
    onnx, canary, _ = export.export(model, np.load(live / "canary.npz")["histories"])
    sha256 = put(stack.settings, folder, Claim(repository, fold.epoch), version, onnx, canary, vocabulary.items, model, keep)
    kafka, asked = stack.settings.kafka, RetrainingRequest(id=f"{kind}-{version}", reason="manual", at=utc(time.time()))
    candidate = Release(
        id=f"{asked.id}-candidate",
        version=version,
        stage="candidate",
        sha256=sha256,
        request=asked.id,
        epoch=fold.epoch,
        at=utc(time.time()),
    )
    control.announce(kafka, topics.RELEASES, candidate, candidate.model)
    control.announce(kafka, topics.RETRAINING_REQUESTS, asked, asked.model)
    return version, asked.id


async def until(true: Any, seconds: float, what: str) -> Any:
    """What `true` gives, asked in a thread every .2 s, once it is something."""
    deadline = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(true)):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(0.2)
    return found


async def settled(kafka: Kafka, asked: str, seconds: float) -> None:
    """The request `asked` has come to its end."""
    await until(lambda: control.releases(kafka)[0].requests.get(asked) in SETTLED, seconds, asked)


async def all_settled(kafka: Kafka, seconds: float) -> None:
    """Every request so far has."""
    await until(lambda: set(control.releases(kafka)[0].requests.values()) <= set(SETTLED), seconds, "the first trainings")


async def trial(stack: Stack, folder: Path, load: Load, kind: str, seed: int) -> dict[str, Any]:
    """One model's way from candidate to its end."""
    kafka = stack.settings.kafka
    version, asked = await asyncio.to_thread(plant, stack, folder, kind, seed)
    await settled(kafka, asked, stack.settings.rollout.deadline_s + 240)
    await asyncio.sleep(2)
    records = control.releases(kafka)[1]
    began, ended = (next(r for r in reversed(records) if r.version == version and r.stage in stages) for stages in (("canary",), SETTLED))
    rows = [row for row in load.rows if row[0] >= began.at.timestamp() and row[0] <= ended.at.timestamp()]
    bad = [row for row in rows if row[3] == version]
    return {
        "kind": kind,
        "ended": ended.stage,
        "seconds": round(ended.at.timestamp() - began.at.timestamp(), 2),
        "seconds_to_its_last_answer": round(max((r[0] for r in load.rows if r[3] == version), default=0.0) - began.at.timestamp(), 2),
        "its_answers": len(bad),
        "share_of_users": round(len({row[2] for row in bad}) / max(len({row[2] for row in rows}), 1), 4),
        **(ended.gates or {}),
    }


async def run(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = Path(temporary)
        whole = first(args.data, 1_000_000, folder)
        times = [row.at for row in whole]
        random.Random(args.seed).shuffle(whole)
        whole = [row._replace(at=at) for row, at in zip(whole, times, strict=True)]
        known = {row.user for row in whole[: args.events]}
        coming = [row for row in whole[args.events :] if row.user in known]
        async with released(whole, args.events, folder, True, say, undisturbed()) as (stack, _, _):
            to_trainer(stack, signal.SIGCONT)
            kafka = stack.settings.kafka
            await all_settled(kafka, 300)
            load = Load(stack, coming, args.rate)
            running = asyncio.create_task(load.run())
            try:
                await asyncio.sleep(5)
                trials = list[dict[str, Any]]()
                for n, kind in enumerate(["harmful"] * args.harmful + ["healthy"] * args.healthy):
                    trials.append(await trial(stack, folder, load, kind, args.seed + n))
                    say(str(trials[-1]))
                    if (kind, trials[-1]["ended"]) == ("harmful", "live"):
                        break
            finally:
                running.cancel()
            latencies = np.array([row[1] for row in load.rows]) * 1000
            return {
                "trials": trials,
                "users": len({row[2] for row in load.rows}),
                "answers": len(load.rows),
                "failed": load.failed,
                "degraded": sum(row[4] for row in load.rows),
                "p50_ms": round(float(np.percentile(latencies, 50)), 1),
                "p99_ms": round(float(np.percentile(latencies, 99)), 1),
                "rate": args.rate,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    parser.add_argument("--events", type=int, default=60_000, help="learned before anything is asked")
    parser.add_argument("--rate", type=float, default=80, help="lists, and choices, a second")
    parser.add_argument("--harmful", type=int, default=3, help="models with inverted scores")
    parser.add_argument("--healthy", type=int, default=1, help="models with a little noise")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    show(asyncio.run(run(args, say)), args.json)


if __name__ == "__main__":
    main()
