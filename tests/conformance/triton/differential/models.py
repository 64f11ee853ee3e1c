"""The models that both servers serve: small Python ones, written here as text."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

_HEAD = """
import json
import time
import numpy as np
import triton_python_backend_utils as pb_utils
"""

ADD_SUB = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            b = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
            responses.append(pb_utils.InferenceResponse([
                pb_utils.Tensor("OUTPUT0", a + b), pb_utils.Tensor("OUTPUT1", a - b)]))
        return responses
"""

# Gives back whatever inputs came, under the outputs' names.
ECHO = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            outputs = [
                pb_utils.Tensor(tensor.name().replace("IN", "OUT", 1), tensor.as_numpy())
                for tensor in request.inputs()
            ]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""

ACCUMULATE = """
class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        responses = []
        for request in requests:
            def read(name):
                return pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0]
            value, start, end, ident = read("INPUT"), read("START"), read("END"), int(read("CORRID"))
            total = value if start else self.sums.get(ident, 0) + value
            self.sums[ident] = total
            output = np.array([[total]], np.int32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", output)]))
        return responses
"""

REPEAT = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            count = int(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().reshape(-1)[0])
            if count < 0:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("negative count")))
            for at in range(count):
                tensor = pb_utils.Tensor("OUT", np.array([at], np.int32))
                sender.send(pb_utils.InferenceResponse([tensor]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""

# Fails as its input says: 0 not at all, 1..7 with that code, 8 by an exception.
FAILS = """
class TritonPythonModel:
    def execute(self, requests):
        codes = [None, pb_utils.TritonError.UNKNOWN, pb_utils.TritonError.INTERNAL,
                 pb_utils.TritonError.NOT_FOUND, pb_utils.TritonError.INVALID_ARG,
                 pb_utils.TritonError.UNAVAILABLE, pb_utils.TritonError.UNSUPPORTED,
                 pb_utils.TritonError.ALREADY_EXISTS]
        responses = []
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            how = int(value.reshape(-1)[0])
            if how == 8:
                raise ValueError("as asked for")
            tensor = pb_utils.Tensor("OUT", value)
            if how:
                error = pb_utils.TritonError("failed as asked for", codes[how])
                responses.append(pb_utils.InferenceResponse(error=error))
            else:
                responses.append(pb_utils.InferenceResponse([tensor]))
        return responses
"""

# Sleeps as many milliseconds as its input says.
SLOW = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            time.sleep(int(value.reshape(-1)[0]) / 1000)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value)]))
        return responses
"""

GENERATE = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            prompt = pb_utils.get_input_tensor_by_name(request, "PROMPT").as_numpy().reshape(-1)[0]
            count = pb_utils.get_input_tensor_by_name(request, "REPETITION")
            count = 1 if count is None else int(count.as_numpy().reshape(-1)[0])
            parameters = json.loads(request.parameters())
            for _ in range(count):
                text = np.array([prompt + json.dumps(parameters, sort_keys=True).encode()], object)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", text)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""

# What a request told the model beside its tensors.
TELLS = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            told = json.dumps({
                "id": request.request_id(),
                "correlation": request.correlation_id(),
                "wanted": sorted(request.requested_output_names()),
                "parameters": json.loads(request.parameters()),
            }, sort_keys=True)
            text = pb_utils.Tensor("TOLD", np.array([[told.encode()]], object))
            responses.append(pb_utils.InferenceResponse([text]))
        return responses
"""

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip


def tensors(kind: str, entries: list[tuple[str, str, str]], extra: str = "") -> str:
    """A list of inputs or outputs: (name, datatype, dims)."""
    rows = [
        f'{{ name: "{name}" data_type: TYPE_{datatype.replace("BYTES", "STRING")} '
        f"dims: [ {dims} ] {extra} }}"
        for name, datatype, dims in entries
    ]
    return f"{kind} [ {', '.join(rows)} ]\n"


