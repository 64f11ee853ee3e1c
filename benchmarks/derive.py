"""Models made here: ResNet-50 with real random weights, and a small trained classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Keeps the sum over 16 residual blocks near 1: each adds about 10 % of variance.
RESIDUAL_SCALE = 0.3


def resnet50(output: Path) -> None:
    """The light model of the onnx package with seeded He weights and a free batch size.

    Its own weights are constants, so that any convolution, also a wrong one, passes.
    """
    import onnx
    from onnx import numpy_helper
    from onnx.backend.test.data import light

    model = onnx.load(Path(next(iter(light.__path__))) / "light_resnet50.onnx")
    graph = model.graph
    shapes = {t.name: tuple(numpy_helper.to_array(t)) for t in graph.initializer}
    sizes = {
        node.output[0]: shapes[node.input[0]]
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    sizes |= {t.name: tuple(t.dims) for t in graph.initializer if t.data_type == 1}
    used = {name for node in graph.node for name in node.input}
    rng = np.random.default_rng(50)
    weights = {
        name: _weight(rng, name, shape) for name, shape in sorted(sizes.items()) if name in used
    }

    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    kept = [t for t in graph.initializer if t.name not in weights and t.name in used]
    kept = [t for t in kept if not t.name.endswith("__SHAPE")]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    data = [value for value in graph.input if value.name == "gpu_0/data_0"]
    del graph.input[:]
    graph.input.extend(data)
    _free_the_batch(graph)
    model.ir_version = 8  # since 4, weights need not be inputs too
    onnx.checker.check_model(model)
    onnx.save(model, output)


def _weight(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 4:
        fan_in = int(np.prod(shape[1:]))
        value = rng.normal(0, np.sqrt(2 / fan_in), shape)
    elif len(shape) == 2:
        value = rng.normal(0, 2 / np.sqrt(shape[1]), shape)
    elif name.endswith("_riv_0"):
        value = rng.uniform(0.8, 1.25, shape)
    elif name.endswith("_bn_s_0"):
        inner = RESIDUAL_SCALE if "branch2c" in name else 1.0
        value = inner * rng.uniform(0.8, 1.25, shape)
    else:  # the means and biases
        value = rng.normal(0, 0.1, shape)
    return value.astype(np.float32)


def _free_the_batch(graph: object) -> None:
    from onnx import numpy_helper

    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    reshape = next(node for node in graph.node if node.op_type == "Reshape")
    target = next(t for t in graph.initializer if t.name == reshape.input[1])
    target.CopyFrom(numpy_helper.from_array(np.array([-1, 2048], np.int64), target.name))


def digits_mlp(output: Path) -> None:
    """A multi-layer perceptron trained on scikit-learn's digits: x f32[N,64] -> probabilities."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    data = load_digits()
    network = MLPClassifier((128, 64), max_iter=40, tol=1e-2, random_state=0)
    network.fit(data.data / 16, data.target)
    model = to_onnx(
        network,
        (data.data[:1] / 16).astype(np.float32),
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    output.write_bytes(model.SerializeToString())
