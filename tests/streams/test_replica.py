"""The replica: a state of another version is not taken over; what else there is stays."""

import numpy as np
import pytest

from learners.ranker import ListwiseRanker
from serving.features import CONTEXTS, FEATURES, SOURCES
from streams.kafka import Kafka
from streams.replica import RANKER, Replica
from streams.standing import POSITION, Standing


def test_a_ranker_or_a_guard_of_another_version_is_refused_with_the_remedy() -> None:
    replica = Replica(Kafka("127.0.0.1:9", partitions=1))
    other, ours = ListwiseRanker(len(FEATURES) - 3, CONTEXTS), ListwiseRanker(len(FEATURES), CONTEXTS)
    ours.learn_slate(np.eye(5, len(FEATURES)), 2, 0)
    replica._state(0, RANKER, ours.dump())
    replica._state(0, POSITION, Standing(shape="", as_of=7).dump())
    for key, value in ((RANKER, other.dump()), (POSITION, Standing(shape="", guard=[0.0] * (len(SOURCES) - 1), as_of=9).dump())):
        with pytest.raises(ValueError, match="topics --create"):
            replica._state(0, key, value)
    assert replica.as_of == {0: 7} and replica.view.weights == {0: ours.weights()}
    replica.view.refresh()
    assert replica.view.shared.ranker is not None
