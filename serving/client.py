"""A small client of the Triton model `recommend`, blocking and asynchronous; everything it does, plain tritonclient can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

MODEL = "recommend"
PERSONAL = (
    "deep",
    "after",
    "covisited",
    "taste",
    "ease",
    "basket",
    "neighbours",
    "history",
)  # sources that start from the user (serving/features.py)


@dataclass(frozen=True)
class Recommended:
    """An answer. `state_age_ms` is -1 where the server has not heard of any state yet."""

    items: list[str]
    scores: list[float]
    propensities: list[float]
    reasons: list[str]
    id: str
    model_version: int
    state_age_ms: int
    degraded: bool

    @property
    def is_personal(self) -> bool:
        """Does the list rest on what this user, or this session, has chosen?"""
        return any(reason.split(":")[0] in PERSONAL for reasons in self.reasons for reason in reasons.split())


def _parameters(probe: bool, version: int) -> dict[str, int] | None:
    return {name: int(value) for name, value in (("headrace_probe", probe), ("headrace_version", version)) if value} or None


def _inputs(user: str, k: int, recent: Sequence[str], exclude: Sequence[str], categories: Sequence[str]) -> list[Any]:
    """All inputs, the optional ones empty when unused: a batch ends where the set of inputs changes."""
    number = triton.InferInput("k", [1, 1], "INT32")
    number.set_data_from_numpy(np.array([[k]], np.int32))
    texts = {"user_id": [user], "recent_items": recent, "exclude": exclude, "categories": categories}
    inputs = [number]
    for name, values in texts.items():
        tensor = triton.InferInput(name, [1, len(values)], "BYTES")
        tensor.set_data_from_numpy(np.array([[v.encode() for v in values]], np.object_).reshape(1, len(values)))
        inputs.append(tensor)
    return inputs


def _recommended(answer: Any) -> Recommended:
    def texts(name: str) -> list[str]:
        return [value.decode() for value in answer.as_numpy(name)[0]]

    return Recommended(
        texts("item_id"),
        answer.as_numpy("score")[0].tolist(),
        answer.as_numpy("propensity")[0].tolist(),
        texts("reason"),
        texts("recommendation_id")[0],
        int(answer.as_numpy("model_version")[0, 0]),
        int(answer.as_numpy("state_age_ms")[0, 0]),
        bool(answer.as_numpy("degraded")[0, 0]),
    )


class Client:
    """Blocking. `url` is host:port of Triton's gRPC door."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._client, self._timeout = triton.InferenceServerClient(url), timeout_s

    def recommend(
        self, user: str, k: int = 10, recent: Sequence[str] = (), exclude: Sequence[str] = (), categories: Sequence[str] = (),
        version: int = 0,
    ) -> Recommended:  # fmt: skip
        """The list for `user`; by that version of the model, and nowhere logged, where one is given. Raises tritonclient's
        InferenceServerException.
        """
        inputs, parameters = _inputs(user, k, recent, exclude, categories), _parameters(False, version)
        return _recommended(self._client.infer(MODEL, inputs, client_timeout=self._timeout, parameters=parameters))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()


class AsyncClient:
    """The same for asyncio. `probe`: marked in the impression log, for asks whose lists nobody sees."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._client, self._timeout = triton_aio.InferenceServerClient(url), timeout_s

    async def recommend(
        self,
        user: str,
        k: int = 10,
        recent: Sequence[str] = (),
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        probe: bool = False,
    ) -> Recommended:
        inputs, parameters = _inputs(user, k, recent, exclude, categories), _parameters(probe, 0)
        return _recommended(await self._client.infer(MODEL, inputs, client_timeout=self._timeout, parameters=parameters))

    async def is_ready(self) -> bool:
        try:
            return bool(await self._client.is_model_ready(MODEL))
        except Exception:  # whatever it is, it is not ready
            return False

    async def failure(self) -> str | None:
        """Why `recommend` will not answer anybody until it is started again, else None. It is asked for no items, which it declines, if it
        lives: nothing is logged of that.
        """
        try:
            await self._client.infer(MODEL, _inputs("", 0, (), (), ()), client_timeout=self._timeout)
        except InferenceServerException as error:
            if error.status() == "StatusCode.DEADLINE_EXCEEDED":
                return f"no answer for {self._timeout:.0f} s"
            return None if error.status() in ("StatusCode.INVALID_ARGUMENT", "StatusCode.UNAVAILABLE") else str(error)
        return None

    async def close(self) -> None:
        await self._client.close()
