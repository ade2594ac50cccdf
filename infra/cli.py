"""The command line. Exit codes: 0 done, 1 failed (the text says why), 2 wrong usage, 3 not there, 130 Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from infra import commands, launch
from infra.commands import Failed

# Errors that say what is wrong by themselves; anything else is a fault of ours and keeps its traceback. By name, so that
# `--help` need not import Kafka and Triton.
OURS = ("StartFailed", "NotOurs", "WrongTopic")
NOBODY = ("UNAVAILABLE", "NoBrokersAvailable", "KafkaConnectionError", "Unable to bootstrap", "Connection")  # nobody answers there
CLIENTS = ("kafka", "aiokafka", "confluent_kafka", "tritonclient", "grpc")


def _rate(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no rate: 0 or more a second")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is no time: more than 0 s")
    return value


def _address(text: str) -> str:
    for part in text.split(","):
        host, _, port = part.rpartition(":")
        if not host or not port.isdigit():
            raise argparse.ArgumentTypeError(f"{part!r} is no address: HOST:PORT, several separated by commas")
    return text


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: ISO 8601 with an offset, such as 2026-01-31T12:00:00+00:00")
    return at


def _offsets(text: str) -> dict[int, int]:
    try:
        return {int(p): int(offset) for p, offset in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of offsets: PARTITION=OFFSET, several separated by commas") from None


class _Parser(argparse.ArgumentParser):
    """No abbreviations, `-k 0` must not become `--kafka 0`; an option nobody knows is told by the command's own usage."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more, allow_abbrev=False)
        self.set_defaults(parser=self)


