"""The sequence model: causal, blind to padding, its loss as on paper, and growing without forgetting."""

import numpy as np
import pytest
import torch

from learners.histories import ITEMS, LENGTH, PAUSES
from learners.sequence import TOP, SequenceModel, grown
from learners.training import Training

CONFIG = Training(dim=16, blocks=2, heads=2, dropout=0.2)


def made(items: int = 40, seed: int = 1) -> SequenceModel:
    torch.manual_seed(seed)
    model = SequenceModel(items, CONFIG)
    torch.nn.init.normal_(model.pauses.weight[1:], std=0.1)  # as if it had learned of them
    return model.eval()


def histories(n: int, length: int, items: int = 40, seed: int = 2) -> torch.Tensor:
    rng, out = np.random.default_rng(seed), np.zeros((n, 2, LENGTH), np.int64)
    out[:, :, LENGTH - length :] = np.stack([rng.integers(1, items + 1, (n, length)), rng.integers(0, 33, (n, length))], 1)
    return torch.from_numpy(out)


def test_padding_may_be_left_out() -> None:
    model, read = made(), histories(4, 7)
    with torch.inference_mode():
        whole, short = model.states(read, LENGTH)[:, -7:], model.states(read[:, :, -7:], 7)
    torch.testing.assert_close(whole, short, rtol=0, atol=1e-5)


