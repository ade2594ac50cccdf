"""Topics: names, counts, and which partition owns a user."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka import Kafka
from streams.topics import WrongTopic, check, partition_of, topics


def test_every_topic_of_the_bus_is_listed_once_with_its_dead_letters() -> None:
    names = [t.name for t in topics(Kafka())]
    assert len(names) == len(set(names))
    for name in ("interactions.v1", "feedback.v1", "erasures.v1", "recommendations.v1", "items.v1", "timeline.v1"):
        assert name in names
        assert f"{name}.dlq" in names


def test_the_owner_of_a_user_never_changes() -> None:
    """Deployed states depend on it."""
    assert [partition_of(u, 4) for u in ("ann", "bob", "ünï", "42")] == [3, 0, 2, 0]


@given(st.text(min_size=1), st.integers(1, 64))
def test_every_user_has_an_owner(user: str, partitions: int) -> None:
    assert 0 <= partition_of(user, partitions) < partitions


def test_a_wrong_partition_count_is_said_with_its_remedy_and_the_users_own_topics_may_have_any() -> None:
    right = {t.name: t.partitions for t in topics(Kafka(partitions=2))}
    check(Kafka(partitions=2), right | {"interactions.v1": 7})
    with pytest.raises(WrongTopic, match=r"timeline\.v1 has 3 partitions, it must have 2.*kafka-topics\.sh.*headrace topics --create"):
        check(Kafka(partitions=2), right | {"timeline.v1": 3})


def test_client_settings_reach_every_client_under_its_own_names() -> None:
    kafka = Kafka(
        "h:1", client={"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"}
    )
    assert kafka.confluent()["sasl.username"] == "u"
    assert kafka.aiokafka()["sasl_plain_password"] == kafka.kafka_python()["sasl_plain_password"] == "p"
    with pytest.raises(ValueError, match=r"unknown setting 'sasl\.user'"):
        Kafka(client={"sasl.user": "u"})
