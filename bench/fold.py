"""What the fold costs per event, in process: decode, learn, encode what changed; batches of 500, no broker.

python -m bench.fold [--data FILE] [--events N] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from infra.bootstrap import DEMO_DATA
from infra.replay import rows
from streams.fold import Fold, Log
from streams.reader import BATCH
from streams.timeline import Interacted, Source, encode


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=DEMO_DATA)
    arguments.add_argument("--events", type=int, default=50_000)
    arguments.add_argument("--json", action="store_true")
    args = arguments.parse_args()
    source = rows(args.data)[: args.events]
    logs = [
        Log(n, n, b"", encode(Interacted(Source(0, 0, n, n * 4), r.user, r.item, "view", r.at, id=f"e{n}"))) for n, r in enumerate(source)
    ]
    fold, touched, written = Fold(0, 1), 0, 0
    began = time.process_time()
    for at in range(0, len(logs), BATCH):
        step = fold.fold(logs[at : at + BATCH])
        touched += len(step.touched)
        written += sum(len(k) + len(v or b"") for k, v in step.touched.items())
    seconds = time.process_time() - began
    n = len(logs)
    figures = {
        "events": n,
        "cpu_us_per_event": round(seconds / n * 1e6, 1),
        "records_per_event": round(touched / n, 2),
        "bytes_per_event": round(written / n),
    }
    print(json.dumps(figures) if args.json else "\n".join(f"{name:18} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
