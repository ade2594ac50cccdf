"""Publishing where nothing comes of it: what served before still would."""

import shutil
from pathlib import Path

import pytest

import serving.publish as publishing
from serving.bundle import Corrupt, seal
from serving.publish import Claim, NotPublished, Superseded, publish
from serving.signature import new_key

NOBODY = "127.0.0.1:9"  # a port that refuses


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Versions 1 and 2 serve."""
    made = tmp_path / "repository"
    for version in ("1", "2"):
        (made / "sequence" / version).mkdir(parents=True)
        (made / "sequence" / version / "model.onnx").write_text(version)
    return made


@pytest.fixture
def claim(repository: Path) -> Claim:
    """The repository is ours."""
    return Claim.after(repository, 1)


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    made = tmp_path / "staging" / "3-x"
    made.mkdir(parents=True)
    (made / "model.onnx").write_text("3")
    seal(made)
    return made


def versions(repository: Path) -> list[str]:
    return sorted(p.name for p in (repository / "sequence").iterdir())


def test_a_corrupt_bundle_never_reaches_the_repository(staged: Path, repository: Path, claim: Claim) -> None:
    (staged / "model.onnx").write_text("other")
    with pytest.raises(Corrupt):
        publish(staged, claim, NOBODY, 3, lambda: [1, 2])
    assert versions(repository) == ["1", "2"]


def test_a_version_that_nobody_loads_is_taken_back(staged: Path, repository: Path, claim: Claim) -> None:
    with pytest.raises(NotPublished, match="version 3"):
        publish(staged, claim, NOBODY, 3, lambda: [2, 1], timeout_s=1)
    assert versions(repository) == ["1", "2"]
    assert (repository / "sequence" / "2" / "model.onnx").read_text() == "2"


def test_a_trainer_that_wakes_up_after_another_has_begun_touches_nothing(staged: Path, repository: Path, claim: Claim) -> None:
    Claim.after(repository, 2)
    with pytest.raises(Superseded, match="epoch 2 is over, the repository is of epoch 3"):
        publish(staged, claim, NOBODY, 3, lambda: [1, 2])
    assert versions(repository) == ["1", "2"] and staged.exists()


@pytest.mark.parametrize(("told", "there", "wanted"), [(0, None, 1), (4, None, 5), (1, "2", 3), (7, "2", 8), (3, "", 4), (3, "x", 4)])
def test_who_begins_has_a_higher_epoch_than_the_topic_and_the_repository(
    repository: Path, told: int, there: str | None, wanted: int
) -> None:
    if there is not None:
        repository.with_name("repository.epoch").write_text(there)
    assert Claim.after(repository, told).epoch == wanted
    assert Claim.after(repository, told).epoch == wanted + 1


@pytest.mark.parametrize("point", ["publish.synced", "publish.renamed", "publish.prove", "publish.remove"])
def test_nor_does_one_that_is_paused_in_the_midst_of_it(
    staged: Path, repository: Path, claim: Claim, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paused(name: str) -> None:  # another one takes over, and releases the same version, its own
        if name == point:
            Claim.after(repository, 2)
            shutil.rmtree(repository / "sequence" / "3", ignore_errors=True)
            (repository / "sequence" / "3").mkdir()
            (repository / "sequence" / "3" / "of epoch 3").touch()

    monkeypatch.setattr(publishing, "failpoint", paused)
    with pytest.raises(Superseded):
        publish(staged, claim, NOBODY, 3, lambda: [1, 2], timeout_s=1)
    assert versions(repository) == ["1", "2", "3"] and (repository / "sequence" / "3" / "of epoch 3").exists()


def test_what_is_not_signed_by_the_trusted_key_is_not_published(staged: Path, repository: Path, claim: Claim, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="not a signature of version 3"):
        publish(staged, claim, NOBODY, 3, lambda: [1, 2], trusted=new_key(tmp_path / "key.pem"))
    assert versions(repository) == ["1", "2"]
