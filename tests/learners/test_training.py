"""Settings of a training, and who may read them without paying for torch."""

import dataclasses
import subprocess
import sys

import pytest

from learners.training import Training


def test_settings_cannot_be_changed_under_a_training() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Training().seed = 8  # type: ignore[misc]


def test_what_a_worker_and_a_server_import_brings_neither_torch_nor_river() -> None:
    rooms = "learners.training, learners.histories, learners.evaluation, learners.online, learners.weights"
    code = f"import sys, {rooms}; sys.exit(' '.join({{'torch', 'river', 'onnxruntime'}} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