def parser() -> argparse.ArgumentParser:
    """All commands; also what the README's table is checked against."""
    top = _Parser(
        prog="headrace", description="Recommendations that learn from every event on Kafka and are served by Triton.", epilog=__doc__
    )
    sub = top.add_subparsers(dest="command", metavar="COMMAND")
    where = _Parser(add_help=False)
    where.add_argument("--kafka", type=_address, metavar="HOST:PORT", help="use this Kafka instead of a local one")
    where.add_argument("--triton", type=_address, metavar="HOST:PORT", help="use this Triton (gRPC) instead of a local one")
    machine = _Parser(add_help=False)
    machine.add_argument("--json", action="store_true", help="print JSON, for programs")

    c = sub.add_parser("demo", parents=[where, machine], help="run the whole loop on real data, on this machine")
    c.add_argument("--data", type=Path, metavar="FILE", help="interactions: user,item,value,timestamp (default: MovieLens 100K)")
    c.add_argument("--until", choices=["promoted"], help="end once the release that the drift caused is live (exit 1 if it never is)")
    c.add_argument("--no-drift", action="store_true", help="plant no change; exit 1 if a drift alert is raised all the same")
    c.add_argument(
        "--armed-for",
        type=_seconds,
        metavar="S",
        help="with --no-drift: how long the detector stays armed (default: three times the delay of the last drifting demo, else 90)",
    )
    c.add_argument("--events", type=_rate, default=250.0, metavar="N", help="events a second (250)")
    c.add_argument("--asks", type=_rate, default=60.0, metavar="N", help="asks a second (60)")
    c.add_argument("--deadline", type=_seconds, default=340.0, metavar="S", help="with --until or --no-drift: give up after so long (340)")
    c.add_argument("--seed", type=int, default=7, help="of ties and of the planted change (7)")
    c.add_argument("--dir", type=Path, help="where the run writes (default: .headrace/demo in the checkout; emptied first)")
    c.add_argument("--setup-seconds", type=float, help=argparse.SUPPRESS)
    c.set_defaults(run=launch.demo)

    c = sub.add_parser("up", parents=[where], help="start Kafka, Triton, worker and trainer, empty, and keep them running")
    c.add_argument("--dir", type=Path, help="where the run writes (default: .headrace/up in the checkout; emptied first)")
    c.add_argument("--sasl-password", help="the local broker asks for a login as `headrace` with this password")
    c.set_defaults(run=launch.up)

    c = sub.add_parser("ask", parents=[where, machine], help="the list for a user")
    c.add_argument("user", help="user id; '' for an anonymous session (with --recent)")
    c.add_argument("-k", type=int, default=10, help="how many (10)")
    c.add_argument("--why", action="store_true", help="say which sources put each item there")
    c.add_argument("--recent", nargs="*", metavar="ITEM", help="a session's items, oldest first, instead of the user's history")
    c.add_argument("--exclude", nargs="*", metavar="ITEM")
    c.add_argument("--category", nargs="*", metavar="NAME", help="only items of these categories")
    c.set_defaults(run=commands.ask)

    c = sub.add_parser(
        "watch",
        parents=[where, machine],
        help="the alerts, requests and releases so far, then those that come, and the lists' quality; --json: from now on, every record",
    )
    c.add_argument("--seconds", type=_seconds, metavar="S", help="stop after so long (default: never)")
    c.set_defaults(run=commands.watch)

    c = sub.add_parser("replay", parents=[where, machine], help="send a file of interactions, as live traffic or as history")
    c.add_argument("file", type=Path)
    c.add_argument("--backfill", action="store_true", help="full speed, no asks, detectors disarmed, one training at the end")
    c.add_argument("--events", type=_rate, default=250.0, metavar="N", help="events a second (250)")
    c.add_argument("--asks", type=_rate, default=60.0, metavar="N", help="asks a second (60)")
    c.add_argument("--seed", type=int, default=7, help="of the order of equal times (7)")
    c.add_argument("--tag", help="begins the events' ids; a file sent twice with one tag counts once (default: the file's name)")
    c.set_defaults(run=commands.replay)

    c = sub.add_parser("retrain", parents=[where, machine], help="ask for a training on the bus")
    c.add_argument("--wait", type=float, nargs="?", const=300.0, default=0.0, metavar="S", help="until it is live or refused (exit 1)")
    c.set_defaults(run=commands.retrain)

    c = sub.add_parser("release", help="which version is live, and changing it")
    parts = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    parts.add_parser("list", parents=[where, machine], help="every version and its stage")
    for name, text in (
        ("show", "the release card of a version"),
        ("promote", "make a version live; the one before is superseded, and may be promoted again"),
        ("rollback", "take a version out of service; the one that was live before it is live again"),
        ("pin", "make a version live and keep it so: no other goes live until `thaw`"),
    ):
        parts.add_parser(name, parents=[where, machine], help=text).add_argument("version", type=int)
    parts.add_parser("freeze", parents=[where, machine], help="what is live stays so: no canary and no promotion until `thaw`")
    parts.add_parser("thaw", parents=[where, machine], help="end a freeze or a pin")
    key = parts.add_parser("key", help="make a key that the trainer signs with, and print the public one for `signing.trusted`")
    key.add_argument("file", type=Path)
    c.set_defaults(run=commands.release)

    c = sub.add_parser("dlq", help="dead letters: what could not be read, and why")
    parts = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    parts.add_parser("list", parents=[where, machine], help="all of them, one a line").add_argument("--reason")
    parts.add_parser("show", parents=[where, machine], help="one, whole").add_argument("id")
    again = parts.add_parser("retry", parents=[where, machine], help="send one again, mended or as it was")
    again.add_argument("id")
    again.add_argument("--value", help="the mended value")
    again.add_argument("--value-file", help="a file with the mended value")
    c.set_defaults(run=commands.dlq)

    c = sub.add_parser("state", help="the online state: verify it against the timeline, dump it, rebuild it, restore it")
    parts = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    parts.add_parser(
        "verify", parents=[where, machine], help="fold the timeline again, up to where the state stands, and compare the hashes (exit 1)"
    )
    parts.add_parser("dump", parents=[where, machine], help="the committed state into a file").add_argument("file", type=Path)
    again = parts.add_parser("rebuild", parents=[where, machine], help="a state from the timeline into a file; emits nothing")
    again.add_argument("file", type=Path)
    again.add_argument("--until", type=_moment, metavar="TIME", help="without what came later (ISO 8601 with an offset)")
    again.add_argument("--at", type=_offsets, metavar="P=OFFSET,…", help="up to these offsets of the timeline's partitions")
    parts.add_parser(
        "restore", parents=[where, machine], help="a file into the empty state topic; workers, started afterwards, go on from there"
    ).add_argument("file", type=Path)
    parts.add_parser(
        "repartition",
        parents=[where, machine],
        help="timeline and state for another number of partitions (kafka.partitions), while nothing of ours runs",
    ).add_argument("file", type=Path, help="where the timeline is kept meanwhile; if it is there, it is taken up from there")
    c.set_defaults(run=commands.state)

    c = sub.add_parser("topics", parents=[where, machine], help="the topics and whether they are right")
    c.add_argument("--create", action="store_true", help="create what is missing")
    c.set_defaults(run=commands.topics)

    c = sub.add_parser("doctor", parents=[where, machine], help="is everything there and reachable? each failure names its remedy")
    c.set_defaults(run=commands.doctor)

    c = sub.add_parser("schema", help="JSON Schema of the public events")
    parts = c.add_subparsers(dest="what", required=True, metavar="WHAT")
    parts.add_parser("export", help="print them, or write one file each").add_argument("--out", type=Path, metavar="FOLDER")
    c.set_defaults(run=commands.schema)

    c = sub.add_parser("worker", parents=[where], help="one worker process (for a cluster; `up` starts one itself)")
    c.add_argument("--name", default="worker-0", help="stable across restarts, so that it gets its partitions back (worker-0)")
    c.add_argument("--ready", type=Path, metavar="FILE", help="touched once it is ready")
    c.set_defaults(run=launch.worker)

    c = sub.add_parser("trainer", parents=[where], help="the trainer process (for a cluster; `up` starts one itself)")
    c.add_argument("--ready", type=Path, metavar="FILE", help="touched once it is ready")
    c.set_defaults(run=launch.trainer)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args, unknown = parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unknown: {' '.join(unknown)}")
    if args.command is None:
        args.parser.print_help(sys.stderr)
        return 2
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except Failed as failed:
        print(f"headrace: {failed}", file=sys.stderr)
        return failed.code
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        kind = type(error)
        if kind.__name__ in OURS:
            print(f"headrace: {error}", file=sys.stderr)
            return 1
        if kind.__module__.split(".")[0] in CLIENTS:
            nobody = any(word in f"{kind.__name__} {error}" for word in NOBODY)
            hint = "\n(is the stack up? `headrace doctor` looks)" if nobody else ""
            print(f"headrace: {error or kind.__name__}{hint}", file=sys.stderr)
            return 1
        raise


if __name__ == "__main__":
    raise SystemExit(main())
