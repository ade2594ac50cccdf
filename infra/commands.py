"""What the commands do that talk to a running system; `infra.cli` has their flags. Imports wait until a command needs them."""

from __future__ import annotations

import argparse
import asyncio
import base64
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from infra import running
from infra.ports import is_answered
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.state import State

QUALITY_S = 5.0  # between two lines of `watch` about quality


class Failed(Exception):
    """Ends the command with this text and exit code: 1 failed, 3 not there."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings, with what the flags say on top."""
    try:
        settings = Settings()
        changes: dict[str, Any] = {}
        if getattr(args, "kafka", None):
            changes["kafka"] = dataclasses.replace(settings.kafka, bootstrap=args.kafka)
        if getattr(args, "triton", None):
            changes["triton"] = dataclasses.replace(settings.triton, url=args.triton)
        return settings.model_copy(update=changes)
    except (ValidationError, SettingsError, ValueError) as error:
        raise Failed(f"settings (headrace.toml or HEADRACE_…): {error}") from None


def _running(args: argparse.Namespace, *needed: str) -> Settings:
    """The settings of the stack that runs here, unless flags or the environment name another.

    `needed`: who has to answer there, of `kafka` and `triton`; a client library would try for half a minute.
    """
    settings, there = settings_of(args), running.announced()
    if there is not None:
        if not args.kafka and settings.kafka.bootstrap == Settings.model_fields["kafka"].default.bootstrap:
            settings = settings.model_copy(update={"kafka": dataclasses.replace(settings.kafka, **there["kafka"])})
        if not args.triton and settings.triton.url == Settings.model_fields["triton"].default.url:
            settings = settings.model_copy(update={"triton": dataclasses.replace(settings.triton, url=there["triton"])})
    for name in needed:
        address = settings.kafka.bootstrap if name == "kafka" else settings.triton.url
        if not any(map(is_answered, address.split(","))):
            start = "" if there or getattr(args, name) else "no stack runs here: start one with `make demo` or `headrace up`; "
            raise Failed(f"{start}no {name.title()} answers at {address} (--{name} HOST:PORT names another; `headrace doctor` looks)", 3)
    return settings


# --- asking and watching -------------------------------------------------------------------------------------------------
def ask(args: argparse.Namespace) -> int:
    from serving.client import Client
    from serving.recommend import MAX_K

    if not 1 <= args.k <= MAX_K:
        raise Failed(f"-k {args.k}: a list has 1 to {MAX_K} items", 2)
    settings = _running(args, "triton")
    with Client(settings.triton.url) as client:
        answer = client.recommend(args.user, args.k, args.recent or (), args.exclude or (), args.category or ())
    if args.json:
        print(json.dumps(dataclasses.asdict(answer)))
        return 0
    titles = _titles(settings)
    for place, (item, reason) in enumerate(zip(answer.items, answer.reasons, strict=True), 1):
        print(f"{place:3}. {item:12} {titles.get(item, '')[:40]:40}{f' {reason}' if args.why else ''}".rstrip())
    if not answer.is_personal:
        print(
            "nothing is known yet of this user: what is popular" if args.user else "nothing is known yet of this session: what is popular"
        )
    state = f"state {answer.state_age_ms} ms old" if answer.state_age_ms >= 0 else "no state yet"
    model = f"model version {answer.model_version}" if answer.model_version else "no deep model yet"
    if answer.model_version and not any("deep:" in reason for reason in answer.reasons):
        model += " (nothing of it in this list)"
    print(f"{model}, {state}{', DEGRADED' if answer.degraded else ''}, id {answer.id or '(not logged)'}")
    return 0


def _titles(settings: Settings) -> dict[str, str]:
    """Titles are for people: a list without them is still a list."""
    from kafka.errors import KafkaError

    from infra import control

    try:
        return control.titles(settings.kafka)
    except KafkaError as error:
        print(f"(no titles: {settings.kafka.bootstrap}: {type(error).__name__})", file=sys.stderr)
        return {}


def watch(args: argparse.Namespace) -> int:
    asyncio.run(_watch(args))
    return 0


