"""Twelve sabotaged candidates through the trainer itself: each has to be refused, with its reason as a record, while the live model serves.

    python -m bench.sabotage [--data FILE] [--events N] [--healthy N] [--chunk N] [--json]

Everything is real and on this machine: broker, worker, Triton and a trainer. After the first release, `--chunk` more events and a training,
`--healthy` times. Then the trainer runs in this process, and each of its trainings is spoilt: its labels shuffled, its model spoilt between
training and gate (as in bench.gate, and by the weights of three releases ago), its bundle half-written, its key another one; at last one is
not spoilt, which has to go live, and one is of an epoch that is over. Before each come `--few` more events; meanwhile users are asked for,
ten a second.

Reported: of each, the stage its request ended in, and why; `answers`, those that failed or were degraded, and those by another version than
the live one; `refused_healthy` and `passed_sabotaged` should be empty.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import tempfile
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from bench.fold import first
from bench.gate import SPOILT, STALE, Spoil, shuffled
from bench.harm import all_settled, settled, until
from bench.lists import Flow, Say, released, say, show, to_trainer, undisturbed
from bench.releases import put
from infra import control
from infra.bootstrap import DEMO_DATA
from infra.interactions import Row
from infra.stack import Stack
from learners import finetune
from learners.histories import Windows
from learners.sequence import SequenceModel
from serving import bundle
from serving.bundle import folder_of
from serving.client import AsyncClient
from serving.publish import Claim, Superseded
from serving.signature import new_key
from streams import topics
from streams.events import Release, utc
from streams.trainer import Trainer

EPOCH, CONTROL = "lower epoch", "not spoilt"


# --- the trainer, and what is done to it ---------------------------------------------------------------------------------
@contextmanager
def training(spoil_labels: bool = False, spoil: Spoil | None = None) -> Iterator[None]:
    """Every training until the end of it is spoilt so."""
    fit = finetune.fit

    def spoilt(model: SequenceModel, windows: Windows, *args: Any, **more: Any) -> finetune.Fit:
        if spoil_labels:
            shuffled(windows, np.random.default_rng(1))
        done = fit(model, windows, *args, **more)
        if spoil is not None:
            with torch.no_grad():
                spoil(model)
        return done

    with patch.object(finetune, "fit", spoilt):
        yield


def stale(trainer: Trainer) -> Spoil:
    """The weights of three releases ago."""

    def spoil(model: SequenceModel) -> None:
        lives = trainer.releases.lives
        old = finetune.load(KEPT[lives[-min(STALE, len(lives))]], len(model.table.weight) - 1, trainer.training)
        model.load_state_dict(old.state_dict())

    return spoil


KEPT: dict[int, Path] = {}  # version -> its weights, which Triton's repository keeps of the last ones only


@contextmanager
def half_written() -> Iterator[None]:
    """The disk was full."""
    seal = bundle.seal

    def sealed(folder: Path, *args: Any) -> str:
        sha256 = seal(folder, *args)
        whole = (folder / "model.onnx").read_bytes()
        (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
        return sha256

    with patch.object(bundle, "seal", sealed):
        yield


def sabotages(trainer: Trainer, foreign: Path) -> dict[str, Any]:
    """Name -> what is done, for the time of one training."""
    return {
        "shuffled labels": training(spoil_labels=True),
        "stale weights": training(spoil=stale(trainer)),
        **{name: training(spoil=spoil) for name, spoil in SPOILT.items()},
        "half-written": half_written(),
        "forged signature": patch.object(trainer, "_signing_key", foreign),
        CONTROL: nullcontext(),
    }


# what a reason says where no figure of the gate does
SAID = {
    "stale weights": "its weights are those of version",
    "not a number": "NotEqual",
    "constant scores": "NotEqual",
    "half-written": "not what the manifest says",
    "forged signature": "not a signature",
}


def of_a_former_epoch(stack: Stack, trainer: Trainer, folder: Path) -> dict[str, Any]:
    """What a trainer that was paused can still try: the repository, and the bus past Kafka's fence."""
    fold, live = trainer.releases, trainer.releases.live
    source, said = folder_of(trainer.repository, live), ""
    onnx, canary = (source / "model.onnx").read_bytes(), dict(np.load(source / "canary.npz"))
    items = json.loads((source / "vocabulary.json").read_bytes())
    model = finetune.load(source / "weights.safetensors", len(items), trainer.training)
    claim = Claim(trainer.repository, fold.epoch - 1)
    try:
        put(stack.settings, folder, claim, fold.newest + 1, onnx, canary, items, model, partial(fold.loaded, trainer.rollout.keep))
    except Superseded as error:
        said = f"Superseded: {error}"
    record = Release(id="former", version=fold.newest + 1, stage="candidate", epoch=fold.epoch - 1, at=utc(time.time()))
    control.announce(stack.settings.kafka, topics.RELEASES, record, record.model)
    deadline = time.monotonic() + 30
    while not (letters := [x for x in control.letters(stack.settings.kafka) if "epoch" in str(x["detail"])]):
        if time.monotonic() > deadline:
            return {"ended": "unheard", "reason": said}
        time.sleep(0.5)
    return {"ended": "refused" if said else "published", "reason": f"{said}; {letters[-1]['detail']}"}


