"""The sequence model where Triton has no onnxruntime backend: checks its bundle, then runs model.onnx.

Every release starts one beside the load. What it does until it is ready it does with low priority, and what it need not import (pydantic
alone is .3 s) it does not.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import get_native_id

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        with ThreadPoolExecutor(1) as beside:
            self.session = beside.submit(_session, folder, args["model_name"]).result()

    def execute(self, requests):
        asked = [pb.get_input_tensor_by_name(r, "histories").as_numpy() for r in requests]
        rows, scores = self.session.run(None, {"histories": np.concatenate(asked)})
        out, at = [], 0
        for histories in asked:
            end = at + len(histories)
            out.append(pb.InferenceResponse([pb.Tensor("top_items", rows[at:end]), pb.Tensor("top_scores", scores[at:end])]))
            at = end
        return out


def _session(folder, name):
    """The model in `folder`, which must be what its makers signed, and answer as it did there. Slowly: on Linux a thread has a priority."""
    os.setpriority(os.PRIO_PROCESS, get_native_id(), 10)
    import onnxruntime

    from serving.bundle import verify

    given = json.loads(os.environ.get("HEADRACE_SIGNING", "{}")).get("trusted", "")
    verify(folder, trusted=os.environ.get("HEADRACE_SIGNING__TRUSTED", given), version=int(name.rpartition("-")[2]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    canary = np.load(folder / "canary.npz", allow_pickle=False)
    _, scores = session.run(None, {"histories": canary["histories"]})
    worst = float(np.abs(scores - canary["top_scores"]).max())
    if not worst <= 1e-3:
        raise ValueError(f"{name} answers its canary with scores that differ by {worst:.3g}")
    return session