async def _watch(args: argparse.Namespace) -> None:
    from infra.watch import Watcher, quality_line, words
    from streams.events import Event, Metric

    waiting: list[tuple[float, str]] = []

    def told(topic: str, event: Event, appended: float) -> None:
        if args.json and appended < began:
            return
        if args.json:
            print(json.dumps({"topic": topic, **event.model_dump(mode="json", exclude_none=True)}), flush=True)
        elif not isinstance(event, Metric):
            waiting.append((appended, words(event)))

    began = time.time()
    watcher = Watcher(_running(args, "kafka").kafka, told)
    await watcher.start()
    try:
        await watcher.caught_up.wait()  # what has been comes in its order, then what happens
        if waiting:
            waiting.append((began, "--- so far; now: ---"))
        now = time.monotonic()
        ends, due, quality = now + (args.seconds or 1e9), now, ""
        while now < ends:
            for at, text in sorted(waiting):
                print(f"{time.strftime('%H:%M:%S', time.localtime(at))}  {text}", flush=True)
            waiting.clear()
            if now >= due and not args.json:
                due, line = now + QUALITY_S, quality_line(watcher.picture)
                if line != quality:
                    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
                    quality = line
            await asyncio.sleep(min(0.3, ends - now))
            now = time.monotonic()
    finally:
        await watcher.stop()


# --- sending -------------------------------------------------------------------------------------------------------------
def replay(args: argparse.Namespace) -> int:
    asyncio.run(_replay(args))
    return 0


async def _replay(args: argparse.Namespace) -> None:
    from infra import control
    from infra.interactions import BadFile, rows
    from infra.replay import Replay, backfill

    if not args.file.exists():
        raise Failed(f"{args.file} does not exist", 3)
    try:
        source = rows(args.file, args.seed)
    except BadFile as error:
        raise Failed(str(error)) from None
    settings = _running(args, "kafka", *([] if args.backfill else ["triton"]))
    tag = args.tag or args.file.name
    if args.backfill:
        began = time.monotonic()

        def progress(done: int, all: int) -> None:
            print(f"\rsent {done} of {all}, {done / max(time.monotonic() - began, 1e-3):.0f} a second", end="", file=sys.stderr, flush=True)

        await backfill(settings.kafka, source, tag, progress)
        print(file=sys.stderr)
        request = control.request_retraining(settings.kafka)
        print(
            json.dumps({"sent": len(source), "request": request.id})
            if args.json
            else f"sent {len(source)}; one training asked for: {request.id}"
        )
        return
    run = Replay(settings.kafka, settings.triton.url, args.events, args.asks, tag=tag)
    task = asyncio.create_task(run.run(source))
    try:
        while not task.done():
            await asyncio.wait([task], timeout=2)
            hit, popular, asks = run.tally.hit_rates(time.time() - 30)
            left = (len(source) - run.tally.sent) / max(args.events, 1e-9)
            quality = f"hit rate {hit:.1%}, popularity {popular:.1%}, {asks} asks in 30 s"
            print(f"sent {run.tally.sent} of {len(source)}, {left:.0f} s left; {quality}", file=sys.stderr)
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await run.close()
    hit, popular, asks = run.tally.hit_rates(0)
    result = {"sent": run.tally.sent, "asks": asks, "hit_rate": round(hit, 4), "popularity": round(popular, 4), "failed": run.tally.failed}
    print(json.dumps(result) if args.json else ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.items()))


def retrain(args: argparse.Namespace) -> int:
    from infra import control
    from infra.watch import words

    kafka = _running(args, "kafka").kafka
    request = control.request_retraining(kafka)
    follow = "" if args.wait else "; the trainer takes one after the other: `headrace release list` or `headrace watch` shows how far it is"
    print(json.dumps({"request": request.id}) if args.json else f"asked for: {request.id}{follow}")
    if not args.wait:
        return 0
    deadline, told = time.monotonic() + args.wait, 0
    while time.monotonic() < deadline:
        _, records = control.releases(kafka)
        mine = [r for r in records if r.request == request.id]
        for record in mine[told:]:
            print(words(record), file=sys.stderr)
        told = len(mine)
        if mine and mine[-1].stage in ("live", "refused", "rolled_back"):
            return 0 if mine[-1].stage == "live" else 1
        time.sleep(0.5)
    raise Failed(f"nothing final after {args.wait:.0f} s; `headrace release list` shows how far it is")


