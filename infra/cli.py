"""The command line. Exit codes: 0 done, 1 failed (the text says why), 2 wrong usage, 3 not there, 130 Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import base64
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from infra.bootstrap import DEMO_DATA, ROOT
from infra.settings import Settings

FOLDER = ROOT / ".headrace"
# Errors that say what is wrong by themselves; anything else is a fault of ours and keeps its traceback. By name, so that
# `--help` need not import Kafka and Triton.
OURS = ("StartFailed", "NotOurs", "WrongTopic")
CLIENTS = ("kafka", "aiokafka", "confluent_kafka", "tritonclient", "grpc")


class Failed(Exception):
    """Ends the command with exit code 1 and this text."""


def _settings(args: argparse.Namespace) -> Settings:
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


def _running(args: argparse.Namespace) -> Settings:
    """The settings of the stack that runs here, unless flags or the environment name another."""
    settings = _settings(args)
    file = FOLDER / "running.json"
    if file.exists():
        there = json.loads(file.read_text())
        if not args.kafka and settings.kafka.bootstrap == Settings.model_fields["kafka"].default.bootstrap:
            settings = settings.model_copy(update={"kafka": dataclasses.replace(settings.kafka, **there["kafka"])})
        if not args.triton and settings.triton.url == Settings.model_fields["triton"].default.url:
            settings = settings.model_copy(update={"triton": dataclasses.replace(settings.triton, url=there["triton"])})
    return settings


# --- demo, up ------------------------------------------------------------------------------------------------------------
def demo(args: argparse.Namespace) -> int:
    from infra.demo import Plan, dump
    from infra.screen import Screen

    data = args.data or DEMO_DATA
    if not data.exists():
        raise Failed(f"no data at {data}: run `make setup`, or give --data FILE with the columns user,item,value,timestamp")
    before = FOLDER / "demo.json"
    armed_for = args.armed_for
    if armed_for is None:
        measured = json.loads(before.read_text()).get("after_planted_s", {}).get("alerted") if before.exists() else None
        armed_for = 3 * measured if measured else 90.0
    plan = Plan(
        events_s=args.events, asks_s=args.asks, drift=not args.no_drift, armed_for_s=armed_for,
        until=args.until or ("forever" if not args.json else "promoted"), deadline_s=args.deadline, seed=args.seed,
    )  # fmt: skip
    screen = Screen(quiet_stdout=args.json)
    document = asyncio.run(_demo(args, plan, screen, data))
    if args.json:
        print(dump(document))
    if plan.drift and document["promoted"]:
        before.parent.mkdir(exist_ok=True)
        before.write_text(dump(document))
    if plan.drift and not document["promoted"]:
        print("the release that the drift should have caused is not live", file=sys.stderr)
        return 1
    return 0 if plan.drift or not document["drift_alerts"] else 1


async def _demo(args: argparse.Namespace, plan: Any, screen: Any, data: Path) -> dict[str, Any]:
    from infra.demo import Story
    from infra.stack import Stack, fresh

    stop = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.cancel if stop else lambda: None)
    settings = _settings(args)
    # The story's own dials: a first model early, and no other reason to train than the drift.
    policy = dataclasses.replace(settings.policy, volume_first=8_000, volume_every=0, schedule_s=0, cool_down_s=60, after_change=8_000)
    kafka = dataclasses.replace(settings.kafka, partitions=2)
    rollout = dataclasses.replace(settings.rollout, canary_share=0.25, judged=60)  # a canary that is judged within seconds
    settings = settings.model_copy(update={"policy": policy, "kafka": kafka, "rollout": rollout})
    folder = fresh(args.dir or FOLDER / "demo")
    stack = Stack(settings, folder, screen.say, kafka_given=bool(args.kafka), triton_given=bool(args.triton))
    screen.say(f"starting Kafka, Triton, worker and trainer; logs in {folder / 'logs'}")
    showing = None
    try:
        await stack.start()
        _remember(stack)
        story = Story(stack, data, plan, screen.say)
        screen.say(f"Kafka {stack.settings.kafka.bootstrap}, Triton {stack.settings.triton.url} (gRPC); Ctrl-C ends everything")
        showing = asyncio.create_task(screen.show(story))
        await story.run()
        showing.cancel()
        return await story.report(args.setup_seconds)
    finally:
        if showing is not None:
            showing.cancel()
        await _ended(stack)


async def _ended(stack: Any) -> None:
    await stack.stop()
    (FOLDER / "running.json").unlink(missing_ok=True)


def _remember(stack: Any) -> None:
    """Where the stack is, so that the other commands find it."""
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / "running.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps({"kafka": dataclasses.asdict(stack.settings.kafka), "triton": stack.settings.triton.url}))


def up(args: argparse.Namespace) -> int:
    asyncio.run(_up(args))
    return 0


async def _up(args: argparse.Namespace) -> None:
    from infra.screen import Screen
    from infra.stack import Stack, fresh

    stop = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.cancel if stop else lambda: None)
    screen = Screen()
    folder = fresh(args.dir or FOLDER / "up")
    stack = Stack(
        _settings(args),
        folder,
        screen.say,
        kafka_given=bool(args.kafka),
        triton_given=bool(args.triton),
        sasl_password=args.sasl_password or "",
    )
    screen.say(f"starting; logs in {folder / 'logs'}")
    try:
        await stack.start()
        _remember(stack)
        screen.say(f"up: Kafka {stack.settings.kafka.bootstrap}, Triton {stack.settings.triton.url} (gRPC); Ctrl-C ends everything")
        await asyncio.Event().wait()
    finally:
        await _ended(stack)


# --- processes -----------------------------------------------------------------------------------------------------------
def worker(args: argparse.Namespace) -> int:
    from streams.worker import run

    settings = _settings(args)
    run(settings.kafka, settings.triton.url, args.name, settings.policy, args.ready)
    return 0


def trainer(args: argparse.Namespace) -> int:
    from streams.trainer import run

    s = _settings(args)
    run(s.kafka, s.triton.url, s.triton.repository, Path(__file__).parent / "models" / "sequence", s.training, s.rollout, args.ready)
    return 0


# --- asking and watching -------------------------------------------------------------------------------------------------
def ask(args: argparse.Namespace) -> int:
    from serving.client import Client

    settings = _running(args)
    with Client(settings.triton.url) as client:
        answer = client.recommend(args.user, args.k, args.recent or (), args.exclude or (), args.category or ())
    if args.json:
        print(json.dumps(dataclasses.asdict(answer)))
        return 0
    titles = {}
    if args.why:
        from infra import control

        titles = control.titles(settings.kafka)
    for place, (item, reason) in enumerate(zip(answer.items, answer.reasons, strict=True), 1):
        print(f"{place:3}. {item:12} {titles.get(item, '')[:40]:40} {reason}" if args.why else f"{place:3}. {item}")
    state = f"state {answer.state_age_ms} ms old" if answer.state_age_ms >= 0 else "no state yet"
    print(f"model version {answer.model_version}, {state}{', DEGRADED' if answer.degraded else ''}, id {answer.id or '(not logged)'}")
    return 0


def watch(args: argparse.Namespace) -> int:
    asyncio.run(_watch(args))
    return 0


async def _watch(args: argparse.Namespace) -> None:
    from infra.watch import Watcher
    from streams.events import Metric

    def told(topic: str, event: Any) -> None:
        if args.json:
            print(json.dumps({"topic": topic, **event.model_dump(mode="json", exclude_none=True)}), flush=True)
        elif not isinstance(event, Metric):
            print(f"{topic:24} {event.model_dump_json(exclude_none=True)}", flush=True)
        elif event.signal in ("deep", "served") and event.n:
            print(
                f"{topic:24} {event.signal}@{event.version}: NDCG@10 {sum(event.ndcgs) / event.n:.4f} over {event.n} sessions", flush=True
            )

    watcher = Watcher(_running(args).kafka, told)
    await watcher.start()
    try:
        await asyncio.sleep(args.seconds or 1e9)
    finally:
        await watcher.stop()


# --- sending -------------------------------------------------------------------------------------------------------------
def replay(args: argparse.Namespace) -> int:
    asyncio.run(_replay(args))
    return 0


async def _replay(args: argparse.Namespace) -> None:
    from infra import control
    from infra.replay import BadFile, Replay, backfill, rows

    settings = _running(args)
    try:
        source = rows(args.file, args.seed)
    except BadFile as error:
        raise Failed(str(error)) from None
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
    print(json.dumps(result) if args.json else result)


def retrain(args: argparse.Namespace) -> int:
    from infra import control

    kafka = _running(args).kafka
    request = control.request_retraining(kafka)
    print(json.dumps({"request": request.id}) if args.json else f"asked for: {request.id}")
    if not args.wait:
        return 0
    deadline, told = time.monotonic() + args.wait, 0
    while time.monotonic() < deadline:
        _, records = control.releases(kafka)
        mine = [r for r in records if r.request == request.id]
        for record in mine[told:]:
            print(f"version {record.version} {record.stage} {record.reason or ''}", file=sys.stderr)
        told = len(mine)
        if mine and mine[-1].stage in ("live", "refused", "rolled_back"):
            return 0 if mine[-1].stage == "live" else 1
        time.sleep(0.5)
    raise Failed(f"nothing final after {args.wait:.0f} s; `headrace release list` shows how far it is")


# --- releases ------------------------------------------------------------------------------------------------------------
def release(args: argparse.Namespace) -> int:
    from infra import control

    kafka = _running(args).kafka
    if args.what == "list":
        fold, records = control.releases(kafka)
        by_version: dict[int, list[Any]] = {}
        for record in records:
            by_version.setdefault(record.version, []).append(record)
        if args.json:
            print(json.dumps({"live": fold.live, "canary": fold.canary, "versions": {v: fold.stages[v] for v in by_version}}))
            return 0
        for version, steps in sorted(by_version.items()):
            gates: dict[str, Any] = next((r.gates or {} for r in steps if "ndcg10" in (r.gates or {})), {})
            quality = f"ndcg10 {gates.get('ndcg10', '–')} (live {gates.get('live_ndcg10', '–')})"
            print(f"{version:4} {fold.stages[version]:12} {steps[0].at:%Y-%m-%d %H:%M:%S}  {steps[0].reason or '':8} {quality}")
        return 0
    if args.what == "show":
        _, records = control.releases(kafka)
        steps = [r.model_dump(mode="json", exclude_none=True) for r in records if r.version == args.version]
        if not steps:
            print(f"no version {args.version}; `headrace release list` has those there are", file=sys.stderr)
            return 3
        print(json.dumps(steps, indent=2))
        return 0
    stage = {"promote": "live", "rollback": "rolled_back"}[args.what]
    refused = control.move(kafka, args.version, stage)
    if refused is not None:
        raise Failed(refused)
    print(f"version {args.version}: {stage}")
    return 0


# --- dead letters --------------------------------------------------------------------------------------------------------
def dlq(args: argparse.Namespace) -> int:
    from infra import control

    kafka = _running(args).kafka
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
        print(f"no dead letter {args.id}; `headrace dlq list` has those there are", file=sys.stderr)
        return 3
    if args.what == "show":
        print(json.dumps(_letter(letter), indent=2))
        return 0
    mended = Path(args.value_file).read_bytes() if args.value_file else args.value.encode() if args.value else None
    partition, offset = control.retry(kafka, letter, mended)
    print(f"sent again: {letter['topic']}/{partition}/{offset}")
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


# --- topics, doctor, schema ----------------------------------------------------------------------------------------------
def topics_(args: argparse.Namespace) -> int:
    from infra.provisioning import WrongTopic, check, existing, provision
    from streams.topics import topics

    kafka = _running(args).kafka
    try:
        if args.create:
            made = provision(kafka)
            print(f"created {len(made)}: {', '.join(made)}" if made else "all there")
            return 0
        there = existing(kafka)
        listed = [{"topic": kafka.prefix + t.name, "partitions": there.get(t.name), "wanted": t.partitions} for t in topics(kafka)]
        for entry in listed:
            print(json.dumps(entry) if args.json else f"{entry['topic']:36} {entry['partitions'] or 'MISSING (headrace topics --create)'}")
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


def _share(text: str) -> float:
    value = float(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def parser() -> argparse.ArgumentParser:
    """All commands; also what the README's table is checked against."""
    top = argparse.ArgumentParser(
        prog="headrace", description="Recommendations that learn from every event on Kafka and are served by Triton.", epilog=__doc__
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--kafka", metavar="HOST:PORT", help="use this Kafka instead of a local one")
    where.add_argument("--triton", metavar="HOST:PORT", help="use this Triton (gRPC) instead of a local one")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--json", action="store_true", help="print JSON, for programs")

    c = commands.add_parser("demo", parents=[where, machine], help="run the whole loop on real data, on this machine")
    c.add_argument("--data", type=Path, metavar="FILE", help="interactions: user,item,value,timestamp (default: MovieLens 100K)")
    c.add_argument("--until", choices=["promoted"], help="end once the release that the drift caused is live (exit 1 if it never is)")
    c.add_argument("--no-drift", action="store_true", help="plant no change; exit 1 if a drift alert is raised all the same")
    c.add_argument(
        "--armed-for",
        type=float,
        metavar="S",
        help="with --no-drift: how long the detector stays armed (default: three times the delay of the last drifting demo, else 90)",
    )
    c.add_argument("--events", type=_share, default=250.0, metavar="N", help="events a second (250)")
    c.add_argument("--asks", type=_share, default=60.0, metavar="N", help="asks a second (60)")
    c.add_argument("--deadline", type=float, default=340.0, metavar="S", help="give up after so long (340)")
    c.add_argument("--seed", type=int, default=7, help="of ties and of the planted change (7)")
    c.add_argument("--dir", type=Path, help="where the run writes (default: .headrace/demo in the checkout; emptied first)")
    c.add_argument("--setup-seconds", type=float, help=argparse.SUPPRESS)
    c.set_defaults(run=demo)

    c = commands.add_parser("up", parents=[where], help="start Kafka, Triton, worker and trainer, empty, and keep them running")
    c.add_argument("--dir", type=Path, help="where the run writes (default: .headrace/up in the checkout; emptied first)")
    c.add_argument("--sasl-password", help="the local broker asks for a login as `headrace` with this password")
    c.set_defaults(run=up)

    c = commands.add_parser("ask", parents=[where, machine], help="the list for a user")
    c.add_argument("user", help="user id; '' for an anonymous session (with --recent)")
    c.add_argument("-k", type=int, default=10, help="how many (10)")
    c.add_argument("--why", action="store_true", help="say which sources put each item there")
    c.add_argument("--recent", nargs="*", metavar="ITEM", help="a session's items, oldest first, instead of the user's history")
    c.add_argument("--exclude", nargs="*", metavar="ITEM")
    c.add_argument("--category", nargs="*", metavar="NAME", help="only items of these categories")
    c.set_defaults(run=ask)

    c = commands.add_parser("watch", parents=[where, machine], help="follow alerts, requests, releases and quality as they happen")
    c.add_argument("--seconds", type=float, help="stop after so long (default: never)")
    c.set_defaults(run=watch)

    c = commands.add_parser("replay", parents=[where, machine], help="send a file of interactions, as live traffic or as history")
    c.add_argument("file", type=Path)
    c.add_argument("--backfill", action="store_true", help="full speed, no asks, detectors disarmed, one training at the end")
    c.add_argument("--events", type=_share, default=250.0, metavar="N", help="events a second (250)")
    c.add_argument("--asks", type=_share, default=60.0, metavar="N", help="asks a second (60)")
    c.add_argument("--seed", type=int, default=7, help="of the order of equal times (7)")
    c.add_argument("--tag", help="begins the events' ids; a file sent twice with one tag counts once (default: the file's name)")
    c.set_defaults(run=replay)

    c = commands.add_parser("retrain", parents=[where, machine], help="ask for a training on the bus")
    c.add_argument("--wait", type=float, nargs="?", const=300.0, default=0.0, metavar="S", help="until it is live or refused (exit 1)")
    c.set_defaults(run=retrain)

    c = commands.add_parser("release", help="what is live, and changing it")
    parts = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    parts.add_parser("list", parents=[where, machine], help="every version and its stage")
    for name, text in (
        ("show", "the release card of a version"),
        ("promote", "make a version live"),
        ("rollback", "take a version out of service"),
    ):
        parts.add_parser(name, parents=[where, machine], help=text).add_argument("version", type=int)
    c.set_defaults(run=release)

    c = commands.add_parser("dlq", help="dead letters: what could not be read, and why")
    parts = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    parts.add_parser("list", parents=[where, machine], help="all of them, one a line").add_argument("--reason")
    parts.add_parser("show", parents=[where, machine], help="one, whole").add_argument("id")
    again = parts.add_parser("retry", parents=[where, machine], help="send one again, mended or as it was")
    again.add_argument("id")
    again.add_argument("--value", help="the mended value")
    again.add_argument("--value-file", help="a file with the mended value")
    c.set_defaults(run=dlq)

    c = commands.add_parser("topics", parents=[where, machine], help="the topics and whether they are right")
    c.add_argument("--create", action="store_true", help="create what is missing")
    c.set_defaults(run=topics_)

    c = commands.add_parser("doctor", parents=[where, machine], help="is everything there and reachable? each failure names its remedy")
    c.set_defaults(run=doctor)

    c = commands.add_parser("schema", help="JSON Schema of the public events")
    parts = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    parts.add_parser("export", help="print them, or write one file each").add_argument("--out", type=Path, metavar="FOLDER")
    c.set_defaults(run=schema)

    c = commands.add_parser("worker", parents=[where], help="one worker process (for a cluster; `up` starts one itself)")
    c.add_argument("--name", default="worker-0", help="stable across restarts, so that it gets its partitions back (worker-0)")
    c.add_argument("--ready", type=Path, metavar="FILE", help="touched once it is ready")
    c.set_defaults(run=worker)

    c = commands.add_parser("trainer", parents=[where], help="the trainer process (for a cluster; `up` starts one itself)")
    c.add_argument("--ready", type=Path, metavar="FILE", help="touched once it is ready")
    c.set_defaults(run=trainer)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except Failed as failed:
        print(f"headrace: {failed}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except Exception as error:
        kind = type(error)
        if kind.__name__ in OURS:
            print(f"headrace: {error}", file=sys.stderr)
            return 1
        if kind.__module__.split(".")[0] in CLIENTS:
            print(f"headrace: {error or kind.__name__}\n(is the stack up? `headrace doctor` looks)", file=sys.stderr)
            return 1
        raise


if __name__ == "__main__":
    raise SystemExit(main())
