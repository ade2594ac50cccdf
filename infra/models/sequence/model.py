"""The sequence model where Triton has no onnxruntime backend: checks its bundle, then runs model.onnx.

Every release starts one beside the load: what it need not import it does not (pydantic alone is .3 s).
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb

from serving.bundle import verify


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        given = json.loads(os.environ.get("HEADRACE_SIGNING", "{}")).get("trusted", "")
        verify(folder, trusted=os.environ.get("HEADRACE_SIGNING__TRUSTED", given))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        canary = np.load(folder / "canary.npz", allow_pickle=False)
        _, scores = self.session.run(None, {"histories": canary["histories"]})
        worst = float(np.abs(scores - canary["top_scores"]).max())
        if not worst <= 1e-3:
            raise ValueError(f"version {args['model_version']} answers its canary with scores that differ by {worst:.3g}")

    def execute(self, requests):
        asked = [pb.get_input_tensor_by_name(r, "histories").as_numpy() for r in requests]
        rows, scores = self.session.run(None, {"histories": np.concatenate(asked)})
        out, at = [], 0
        for histories in asked:
            end = at + len(histories)
            out.append(pb.InferenceResponse([pb.Tensor("top_items", rows[at:end]), pb.Tensor("top_scores", scores[at:end])]))
            at = end
        return out
