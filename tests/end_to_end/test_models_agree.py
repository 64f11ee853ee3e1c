"""Every real model at three sizes: tuili and onnxruntime give the same answers."""

import numpy as np
import pytest

import tuili
from benchmarks.models import MODELS

TOLERANCE = 1e-4  # of the largest magnitude of each output

# Each size of these takes the compiler ten seconds and more.
LARGE = ("ppocr_det", "ppocr_rec", "resnet50")


def case(name, number, size):
    """One worker compiles a model and runs its sizes; a change runs the first of a large one."""
    beyond = number > 0 if name in LARGE else number == 1
    marks = [pytest.mark.xdist_group(name), *([pytest.mark.long] if beyond else [])]
    return pytest.param(name, size, id=f"{name}-{'x'.join(map(str, size))}", marks=marks)


CASES = [
    case(name, number, size)
    for name, model in MODELS.items()
    for number, size in enumerate(model.sizes)
]

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """Artifacts by model name: compiled once, with the dims that the file leaves open."""
    folder = tmp_path_factory.mktemp("artifacts")
    made = {}

    def path(name):
        if name not in made:
            made[name] = tuili.compile(MODELS[name].path(), folder / f"{name}.tuili").path
        return made[name]

    return path


def expected_answers(name, feeds):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(MODELS[name].path(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def assert_agree(found, expected):
    assert list(found) == list(expected)
    for name, right in expected.items():
        answer = found[name]
        assert answer.shape == right.shape, name
        assert answer.dtype == right.dtype, name
        assert np.isfinite(answer).all(), name
        worst = float(np.abs(answer.astype(np.float64) - right).max())
        scale = float(np.abs(right).max())
        assert worst <= TOLERANCE * scale, f"{name}: off by {worst / scale:.1e} of {scale:.3g}"


@pytest.mark.parametrize(("name", "size"), CASES)
def test_answers_equal_those_of_onnxruntime(artifact, name, size):
    feeds = MODELS[name].inputs(size)
    model = tuili.load(artifact(name), threads=1)
    assert_agree(model.run(feeds), expected_answers(name, feeds))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(name))
        for name in ("ppocr_cls", "minilm", "resnet50")
    ],
)
def test_two_threads_give_the_answers_of_one(artifact, name):
    feeds = MODELS[name].inputs(MODELS[name].sizes[0])
    one, two = (tuili.load(artifact(name), threads=threads) for threads in (1, 2))
    assert_agree(two.run(feeds), one.run(feeds))
