"""Streams, sequences and ensembles through stock clients."""

import queue

import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, serving
from tests.server.test_decoupled import CONFIG as DECOUPLED
from tests.server.test_decoupled import PLAIN
from tests.server.test_ensemble import TWO_STEPS
from tests.server.test_stateful import CONFIG as STATEFUL
from tests.server.test_stateful import MODEL

grpc = pytest.importorskip("tritonclient.grpc")
http = pytest.importorskip("tritonclient.http")


def add_python(repository, name, config, source):
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    (folder.parent / "config.pbtxt").write_text(config)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("streams")
    add_python(root, "several", DECOUPLED, PLAIN)
    add_python(root, "sums", STATEFUL, MODEL)
    for name in "ab":
        add_identity(root, name)
    (root / "e" / "1").mkdir(parents=True)
    (root / "e" / "config.pbtxt").write_text(TWO_STEPS)
    with serving(root) as running:
        assert set(running.models) == {"several", "sums", "a", "b", "e"}
        yield running


def tensor(library, name, array, datatype):
    found = library.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def test_a_decoupled_model_over_a_grpc_stream(server):
    answers = queue.Queue()
    with grpc.InferenceServerClient(server.url("grpc")) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        n = tensor(grpc, "n", np.array([5], np.int32), "INT32")
        client.async_stream_infer("several", [n], enable_empty_final_response=True)
        found = []
        while True:
            result, error = answers.get(timeout=10)
            assert error is None
            response = result.get_response()
            if response.parameters["triton_final_response"].bool_param:
                break
            found.append(int(result.as_numpy("y")[0]))
        client.stop_stream()
    assert found == [0, 1, 2, 3, 4]


def test_unary_requests_to_a_decoupled_model_are_refused(server):
    with grpc.InferenceServerClient(server.url("grpc")) as client:
        n = tensor(grpc, "n", np.array([5], np.int32), "INT32")
        with pytest.raises(Exception, match="decoupled"):
            client.infer("several", [n])


@pytest.mark.parametrize("library", [http, grpc], ids=["http", "grpc"])
def test_interleaved_sequences(server, library):
    name = "http" if library is http else "grpc"
    with library.InferenceServerClient(server.url(name)) as client:
        sums = dict.fromkeys((1001, 1002, 1003), 0.0)
        for step in range(4):
            for at in tuple(sums):
                x = tensor(library, "x", np.array([[at + step]], np.float32), "FP32")
                found = client.infer(
                    "sums", [x], sequence_id=at, sequence_start=step == 0, sequence_end=step == 3
                )
                sums[at] += at + step
                assert found.as_numpy("sum").item() == sums[at]


@pytest.mark.parametrize("library", [http, grpc], ids=["http", "grpc"])
def test_an_ensemble(server, library):
    name = "http" if library is http else "grpc"
    with library.InferenceServerClient(server.url(name)) as client:
        x = np.arange(4, dtype=np.float32).reshape(2, 2)
        found = client.infer("e", [tensor(library, "IN", x, "FP32")])
        np.testing.assert_array_equal(found.as_numpy("OUT"), x)
        np.testing.assert_array_equal(found.as_numpy("MID"), x)
