"""What the commands do that start something: the demo, a local stack, one process of a cluster."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import running
from infra.bootstrap import DEMO_DATA
from infra.commands import Failed, settings_of
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.demo import Plan
    from infra.screen import Screen
    from infra.stack import Stack


@contextlib.asynccontextmanager
async def _stack(args: argparse.Namespace, settings: Settings, screen: Screen, folder: Path, **more: Any) -> AsyncIterator[Stack]:
    """A started stack that the other commands find; Ctrl-C or SIGTERM ends it within 5 s, whatever still waits for it."""
    from infra.stack import Stack

    task = asyncio.current_task()
    assert task is not None
    with running.claim(folder):
        stack = Stack(settings, folder, screen.say, kafka_given=bool(args.kafka), triton_given=bool(args.triton), **more)

        stopping: list[asyncio.Task[None]] = []

        def interrupt() -> None:
            if not stopping:
                screen.say("ending: worker, trainer, Triton, then Kafka …")
                stopping.append(asyncio.create_task(stack.stop()))  # at once, beside what `task` has to close
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupt)
        screen.say(f"starting Kafka, Triton, worker and trainer; logs in {folder / 'logs'}")
        found = None
        try:
            await stack.start()
            found = running.announce(stack.settings)
            screen.say(f"up: Kafka {stack.settings.kafka.bootstrap}, Triton {stack.settings.triton.url} (gRPC); Ctrl-C ends everything")
            if found is None:
                screen.say("another stack runs here: `headrace ask` and the others go there, unless --kafka and --triton say otherwise")
            yield stack
        finally:
            await (stopping[0] if stopping else stack.stop())
            running.forget(found)
            if task.cancelling():  # the interpreter would wait for threads that wait for a Kafka which has ended
                sys.stdout.flush()
                os._exit(130)


# --- demo, up ------------------------------------------------------------------------------------------------------------
def demo(args: argparse.Namespace) -> int:
    from infra.demo import Plan, dump
    from infra.screen import Screen

    data = args.data or DEMO_DATA
    if not data.exists():
        raise Failed(f"no data at {data}: run `make setup`, or give --data FILE with the columns user,item,value,timestamp", 3)
    before = running.FOLDER / "demo.json"
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
    if not plan.drift:
        armed = max(document["story_s"] - document["armed_s"], 0) if document["armed_s"] else 0
        print(f"{document['drift_alerts']} drift alerts in {armed:.0f} s of an armed detector", file=sys.stderr)
    return 0 if plan.drift or not document["drift_alerts"] else 1


async def _demo(args: argparse.Namespace, plan: Plan, screen: Screen, data: Path) -> dict[str, Any]:
    from infra.demo import Story

    settings = settings_of(args)
    # The story's own dials: a first model early, and no other reason to train than the drift.
    policy = dataclasses.replace(settings.policy, volume_first=8_000, volume_every=0, schedule_s=0, cool_down_s=60, after_change=8_000)
    kafka = dataclasses.replace(settings.kafka, partitions=2)
    rollout = dataclasses.replace(settings.rollout, canary_share=0.25, judged=60, deadline_s=15)  # a canary that is judged within seconds
    settings = settings.model_copy(update={"policy": policy, "kafka": kafka, "rollout": rollout})
    async with _stack(args, settings, screen, args.dir or running.FOLDER / "demo") as stack:
        story = Story(stack, data, plan, screen.say)
        showing = asyncio.create_task(screen.show(story))
        try:
            await story.run()
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
        return await story.report(args.setup_seconds)


def up(args: argparse.Namespace) -> int:
    from infra.screen import Screen

    async def serve() -> None:
        folder = args.dir or running.FOLDER / "up"
        async with _stack(args, settings_of(args), Screen(), folder, sasl_password=args.sasl_password or ""):
            await asyncio.Event().wait()

    asyncio.run(serve())
    return 0


# --- processes -----------------------------------------------------------------------------------------------------------
def worker(args: argparse.Namespace) -> int:
    from streams.worker import run

    settings = settings_of(args)
    run(settings.kafka, settings.triton.url, args.name, settings.policy, settings.memory, args.ready)
    return 0


def trainer(args: argparse.Namespace) -> int:
    from streams.trainer import run

    s = settings_of(args)
    run(
        s.kafka,
        s.triton.url,
        s.triton.repository,
        s.training,
        s.rollout,
        s.signing.key,
        s.signing.trusted,
        args.ready,
    )
    return 0
