"""A real Triton to compare with: the server inside the `nvidia-pytriton` wheel, fetched once.

The wheel holds `tritonserver` 2.51.0 with its Python back end, ensembles and the local cache; it
needs no GPU. It lies in `$TUILI_ORACLE` (default `~/.cache/tuili-oracle`), outside the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

WHEEL = "nvidia-pytriton==0.7.0"
_NEEDS = "numpy<2"  # the Python back end of that Triton was built for it


def home() -> Path:
    """Where the oracle lies."""
    return Path(os.environ.get("TUILI_ORACLE", "~/.cache/tuili-oracle")).expanduser()


def fetched() -> Path:
    """The unpacked wheel, a Python environment and the back ends, made on the first call."""
    folder = home()
    ready = folder / ".ready"
    if ready.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip"]
    command = [*pip, "download", "--quiet", "--no-deps", WHEEL, "--dest", str(folder)]
    subprocess.run(command, check=True)
    wheel = next(folder.glob("nvidia_pytriton-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    venv.create(folder / "python", with_pip=True, clear=True)
    python = folder / "python" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", _NEEDS], check=True)
    packed = folder / "wheel" / "pytriton" / "tritonserver"
    shutil.copytree(packed / "backends", folder / "backends", dirs_exist_ok=True)
    stub = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub_file = packed / "python_backend_stubs" / stub / "triton_python_backend_stub"
    shutil.copy(stub_file, folder / "backends" / "python")
    (folder / "backends" / "python" / stub_file.name).chmod(0o755)
    (packed / "bin" / "tritonserver").chmod(0o755)
    ready.touch()
    return folder


def command(repository: Path, ports: dict[str, int], arguments: list[str]) -> list[str]:
    """The command line of a Triton that serves `repository` on these ports."""
    folder = fetched()
    packed = folder / "wheel" / "pytriton" / "tritonserver"
    return [
        str(packed / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={folder / 'backends'}",
        f"--cache-directory={packed / 'caches'}",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        f"--http-port={ports['http']}",
        f"--grpc-port={ports['grpc']}",
        f"--metrics-port={ports['metrics']}",
        *arguments,
    ]


def environment() -> dict[str, str]:
    """What the process needs around it: the wheel's libraries, our interpreter's and its NumPy."""
    folder = fetched()
    libraries = [str(folder / "wheel" / "nvidia_pytriton.libs")]
    libraries.append(str(sysconfig.get_config_var("LIBDIR")))
    site = next((folder / "python" / "lib").glob("python3.*/site-packages"))
    # The stub ignores PYTHONPATH but finds the environment by the interpreter on the path.
    path = f"{folder / 'python' / 'bin'}:{os.environ['PATH']}"
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PATH": path,
        "PYTHONPATH": str(site),
        "PYTHONHOME": sys.base_prefix,
    }
