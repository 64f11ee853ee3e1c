"""Python models that declare no inputs, or nothing at all."""

import numpy as np
import pytest

from tests.server.test_dataplane import add, infer, run
from tuili.errors import InvalidArgument
from tuili.server.protocol.messages import InferRequest, InputTensor

OUTPUT = 'backend: "python"\noutput { name: "y" data_type: TYPE_INT32 dims: [ 1 ] }\n'
IN_PROCESS = 'parameters { key: "isolation" value: { string_value: "none" } }'
COUNTING = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        shape = (1, 1) if BATCHED else (1,)
        tensor = pb_utils.Tensor("y", np.full(shape, len(requests), np.int32))
        return [pb_utils.InferenceResponse([tensor]) for _ in requests]
"""


@pytest.mark.parametrize("rows", [0, 4])
@pytest.mark.parametrize("extra", ["", IN_PROCESS], ids=["host", "inside"])
def test_a_model_without_inputs_answers(tmp_path, extra, rows):
    add(tmp_path, "m", 1, config=f"{OUTPUT}max_batch_size: {rows}\n{extra}")
    code = COUNTING.replace("BATCHED", str(rows > 0))
    (tmp_path / "m" / "1" / "model.py").write_text(code)

    async def scenario(dataplane):
        answer = await infer(dataplane, InferRequest("m", []))
        assert answer.outputs[0].data.item() == 1

    run(tmp_path, scenario)


def test_a_model_that_declares_nothing_is_ready_and_takes_nothing(tmp_path):
    add(tmp_path, "m", 1, config="")
    (tmp_path / "m" / "config.pbtxt").unlink()
    (tmp_path / "m" / "1" / "model.py").write_text(COUNTING)

    async def scenario(dataplane):
        assert dataplane.model_ready("m")
        assert dataplane.model_metadata("m")["inputs"] == []
        tensor = InputTensor("x", "FP32", (1,), np.zeros(1, np.float32))
        with pytest.raises(InvalidArgument, match="expected 0 inputs"):
            await infer(dataplane, InferRequest("m", [tensor]))

    run(tmp_path, scenario)
