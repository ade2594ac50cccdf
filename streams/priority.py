"""Priority: on a machine that does all of it, what nobody waits for gives way to answers."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def give_way(by: int) -> None:
    """Be nice, by so much. Linux weighs sessions before processes (`sched_autogroup_enabled`): niceness alone means nothing between those
    that a supervisor starts each in a session of its own. So a session that we lead is nice, too.
    """
    os.nice(by)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # another system, or no such groups
            Path("/proc/self/autogroup").write_text(str(by))
