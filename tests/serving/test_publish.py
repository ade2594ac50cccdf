"""Publishing where nothing comes of it: what served before still would."""

from pathlib import Path

import pytest

import serving.publish as publishing
from serving.bundle import Corrupt, seal
from serving.publish import Claim, NotPublished, Superseded, publish
from serving.signature import new_key

NOBODY = "127.0.0.1:9"  # a port that refuses


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    made = tmp_path / "templates"
    (made / "configs").mkdir(parents=True)
    (made / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    (made / "configs" / "wheel.pbtxt").write_text('backend: "python"\n')
    return made


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
    made = Claim(repository, 2)
    made.take()
    return made


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    made = tmp_path / "staging" / "3-x"
    made.mkdir(parents=True)
    (made / "model.onnx").write_text("3")
    seal(made)
    return made


def versions(repository: Path) -> list[str]:
    return sorted(p.name for p in (repository / "sequence").iterdir() if p.name.isdigit())


def test_a_corrupt_bundle_never_reaches_the_repository(staged: Path, repository: Path, claim: Claim, templates: Path) -> None:
    (staged / "model.onnx").write_text("other")
    with pytest.raises(Corrupt):
        publish(staged, claim, templates, NOBODY, 3, [1, 2])
    assert versions(repository) == ["1", "2"]
    assert not (repository / "sequence" / "config.pbtxt").exists()


def test_a_version_that_nobody_loads_is_taken_back_and_the_policy_names_those_before(
    staged: Path, repository: Path, claim: Claim, templates: Path
) -> None:
    with pytest.raises(NotPublished, match="version 3"):
        publish(staged, claim, templates, NOBODY, 3, [2, 1], timeout_s=5)
    assert versions(repository) == ["1", "2"]
    for name, backend in (("config.pbtxt", "onnxruntime"), ("configs/wheel.pbtxt", "python")):
        text = (repository / "sequence" / name).read_text()
        assert text == f'backend: "{backend}"\nversion_policy {{ specific {{ versions: [ 1, 2 ] }} }}\n'
    assert not list((repository / "sequence").rglob("*.new"))
    assert (repository / "sequence" / "2" / "model.onnx").read_text() == "2"


def test_a_trainer_that_wakes_up_after_another_has_begun_touches_nothing(
    staged: Path, repository: Path, claim: Claim, templates: Path
) -> None:
    Claim(repository, 3).take()
    with pytest.raises(Superseded, match="epoch 2 is over, the repository is of epoch 3"):
        publish(staged, claim, templates, NOBODY, 3, [1, 2])
    with pytest.raises(Superseded):
        claim.take()
    assert versions(repository) == ["1", "2"] and staged.exists()


@pytest.mark.parametrize("point", ["publish.synced", "publish.renamed", "publish.config_written", "publish.load"])
def test_nor_does_one_that_is_paused_in_the_midst_of_it(
    staged: Path, repository: Path, claim: Claim, templates: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paused(name: str) -> None:  # another one takes over, and releases versions of its own
        if name == point:
            Claim(repository, 3).take()
            for fresh in ("config.pbtxt", "configs/wheel.pbtxt"):
                (repository / "sequence" / fresh).parent.mkdir(exist_ok=True)
                (repository / "sequence" / fresh).write_text("of epoch 3")

    monkeypatch.setattr(publishing, "failpoint", paused)
    with pytest.raises(Superseded):
        publish(staged, claim, templates, NOBODY, 3, [1, 2], timeout_s=5)
    assert (repository / "sequence" / "config.pbtxt").read_text() == "of epoch 3"
    assert {"1", "2"} <= set(versions(repository))


def test_what_is_not_signed_by_the_trusted_key_is_not_published(
    staged: Path, repository: Path, claim: Claim, templates: Path, tmp_path: Path
) -> None:
    with pytest.raises(Corrupt, match="not a signature of version 3"):
        publish(staged, claim, templates, NOBODY, 3, [1, 2], trusted=new_key(tmp_path / "key.pem"))
    assert versions(repository) == ["1", "2"]
