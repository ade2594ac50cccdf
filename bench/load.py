"""The load of a bench: clients in a process of their own, which imports little and measures no pauses of its own making.

    python -m bench.load closed URL CLIENTS SECONDS < USERS         each client asks again as soon as it is answered
    python -m bench.load steady URL RATE FILE < USERS               at a steady rate, until SIGTERM; what it saw goes to FILE

`USERS` is a JSON list, asked for in turn. For the benches, not by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from serving.client import MODEL

METHOD = "/inference.GRPCInferenceService/ModelInfer"
K = 10
CLIENTS = 8  # of a steady load


def request(user: str) -> bytes:
    """A serialised request for the list of `user`, the optional inputs empty."""
    message = service_pb2.ModelInferRequest(model_name=MODEL)
    texts = {"user_id": [user.encode()], "recent_items": [], "exclude": [], "categories": []}
    for name, kind, n in (("k", "INT32", 1), *((name, "BYTES", len(values)) for name, values in texts.items())):
        message.inputs.add(name=name, datatype=kind, shape=[1, n])
    message.raw_input_contents.append(np.int32(K).tobytes())
    for values in texts.values():
        message.raw_input_contents.append(b"".join(len(value).to_bytes(4, "little") + value for value in values))
    return bytes(message.SerializeToString())


async def closed(url: str, requests: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """Closed loops of so many clients; what they saw."""
    latencies, failed, until = list[float](), 0, time.perf_counter() + seconds
    async with grpc.aio.insecure_channel(url) as channel:
        call, waiting = channel.unary_unary(METHOD), cycle(requests)

        async def client() -> None:
            nonlocal failed
            while (began := time.perf_counter()) < until:
                try:
                    await call(next(waiting), timeout=5)
                    latencies.append(time.perf_counter() - began)
                except grpc.aio.AioRpcError:
                    failed += 1

        await asyncio.gather(*(client() for _ in range(clients)))
    if not latencies:
        raise SystemExit(f"no answer from {url} within {seconds} s; {failed} requests failed")
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return {"lists": len(latencies), "failed": failed, "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


async def steady(url: str, requests: list[bytes], rate: float, into: Path) -> None:
    """Ask at that rate until SIGTERM; then the file `into` has, by answer: client, when it was due, latency (s), version, degraded. A
    latency counts from when its request was due, so that a stall is not hidden.
    """
    rows, failed, stopping = list[tuple[float, ...]](), 0, asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with grpc.aio.insecure_channel(url) as channel:
        call, waiting = channel.unary_unary(METHOD, response_deserializer=service_pb2.ModelInferResponse.FromString), cycle(requests)
        await call(next(waiting), timeout=10)  # connects
        print("asking", flush=True)
        began = time.time()

        async def client(number: int) -> None:
            nonlocal failed
            due = began + number / rate
            while not stopping.is_set():
                await asyncio.sleep(max(0.0, due - time.time()))
                try:
                    answer = await call(next(waiting), timeout=10)
                    found = {o.name: raw for o, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
                    version, degraded = int.from_bytes(found["model_version"][:8], "little"), found["degraded"][0]
                    rows.append((number, due, time.time() - due, version, degraded))
                except grpc.aio.AioRpcError:
                    failed += 1
                due += CLIENTS / rate

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    with into.open("wb") as file:
        np.savez(file, rows=np.array(rows, np.float64), failed=failed)


class Load:
    """A steady load; `end` gives what it saw."""

    def __init__(self, process: asyncio.subprocess.Process, into: Path) -> None:
        self._process, self._into = process, into

    @staticmethod
    async def begin(url: str, rate: float, users: list[str], into: Path) -> Load:
        """It asks when this returns."""
        process = await _started("steady", url, str(rate), str(into))
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(users).encode())
        process.stdin.close()
        if not await process.stdout.readline():
            raise SystemExit(f"no answer from {url}; the load ended with {await process.wait()}")
        return Load(process, into)

    async def end(self) -> tuple[np.ndarray[Any, Any], int]:
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
        with np.load(self._into) as found:
            return found["rows"], int(found["failed"])


async def ask(url: str, users: list[str], clients: int, seconds: float) -> dict[str, Any]:
    """What a closed loop of so many clients saw."""
    process = await _started("closed", url, str(clients), str(seconds))
    out, _ = await process.communicate(json.dumps(users).encode())
    if process.returncode:
        raise SystemExit(process.returncode)
    return dict(json.loads(out))


async def _started(*arguments: str) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "bench.load", *arguments]
    return await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, amount, last in (("closed", "CLIENTS", "SECONDS"), ("steady", "RATE", "FILE")):
        one = kinds.add_parser(kind)
        one.add_argument("url", metavar="URL", help="Triton's gRPC, host:port")
        one.add_argument("amount", metavar=amount, type=float)
        one.add_argument("last", metavar=last, type=float if kind == "closed" else Path)
    args = parser.parse_args()
    requests = [request(user) for user in json.load(sys.stdin)]
    gc.collect()
    gc.freeze()
    if args.kind == "closed":
        print(json.dumps(asyncio.run(closed(args.url, requests, int(args.amount), args.last))))
    else:
        asyncio.run(steady(args.url, requests, args.amount, args.last))


if __name__ == "__main__":
    main()