# --- releases ------------------------------------------------------------------------------------------------------------
def release(args: argparse.Namespace) -> int:
    from infra import control
    from serving.publish import NotPublished, prove
    from serving.signature import new_key

    if args.what == "key":
        try:
            print(new_key(args.file))
        except (OSError, ValueError) as error:
            raise Failed(f"{args.file}: {error}") from None
        return 0
    settings = _running(args, "kafka")
    kafka = settings.kafka
    if args.what == "list":
        fold, records = control.releases(kafka)
        by_version: dict[int, list[Any]] = {}
        for record in records:
            if record.version:  # 0: a request that another one's training answered
                by_version.setdefault(record.version, []).append(record)
        if args.json:
            print(
                json.dumps(
                    {"live": fold.live, "canary": fold.canary, "frozen": fold.frozen, "versions": {v: fold.stages[v] for v in by_version}}
                )
            )
            return 0
        if not by_version:
            print("no version yet: the first training comes with enough events (policy.volume_first), or with `headrace retrain`")
            return 0
        if fold.frozen:
            print(f"frozen: version {fold.live} stays live until `headrace release thaw`")
        since = control.since(records)
        print(f"{'#':>4} {'stage':12} {'since':19}  {'why':8} gate: NDCG@10 on held-out choices")
        for version, steps in sorted(by_version.items()):
            gates: dict[str, Any] = next((r.gates or {} for r in steps if "ndcg10" in (r.gates or {})), {})
            quality = f"{gates.get('ndcg10', '–')} against live {gates.get('live_ndcg10', '–')}"
            print(f"{version:4} {fold.stages[version]:12} {since[version]:%Y-%m-%d %H:%M:%S}  {(steps[0].reason or '')[:8]:8} {quality}")
        return 0
    if args.what == "show":
        _, records = control.releases(kafka)
        steps = [r.model_dump(mode="json", exclude_none=True) for r in records if r.version == args.version]
        if not steps:
            raise Failed(f"no version {args.version}; `headrace release list` has those there are", 3)
        print(json.dumps(steps, indent=2))
        return 0
    stage = {"promote": "live", "rollback": "rolled_back", "pin": "frozen", "freeze": "frozen", "thaw": "thawed"}[args.what]
    fold, _ = control.releases(kafka)
    version = getattr(args, "version", 0)
    if version and version not in fold.stages:
        raise Failed(f"no version {version}; `headrace release list` has those there are", 3)
    if args.what in ("promote", "pin"):
        try:
            prove(settings.triton.url, version, timeout_s=10)
        except NotPublished as error:
            raise Failed(f"Triton at {settings.triton.url} cannot answer by {error} (rollout.keep); train a new one") from error
    refused = control.move(kafka, version, stage)
    if refused is not None:
        raise Failed(refused)
    print(f"version {version}: {stage}" if version else f"releases are {stage}")
    return 0


# --- dead letters --------------------------------------------------------------------------------------------------------
def dlq(args: argparse.Namespace) -> int:
    from infra import control

    kafka = _running(args, "kafka").kafka
    letters = control.letters(kafka)
    if args.what == "list":
        chosen = [x for x in letters if not args.reason or x["reason"] == args.reason]
        for x in chosen:
            print(json.dumps(_letter(x)) if args.json else f"{x['id']:32} {x['reason']:16} {x['detail']}")
        if not chosen and not args.json:
            print("no dead letters")
        return 0
    letter = next((x for x in letters if x["id"] == args.id), None)
    if letter is None:
        raise Failed(f"no dead letter {args.id}; `headrace dlq list` has those there are", 3)
    if args.what == "show":
        print(json.dumps(_letter(letter), indent=2))
        return 0
    mended = Path(args.value_file).read_bytes() if args.value_file else args.value.encode() if args.value else None
    partition, offset = control.retry(kafka, letter, mended)
    print(f"sent again: {letter['topic']}/{partition}/{offset} (the letter itself stays in the list)")
    return 0


def _letter(letter: dict[str, Any]) -> dict[str, Any]:
    """Printable: what is not text goes as base64."""
    out: dict[str, Any] = {}
    for name, value in letter.items():
        if isinstance(value, bytes):
            try:
                out[name] = value.decode() if len(value) <= 4096 else value[:4096].decode() + "…"
            except UnicodeDecodeError:
                out[name] = "base64:" + base64.b64encode(value[:4096]).decode()
        elif name == "headers":
            out[name] = [(k, (v or b"").decode("utf-8", "replace")) for k, v in value]
        else:
            out[name] = value
    return out


