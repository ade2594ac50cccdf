"""Who gives way is nicer than who does not, and so is the session that it leads, but no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GROUP = Path("/proc/self/autogroup")  # "/autogroup-<id> nice <n>"; empty for one whose container has shares of its own
TELL = "import os; from streams.priority import give_way; give_way(10); print(os.nice(0))"


def told(code: str, leads: bool) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], start_new_session=leads, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("leads", [True, False])
def test_a_process_gives_way(leads: bool) -> None:
    assert told(TELL, leads) == [str(min(os.nice(0) + 10, 19))]


@pytest.mark.skipif(not GROUP.exists() or not GROUP.read_text(), reason="nothing here is weighed by sessions")
@pytest.mark.parametrize("leads", [True, False])
def test_so_does_the_session_that_it_leads(leads: bool) -> None:
    ours = GROUP.read_text().split()[-1]
    assert told(f"{TELL}; print(open('{GROUP}').read())", leads)[-1] == ("10" if leads else ours)
