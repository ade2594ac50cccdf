"""How an exported model is run: alike by who checks it (`learners.export`) and by who serves it (`serving.deep`), who has no torch."""

from __future__ import annotations

import onnxruntime


def session(onnx: bytes | str) -> onnxruntime.InferenceSession:
    """Of a model, or of the file of that name: one thread, and nothing optimised, as that was done where it was exported."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
