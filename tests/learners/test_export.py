"""Export to ONNX: the served model answers as torch does, for any batch, or is refused."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from learners.export import TOLERANCE, NotEqual, cost_ms, export
from learners.histories import ITEMS as CHOSEN
from learners.histories import LENGTH
from learners.inference import session
from learners.sequence import TOP, SequenceModel
from learners.training import Training

ITEMS = 150
CONFIG = Training(dim=16, blocks=1, heads=2)
Rows = npt.NDArray[np.int64]


def samples(n: int, seed: int = 1) -> Rows:
    rng = np.random.default_rng(seed)
    out = np.stack([rng.integers(1, ITEMS + 1, (n, LENGTH)), rng.integers(0, 33, (n, LENGTH))], 1)
    for row, length in enumerate(rng.integers(0, LENGTH, n)):
        out[row, :, :length] = 0
    return out


def spread(kind: type[SequenceModel] = SequenceModel) -> SequenceModel:
    """A model whose scores differ by more than the tolerance."""
    torch.manual_seed(1)
    model = kind(ITEMS, CONFIG)
    with torch.no_grad():
        model.table.weight *= 30.0
    return model


@pytest.fixture(scope="module")
def exported() -> tuple[SequenceModel, bytes, dict[str, npt.NDArray[np.generic]], float]:
    model = spread().train()
    return model, *export(model, samples(8))


@pytest.mark.parametrize("n", [1, 2, 9])
def test_the_exported_model_answers_as_torch_does_for_any_batch(exported: tuple[SequenceModel, bytes, object, float], n: int) -> None:
    model, onnx, _, worst = exported
    served = session(onnx)
    read = samples(n, seed=n + 5)
    rows, scores = served.run(["top_items", "top_scores"], {"histories": read})
    with torch.inference_mode():
        wanted_rows, wanted = model(torch.from_numpy(read))
    assert rows.shape == (n, TOP)
    np.testing.assert_allclose(scores, wanted.numpy(), atol=TOLERANCE)
    assert (rows[:, :10] == wanted_rows.numpy()[:, :10]).mean() > 0.99
    assert worst <= TOLERANCE


def test_the_canary_is_what_the_exported_model_answers(
    exported: tuple[SequenceModel, bytes, dict[str, npt.NDArray[np.generic]], float],
) -> None:
    _, onnx, canary, _ = exported
    served = session(onnx)
    rows, scores = served.run(None, {"histories": canary["histories"]})
    assert np.array_equal(canary["histories"], samples(8))
    assert np.array_equal(rows, canary["top_items"])
    np.testing.assert_allclose(scores, canary["top_scores"], atol=1e-5)


def test_what_is_exported_is_optimised_and_holds_the_items_once() -> None:
    config = replace(CONFIG, dim=64)
    onnx, _, _ = export(SequenceModel(5_000, config), samples(4))
    weights = sum(weight.numel() * 4 for weight in SequenceModel(5_000, config).state_dict().values())
    assert weights < len(onnx) < 1.1 * weights
    assert b"FusedMatMul" in onnx  # an operator that only the optimiser makes


class _Higher(SequenceModel):
    """Answers otherwise once exported."""

    def forward(self, histories: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, scores = super().forward(histories)
        return rows, scores + (0.01 if torch.onnx.is_in_onnx_export() else 0.0)


class _Turned(SequenceModel):
    """The same scores, for other items, once exported."""

    def forward(self, histories: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, scores = super().forward(histories)
        return rows.flip(1) if torch.onnx.is_in_onnx_export() else rows, scores


@pytest.mark.parametrize("kind", [_Higher, _Turned])
def test_a_model_that_changes_on_the_way_is_refused(kind: type[SequenceModel]) -> None:
    with pytest.raises(NotEqual, match="differ"):
        export(spread(kind), samples(4))


def test_a_model_without_finite_scores_is_refused() -> None:
    model = spread()
    with torch.no_grad():
        model.norm.weight[3] = float("nan")
    with pytest.raises(NotEqual):
        export(model, samples(4))


def test_a_question_costs_more_of_a_larger_model_and_items_it_does_not_know_are_padding() -> None:
    small, large = (
        export(SequenceModel(ITEMS, replace(CONFIG, dim=dim, blocks=blocks)), samples(2))[0] for dim, blocks in ((16, 1), (64, 4))
    )
    newer = samples(30)
    newer[:, CHOSEN] *= 5
    assert 0 < cost_ms(small, newer, ITEMS) < cost_ms(large, newer, ITEMS)
