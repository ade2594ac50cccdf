"""Training and fine-tuning: the loss falls, seeds reproduce, budgets hold, what is saved comes back."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from learners import finetune
from learners.finetune import Diverged, Fit, fingerprint, fit, load, save, scorer
from learners.histories import LENGTH, PAUSES, Windows
from learners.sequence import SequenceModel, grown
from learners.training import Training

ITEMS = 12
CONFIG = Training(dim=16, blocks=1, heads=2, dropout=0.0, learning_rate=1e-2, batch=80, epochs=4, fine_epochs=2)


def made(config: Training = CONFIG, items: int = ITEMS) -> SequenceModel:
    torch.manual_seed(3)
    return SequenceModel(items, config)


def rings(n: int = 24, length: int = 10) -> Windows:
    """Histories in which item i is always followed by item i + 1."""
    walks = np.random.default_rng(1).integers(0, ITEMS, n)[:, None] + np.arange(length + 1)
    read, targets, weights = np.zeros((n, 2, LENGTH), np.int64), np.zeros((n, LENGTH), np.int64), np.zeros((n, LENGTH), np.float32)
    read[:, :, -length:] = np.stack([walks[:, :-1] % ITEMS + 1, np.full((n, length), 3)], 1)
    targets[:, -length:], weights[:, -length:] = walks[:, 1:] % ITEMS + 1, 1.0
    return Windows(read, targets, weights)


def trained(model: SequenceModel, config: Training = CONFIG, warm: bool = False) -> Fit:
    return fit(model, rings(), config, warm, lambda step, steps: None)


def equal(one: SequenceModel, other: SequenceModel) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_small_training_lowers_the_loss_and_finds_what_comes_next() -> None:
    config = replace(CONFIG, epochs=12)
    model = made(config)
    done = trained(model, config)
    assert done.steps == done.planned == 12 * 3
    assert done.last_loss < 0.4 * done.first_loss
    assert not model.training
    best = scorer(model)(rings().histories).argmax(1)
    assert (best == rings().targets[:, -1]).mean() > 0.9


def test_what_comes_next_may_depend_on_how_long_it_has_been_and_is_known_without_it_too() -> None:
    soon, later = rings(), rings()
    later.histories[:, PAUSES] *= 6
    later.targets[later.targets > 0] = later.targets[later.targets > 0] % ITEMS + 1
    both = Windows(*(np.concatenate([getattr(part, name) for part in (soon, later)]) for name in ("histories", "targets", "weights")))
    config = replace(CONFIG, epochs=30)
    model = made(config)
    fit(model, both, config, False, lambda step, steps: None)
    for part in (soon, later):
        assert (scorer(model)(part.histories).argmax(1) == part.targets[:, -1]).mean() > 0.9
    timeless = soon.histories.copy()
    timeless[:, PAUSES] = 0
    best = np.argsort(-scorer(model)(timeless), 1)[:, :2]
    assert ((best == soon.targets[:, -1:]) | (best == later.targets[:, -1:])).mean() > 0.9


def test_the_same_seed_and_start_give_the_same_model() -> None:
    config = replace(CONFIG, dropout=0.2)
    one, two, other = made(config), made(config), made(config)
    assert equal(one, two)
    a, b = trained(one, config), trained(two, config)
    trained(other, replace(config, seed=8))
    assert equal(one, two)
    assert (a.first_loss, a.last_loss) == (b.first_loss, b.last_loss)
    assert not equal(one, other)


@pytest.mark.parametrize("step", [2, 4, 8])
def test_a_training_that_was_cut_off_goes_on_from_its_last_epoch_to_the_same_model(tmp_path: Path, step: int) -> None:
    config, checkpoint = replace(CONFIG, epochs=4, dropout=0.2), tmp_path / "kept.pt"
    whole, cut = made(config), made(config)
    wanted = trained(whole, config)

    def stop(done: int, all: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cut, rings(), config, False, stop, checkpoint=checkpoint)
    steps: list[int] = []
    resumed = made(config)
    found = fit(resumed, rings(), config, False, lambda done, all: steps.append(done), checkpoint=checkpoint)
    assert steps[0] == (step - 1) // 3 * 3 + 1
    assert equal(whole, resumed)
    assert replace(found, seconds=0) == replace(wanted, seconds=0)


def test_every_step_is_told_and_a_fine_tune_has_its_own_epochs() -> None:
    told: list[tuple[int, int]] = []
    done = fit(made(), rings(), CONFIG, True, lambda step, steps: told.append((step, steps)))
    assert told == [(n, 6) for n in range(1, 7)]
    assert (done.steps, done.planned) == (6, 6)


def test_a_fine_tune_has_its_own_learning_rate() -> None:
    still = replace(CONFIG, fine_learning_rate=1e-12)
    model = made()
    trained(model, still, warm=True)
    torch.testing.assert_close(model.state_dict(), made().state_dict(), rtol=0, atol=1e-6)
    trained(model, still, warm=False)
    assert (model.table.weight - made().table.weight).abs().max() > 1e-3


def test_the_budget_of_time_ends_a_training_that_is_then_whole() -> None:
    ticks = itertools.count(0.0, 1.0)
    model = made()
    done = fit(model, rings(), replace(CONFIG, budget_s=6.5), False, lambda step, steps: None, lambda: next(ticks))
    assert 1 <= done.steps < done.planned == 12
    assert not model.training
    assert np.isfinite(scorer(model)(rings().histories)).all()


def test_a_loss_that_is_no_number_ends_it() -> None:
    model = made()
    with torch.no_grad():
        model.table.weight[5] = float("nan")
    with pytest.raises(Diverged, match="step 1"):
        trained(model)


def test_progress_may_stop_a_training() -> None:
    def stop(step: int, steps: int) -> None:
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        fit(made(), rings(), CONFIG, False, stop)


def test_a_model_is_judged_as_it_serves_whether_trained_just_now_or_loaded(tmp_path: Path) -> None:
    config = replace(CONFIG, dropout=0.5)
    model, asked = made(config), rings().histories
    trained(model, config)
    save(model, tmp_path / "weights.safetensors")
    judged = scorer(load(tmp_path / "weights.safetensors", ITEMS, config))
    assert (judged(asked) == scorer(model)(asked)).all() and (judged(asked) == judged(asked)).all()


def test_what_is_saved_is_loaded_equal(tmp_path: Path) -> None:
    model = made()
    trained(model)
    save(model, tmp_path / "weights.safetensors")
    again = load(tmp_path / "weights.safetensors", ITEMS, CONFIG)
    assert equal(model, again)
    assert np.array_equal(scorer(again.eval())(rings().histories), scorer(model)(rings().histories))


def test_a_warm_start_has_room_for_new_items_and_knows_the_old(tmp_path: Path) -> None:
    model = made()
    trained(model)
    save(model, tmp_path / "weights.safetensors")
    larger = load(tmp_path / "weights.safetensors", ITEMS + 7, CONFIG).eval()
    before, after = scorer(model)(rings().histories), scorer(larger)(rings().histories)
    assert after.shape == (24, ITEMS + 8)
    np.testing.assert_allclose(after[:, : ITEMS + 1], before, atol=1e-5)
    assert trained(larger, warm=True).steps == 6


def test_a_training_changes_the_fingerprint_and_room_for_new_items_does_not() -> None:
    model = made()
    before = fingerprint(model)
    assert fingerprint(grown(model, ITEMS + 3, CONFIG)) == before
    trained(model)
    assert fingerprint(model) != before


def test_rows_that_came_after_the_vocabulary_are_padding_to_the_scorer() -> None:
    score, items = scorer(made().eval()), rings().histories
    newer, padded = items.copy(), items.copy()
    newer[:, 0, -3], padded[:, :, -3] = ITEMS + 1, 0
    assert np.array_equal(score(newer), score(padded))
    assert not np.array_equal(score(newer), score(items))
    assert score(items).dtype == np.float32


def test_items_that_do_not_occur_in_a_training_are_not_forgotten() -> None:
    model = made(items=2 * ITEMS)
    before = model.table.weight.detach().clone()
    trained(model, warm=True)
    assert (model.table.weight[ITEMS + 1 :] - before[ITEMS + 1 :]).abs().max() < 1e-4  # the optimiser's decay
    assert (model.table.weight[1 : ITEMS + 1] - before[1 : ITEMS + 1]).abs().max() > 1e-3


def test_of_too_many_items_each_step_weighs_others_and_its_own_targets_and_knows_how_often_it_weighs_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finetune, "WEIGHED", 5)
    windows = rings(n=400, length=2)
    popular = np.random.default_rng(5).random(400) < 0.5
    windows.targets[popular, -2:] = 1  # half of all targets are one item
    model, seen = made(), list[tuple[list[int], set[int], list[float]]]()
    loss = model.loss

    def watched(
        items: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, among: torch.Tensor, chances: torch.Tensor
    ) -> torch.Tensor:
        seen.append((among.tolist(), set(targets[weights > 0].tolist()), chances.exp().tolist()))
        return loss(items, targets, weights, among, chances)

    monkeypatch.setattr(model, "loss", watched)
    fit(model, windows, replace(CONFIG, batch=4), False, lambda step, steps: None)
    assert all(wanted <= set(among) and 5 <= len(among) <= ITEMS for among, wanted, _ in seen)
    assert len({frozenset(set(among) - wanted) for among, wanted, _ in seen}) > 20
    told = {item: chance for among, _, chances in seen for item, chance in zip(among, chances, strict=True)}
    assert set(told) == set(range(1, ITEMS + 1))
    for item, chance in told.items():
        assert np.mean([item in among for among, _, _ in seen]) == pytest.approx(chance, abs=0.08)
    assert told[1] > 0.9 > 0.65 > max(chance for item, chance in told.items() if item != 1)


def test_a_model_keeps_its_size_whatever_the_settings_say_now(tmp_path: Path) -> None:
    model = made(replace(CONFIG, blocks=2, heads=4))
    save(model, tmp_path / "weights.safetensors")
    again = load(tmp_path / "weights.safetensors", ITEMS, replace(CONFIG, dim=8, blocks=1, heads=1))
    assert equal(model, again) and again.heads == 4
    assert np.array_equal(scorer(again.eval())(rings().histories), scorer(model.eval())(rings().histories))
