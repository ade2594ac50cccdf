"""The README's samples, run as they stand against the running stack, with nothing of ours imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, Running, until

pytestmark = pytest.mark.stack


def sample(name: str, stack: Running, folder: Path) -> str:
    """Run the README's block `# name` with the stack's addresses; returns what it printed."""
    blocks = [b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if b.startswith(f"# {name}")]
    assert len(blocks) == 1
    code = blocks[0]
    assert len([line for line in code.splitlines() if line.strip()]) - 1 <= 12, f"{name} is longer than 12 lines"
    assert not re.search(r"import (streams|serving|infra|learners|feedback)|from (streams|serving|infra|learners|feedback)", code)
    assert "127.0.0.1:9092" in code or "127.0.0.1:8001" in code
    file = folder / name
    file.write_text(code.replace("127.0.0.1:9092", stack.kafka.bootstrap).replace("127.0.0.1:8001", stack.triton))
    done = subprocess.run([sys.executable, "-I", file], capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_samples_run_and_the_users_list_has_changed(stack: Running, tmp_path: Path) -> None:
    for n in range(4):
        for item in ("50", "181", f"with-star-wars-{n}"):
            stack.click(f"readme-{n}", item)
    before = sample("consume.py", stack, tmp_path)
    sample("produce.py", stack, tmp_path)
    after = until(lambda: (out := sample("consume.py", stack, tmp_path)) != before and "covisited" in out and out, 20)
    items = [line.split()[0] for line in after.splitlines()[:-1]]
    assert any(item.startswith("with-star-wars") for item in items)
    assert after.splitlines()[-1].startswith("model version")
