"""The house: every room is shipped, no room's door imports anything, and nobody carries what it must not."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ["streams", "learners", "serving", "feedback", "infra"]


def test_every_room_is_shipped_and_its_door_is_empty() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == sorted(ROOMS)
    for room in ROOMS:
        assert (ROOT / room / "__init__.py").read_text() == ""


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("streams.worker", "torch"),
        ("streams.trainer", "faust"),
        ("streams.trainer", "torch"),
        ("infra.cli", "torch"),
        ("infra.cli", "faust"),
    ],
)
def test_a_process_starts_without_what_only_another_needs(module: str, heavy: str) -> None:
    code = f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.skipif(not (ROOT / ".triton" / "bin" / "python").exists(), reason="no .triton environment: make setup")
def test_what_triton_imports_runs_there_without_river_torch_or_faust() -> None:
    code = (
        "import sys, numpy, streams.recommender, serving.bundle, infra.settings;"
        "assert numpy.__version__.startswith('1.26'), numpy.__version__;"
        "assert not {'river', 'torch', 'faust', 'aiokafka'} & sys.modules.keys()"
    )
    subprocess.run([ROOT / ".triton" / "bin" / "python", "-I", "-c", code], check=True, timeout=60)


def test_nothing_of_ours_runs_what_it_reads() -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for file in (file for room in (*ROOMS, "bench") for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {getattr(node, "module", None) or "", *(alias.name for alias in node.names)}
                assert not {name.split(".")[0] for name in names} & forbidden, f"{file}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "torch.load", "eval", "exec"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                safe = {"np.load": given.get("allow_pickle", "False") == "False", "torch.load": given.get("weights_only") == "True"}
                assert safe.get(ast.unparse(node.func), False), f"{file}:{node.lineno}"


def test_no_address_of_a_registry_and_no_path_of_a_machine_is_committed() -> None:
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split() if (ROOT / ".git").exists() else []
    for name in tracked:
        file = ROOT / name
        if (
            file.suffix in (".py", ".md", ".toml", ".txt", ".yml", ".sh", ".xml", ".pbtxt")
            and file.exists()
            and name != "tests/test_house.py"
        ):
            text = file.read_text()
            for word in ("pypi.org", "pythonhosted", "repo.maven", "/work/", "/root/"):
                assert word not in text, f"{name} holds {word}"
