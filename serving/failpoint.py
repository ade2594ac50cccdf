"""Failpoints: named places where a crash test ends the process, as SIGKILL would at that very moment.

`HEADRACE_FAILPOINT=commit.sent` ends it there, `commit.sent:3` at the third time. Without the variable a failpoint costs a
comparison. `tests/chaos/test_failpoints.py` ends each once, and fails where something is written without one.
"""

from __future__ import annotations

import asyncio
import os
import signal

_name, _, _time = os.environ.get("HEADRACE_FAILPOINT", "").partition(":")
_left = int(_time or 1)


def failpoint_in(seconds: float, name: str) -> None:
    """A failpoint so long after now, in whatever the running event loop does then."""
    if name == _name:
        asyncio.get_running_loop().call_later(seconds, failpoint, name)


def failpoint(name: str) -> None:
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
