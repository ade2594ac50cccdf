"""Compiled loops call each other, and what is kept of them is used for as long as nothing that went into it has changed."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from learners.compiled import compiled

STEP = 2

INNER = "from learners.compiled import compiled\n\n{constant}\n\n@compiled\ndef inner(x):\n    return x {sign} STEP\n"
OUTER = "from inner import inner\nfrom learners.compiled import compiled\n\n\n@compiled\ndef outer(x):\n    return 10 * inner(x)\n"
RUN = "import sys; sys.path.insert(0, {folder!r}); from outer import outer; print(outer(3))"


@compiled
def doubled(values: np.ndarray) -> np.ndarray:
    return values * STEP


@compiled
def total(values: np.ndarray) -> float:
    return doubled(values).sum()


def test_one_calls_another() -> None:
    assert total(np.arange(4.0)) == 12


def test_what_is_kept_is_not_used_when_a_loop_within_it_or_a_constant_there_has_changed(tmp_path: Path) -> None:
    def found(constant: str, sign: str) -> int:
        (tmp_path / "inner.py").write_text(INNER.format(constant=constant, sign=sign))
        (tmp_path / "outer.py").write_text(OUTER)
        command = [sys.executable, "-B", "-c", RUN.format(folder=str(tmp_path))]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    assert found("STEP = 1", "+") == 40
    kept = set(tmp_path.glob("__pycache__/outer.*.nbi"))
    assert found("STEP = 1", "+") == 40 and kept == set(tmp_path.glob("__pycache__/outer.*.nbi")) != set()
    assert [found("STEP = 1", "-"), found("STEP = 2", "-")] == [20, 10]
