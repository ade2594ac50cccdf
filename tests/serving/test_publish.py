"""Publishing where nothing comes of it: what served before still would."""

from pathlib import Path

import pytest

from serving.bundle import Corrupt, seal
from serving.publish import NotPublished, publish

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
def staged(tmp_path: Path) -> Path:
    made = tmp_path / "staging" / "3-x"
    made.mkdir(parents=True)
    (made / "model.onnx").write_text("3")
    seal(made)
    return made


def versions(repository: Path) -> list[str]:
    return sorted(p.name for p in (repository / "sequence").iterdir() if p.name.isdigit())


def test_a_corrupt_bundle_never_reaches_the_repository(staged: Path, repository: Path, templates: Path) -> None:
    (staged / "model.onnx").write_text("other")
    with pytest.raises(Corrupt):
        publish(staged, repository, templates, NOBODY, 3, [1, 2])
    assert versions(repository) == ["1", "2"]
    assert not (repository / "sequence" / "config.pbtxt").exists()


def test_a_version_that_nobody_loads_is_taken_back_and_the_policy_names_those_before(
    staged: Path, repository: Path, templates: Path
) -> None:
    with pytest.raises(NotPublished, match="version 3"):
        publish(staged, repository, templates, NOBODY, 3, [2, 1], timeout_s=5)
    assert versions(repository) == ["1", "2"]
    for name, backend in (("config.pbtxt", "onnxruntime"), ("configs/wheel.pbtxt", "python")):
        text = (repository / "sequence" / name).read_text()
        assert text == f'backend: "{backend}"\nversion_policy {{ specific {{ versions: [ 1, 2 ] }} }}\n'
    assert not list((repository / "sequence").rglob("*.new"))
    assert (repository / "sequence" / "2" / "model.onnx").read_text() == "2"
