"""ONNX in the repository, native code behind the wire: compiled once, equal to `model.run`."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tuili
from tests.end_to_end.conftest import add_onnx, one_node, serving

http = pytest.importorskip("tritonclient.http")


def dense(seed: int = 0):
    """16 -> 32 with ReLU; any batch."""
    onnx = pytest.importorskip("onnx")
    h, random = onnx.helper, np.random.default_rng(seed)
    graph = h.make_graph(
        [h.make_node("MatMul", ["x", "w"], ["a"]), h.make_node("Relu", ["a"], ["y"])],
        "dense",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 16])],
        [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 32])],
        [onnx.numpy_helper.from_array(random.standard_normal((16, 32)).astype(np.float32), "w")],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("native")
    add_onnx(root, "dense", dense())
    return root


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    cache = tmp_path_factory.mktemp("compiled")
    options = ("--onnx-executor=tuili", f"--cache={cache}")
    with serving(repository, *options) as running:
        yield running


def infer(client, x):
    tensor = http.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return client.infer("dense", [tensor]).as_numpy("y")


def test_metadata_says_native(server):
    with http.InferenceServerClient(server.url("http")) as client:
        assert client.get_model_metadata("dense")["platform"] == "tuili_native"
        assert client.get_model_config("dense")["backend"] == "tuili"


def test_parallel_answers_are_those_of_the_model(server, repository):
    """The matmul kernels may round a row differently in another batch: 1e-6 is a few ulps."""
    model = tuili.load(repository / "dense" / "1" / "model.onnx")

    def work(seed):
        random = np.random.default_rng(seed)
        with http.InferenceServerClient(server.url("http")) as client:
            for _ in range(30):
                x = random.standard_normal((random.integers(1, 4), 16)).astype(np.float32)
                expected = model.run({"x": x})["y"]
                np.testing.assert_allclose(infer(client, x), expected, rtol=1e-5, atol=1e-6)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("name", ["model.tuili", "model.tuiliz"])
def test_an_artifact_is_served_without_compiling_even_when_it_is_overwritten(
    repository, tmp_path, name
):
    source = repository / "dense" / "1" / "model.onnx"
    (tmp_path / "dense" / "1").mkdir(parents=True)
    artifact = tmp_path / "dense" / "1" / name
    tuili.compile(source, artifact)
    cache = tmp_path / "cache"
    with (
        serving(tmp_path, f"--cache={cache}") as server,
        http.InferenceServerClient(server.url("http")) as client,
    ):
        x = np.ones((2, 16), np.float32)
        expected = tuili.load(source).run({"x": x})["y"]
        np.testing.assert_allclose(infer(client, x), expected, rtol=1e-5)
        # As `cp` begins.
        for path in artifact.iterdir() if artifact.is_dir() else [artifact]:
            path.write_bytes(b"")
        np.testing.assert_allclose(infer(client, x), expected, rtol=1e-5)
    assert [each.name for each in cache.iterdir()] == ["kept"]


def test_a_model_that_does_not_compile_is_named_with_the_compilers_words(tmp_path):
    folder = tmp_path / "broken" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"this is no model")
    with (
        serving(tmp_path, "--no-exit-on-error", "--onnx-executor=tuili") as server,
        http.InferenceServerClient(server.url("http")) as client,
    ):
        (entry,) = client.get_model_repository_index()
    assert entry["state"] == "UNAVAILABLE"
    assert "does not compile: error:" in entry["reason"]
    assert "model.onnx" in entry["reason"]


def test_text_goes_through_a_compiled_model(tmp_path):
    add_onnx(tmp_path, "text", one_node("Identity", "STRING", ["N", 1]))
    with (
        serving(tmp_path, f"--cache={tmp_path / 'cache'}") as server,
        http.InferenceServerClient(server.url("http")) as client,
    ):
        assert client.get_model_config("text")["backend"] == "mixed"
        tensor = http.InferInput("x", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([["héllo"]], dtype=object))
        found = client.infer("text", [tensor]).as_numpy("y")
    assert found.tolist() == [["héllo".encode()]]
