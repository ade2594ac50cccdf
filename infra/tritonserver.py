"""The local Triton: the server of the nvidia-pytriton wheel, on loopback, with a model repository of its own."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from infra.bootstrap import TRITON, libpython, triton_server
from infra.ports import HOST, free_ports

RESTRICTED = "model-repository,model-config,shared-memory,trace,logging"
MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class TritonServer:
    """A server's model repository and ports. Everybody may ask for answers; its other APIs are closed by a key, new at each start."""

    repository: Path
    http: int
    grpc: int
    metrics: int

    @staticmethod
    def prepare(repository: Path) -> TritonServer:
        """Put `recommend` into the repository; bundles come beside it, in `sequence`."""
        place = repository / "recommend"
        (place / "1").mkdir(parents=True, exist_ok=True)
        shutil.copy(MODELS / "recommend" / "config.pbtxt", place / "config.pbtxt")
        shutil.copy(MODELS / "recommend" / "model.py", place / "1" / "model.py")
        http, grpc, metrics = free_ports(3)
        return TritonServer(repository, http, grpc, metrics)

    @property
    def url(self) -> str:
        return f"{HOST}:{self.grpc}"

    def command(self) -> list[str]:
        server, key = triton_server(), secrets.token_hex(16)
        return [
            str(server / "bin" / "tritonserver"),
            f"--id=headrace-{self.grpc}",
            f"--model-repository={self.repository}",
            f"--backend-directory={server / 'backends'}",
            f"--cache-directory={server / 'caches'}",
            "--model-control-mode=explicit",
            "--load-model=recommend",
            "--disable-auto-complete-config",
            "--strict-readiness=false",
            "--exit-timeout-secs=2",
            "--allow-gpu-metrics=false",
            "--allow-sagemaker=false",
            "--allow-vertex-ai=false",
            f"--http-address={HOST}",
            f"--http-port={self.http}",
            f"--grpc-address={HOST}",
            f"--grpc-port={self.grpc}",
            f"--metrics-address={HOST}",
            f"--metrics-port={self.metrics}",
            f"--http-restricted-api={RESTRICTED}:admin={key}",
            f"--grpc-restricted-protocol={RESTRICTED}:admin={key}",
        ]

    def environment(self) -> dict[str, str]:
        """One thread a stub: two threads of OpenMP beside other load were 10 to 160 times slower."""
        place = libpython(TRITON / "bin" / "python")
        if place is None:
            raise RuntimeError("no shared libpython3.11, Triton would hang: make setup, or apt-get install -y libpython3.11")
        return {
            "PATH": f"{TRITON / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(place),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def sweep(self) -> None:
        """Remove the shared memory that stubs of dead servers left behind: nobody has it open."""
        for region in Path("/dev/shm").glob("triton_python_backend_shm_region_*"):
            if not _is_open(region):
                region.unlink(missing_ok=True)


def _is_open(file: Path) -> bool:
    name = str(file)
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if name in maps.read_text():
                return True
        except OSError:
            continue
    return False