def _simple(
    batch: int, inputs: list[tuple[str, str, str]], outputs: list[tuple[str, str, str]]
) -> str:
    return (
        f'backend: "python"\nmax_batch_size: {batch}\n'
        + tensors("input", inputs)
        + tensors("output", outputs)
        + "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    )


_PAIR = [("INPUT0", "INT32", "16"), ("INPUT1", "INT32", "16")]
_SUMS = [("OUTPUT0", "INT32", "16"), ("OUTPUT1", "INT32", "16")]
_ONE = [("IN", "INT32", "1")]
_BACK = [("OUT", "INT32", "1")]

_EVERYTHING = (
    'backend: "python"\nmax_batch_size: 0\n'
    + tensors("input", [(f"IN_{kind}", kind, "-1") for kind in DATATYPES], "optional: true")
    + tensors("output", [(f"OUT_{kind}", kind, "-1") for kind in DATATYPES])
    + "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
)
_LABELED = _simple(8, _PAIR, _SUMS).replace(
    'name: "OUTPUT0"', 'name: "OUTPUT0" label_filename: "labels.txt"'
)
_SEQUENCE = _simple(4, [("INPUT", "INT32", "1")], [("OUTPUT", "INT32", "1")]) + dedent("""
    sequence_batching {
      max_sequence_idle_microseconds: 5000000
      control_input [
        { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
        { name: "END" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } ] },
        { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } ] },
        { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
      ]
    }
    """)
_QUEUED = _simple(1, _ONE, _BACK) + dedent("""
    dynamic_batching {
      default_queue_policy {
        default_timeout_microseconds: 0 allow_timeout_override: true max_queue_size: 2
      }
    }
    """)
_ENSEMBLE = (
    'platform: "ensemble"\nmax_batch_size: 8\n'
    + tensors("input", _PAIR)
    + tensors("output", _SUMS)
    + dedent("""
    ensemble_scheduling { step [
      { model_name: "add_sub" model_version: -1
        input_map { key: "INPUT0" value: "INPUT0" } input_map { key: "INPUT1" value: "INPUT1" }
        output_map { key: "OUTPUT0" value: "sum" } output_map { key: "OUTPUT1" value: "gap" } },
      { model_name: "add_sub" model_version: -1
        input_map { key: "INPUT0" value: "sum" } input_map { key: "INPUT1" value: "gap" }
        output_map { key: "OUTPUT0" value: "OUTPUT0" } output_map { key: "OUTPUT1" value: "OUTPUT1" } }
    ] }
    """)
)
_DECOUPLED = "model_transaction_policy { decoupled: true }\n"

# name: (configuration, code)
MODELS: dict[str, tuple[str, str]] = {
    "add_sub": (_LABELED, ADD_SUB),
    "everything": (_EVERYTHING, ECHO),
    "matrix": (_simple(0, [("IN", "FP32", "2, 3")], [("OUT", "FP32", "2, 3")]), ECHO),
    "rows": (_simple(4, [("IN", "FP32", "-1, 2")], [("OUT", "FP32", "-1, 2")]), ECHO),
    "text": (_simple(8, [("IN", "BYTES", "1")], [("OUT", "BYTES", "1")]), ECHO),
    "scores": (
        _simple(4, [("IN", "FP32", "4")], [("OUT", "FP32", "4")]).replace(
            'name: "OUT"', 'name: "OUT" label_filename: "labels.txt"'
        ),
        ECHO,
    ),
    "accumulate": (_SEQUENCE, ACCUMULATE),
    "repeat": (_simple(0, _ONE, _BACK) + _DECOUPLED, REPEAT),
    "fails": (_simple(4, _ONE, _BACK), FAILS),
    "slow": (_QUEUED, SLOW),
    "writer": (
        'backend: "python"\nmax_batch_size: 0\n'
        + tensors("input", [("PROMPT", "BYTES", "1")])
        + tensors("input", [("REPETITION", "INT32", "1")], "optional: true")
        + tensors("output", [("TEXT", "BYTES", "-1")])
        + _DECOUPLED,
        GENERATE,
    ),
    "tells": (_simple(4, [("IN", "INT32", "1")], [("TOLD", "BYTES", "1")]), TELLS),
    "reshaped": (
        _simple(2, _ONE, _BACK).replace("dims: [ 1 ]", "dims: [ 1 ] reshape { shape: [ ] }"),
        ECHO,
    ),
    "ensemble": (_ENSEMBLE, ""),
    "spare": (_simple(8, _PAIR, _SUMS), ADD_SUB),
    "versions": (
        _simple(8, _PAIR, _SUMS) + "version_policy: { specific { versions: [ 1, 3 ] } }\n",
        ADD_SUB,
    ),
    "broken": (_simple(8, _PAIR, _SUMS), "raise ValueError('cannot be imported')\n"),
    "unloadable": (_simple(8, _PAIR, _SUMS) + "no_such_field: 1\n", ADD_SUB),
}
LOADED = [name for name in MODELS if name not in ("spare", "broken", "unloadable")]


def write(repository: Path) -> None:
    """Write all models below `repository`."""
    for name, (configuration, code) in MODELS.items():
        folder = repository / name
        for version in (1, 2, 3) if name == "versions" else (1,):
            (folder / str(version)).mkdir(parents=True)
            if code:
                (folder / str(version) / "model.py").write_text(_HEAD + code)
        (folder / "config.pbtxt").write_text(f'name: "{name}"\n{configuration}')
        if "labels.txt" in configuration:
            count = 16 if name == "add_sub" else 4
            (folder / "labels.txt").write_text("".join(f"label {at}\n" for at in range(count)))
