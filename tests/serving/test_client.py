"""The client: what goes over the wire and what comes back, as Triton's own messages, without a server."""

import asyncio
import socket

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2

from serving.client import AsyncClient, Recommended, _inputs, _recommended


def test_all_inputs_are_always_sent_and_empty_where_unused() -> None:
    """A batch of the server ends where the set of inputs changes."""
    sent = {i.name(): (i.datatype(), i.shape()) for i in _inputs("u", 10, (), (), ())}
    assert sent == {
        "k": ("INT32", [1, 1]),
        "user_id": ("BYTES", [1, 1]),
        "recent_items": ("BYTES", [1, 0]),
        "exclude": ("BYTES", [1, 0]),
        "categories": ("BYTES", [1, 0]),
    }


def test_texts_go_as_utf8_in_their_order() -> None:
    sent = {i.name(): i for i in _inputs("jörg", 3, ("a", "日本"), ("b",), ("c", "d", "e"))}
    assert [sent[name].shape() for name in ("recent_items", "exclude", "categories")] == [[1, 2], [1, 1], [1, 3]]
    assert triton.InferInput("x", [1], "BYTES").set_data_from_numpy(np.array(["jörg".encode()], np.object_))._raw_content == (
        sent["user_id"]._raw_content
    )
    assert sent["recent_items"]._raw_content.endswith("日本".encode())
    assert np.frombuffer(sent["k"]._raw_content, np.int32).tolist() == [3]


def answered(n: int, state_age_ms: int, degraded: bool) -> triton.InferResult:
    """Triton's answer with n items, as bytes on the wire."""
    texts = {"item_id": [f"i{r}" for r in range(n)], "reason": [f"deep:{r + 1}" for r in range(n)], "recommendation_id": ["r-1"]}
    numbers = {
        "score": np.arange(n, 0, -1, dtype=np.float32),
        "propensity": np.full(n, 0.5, np.float32),
        "model_version": np.array([7], np.int64),
        "state_age_ms": np.array([state_age_ms], np.int64),
        "degraded": np.array([degraded]),
    }
    response = service_pb2.ModelInferResponse()
    for name, values in texts.items():
        response.outputs.add(name=name, datatype="BYTES", shape=[1, len(values)])
        response.raw_output_contents.append(b"".join(len(v).to_bytes(4, "little") + v.encode() for v in values))
    for name, array in numbers.items():
        kind = {"f": "FP32", "i": "INT64", "b": "BOOL"}[array.dtype.kind]
        response.outputs.add(name=name, datatype=kind, shape=[1, len(array)])
        response.raw_output_contents.append(array.tobytes())
    return triton.InferResult(response)


@pytest.mark.parametrize(("n", "age", "degraded"), [(3, 40, False), (1, -1, True)])
def test_an_answer_is_read_as_plain_values(n: int, age: int, degraded: bool) -> None:
    items, reasons = [f"i{r}" for r in range(n)], [f"deep:{r + 1}" for r in range(n)]
    wanted = Recommended(items, [float(s) for s in range(n, 0, -1)], [0.5] * n, reasons, "r-1", 7, age, degraded)
    assert _recommended(answered(n, age, degraded)) == wanted


@pytest.mark.parametrize(("listens", "wanted"), [(True, "no answer for 1 s"), (False, None)])
def test_a_server_that_is_silent_fails_and_one_that_is_away_may_come_back(listens: bool, wanted: str | None) -> None:
    async def asked(port: int) -> str | None:
        client = AsyncClient(f"127.0.0.1:{port}", timeout_s=1.0)
        try:
            return await client.failure()
        finally:
            await client.close()

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        assert asyncio.run(asked(server.getsockname()[1])) == wanted
