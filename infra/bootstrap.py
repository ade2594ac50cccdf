"""Sets up what a checkout lacks: environments, Triton, Kafka's jars, the demo's data. Standard library only.

    python3.11 infra/bootstrap.py app triton kafka data     # what `make demo` needs before it can start
    python3.11 infra/bootstrap.py train                     # torch, 3 GB: may run while the demo already moves

Idempotent: a part whose lock file has not changed is skipped. What the machine lacks is said in one line with the
command that mends it. Everything lands inside the checkout: .venv, .triton, .tools.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
TRITON = ROOT / ".triton"
JARS = TOOLS / "kafka"
DEMO_DATA = TOOLS / "demo-data" / "recbole" / "dataset_example" / "ml-100k" / "ml-100k.inter"


class Lacking(Exception):
    """The machine lacks something; the text names it and the command that mends it."""


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


LOOPS = "from streams.recommender import rehearse; rehearse()"


def run(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(
        [str(c) for c in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise Lacking(f"`{' '.join(map(str, command))}` failed ({done.returncode}):\n{done.stdout[-3000:]}")


def stamp(*files: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_done(place: Path, part: str, mark: str) -> bool:
    file = place / f".headrace-{part}"
    return file.exists() and file.read_text() == mark


def set_done(place: Path, part: str, mark: str) -> None:
    (place / f".headrace-{part}").write_text(mark)


def uv() -> str:
    """Path of uv: the one on PATH, else one installed into .tools."""
    found = shutil.which("uv") or str(TOOLS / "uv" / "bin" / "uv")
    if not os.path.exists(found):
        say("uv: installing into .tools/uv")
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--target",
            TOOLS / "uv",
            "uv",
        ]
        try:
            run(*pip)
        except Lacking:
            try:  # Debian's python3.11 without python3-pip: a throw-away environment has its own pip
                run(sys.executable, "-m", "venv", TOOLS / "uv-env")
                run(TOOLS / "uv-env" / "bin" / "python", *pip[1:])
            except Lacking as lacking:
                raise Lacking(f"neither pip nor venv works: apt-get install -y python3.11-venv\n{lacking}") from None
    return found


def environment(place: Path, part: str) -> None:
    """Install locks/<part>.txt (hash-pinned) and this checkout, editable, into the environment at `place`."""
    lock = ROOT / "locks" / f"{part}.txt"
    mark = stamp(lock, ROOT / "pyproject.toml")
    if is_done(place, part, mark):
        return
    tool, started = uv(), time.monotonic()
    size = ", torch: about 3 GB" if part in ("train", "dev") else ""
    say(f"{place.name}: installing {part} ({lock.read_text().count('==')} packages{size}) …")
    if not (place / "bin" / "python").exists():
        run(tool, "venv", "-q", "--python", sys.executable, place)
    python = place / "bin" / "python"
    # Compiled now: where Python may not keep bytecode (PYTHONDONTWRITEBYTECODE), every start of a process would compile for seconds.
    run(tool, "pip", "install", "-q", "--compile-bytecode", "--python", python, "--require-hashes", "-r", lock)
    run(tool, "pip", "install", "-q", "--python", python, "--no-deps", "-e", ROOT)
    set_done(place, part, mark)
    say(f"{place.name}: {part} ready in {time.monotonic() - started:.0f} s")


def app() -> None:
    environment(VENV, "app")


def train() -> None:
    environment(VENV, "train")


def dev() -> None:
    environment(VENV, "dev")


def libpython(python: Path) -> Path | None:
    """Folder of the libpython that belongs to `python`; Triton's stub hangs without a word where there is none."""
    ask = "import sysconfig as s; print(s.get_config_var('LIBDIR')); print(s.get_config_var('INSTSONAME'))"
    folder, name = subprocess.check_output([python, "-c", ask], text=True).split()
    arch = os.uname().machine + "-linux-gnu"
    places = [Path(folder), Path(folder) / arch, TOOLS / "libpython" / "usr" / "lib" / arch]
    return next((place for place in places if (place / name).exists()), None)


