"""Where Triton's own tests and client examples lie; they are fetched by whoever runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HOW = """\
Triton's own tests are not part of this repository. Get them beside it and say where they are:
  git clone --depth 1 https://github.com/triton-inference-server/server ../triton-server
  git clone --depth 1 https://github.com/triton-inference-server/client ../triton-client
  make conformance-triton TRITON_QA=../triton-server TRITON_CLIENT=../triton-client\
"""
# Generators of the ONNX models, and the folder of what each makes: they need onnx and NumPy only.
_GENERATORS = {
    "qa_model_repository": ("gen_qa_models.py",),
    "qa_variable_model_repository": ("gen_qa_models.py", "--variable"),
    "qa_identity_model_repository": ("gen_qa_identity_models.py",),
    "qa_reshape_model_repository": ("gen_qa_reshape_models.py",),
    "qa_sequence_model_repository": ("gen_qa_sequence_models.py",),
    "qa_dyna_sequence_model_repository": ("gen_qa_dyna_sequence_models.py",),
    "qa_sequence_implicit_model_repository": ("gen_qa_implicit_models.py",),
    "qa_dyna_sequence_implicit_model_repository": ("gen_qa_dyna_sequence_implicit_models.py",),
    "qa_ragged_model_repository": ("gen_qa_ragged_models.py",),
    "qa_ensemble_model_repository": ("gen_qa_models.py", "--ensemble"),
    "qa_identity_ensemble_repository": ("gen_qa_identity_models.py", "--ensemble"),
    "qa_reshape_ensemble_repository": ("gen_qa_reshape_models.py", "--ensemble"),
}


class Missing(Exception):
    """The sources are not there."""


def server() -> Path:
    """The checkout of triton-inference-server/server."""
    return _checkout("TRITON_QA", "qa/common/test_util.py")


def client() -> Path:
    """The checkout of triton-inference-server/client."""
    return _checkout("TRITON_CLIENT", "src/python/examples/simple_grpc_infer_client.py")


def _checkout(variable: str, proof: str) -> Path:
    value = os.environ.get(variable, "")
    path = Path(value).expanduser().resolve()
    if not value or not (path / proof).is_file():
        raise Missing(f"{variable}={value!r} does not hold {proof}\n{HOW}")
    return path


def generated(name: str) -> Path:
    """A folder of generated models, made on the first call."""
    cache = Path(os.environ.get("TUILI_ORACLE", "~/.cache/tuili-oracle")).expanduser()
    folder = cache / "qa" / name
    if not folder.exists():
        script, *arguments = _GENERATORS[name]
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder.parent))
        unfinished.chmod(0o755)
        where = server() / "qa" / "common"
        line = [sys.executable, script, *arguments, "--onnx_opset=0"]
        if "--ensemble" not in arguments:
            line.append("--onnx")
        line.append(f"--models_dir={unfinished}")
        subprocess.run(line, cwd=where, check=True, stdout=subprocess.DEVNULL)
        try:
            unfinished.rename(folder)
        except OSError:  # Rows that ran beside this one have made it meanwhile.
            shutil.rmtree(unfinished)
            assert folder.is_dir()
    return folder
