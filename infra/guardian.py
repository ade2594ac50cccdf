"""The guardian: ends every process group of a supervisor that is gone, also when SIGKILL ended it.

Runs beside the supervisor, in a session of its own, and reads process group ids (`+id`, `-id`) from a pipe. The pipe
closes with the supervisor, whatever ended it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for number, wait in ((signal.SIGTERM, 1.5), (signal.SIGKILL, 0.0)):
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and any(map(_alive, groups)):
            time.sleep(0.05)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
