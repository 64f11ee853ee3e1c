"""Stock tritonclients against `tuili serve`: the same table over HTTP and gRPC."""

import asyncio
import importlib
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, add_onnx, mlp, one_node, serving

pytest.importorskip("tritonclient")
ort = pytest.importorskip("onnxruntime")

DTYPES = {
    "fp32": ("FLOAT", np.float32, "FP32"),
    "fp64": ("DOUBLE", np.float64, "FP64"),
    "fp16": ("FLOAT16", np.float16, "FP16"),
    "int8": ("INT8", np.int8, "INT8"),
    "int64": ("INT64", np.int64, "INT64"),
    "uint16": ("UINT16", np.uint16, "UINT16"),
    "bool": ("BOOL", np.bool_, "BOOL"),
    "string": ("STRING", np.object_, "BYTES"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    add_onnx(root, "mlp", mlp())
    for name, (kind, _, _) in DTYPES.items():
        add_onnx(root, name, one_node("Identity", kind, ["N", "M"]))
    add_onnx(root, "fixed", one_node("Neg", "FLOAT", [3]))
    add_identity(
        root, "slow", extra='parameters { key: "execute_delay_ms" value: { string_value: "50" } }'
    )
    return root


@pytest.fixture(scope="module")
def server(repository):
    with serving(repository, "--onnx-executor=onnxruntime", "--model-control-mode=explicit",
                 "--load-model=*") as running:  # fmt: skip
        yield running


@pytest.fixture(params=["http", "grpc"])
def transport(request):
    return request.param


@pytest.fixture
def library(transport):
    return importlib.import_module(f"tritonclient.{transport}")


@pytest.fixture
def client(server, transport, library):
    with library.InferenceServerClient(server.url(transport)) as found:
        yield found


def tensor(library, name, array, datatype):
    found = library.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert not client.is_model_ready("none")


def as_json(found):
    if isinstance(found, dict | list):
        return found
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(found, preserving_proto_field_name=True)


def test_metadata(client):
    found = as_json(client.get_model_metadata("mlp"))
    assert found["name"] == "mlp"
    assert found["versions"] == ["1"]
    shape = found["inputs"][0]["shape"]
    assert [int(dim) for dim in shape] == [-1, 16]
    config = as_json(client.get_model_config("mlp"))
    assert (config.get("config") or config)["max_batch_size"] > 0


def test_the_answer_is_the_models(client, library, repository):
    session = ort.InferenceSession(str(repository / "mlp" / "1" / "model.onnx"))
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    found = client.infer("mlp", [tensor(library, "x", x, "FP32")], request_id="7")
    np.testing.assert_allclose(found.as_numpy("y"), session.run(None, {"x": x})[0], rtol=1e-5)
    assert as_json(found.get_response()).get("id") == "7"


@pytest.mark.parametrize("name", DTYPES)
def test_every_datatype_comes_back(client, library, name):
    _, kind, datatype = DTYPES[name]
    if kind is np.object_:
        x = np.array([["a", "é"], ["", "long" * 50]], dtype=object)
        expected = np.array([[item.encode() for item in row] for row in x], dtype=object)
    else:
        expected = x = (np.arange(6).reshape(2, 3) % 2).astype(kind)
    found = client.infer(name, [tensor(library, "x", x, datatype)]).as_numpy("y")
    np.testing.assert_array_equal(found, expected)


def test_empty_tensors(client, library):
    x = np.zeros((1, 0), np.float32)
    assert client.infer("fp32", [tensor(library, "x", x, "FP32")]).as_numpy("y").shape == (1, 0)


def test_a_model_without_batch_dim(client, library):
    x = np.array([1, 2, 3], np.float32)
    found = client.infer("fixed", [tensor(library, "x", x, "FP32")]).as_numpy("y")
    np.testing.assert_array_equal(found, -x)


@pytest.mark.parametrize(
    ("model", "name", "shape", "datatype", "text"),
    [
        ("none", "x", (1, 16), "FP32", "Request for unknown model: 'none' is not found"),
        ("mlp", "z", (1, 16), "FP32", "unexpected inference input 'z' for model 'mlp'"),
        ("mlp", "x", (1, 8), "FP32", "unexpected shape for input 'x' for model 'mlp'"),
        ("mlp", "x", (1, 16), "INT32", "inference input 'x' data-type is 'INT32'"),
        ("mlp", "x", (1000, 16), "FP32", "inference request batch-size must be <="),
        ("fixed", "x", (2,), "FP32", "unexpected shape for input 'x' for model 'fixed'"),
    ],
)
def test_mistakes_are_told_and_the_server_goes_on(
    client, library, model, name, shape, datatype, text
):
    from tritonclient.utils import InferenceServerException

    kind = np.int32 if datatype == "INT32" else np.float32
    asked = [tensor(library, name, np.zeros(shape, kind), datatype)]
    with pytest.raises(InferenceServerException, match=text):
        client.infer(model, asked)
    assert client.is_server_ready()


def test_classification(client, library):
    x = np.array([[3.0, 5.0, 4.0]], np.float32)
    wanted = [library.InferRequestedOutput("y", class_count=2)]
    found = client.infer("fp32", [tensor(library, "x", x, "FP32")], outputs=wanted).as_numpy("y")
    assert found.tolist() == [[b"5.000000:1", b"4.000000:2"]]


def test_concurrent_clients_get_their_own_answers(server, transport, library, repository):
    session = ort.InferenceSession(str(repository / "mlp" / "1" / "model.onnx"))

    def work(seed):
        random = np.random.default_rng(seed)
        with library.InferenceServerClient(server.url(transport)) as mine:
            for _ in range(20):
                x = random.standard_normal((random.integers(1, 4), 16)).astype(np.float32)
                found = mine.infer("mlp", [tensor(library, "x", x, "FP32")]).as_numpy("y")
                np.testing.assert_allclose(found, session.run(None, {"x": x})[0], rtol=1e-4)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_async_clients_are_batched(server, transport):
    library = importlib.import_module(f"tritonclient.{transport}.aio")

    async def scenario():
        async with library.InferenceServerClient(server.url(transport)) as mine:
            inputs = [np.full((1, 2), at, np.float32) for at in range(20)]
            asked = [mine.infer("slow", [tensor(library, "x", x, "FP32")]) for x in inputs]
            for x, found in zip(inputs, await asyncio.gather(*asked), strict=True):
                np.testing.assert_array_equal(found.as_numpy("y"), x)
            return await mine.get_inference_statistics("slow")

    stats = as_json(asyncio.run(scenario()))["model_stats"][0]
    assert int(stats["inference_stats"]["success"]["count"]) >= 20


def test_load_unload_and_index(client, library):
    x = [tensor(library, "x", np.zeros((1, 2), np.float32), "FP32")]
    client.unload_model("uint16")
    assert not client.is_model_ready("uint16")
    with pytest.raises(Exception, match="no available versions"):
        client.infer("uint16", x)
    client.load_model("uint16")
    assert client.is_model_ready("uint16")
    index = as_json(client.get_model_repository_index())
    entries = index["models"] if isinstance(index, dict) else index
    assert {"mlp", "uint16"} <= {entry["name"] for entry in entries if entry["state"] == "READY"}
    with pytest.raises(Exception, match="failed to poll from model repository"):
        client.load_model("none")


def test_metrics_page(server):
    with urllib.request.urlopen(f"http://{server.url('metrics')}/metrics") as page:
        text = page.read().decode()
    assert 'nv_inference_count{model="mlp",version="1"}' in text


def test_shared_memory_is_off(client):
    with pytest.raises(Exception, match="Client shared memory is disabled"):
        client.register_system_shared_memory("r", "/r", 64)
