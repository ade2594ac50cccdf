"""Export to ONNX, optimised here so that who serves it need not do so while others wait, and checked against torch on the way."""

from __future__ import annotations

import io
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from learners.histories import within
from learners.inference import session
from learners.sequence import SequenceModel

TOLERANCE = 1e-3  # largest difference of a score


class NotEqual(ValueError):
    """The exported model does not answer as the torch model does."""


def export(model: SequenceModel, samples: npt.NDArray[np.int64]) -> tuple[bytes, dict[str, npt.NDArray[np.generic]], float]:
    """(ONNX bytes, what it answers to `samples`, largest difference of a score). Raises `NotEqual`.

    `samples` int64 [n, 2, LENGTH] become the canary: a server proves with them that it loaded what was exported.
    """
    model.eval()
    out = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated, but exact, ten times faster, and writes one file.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.from_numpy(samples[:2]),),
            out,  # type: ignore[arg-type] # a file object is fine for the TorchScript exporter
            dynamo=False,
            opset_version=17,
            do_constant_folding=False,  # folded, the tied item table would be stored twice
            input_names=["histories"],
            output_names=["top_items", "top_scores"],
            dynamic_axes={name: {0: "batch"} for name in ("histories", "top_items", "top_scores")},
        )
    onnx = _optimised(out.getvalue())
    rows, scores = session(onnx).run(None, {"histories": samples})
    with torch.inference_mode():
        wanted_rows, wanted = (t.numpy() for t in model(torch.from_numpy(samples)))
    worst = float(np.abs(scores - wanted).max())
    same = float((rows[:, :10] == wanted_rows[:, :10]).mean())
    if not np.isfinite(scores).all() or worst > TOLERANCE or same < 0.99:
        raise NotEqual(f"scores differ by up to {worst:.2g}, {same:.1%} of the top 10 agree")
    return onnx, {"histories": samples, "top_items": rows, "top_scores": scores}, worst


def cost_ms(onnx: bytes, samples: npt.NDArray[np.int64], items: int) -> float:
    """CPU ms that one question takes, of several the least: other work on the machine only adds. `items` in its vocabulary; others are
    padding to it.
    """
    served, took = session(onnx), []
    samples = within(samples, items + 1)
    for question in (*samples[:1], *samples[:24]):
        began = time.process_time()
        served.run(None, {"histories": question[None]})
        took.append((time.process_time() - began) * 1000)
    return min(took[1:])


def _optimised(onnx: bytes) -> bytes:
    """The model as onnxruntime (this version or a newer one) would run it on any processor: to load it takes a fifth of the time, as
    nothing is left to find out.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory(prefix="headrace-export-") as folder:
        options.optimized_model_filepath = f"{folder}/model.onnx"
        # Folded, the tied item table would be stored twice.
        onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"])
        return Path(options.optimized_model_filepath).read_bytes()
