"""Who gives way is nicer than who does not, and so is the session that it leads, but no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GROUP = Path("/proc/self/autogroup")
TELL = f"import os; from streams.priority import give_way; give_way(10); print(os.nice(0), open('{GROUP}').read().split()[-1])"


@pytest.mark.skipif(not GROUP.exists(), reason="this kernel has no groups of sessions")
@pytest.mark.parametrize("leads", [True, False])
def test_a_process_gives_way_and_the_session_that_it_leads(leads: bool) -> None:
    out = subprocess.run([sys.executable, "-c", TELL], start_new_session=leads, capture_output=True, text=True, check=True).stdout
    ours = GROUP.read_text().split()[-1]
    assert out.split() == [str(os.nice(0) + 10), "10" if leads else ours]