def triton() -> None:
    """The environment of Triton's python backend, with the server inside it (nvidia-pytriton)."""
    environment(TRITON, "triton")
    server = triton_server()
    stub = server / "backends" / "python" / "triton_python_backend_stub"
    real = server / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    if not stub.is_symlink():  # a symbolic link, never a copy: its RPATH is relative to where it lies
        stub.unlink(missing_ok=True)
        stub.symlink_to(os.path.relpath(real, stub.parent))
    for program in (real, server / "bin" / "tritonserver"):
        program.chmod(0o755)
    if libpython(TRITON / "bin" / "python") is None:
        say("libpython3.11: unpacking Debian's package into .tools/libpython")
        place = TOOLS / "libpython"
        place.mkdir(parents=True, exist_ok=True)
        try:
            run("sh", "-c", f"cd '{place}' && apt-get download libpython3.11 && dpkg -x libpython3.11_*.deb .")
        except Lacking as lacking:
            raise Lacking(f"no shared libpython3.11: apt-get update && apt-get install -y libpython3.11\n{lacking}") from None
        if libpython(TRITON / "bin" / "python") is None:
            raise Lacking("no shared libpython3.11 for this Python: apt-get install -y libpython3.11 python3.11")
    sources = [file for room in ("learners", "serving", "streams") for file in sorted((ROOT / room).glob("*.py"))]
    mark = stamp(*sources)
    if not is_done(TRITON, "loops", mark):
        say("compiling the loops that make lists (half a minute) …")  # now, and not while a server starts
        run(TRITON / "bin" / "python", "-c", LOOPS)
        set_done(TRITON, "loops", mark)


def triton_server() -> Path:
    """Folder of tritonserver inside the .triton environment."""
    return TRITON / "lib" / "python3.11" / "site-packages" / "pytriton" / "tritonserver"


def kafka() -> None:
    """Apache Kafka's jars, by Maven, into .tools/kafka."""
    if shutil.which("java") is None:
        raise Lacking("Java is missing: apt-get install -y openjdk-17-jre-headless")
    pom = ROOT / "infra" / "kafka" / "pom.xml"
    mark = stamp(pom)
    if is_done(JARS, "kafka", mark):
        return
    if shutil.which("mvn") is None:
        raise Lacking("Maven is missing: apt-get install -y maven")
    started = time.monotonic()
    say("Kafka: fetching 46 jars (44 MB) with Maven …")
    shutil.rmtree(JARS, ignore_errors=True)
    run("mvn", "-B", "-q", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={JARS}")
    set_done(JARS, "kafka", mark)
    say(f"Kafka: ready in {time.monotonic() - started:.0f} s")


def data() -> None:
    """MovieLens 100K, read as a file from a package that carries it; its licence forbids shipping it ourselves."""
    lock = ROOT / "locks" / "demo-data.txt"
    place, mark = TOOLS / "demo-data", stamp(lock)
    if is_done(place, "data", mark):
        return
    say("demo data: MovieLens 100K from the recbole package (2 MB) …")
    shutil.rmtree(place, ignore_errors=True)
    tool = uv()
    run(tool, "pip", "install", "-q", "--python", sys.executable, "--no-deps", "--require-hashes", "--target", place, "-r", lock)
    set_done(place, "data", mark)


PARTS = {"app": app, "train": train, "dev": dev, "triton": triton, "kafka": kafka, "data": data}


def main(parts: list[str]) -> int:
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts or sys.version_info[:2] != (3, 11):
        if sys.version_info[:2] != (3, 11):
            say(f"Python 3.11 is needed (this is {sys.version.split()[0]}): apt-get install -y python3.11 python3.11-venv")
        else:
            say(f"usage: python3.11 infra/bootstrap.py {{{'|'.join(PARTS)}}} …")
        return 2
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / "lock", "w") as lock:  # `make demo` and `make test` side by side wait for each other
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            for part in parts:
                PARTS[part]()
        except Lacking as lacking:
            say(str(lacking))
            return 1
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
