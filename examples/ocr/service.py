"""The three networks as a model repository, behind a `tuili serve` of our own."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import tuili
from benchmarks.fetch import cache_dir, locked, package_files
from examples.ocr.reader import Infer
from examples.ocr.recognition import character_list

NETWORKS = {
    "det": "ch_PP-OCRv4_det_infer.onnx",
    "cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "rec": "ch_PP-OCRv4_rec_infer.onnx",
}
START_TIMEOUT_S = 60.0


def network_file(name: str) -> Path:
    """The ONNX file of one of the networks, fetched at the first call."""
    return next(package_files("rapidocr-onnxruntime", "1.4.4").rglob(NETWORKS[name]))


def characters() -> list[str]:
    """What the reader's output symbols mean: written in its model file."""
    return character_list(_metadata()["character"])


def _metadata() -> dict[str, str]:
    import onnx

    model = onnx.load(network_file("rec"))
    return {entry.key: entry.value for entry in model.metadata_props}


def build_repository(say: Callable[[str], None]) -> Path:
    """A model repository with the compiled networks; what is there already is kept."""
    with locked("ocr-repository") as cache:
        repository = cache / f"ocr-repository-{_fingerprint()}"
        missing = [name for name in NETWORKS if not _artifact(repository, name).exists()]
        with ThreadPoolExecutor(max_workers=2) as pool:
            for name, seconds in pool.map(lambda name: _compile(repository, name), missing):
                say(f"compiled {name} in {seconds:.1f} s")
        _add_pipeline(repository)
    return repository


def _add_pipeline(repository: Path) -> None:
    """The pipeline `ocr` over the networks: a version folder that holds all it needs."""
    folder = repository / "ocr" / "1"
    (folder / "examples" / "ocr").mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parent
    for name in ("pipeline.yaml", "steps.py"):
        shutil.copy(here / "pipeline" / name, folder)
    for name in ("detection.py", "geometry.py", "recognition.py"):
        shutil.copy(here / name, folder / "examples" / "ocr")
    (folder / "characters.txt").write_text(_metadata()["character"], encoding="utf-8")


def _fingerprint() -> str:
    """Changes with the sources of tuili, so that a changed compiler is used at once."""
    digest = hashlib.sha256()
    folder = Path(tuili.__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".py", ".c", ".h"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _artifact(repository: Path, name: str) -> Path:
    return repository / name / "1" / "model.tuili"


def _compile(repository: Path, name: str) -> tuple[str, float]:
    start = time.perf_counter()
    artifact = _artifact(repository, name)
    artifact.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tuili", "compile", network_file(name), "-o", artifact]
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"could not compile {name}:\n{done.stdout}{done.stderr}")
    return name, time.perf_counter() - start


@contextmanager
def served(repository: Path, threads: int = 2) -> Generator[str]:
    """Runs `tuili serve` on the repository; yields its HTTP address once it is ready."""
    port = _free_port()
    options = ["--http-port", str(port), "--grpc-port", "-1", "--metrics-port", "-1"]
    command = [sys.executable, "-m", "tuili", "serve", str(repository), *options]
    log = cache_dir() / "ocr-server.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*command, "--threads", str(threads)], stdout=output, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            _wait_until_ready(server, f"127.0.0.1:{port}", log)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    import tritonclient.http as client

    deadline = time.monotonic() + START_TIMEOUT_S
    with client.InferenceServerClient(address) as probe:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise RuntimeError(f"the server stopped:\n{log.read_text()}")
            try:
                if probe.is_server_ready():
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.05)
    raise RuntimeError(f"the server was not ready after {START_TIMEOUT_S:.0f} s; see {log}")


@contextmanager
def remote(address: str) -> Generator[Infer]:
    """The networks behind a KServe v2 server, called with the stock client."""
    import tritonclient.http as client

    with client.InferenceServerClient(address, network_timeout=60) as connection:
        ends = {name: connection.get_model_metadata(name) for name in NETWORKS}

        def infer(name: str, pixels: np.ndarray) -> np.ndarray:
            tensor = client.InferInput(ends[name]["inputs"][0]["name"], list(pixels.shape), "FP32")
            tensor.set_data_from_numpy(pixels)
            answer = connection.infer(name, [tensor])
            found = answer.as_numpy(ends[name]["outputs"][0]["name"])
            assert found is not None
            return found

        yield infer
