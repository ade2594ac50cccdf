"""The trainer process: one request at a time, from the timeline to a release; every step is a record on the bus.

    request ─▶ requested ─▶ train ─▶ gate ─▶ candidate ─▶ canary ─▶ live
                                       └▶ refused            └▶ rolled_back

One active trainer per model is Kafka's doing: a consumer group on the requests, and a transactional producer whose id
names the model, so that a trainer which was paused and wakes up cannot publish.
"""

from __future__ import annotations

import logging
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from pydantic import ValidationError

from learners import histories
from learners.histories import Event
from learners.training import Training
from serving import bundle, gate, off_policy
from serving.failpoint import failpoint
from serving.publish import Claim, Superseded, publish
from serving.release import Releases, Rollout
from serving.vocabulary import Vocabulary
from streams import topics
from streams.canary import judged
from streams.events import Metric, Release, RetrainingRequest, complaint, to_bytes, utc
from streams.history import History
from streams.kafka import Kafka

log = logging.getLogger("headrace.trainer")
CANARY_WINDOWS = 16
FROZEN = "releases are frozen until an operator thaws them"
POPULAR = 500  # items a bundle carries for a server that starts without Kafka


class Trainer:
    """Bundles are signed with the private key in `signing_key`; a warm start is from what the public one, `trusted`, has signed."""

    def __init__(
        self, kafka: Kafka, url: str, repository: Path, training: Training, rollout: Rollout, signing_key: Path | None = None,
        trusted: str = "",
    ) -> None:  # fmt: skip
        self.kafka, self.url, self.repository = kafka, url, repository
        self._signing_key, self._trusted = signing_key, trusted
        self._staging = repository.with_name(repository.name + ".staging")
        self.training, self.rollout = training, rollout
        self.stopping = False
        self.history = History(kafka)
        self.releases = Releases()
        common = kafka.kafka_python()
        self._requests = KafkaConsumer(
            kafka.prefix + topics.RETRAINING_REQUESTS, **common, group_id=f"{kafka.prefix}trainer", enable_auto_commit=False,
            auto_offset_reset="earliest", isolation_level="read_committed", max_poll_interval_ms=1_800_000, session_timeout_ms=10_000,
        )  # fmt: skip
        self._told = KafkaConsumer(
            **common, group_id=f"{kafka.prefix}releases", enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_committed",
        )  # fmt: skip
        self._told_at = TopicPartition(kafka.prefix + topics.RELEASES, 0)
        self._told.assign([self._told_at])
        self._lettered = 0  # release records below have had their dead letters
        self._told.seek_to_beginning(self._told_at)
        self._producer = KafkaProducer(**common, transactional_id=f"{kafka.prefix}trainer-sequence", transaction_timeout_ms=60_000)
        self._claim: Claim | None = None  # whoever has the requests claims the repository, and fences; one that only waits does not
        self._records: list[Release] = []
        self._heard: set[str] = set()  # ids of all release records read
        self._ignored: list[tuple[Any, str, str]] = []  # release records that did not count, the reason and its detail

    # --- bus ---------------------------------------------------------------------------------------------------------
    def _catch_up(self, until: str | None = None) -> None:
        """Bring the fold of the release topic up to date: it decides, also over what operators said meanwhile.

        `until`: a record of ours that has to be among them. A commit returns before its markers are written, so for a
        moment the committed end of the topic may not include what we have just said.
        """
        end = self._told.end_offsets([self._told_at])[self._told_at]
        deadline = time.monotonic() + 30
        while self._told.position(self._told_at) < end or (until is not None and until not in self._heard):
            if time.monotonic() > deadline:
                raise KafkaTimeoutError(f"the release record {until} did not become visible within 30 s")
            for records in self._told.poll(timeout_ms=500).values():
                for record in records:
                    try:
                        release = Release.model_validate_json(record.value)
                    except ValidationError as error:
                        self._ignored.append((record, "invalid", complaint(error)))
                        continue
                    self._heard.add(release.id)
                    ignored = release.apply_to(self.releases)
                    if ignored is None:
                        self._records.append(release)
                    else:
                        self._ignored.append((record, "not_allowed", ignored))

    def _bury(self) -> None:
        """Dead letters for release records that did not count; each once, however often a trainer starts."""
        for record, reason, detail in self._ignored:
            if record.offset >= self._lettered:
                log.warning("release record at %s ignored: %s", record.offset, detail)
                self._letter(record, topics.RELEASES, reason, detail, OffsetAndMetadata(record.offset + 1, "", -1))
                self._lettered = record.offset + 1
        self._ignored = []

    def _tell(self, stage: Any, version: int, request: RetrainingRequest, **more: Any) -> None:
        assert self._claim is not None
        release = Release(
            id=f"{request.id}-{stage}",
            version=version,
            stage=stage,
            request=request.id,
            epoch=self._claim.epoch,
            at=utc(time.time()),
            **more,
        )
        self._send([(topics.RELEASES, release.model.encode(), to_bytes(release))], stage)
        self._catch_up(until=release.id)
        log.info("%s version %s %s", stage, version, more.get("reason") or "")

    def _letter(self, record: Any, topic: str, reason: str, detail: str, done: Any = None) -> None:
        """A record that cannot be followed, and why; `done`: where to go on in `topic`, committed with it."""
        why = {"reason": reason, "detail": detail, "topic": record.topic, "partition": record.partition, "offset": record.offset}
        headers = [(f"headrace.error.{k}", str(v).encode()) for k, v in why.items()]
        self._send([(topics.dead_letters(topic), record.key or b"", record.value or b"")], "letter", headers, done)

    def _send(
        self, records: list[tuple[str, bytes, bytes]], what: str, headers: list[tuple[str, bytes]] | None = None, done: Any = None
    ) -> None:
        """All or none of the records (topic, key, value); `what` names its failpoints.

        `done`: how far release records have been looked at.
        """
        failpoint(f"{what}.begin")
        self._producer.begin_transaction()
        for topic, key, value in records:
            self._producer.send(self.kafka.prefix + topic, key=key, value=value, headers=headers or [], partition=0)
        if done is not None:
            self._producer.send_offsets_to_transaction({self._told_at: done}, f"{self.kafka.prefix}releases")
        failpoint(f"{what}.sent")
        self._producer.commit_transaction()
        failpoint(f"{what}.told")

    # --- loop --------------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Until `stopping`: serve requests, the newest for all that waited."""
        self._catch_up()
        while not self.stopping:
            polled = [record for records in self._requests.poll(timeout_ms=300).values() for record in records]
            while polled and (more := self._requests.poll(timeout_ms=100)):  # all that wait are one training
                polled += [record for records in more.values() for record in records]
            if self._requests.assignment() and self._claim is None:
                self._producer.init_transactions()  # from here on nobody before us writes a record
                self._catch_up()
                self._lettered = self._told.committed(self._told_at) or 0
                self._claim = Claim.after(self.repository, self.releases.epoch)
                failpoint("stage.sweep")
                shutil.rmtree(self._staging, ignore_errors=True)  # what a killed trainer left
            waiting = [self._read(record) for record in polled]
            requests = [request for request in waiting if request is not None]
            self._catch_up()
            if self._claim is not None:
                self._bury()
            open_ = [r for r in requests if self.releases.requests.get(r.id) not in ("live", "refused", "rolled_back")]
            for begun in [r for r in open_ if self.releases.requests.get(r.id) in ("candidate", "shadow", "canary")]:
                self._serve(begun)  # a trainer was ended in the midst of it: nobody else would judge that canary
                open_.remove(begun)
            if open_:
                # A drift knows where the change began; of several, the newest speaks for all.
                chosen = ([r for r in open_ if r.reason == "drift"] or open_)[-1]
                self._answer_others([r for r in open_ if r.id != chosen.id], chosen)
                self._serve(chosen)
            if waiting:
                failpoint("request.commit")
                self._requests.commit()
                failpoint("request.committed")

    def _answer_others(self, requests: list[RetrainingRequest], chosen: RetrainingRequest) -> None:
        """One training answers all that waited: say so for each, in one transaction."""
        why, now = f"served together with {chosen.id}", utc(time.time())
        told = {r.id: Release(id=f"{r.id}-refused", version=0, stage="refused", request=r.id, reason=why, at=now) for r in requests}
        if told:
            self._send([(topics.RELEASES, r.model.encode(), to_bytes(r)) for r in told.values()], "together")
            self._catch_up(until=list(told.values())[-1].id)

    def close(self) -> None:
        self.history.close()
        self._requests.close()
        self._told.close()
        self._producer.close(timeout=2)

    def _read(self, record: Any) -> RetrainingRequest | None:
        try:
            return RetrainingRequest.model_validate_json(record.value or b"")
        except ValidationError as error:
            log.warning("request at %s ignored: %s", record.offset, complaint(error))
            self._letter(record, topics.RETRAINING_REQUESTS, "invalid", complaint(error))
            return None

    def _serve(self, request: RetrainingRequest) -> None:
        known = [r for r in self._records if r.request == request.id]
        stage = self.releases.requests.get(request.id)
        version = known[-1].version if known else self.releases.newest + 1
        if stage is None:
            self._tell("requested", version, request, reason=request.reason)
        if self.releases.frozen and self.releases.stages.get(version) in (None, "requested", "candidate"):
            self._tell("refused", version, request, reason=FROZEN)
            return
        if stage in (None, "requested"):
            try:
                if not self._candidate(version, request):
                    return
            except (KafkaError, Superseded):
                raise  # the bus is in trouble, or another trainer there; not the candidate: the next start takes the request up again
            except Exception as error:  # whatever a training ends with, the request gets an answer and the next its turn
                log.exception("version %s", version)
                self._tell("refused", version, request, reason=f"{type(error).__name__}: {error}"[:500])
                return
        self._roll_out(version, request)

    # --- train, gate, publish ----------------------------------------------------------------------------------------
    def _candidate(self, version: int, request: RetrainingRequest) -> bool:
        """Train, judge and publish version `version`; False where it was refused."""
        from learners import export, finetune  # torch: seconds to import, and only this process needs it

        began = time.monotonic()
        events = self.history.read()
        live = self.releases.live
        old = self._vocabulary_of(live)
        items = self._vocabulary(events, old)
        row = {item: r for r, item in enumerate(items, 1)}
        rng = np.random.default_rng(self.training.seed + version)
        part = histories.split(events, self.training, request.change_point, first=old is None)
        windows = histories.training_windows(part, row, self.training.replay if old else 0, rng)
        asked = histories.questions(part, row, self.training.gate_windows, rng)
        if len(windows.targets) < 2 or not len(asked.answers):
            self._tell("refused", version, request, reason=f"{len(events)} interactions are too few to train and to judge")
            return False
        model = (
            finetune.load(self._folder(live) / "weights.safetensors", len(items), self.training)
            if old
            else finetune.fresh(len(items), self.training)
        )
        fit = finetune.fit(model, windows, self.training, warm=old is not None, progress=self._progress(version))
        onnx, canary, difference = export.export(model, asked.histories[:CANARY_WINDOWS])
        popular = histories.popular(part, row)
        before, live_cost, had = None, None, had_weights(self._records)
        if old:
            was = finetune.load(self._folder(live) / "weights.safetensors", len(old.items), self.training)
            before, had = finetune.scorer(was), had | {finetune.fingerprint(was): live}
            live_cost = cost((self._folder(live) / "model.onnx").read_bytes(), asked, len(old.items))
        mine = finetune.scorer(model)
        weights = finetune.fingerprint(model)
        verdict = gate.judge(gate.tried(mine, before, popular, asked, cost(onnx, asked, len(items)), live_cost, had.get(weights, 0)))
        models = {"candidate": mine, **({"live": before} if before else {})}
        gates = {
            **verdict.figures,
            "off_policy": off_policy.estimated(models, asked, self.history.drawn, row),
            "steps": fit.steps,
            "planned_steps": fit.planned,
            "loss": [round(fit.first_loss, 4), round(fit.last_loss, 4)],
            "train_s": round(fit.seconds, 2),
            "total_s": round(time.monotonic() - began, 2),
            "export_difference": difference,
            "device": str(finetune.device()),
            "weights": weights,
            "windows": len(windows.targets),
            "targets": int((windows.weights > 0).sum()),
            "warm_start": live if old else None,
        }
        lineage = self.history.lineage()
        if not verdict.passed:
            self._tell("refused", version, request, reason="; ".join(verdict.reasons), gates=gates, lineage=lineage)
            return False
        sha256 = self._publish(version, request, items, popular, onnx, canary, gates, lineage, lambda file: finetune.save(model, file))
        self._tell("candidate", version, request, sha256=sha256, gates=gates, lineage=lineage)
        return True

    def _publish(
        self, version: int, request: RetrainingRequest, items: list[str], popular: npt.NDArray[np.float32], onnx: bytes,
        canary: dict[str, Any], gates: dict[str, Any], lineage: dict[str, Any], save: Callable[[Path], None],
    ) -> str:  # fmt: skip
        self._staging.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f"{version}-", dir=self._staging))
        try:
            card = {"version": version, "request": request.model_dump(mode="json"), "gates": gates, "lineage": lineage}
            best = [items[row - 1] for row in np.argsort(-popular[1:], kind="stable")[:POPULAR] + 1]
            bundle.assemble(staged, onnx, canary, items, best, card, save)
            sha256 = bundle.seal(staged, version, self._signing_key)
            assert self._claim is not None
            seconds = publish(staged, self._claim, self.url, version, self._kept, self._trusted)
            gates["load_s"] = round(seconds, 3)
            return sha256
        finally:
            failpoint("stage.remove")
            shutil.rmtree(staged, ignore_errors=True)

    def _kept(self) -> list[int]:
        """Versions that stay loaded, also by what operators said while we trained."""
        self._catch_up()
        return self.releases.loaded(self.rollout.keep)

    def _folder(self, version: int) -> Path:
        return bundle.folder_of(self.repository, version)

    def _vocabulary_of(self, version: int) -> Vocabulary | None:
        """What the live version knows; None where there is none, or where its folder is no longer whole: then all begins anew."""
        if not version:
            return None
        try:
            return Vocabulary.load(self._folder(version), self.releases.hashes.get(version), self._trusted, version)
        except (OSError, bundle.Corrupt) as error:
            log.warning("no warm start from version %s: %s", version, error)
            return None

    def _vocabulary(self, events: list[Event], old: Vocabulary | None) -> list[str]:
        """Rows are for ever: what the live model knows keeps its row, what is new comes after."""
        known = dict.fromkeys(old.items) if old else {}
        return list(known | dict.fromkeys(sorted({e.item for e in events} - known.keys())))

    def _progress(self, version: int) -> Callable[[int, int], None]:
        told = 0.0

        def progress(step: int, steps: int) -> None:
            nonlocal told
            if self.stopping:
                raise SystemExit(0)  # the request is not committed: the next start takes it up again
            now = time.monotonic()
            if now - told >= 1 or step == steps:
                told = now
                metric = Metric(signal="training", version=version, at=utc(time.time()), counts={"step": step, "steps": steps})
                self._send([(topics.METRICS, b"training", to_bytes(metric))], "progress")

        return progress

    # --- canary ------------------------------------------------------------------------------------------------------
    def _roll_out(self, version: int, request: RetrainingRequest) -> None:
        """Canary, then live; or rolled back on evidence of harm. Operators' records win over ours."""
        if self.releases.stages.get(version) in ("candidate", "shadow"):
            self._tell("canary", version, request, share=self.rollout.canary_share)
        if self.releases.frozen and self.releases.stages.get(version) == "candidate":
            self._tell("refused", version, request, reason=FROZEN)
            return
        if not self._is_on_trial(version):
            return
        since = next(r.at for r in reversed(self._records) if (r.version, r.stage) == (version, "canary")).timestamp()
        canary = judged(self.kafka, version, self.releases.live, self.rollout, since, lambda: self.stopping)
        if self.stopping:
            return  # whoever starts next goes on from the canary record
        self._catch_up()
        if not self._is_on_trial(version):
            return
        if canary.is_harmful:
            self._tell("rolled_back", version, request, reason="the canary's lists are worse than the live ones", gates=canary.figures())
        else:
            self._tell("live", version, request, gates=canary.figures())

    def _is_on_trial(self, version: int) -> bool:
        stage = self.releases.stages.get(version)
        if stage != "canary":
            log.info("version %s is %s by an operator's word", version, stage)
        return stage == "canary"


