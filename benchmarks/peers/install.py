"""Installs other model servers, each in an environment of its own, outside the repository.

    python -m benchmarks.peers.install [NAME...]

They go to $TUILI_PEERS (default ~/.cache/tuili-peers). Triton comes as the binary inside the
`nvidia-pytriton` wheel, which has no C++ back ends; its own open-source identity and onnxruntime
back ends are compiled here from their sources of October 2024 (g++, rapidjson-dev, npm, a minute).
$TRITON_SOURCES names a folder with clones of the repositories, else GitHub is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(os.environ.get("TUILI_PEERS", "~/.cache/tuili-peers")).expanduser()
PACKAGES = {
    "triton": ["nvidia-pytriton==0.7.0", "numpy<2", "onnxruntime"],
    "mosec": ["mosec", "onnxruntime"],
    "mlserver": ["mlserver", "onnxruntime"],
    "litserve": ["litserve", "onnxruntime"],
    "kserve": ["kserve", "onnxruntime"],
    "bentoml": ["bentoml", "onnxruntime"],
}
GITHUB = "https://github.com/triton-inference-server"
SOURCES = ("backend", "core", "common", "identity_backend", "onnxruntime_backend")
OF = "2024-10-31"  # when the binary of the wheel was built
HEADERS = (
    "http://deb.debian.org/debian/pool/main/o/onnxruntime/"
    "libonnxruntime-dev_1.21.0%2bdfsg-1_amd64.deb"
)
LIBRARY = "onnxruntime-node@1.21.0"
LIBRARY_AT = "package/bin/napi-v3/linux/x64"


def python(name: str) -> Path:
    """The interpreter of a peer's environment."""
    return ROOT / name / "bin" / "python"


def tritonserver() -> Path:
    """The folder of Triton's binary."""
    return next((ROOT / "triton/lib").glob("python3.*/site-packages/pytriton/tritonserver"))


def native_backends() -> Path:
    """The folder of Triton's C++ back ends, compiled here."""
    return ROOT / "native"


def install(name: str) -> None:
    """One peer."""
    if not python(name).exists():
        run(sys.executable, "-m", "venv", str(ROOT / name))
    run(str(python(name)), "-m", "pip", "install", "-q", *PACKAGES[name])
    if name == "triton":
        build_backends()


def build_backends() -> None:
    """Compile Triton's C++ back ends."""
    source, out, library = ROOT / "src", native_backends(), ROOT / "ort"
    for repository in SOURCES:
        if not (source / repository).exists():
            fetch(repository, source / repository)
    if not (library / "libonnxruntime.so.1").exists():
        fetch_onnxruntime(library)
    include = [f"-I{source / name}/include" for name in ("backend", "core", "common")]
    strip_demonstration(source / "identity_backend/src/identity.cc")
    shared = [str(path) for path in sorted((source / "backend/src").glob("backend_*.cc"))]
    work = ("async_work_queue", "error", "thread_pool")
    shared += [str(source / f"common/src/{name}.cc") for name in work]
    flags = ["g++", "-std=c++17", "-O2", "-fPIC", "-shared", "-lpthread", *include]
    for name, files, more in (
        ("identity", [source / "identity_backend/src/identity.cc"], []),
        (
            "onnxruntime",
            sorted((source / "onnxruntime_backend/src").glob("*.cc")),
            [f"-I{library}/usr/include/onnxruntime", f"-L{library}", "-l:libonnxruntime.so.1",
             "-Wl,-rpath,$ORIGIN"],
        ),
    ):  # fmt: skip
        target = out / name / f"libtriton_{name}.so"
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        run(*flags, *map(str, files), *shared, *more, "-o", str(target))
    shutil.copy(library / "libonnxruntime.so.1", out / "onnxruntime")


def strip_demonstration(path: Path) -> None:
    """Without the four parameters that identity adds to every answer to show that it can."""
    text = path.read_text()
    start = text.find("    // To demonstrate response parameters")
    if start >= 0:
        stop = text.index('"failed setting double parameter");', start)
        path.write_text(text[:start] + text[text.index("\n", stop) :])


def fetch(repository: str, folder: Path) -> None:
    """A repository's files as they were."""
    given = os.environ.get("TRITON_SOURCES")
    clone = Path(given) / repository if given else ROOT / "git" / repository
    if not clone.exists():
        run("git", "clone", "-q", "--bare", f"{GITHUB}/{repository}", str(clone))
    git = ["git", "-C", str(clone)]
    commit = subprocess.run(
        [*git, "rev-list", "-1", f"--before={OF}", "HEAD"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    folder.mkdir(parents=True)
    files = subprocess.run([*git, "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=files, check=True)


def fetch_onnxruntime(folder: Path) -> None:
    """ONNX Runtime's C library (from npm) and its headers (from Debian)."""
    folder.mkdir(parents=True, exist_ok=True)
    package = folder / "headers.deb"
    urllib.request.urlretrieve(HEADERS, package)
    run("dpkg-deb", "-x", str(package), str(folder))
    run("npm", "pack", "--silent", LIBRARY, cwd=folder)
    run("tar", "xzf", "onnxruntime-node-1.21.0.tgz", LIBRARY_AT, cwd=folder)
    shutil.copy(folder / LIBRARY_AT / "libonnxruntime.so.1", folder)


def run(*command: str, cwd: Path | None = None) -> None:
    """Run and say so."""
    print("+", *command[:6], *(["..."] if len(command) > 6 else []), flush=True)
    subprocess.run(command, check=True, cwd=cwd)


if __name__ == "__main__":
    for each in sys.argv[1:] or PACKAGES:
        install(each)
