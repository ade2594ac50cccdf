"""The gate over a stream: what is healthy passes, what is sabotaged is refused with its reason."""

import pytest

from bench import gate
from feedback.policy import Policy
from learners.training import Training
from tests.bench.test_quality import sessions


@pytest.mark.timeout(120)
def test_healthy_fine_tunes_pass_and_sabotaged_ones_are_refused() -> None:
    config = Training(
        dim=32, blocks=1, epochs=6, window=1_500, replay=500, gate_windows=400, batch=256, learning_rate=1e-2, fine_learning_rate=5e-3
    )
    found = gate.run(sessions(9_000), config, policy=Policy(volume_first=1_500, volume_every=1_500))
    assert len(found["healthy"]) == 4 and found["refused_healthy"] == []
    assert found["refused_of"]["0.0"] < 0.15 < 0.5 < found["refused_of"]["0.1"]
    assert len(found["sabotaged"]) == 9
    assert found["passed_sabotaged"] == []
    # As good as new, as the ring never changes:
    assert found["sabotaged"]["stale weights"]["reasons"] == ["its weights are those of version 2"]
    assert "MB" in found["sabotaged"]["huge"]["reasons"][0] and "ms a question" in found["sabotaged"]["slow"]["reasons"][0]
    assert "NotEqual" in found["sabotaged"]["not a number"]["reasons"][0]


def test_a_stream_too_short_to_hold_one_training_against_another_is_said_to_be() -> None:
    with pytest.raises(ValueError, match="900 events ask for 1 trainings"):
        gate.run(sessions(900), Training(), policy=Policy(volume_first=800))