def had_weights(records: Sequence[Release]) -> dict[str, int]:
    """Fingerprints of weights, and the version that had them: of candidates, but those that a freeze kept from everybody."""
    had = {r.version: r.gates["weights"] for r in records if r.stage == "candidate" and r.gates and "weights" in r.gates}
    for record in records:
        if record.stage == "refused":
            had.pop(record.version, None)
    return {weights: version for version, weights in had.items()}


def cost(onnx: bytes, asked: histories.Questions, items: int) -> gate.Cost:
    """What an exported model takes for these questions; `items` in its vocabulary."""
    from learners import export

    return gate.Cost(len(onnx) / 1e6, export.cost_ms(onnx, asked.histories, items), items)


def run(
    kafka: Kafka, url: str, repository: Path, training: Training, rollout: Rollout, signing_key: Path | None, trusted: str,
    ready: Path | None = None,
) -> None:  # fmt: skip
    """Run until SIGTERM or SIGINT."""
    import os

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    trainer = Trainer(kafka, url, repository, training, rollout, signing_key, trusted)

    def stop(number: int, frame: object) -> None:
        trainer.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    import torch

    torch.set_num_threads(training.threads)
    log.info("ready; torch %s on %s", torch.__version__, "cuda" if torch.cuda.is_available() else "cpu")
    if ready is not None:
        ready.touch()
    try:
        trainer.run()
    finally:
        trainer.close()
