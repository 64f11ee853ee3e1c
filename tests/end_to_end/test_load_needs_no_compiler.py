"""A compiled model is loaded and run by a process that could not compile anything."""

import subprocess
import sys

import onnx
import pytest

import tuili

NET = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }"""

# Any attempt to start a process is an error, and so is importing what compiles.
SCRIPT = """
import sys

def refuse(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.system"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
import numpy as np
import tuili.runtime

model = tuili.runtime.load(sys.argv[1])
answer = model.run({"x": np.array([[-1, 0, 2]], np.float32)})
assert answer["y"].tolist() == [[0, 0, 2]]
assert not [name for name in sys.modules if name.startswith(("tuili.codegen", "tuili.ir", "onnx"))]
"""


@pytest.mark.parametrize("name", ["net.tuili", "net.tuiliz"])
def test_loading_starts_no_process_and_imports_no_compiler(tmp_path, name):
    artifact = tuili.compile(onnx.parser.parse_model(NET), tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, artifact.path],
        env={"PATH": "", "CC": "/nonexistent/cc"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