@pytest.mark.parametrize("asked", [1, 3])
def test_the_last_positions_say_the_same_without_those_before_them(asked: int) -> None:
    model, read = made(), histories(4, 7)
    with torch.inference_mode():
        torch.testing.assert_close(model.states(read, asked), model.states(read, LENGTH)[:, -asked:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [LENGTH, 20, 2])
def test_a_later_item_does_not_change_what_earlier_positions_say(length: int) -> None:
    model, read = made(), histories(3, length)
    changed = read.clone()
    changed[:, ITEMS, -1] = changed[:, ITEMS, -1] % 40 + 1
    with torch.inference_mode():
        before, after = model.states(read, LENGTH), model.states(changed, LENGTH)
    torch.testing.assert_close(after[:, LENGTH - length : -1], before[:, LENGTH - length : -1], rtol=0, atol=1e-6)
    assert (after[:, -1] - before[:, -1]).abs().max() > 1e-2


def test_an_earlier_item_does_change_what_later_positions_say() -> None:
    model, read = made(), histories(3, 10)
    changed = read.clone()
    changed[:, ITEMS, LENGTH - 10] = changed[:, ITEMS, LENGTH - 10] % 40 + 1
    with torch.inference_mode():
        assert (model.states(changed, LENGTH)[:, -1] - model.states(read, LENGTH)[:, -1]).abs().max() > 1e-4


def test_how_long_ago_the_last_choice_was_changes_what_is_expected_and_a_later_pause_nothing_before_it() -> None:
    model, read = made(), histories(3, 10)
    changed = read.clone()
    changed[:, PAUSES, -1] = (changed[:, PAUSES, -1] + 7) % 33
    with torch.inference_mode():
        before, after = model.states(read, LENGTH), model.states(changed, LENGTH)
    torch.testing.assert_close(after[:, -10:-1], before[:, -10:-1], rtol=0, atol=1e-6)
    assert (after[:, -1] - before[:, -1]).abs().max() > 1e-2


def test_times_that_are_not_known_say_nothing() -> None:
    model, read = made(), histories(3, 10)
    read[:, PAUSES] = 0
    with torch.inference_mode():
        before = model.scores(read)
        model.pauses.weight[1:] = 5.0
        assert torch.equal(model.scores(read), before)


@pytest.mark.parametrize("length", [1, 7, 49])
def test_padding_says_nothing_whatever_stands_in_its_row_and_places(length: int) -> None:
    model, read = made(), histories(4, length)
    with torch.inference_mode():
        before = model.scores(read)
        model.positions[: LENGTH - length] += 5.0
        padded = model.scores(read)
        model.table.weight[0] = 3.0
        noisy = model.scores(read)
    torch.testing.assert_close(padded, before, rtol=0, atol=1e-6)
    torch.testing.assert_close(noisy, before, rtol=0, atol=1e-6)


def test_an_empty_history_has_finite_scores() -> None:
    with torch.inference_mode():
        assert torch.isfinite(made().scores(histories(1, 0))).all()


def test_padding_is_never_named_before_an_item_and_the_best_come_first() -> None:
    model, read = made(300), histories(5, 9)
    with torch.inference_mode():
        scores = model.scores(read)
        rows, best = model(read)
    assert rows.shape == best.shape == (5, TOP)
    assert (rows > 0).all()
    assert torch.equal(best, scores.gather(1, rows))
    assert torch.equal(best, scores.sort(1, descending=True).values[:, :TOP])
    with torch.inference_mode():
        assert made(40)(read)[0].shape == (5, 41)
        assert (made(40)(read)[0][:, -1] == 0).all()


ALL, CERTAIN = torch.arange(1, 41), torch.zeros(40)


def test_the_full_softmax_loss_equals_the_one_on_paper() -> None:
    model, read = made(), histories(4, 12)
    targets = torch.roll(read[:, ITEMS], -1, 1)
    targets[:, -1] = 5
    rng = np.random.default_rng(3)
    weights = torch.from_numpy((rng.random((4, LENGTH)) * (read[:, ITEMS].numpy() > 0)).astype(np.float32))
    weights[:, -4] = 0.0
    with torch.inference_mode():
        found = model.loss(read, targets, weights, ALL, CERTAIN).item()
        states, table = model.states(read, LENGTH).double().numpy(), model.table.weight.double().numpy()
    total = 0.0
    for b, t in np.argwhere(weights.numpy() > 0):
        logits = table[1:] @ states[b, t]
        total += weights[b, t].item() * (np.log(np.exp(logits).sum()) - logits[targets[b, t] - 1])
    assert found == pytest.approx(total / weights.sum().item(), rel=1e-4)


def test_the_loss_of_a_last_item_is_minus_the_log_of_its_share_of_the_scores() -> None:
    model, read = made(), histories(3, 6)
    targets, weights = torch.zeros_like(read[:, ITEMS]), torch.zeros(3, LENGTH)
    targets[:, -1], weights[:, -1] = torch.tensor([1, 20, 40]), 1.0
    with torch.inference_mode():
        shares = model.scores(read)[:, 1:].log_softmax(1)
        found = model.loss(read, targets, weights, ALL, CERTAIN).item()
    assert found == pytest.approx(-shares[range(3), [0, 19, 39]].mean().item(), rel=1e-4)


def test_the_loss_is_against_the_items_named_and_no_others_learn_from_it() -> None:
    model, read = made(), histories(2, 8)
    targets, weights = torch.roll(read[:, ITEMS], -1, 1), torch.zeros(2, LENGTH)
    among = torch.tensor([2, 3, 5, 7, 11, 13])
    targets[0, -1], targets[1, -1], weights[:, -1] = 7, 13, 1.0
    chances = torch.tensor([0.5, 0.25, 1.0, 1.0, 0.75, 0.125])
    found = model.loss(read, targets, weights, among, chances.log())
    with torch.inference_mode():
        states, table = model.states(read, LENGTH)[:, -1].double().numpy(), model.table.weight.double().numpy()
    losses = []
    for state, wanted in zip(states, (7, 13), strict=True):
        stand_for = np.exp(table[among.numpy()] @ state) / chances.numpy()  # each for as many as its chance says
        losses.append(np.log(stand_for.sum() / stand_for[among.tolist().index(wanted)]))
    assert found.item() == pytest.approx(np.mean(losses), rel=3e-6)
    found.backward()
    assert model.table.weight.grad is not None
    touched = set(model.table.weight.grad.abs().sum(1).nonzero()[:, 0].tolist())
    assert touched <= {*among.tolist(), *read[:, ITEMS].unique().tolist()}


def test_the_row_of_padding_learns_nothing() -> None:
    model, read = made(), histories(3, 5)
    model.loss(read, read[:, ITEMS], (read[:, ITEMS] > 0).float(), ALL, CERTAIN).backward()
    assert model.table.weight.grad is not None
    assert model.pauses.weight.grad is not None
    assert not model.table.weight.grad[0].any()
    assert not model.pauses.weight.grad[0].any()
    assert model.pauses.weight.grad[1:].any()


def test_a_grown_model_scores_the_items_it_knew_as_before() -> None:
    model, read = made(), histories(4, 9)
    larger = grown(model, 55, CONFIG).eval()
    with torch.inference_mode():
        before, after = model.scores(read), larger.scores(read)
    assert after.shape == (4, 56)
    torch.testing.assert_close(after[:, :41], before, rtol=0, atol=1e-6)
    assert 0 < larger.table.weight[41:].abs().max() < 0.2
    assert not larger.table.weight[0].any()


def test_a_grown_model_is_a_copy() -> None:
    model = made()
    larger = grown(model, 40, CONFIG)
    with torch.no_grad():
        larger.table.weight += 1.0
        larger.positions += 1.0
    assert model.table.weight.abs().max() < 0.5
    assert model.positions.abs().max() < 0.5