# --- state ---------------------------------------------------------------------------------------------------------------
def state(args: argparse.Namespace) -> int:
    from infra import state as states
    from infra.repartition import repartition

    settings = _running(args, "kafka")
    kafka, memory = settings.kafka, settings.memory

    def progress(done: int) -> None:
        print(f"\r{done} records folded", end="", file=sys.stderr, flush=True)

    try:
        if args.what == "verify":
            theirs = states.committed(kafka)
            mine = states.rebuild(kafka, memory, states.Bound(offsets=states.positions(theirs)), progress)
            print(file=sys.stderr)
            return _told_hashes(args, theirs, mine)
        if args.what == "rebuild":
            until = int(args.until.timestamp() * 1000) if args.until else None
            found = states.rebuild(kafka, memory, states.Bound(offsets=args.at, until_ms=until), progress)
            print(file=sys.stderr)
            states.save(found, args.file, kafka, memory)
        elif args.what == "dump":
            found = states.committed(kafka)
            states.save(found, args.file, kafka, memory)
        elif args.what == "repartition":
            found = repartition(kafka, memory, args.file, lambda text: print(f"\r{text}   ", end="", file=sys.stderr, flush=True))
            print(file=sys.stderr)
        else:
            found = states.restore(kafka, memory, args.file)
    except states.Unfit as unfit:
        raise Failed(str(unfit)) from None
    return _told_hashes(args, found)


def _told_hashes(args: argparse.Namespace, found: dict[int, State], rebuilt: dict[int, State] | None = None) -> int:
    """A line a partition: where it stands, and its hash; 1 where the one that was `rebuilt` differs."""
    from infra.state import digest, positions

    at, same = positions(found), True
    for p, mine in sorted(found.items()):
        entry = {"partition": p, "position": at.get(p, 0), "records": len(mine), "hash": digest(mine)}
        verdict = ""
        if rebuilt is not None:
            entry["rebuilt"] = digest(rebuilt[p])
            verdict = "ok" if entry["hash"] == entry["rebuilt"] else f"DIFFERS from the rebuilt {entry['rebuilt']}"
            if verdict != "ok":
                same, differ = False, sorted(k for k in mine.keys() | rebuilt[p].keys() if mine.get(k) != rebuilt[p].get(k))
                print(f"partition {p}: {len(differ)} records differ, first {[k.decode() for k in differ[:5]]}", file=sys.stderr)
        text = f"{p:4}  position {entry['position']:10}  {entry['records']:8} records  {entry['hash']} {verdict}".rstrip()
        print(json.dumps(entry) if args.json else text)
    return 0 if same else 1


# --- topics, doctor, schema ----------------------------------------------------------------------------------------------
def topics(args: argparse.Namespace) -> int:
    from infra.provisioning import existing, provision
    from streams.topics import WrongTopic, check
    from streams.topics import topics as all_topics

    kafka = _running(args, "kafka").kafka
    try:
        if args.create:
            made = provision(kafka)
            print(f"created {len(made)}: {', '.join(made)}" if made else "all there")
            return 0
        there = existing(kafka)
        listed = [{"topic": kafka.prefix + t.name, "partitions": there.get(t.name), "wanted": t.partitions} for t in all_topics(kafka)]
        if not args.json:
            print(f"{'topic':36} partitions")
        for entry in listed:
            what = f"{entry['partitions'] or '–':10} {'ok' if entry['partitions'] else 'MISSING: headrace topics --create'}"
            print(json.dumps(entry) if args.json else f"{entry['topic']:36} {what}")
        check(kafka, there)
        return 0 if all(e["partitions"] for e in listed) else 1
    except WrongTopic as wrong:
        raise Failed(str(wrong)) from None


def doctor(args: argparse.Namespace) -> int:
    from infra.doctor import examine

    findings = examine(_running(args))
    for name, ok, text in findings:
        print(json.dumps({"check": name, "ok": ok, "text": text}) if args.json else f"{'ok  ' if ok else 'BAD '} {name:12} {text}")
    return 0 if all(ok for _, ok, _ in findings) else 1


def schema(args: argparse.Namespace) -> int:
    from streams import schemas

    if args.out is None:
        print(json.dumps({name: schemas.schema(name) for name in schemas.TOPICS}, indent=2))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    for name in schemas.TOPICS:
        (args.out / f"{name}.json").write_text(schemas.text(name))
    print(f"{len(schemas.TOPICS)} schemas in {args.out}")
    return 0