# --- run -----------------------------------------------------------------------------------------------------------------
class Asking:
    """Ten users a second; what they were answered."""

    def __init__(self, stack: Stack, users: list[str]) -> None:
        self._stack, self._users, self.versions = stack, users, set[int]()
        self.answers = self.failed = self.degraded = 0

    async def run(self) -> None:
        client = AsyncClient(self._stack.settings.triton.url)
        try:
            while True:
                for user in self._users:
                    try:
                        answer = await client.recommend(user)
                        self.versions.add(answer.model_version)
                        self.answers, self.degraded = self.answers + 1, self.degraded + answer.degraded
                    except Exception:  # whatever it is, the user has no list
                        self.failed += 1
                    await asyncio.sleep(0.1)
        finally:
            await client.close()


async def healthy(stack: Stack, flow: Flow, args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Trainings that nobody spoils."""
    kafka, found = stack.settings.kafka, dict[str, Any]()
    await all_settled(kafka, 600)
    for n in range(args.healthy + 1):
        fold = control.releases(kafka)[0]
        KEPT[fold.live] = stack.folder / f"weights-{fold.live}"
        KEPT[fold.live].write_bytes((folder_of(stack.settings.triton.repository, fold.live) / "weights.safetensors").read_bytes())
        if n == args.healthy:
            break
        flow.send(args.chunk)
        flow.flush()
        await until(lambda: sum(s.next for s in control.standings(kafka).values()) >= flow.sent, 120, "the fold")
        asked = control.request_retraining(kafka).id
        await settled(kafka, asked, 600)
        found[str(flow.sent)] = ended(kafka, asked)
        say(f"healthy, {n + 1} of {args.healthy}: {found[str(flow.sent)]}")
    return found


def ended(kafka: Any, asked: str) -> dict[str, Any]:
    """How a request ended."""
    records = [r for r in control.releases(kafka)[1] if r.request == asked]
    gates = next((r.gates for r in records if r.gates and "ndcg10" in r.gates), {})
    last = records[-1]
    return {
        "version": last.version,
        "ended": last.stage,
        "reason": last.reason,
        **{k: gates.get(k) for k in ("ndcg10", "live_ndcg10", "questions")},
    }


async def unless(trained: asyncio.Future[None], waited: Coroutine[Any, Any, Any]) -> None:
    """Wait; but if the trainer ends, so do we."""
    waiting = asyncio.ensure_future(waited)
    await asyncio.wait({waiting, trained}, return_when=asyncio.FIRST_COMPLETED)
    if trained.done():
        waiting.cancel()
        raise SystemExit(f"the trainer ended: {trained.exception()!r}")
    waiting.result()


async def run(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = Path(temporary)
        source: list[Row] = first(args.data, 1_000_000, folder)
        async with released(source, args.events, folder, True, say, undisturbed(deadline_s=1.0)) as (stack, flow, users):
            to_trainer(stack, signal.SIGCONT)
            passed = await healthy(stack, flow, args, say)
            to_trainer(stack, signal.SIGSTOP)
            s = stack.settings
            new_key(folder / "foreign.key")
            trainer = Trainer(s.kafka, s.triton.url, s.triton.repository, s.training, s.rollout, s.signing.key, s.signing.trusted)
            torch.set_num_threads(s.training.threads)
            trained = asyncio.get_running_loop().run_in_executor(None, trainer.run)
            asking = Asking(stack, users)
            running, spoilt = asyncio.create_task(asking.run()), dict[str, Any]()
            try:
                await unless(trained, until(lambda: trainer._claim is not None, 60, "the trainer's turn"))
                live = trainer.releases.live
                for name, sabotage in sabotages(trainer, folder / "foreign.key").items():
                    flow.send(args.few)
                    flow.flush()
                    with sabotage:
                        asked = await asyncio.to_thread(control.request_retraining, s.kafka)
                        await unless(trained, settled(s.kafka, asked.id, 600))
                    spoilt[name] = await asyncio.to_thread(ended, s.kafka, asked.id)
                    say(f"{name}: {spoilt[name]}")
                spoilt[EPOCH] = await asyncio.to_thread(of_a_former_epoch, stack, trainer, folder)
                say(f"{EPOCH}: {spoilt[EPOCH]}")
            finally:
                trainer.stopping = True
                running.cancel()
                await asyncio.wait({trained})
                trainer.close()
            return {
                "healthy": passed,
                "sabotaged": spoilt,
                "refused_healthy": [name for name, found in passed.items() if found["ended"] != "live"],
                "passed_sabotaged": [
                    name
                    for name, found in spoilt.items()
                    if name != CONTROL and (found["ended"] != "refused" or SAID.get(name, "") not in found["reason"])
                ],
                "answers": asking.answers,
                "failed": asking.failed,
                "degraded": asking.degraded,
                "by_another_version": sorted(asking.versions - {live, spoilt[CONTROL]["version"]}),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEMO_DATA, help="user,item,value,timestamp")
    parser.add_argument("--events", type=int, default=20_000, help="learned before the first training")
    parser.add_argument("--healthy", type=int, default=4, help="trainings that nobody spoils")
    parser.add_argument("--chunk", type=int, default=10_000, help="events before each of them")
    parser.add_argument("--few", type=int, default=2_000, help="events before each that is spoilt")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    show(asyncio.run(run(args, say)), args.json)


if __name__ == "__main__":
    main()
