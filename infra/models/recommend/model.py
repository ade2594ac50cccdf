"""Triton's entry point of `recommend`: tensors in, tensors out. What it does is in streams.recommender."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb

from infra.settings import Settings
from serving.recommend import MAX_K
from streams.recommender import Recommender, Request

MAX_TEXTS = 10_000  # entries of an optional input
MAX_BYTES = 1_024  # a longer text is no id of ours (256 characters)


class TritonPythonModel:
    def initialize(self, args):
        settings = Settings()
        self.recommender = Recommender(
            settings.kafka,
            repository=args["model_repository"].rsplit("/", 1)[0],
            temperature=settings.serving.temperature,
            boot_s=settings.serving.boot_s,
            trusted=settings.signing.trusted,
            keep=settings.rollout.keep,
        )

    def execute(self, requests):
        parsed, errors = [], {}
        for place, request in enumerate(requests):
            try:
                parsed.append(self._request(request))
            except ValueError as error:
                parsed.append(None)
                errors[place] = pb.InferenceResponse(error=pb.TritonError(str(error), pb.TritonError.INVALID_ARG))
        answered = iter(self.recommender.answer([p for p in parsed if p is not None]))
        return [errors.get(place) or _response(next(answered)) for place in range(len(requests))]

    def _request(self, request):
        read = _read(request)
        if read.version and (why := self.recommender.missing(read.version)):
            raise ValueError(why)
        return read

    def finalize(self):
        self.recommender.close()


def _texts(request, name):
    """The texts of an optional input. Of a session the newest count; what must not be shown is never cut."""
    tensor = pb.get_input_tensor_by_name(request, name)
    if tensor is None or tensor.as_numpy().size == 0:
        return ()
    texts = tensor.as_numpy().ravel()
    if len(texts) > MAX_TEXTS and name != "recent_items":
        raise ValueError(f"{name} has {len(texts)} entries, at most {MAX_TEXTS} are allowed")
    texts = texts[-MAX_TEXTS:]
    return tuple(text.decode("utf-8", "replace") for text in texts if len(text) <= MAX_BYTES)


def _only(request, name, default):
    """The one value of an input; a batch of its own would otherwise be answered for its first user alone."""
    values = pb.get_input_tensor_by_name(request, name).as_numpy().ravel()
    if values.size > 1:
        raise ValueError(f"{name} has {values.size} values; ask for one user a request and send several, Triton batches them")
    return values[0] if values.size else default


def _read(request):
    k = int(_only(request, "k", default=0))
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k is {k}; it must be from 1 to {MAX_K}")
    user = _only(request, "user_id", default=b"").decode("utf-8", "replace")
    if len(user) > 256:
        raise ValueError(f"user_id has {len(user)} characters, at most 256 are allowed")
    parameters = json.loads(given) if (given := request.parameters()) not in ("", "{}") else {}
    version = parameters.get("headrace_version", 0)
    if not isinstance(version, int):
        raise ValueError(f"headrace_version is {version!r}; it must be a whole number")
    texts = [_texts(request, name) for name in ("recent_items", "exclude", "categories")]
    return Request(user, k, *texts, probe="headrace_probe" in parameters, version=version)


def _strings(texts):
    return np.array([[text.encode() for text in texts]], dtype=np.object_).reshape(1, len(texts))


def _response(answer):
    return pb.InferenceResponse(
        [
            pb.Tensor("item_id", _strings(answer.items)),
            pb.Tensor("score", np.asarray(answer.scores, np.float32)[None]),
            pb.Tensor("propensity", np.asarray(answer.propensities, np.float32)[None]),
            pb.Tensor("reason", _strings(answer.reasons)),
            pb.Tensor("recommendation_id", _strings([answer.id])),
            pb.Tensor("model_version", np.array([[answer.version]], np.int64)),
            pb.Tensor("state_age_ms", np.array([[int(time.time() * 1000) - answer.as_of if answer.as_of else -1]], np.int64)),
            pb.Tensor("degraded", np.array([[answer.degraded]])),
        ]
    )
