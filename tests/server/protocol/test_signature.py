"""The check of requests against a model, with the texts that clients compare."""

import numpy as np
import pytest

from tuili.errors import InvalidArgument
from tuili.server.protocol.messages import InferRequest, InputTensor, RequestedOutput
from tuili.server.protocol.signature import Signature, TensorRule

PAIR = [TensorRule("A", "FP32", (16,)), TensorRule("B", "FP32", (16,))]
OUT = [TensorRule("Y", "FP32", (16,))]


def tensor(name="A", shape=(1, 16), datatype="FP32", data=None):
    array = np.zeros(shape, np.float32) if data is None else data
    return InputTensor(name, datatype, tuple(shape), array)


def request(*inputs, outputs=None, id_=""):
    wanted = None if outputs is None else [RequestedOutput(name) for name in outputs]
    return InferRequest("m", list(inputs), id=id_, outputs=wanted)


def test_a_good_request_passes_with_its_rows():
    checked = Signature("m", PAIR, OUT, 8).check(
        request(tensor("B", (3, 16)), tensor("A", (3, 16)))
    )
    assert checked.rows == 3
    assert set(checked.arrays) == {"A", "B"}
    assert checked.lane is None


BATCH_NOTE = r". NOTE: Setting a non-zero max_batch_size in the model config requires"


@pytest.mark.parametrize(
    ("limit", "inputs", "outputs", "text"),
    [
        (8, [tensor()], None,
         r"\[request id: <id_unknown>\] expected 2 inputs but got 1 inputs for model 'm'. Got"),
        (8, [tensor()], None,
         r"Got input\(s\) \['A'\], but missing required input\(s\) \['B'\]"),
        (8, [], None, r"expected 2 inputs but got 0 inputs for model 'm'. Got input\(s\) \[\], "),
        (8, [tensor(), tensor()], None, r"missing required input\(s\) \['B'\]"),
        (8, [tensor(), tensor("C")], None, "unexpected inference input 'C' for model 'm'"),
        (8, [tensor(), tensor("B")], ["Z"], "^unexpected inference output 'Z' for model 'm'$"),
        (8, [tensor(), tensor("B")], ["Y", "Y"], "output 'Y' already exists in request"),
        (8, [tensor(), tensor("B", datatype="INT32")], None,
         "inference input 'B' data-type is 'INT32', but model 'm' expects 'FP32'"),
        (8, [tensor(), tensor("B", (1, 8))], None,
         r"shape for input 'B' for model 'm'. Expected \[-1,16\], got \[1,8\]" + BATCH_NOTE),
        (0, [tensor("A", (8,)), tensor("B", (16,))], None,
         r"unexpected shape for input 'A' for model 'm'. Expected \[16\], got \[8\]. $"),
        (8, [tensor("A", (2, 16)), tensor("B", (3, 16))], None,
         "input 'B' batch size does not match other inputs for 'm'"),
        (8, [tensor("A", (9, 16)), tensor("B", (9, 16))], None,
         "inference request batch-size must be <= 8 for 'm'"),
        (8, [tensor("A", ()), tensor("B", ())], None,
         "input 'A' has no shape but model requires batch dimension for 'm'"),
        (8, [tensor("A", (1, 16), data=np.zeros(15, np.float32)), tensor("B")], None,
         "input byte size mismatch for input 'A' for model 'm'. Expected 64, got 60"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_with_tritons_text(limit, inputs, outputs, text):
    with pytest.raises(InvalidArgument, match=text):
        Signature("m", PAIR, OUT, limit).check(request(*inputs, outputs=outputs))


def test_the_id_is_in_the_text():
    with pytest.raises(InvalidArgument, match=r"^\[request id: 7\] expected"):
        Signature("m", PAIR, OUT, 0).check(request(id_="7"))


def test_negative_dims_are_refused():
    bad = InputTensor("A", "FP32", (1, -1), np.zeros(16, np.float32))
    with pytest.raises(InvalidArgument, match="All input dimensions should be specified for input"):
        Signature("m", [TensorRule("A", "FP32", (-1,))], OUT, 8).check(request(bad))


def test_shapes_that_may_differ_name_the_lane():
    signature = Signature("m", [TensorRule("A", "FP32", (-1,))], OUT, 8)
    lanes = [
        signature.check(request(tensor("A", (rows, n)))).lane
        for rows, n in [(1, 4), (2, 4), (1, 5)]
    ]
    assert lanes[0] == lanes[1] != lanes[2]


def test_optional_inputs_may_be_left_out_and_name_the_lane():
    rules = [TensorRule("A", "FP32", (16,)), TensorRule("B", "FP32", (16,), optional=True)]
    signature = Signature("m", rules, OUT, 8)
    alone = signature.check(request(tensor()))
    both = signature.check(request(tensor(), tensor("B")))
    assert alone.lane != both.lane
    with pytest.raises(
        InvalidArgument, match="expected number of inputs between 1 and 2 but got 0"
    ):
        signature.check(request())


@pytest.mark.parametrize(
    ("dims", "reshape", "shape", "limit", "found"),
    [
        ((1,), (), (5, 1), 8, (5,)),
        ((4, 2), (8,), (4, 2), 0, (8,)),
        ((-1, 1), (-1,), (3, 7, 1), 8, (3, 7)),
    ],
)
def test_reshape_turns_wire_dims_into_the_models(dims, reshape, shape, limit, found):
    rule = TensorRule("A", "FP32", dims, reshape=reshape)
    checked = Signature("m", [rule], OUT, limit).check(request(tensor("A", shape)))
    assert checked.arrays["A"].shape == found


def test_data_of_a_wrong_size_is_told_after_a_wrong_shape():
    signature = Signature("m", [TensorRule("A", "FP32", (2,))], OUT, 0)
    sent = InputTensor("A", "FP32", (2,), None, misfit_bytes=7)
    with pytest.raises(InvalidArgument, match=r"for input 'A' for model 'm'. Expected 8, got 7"):
        signature.check(request(sent))
    with pytest.raises(InvalidArgument, match="unexpected shape for input 'A'"):
        signature.check(request(InputTensor("A", "FP32", (3,), None, misfit_bytes=7)))


def test_remembered_shapes_are_bounded():
    rule = TensorRule("A", "FP32", (-1,))
    signature = Signature("m", [rule], OUT, 0)
    for size in range(2000):
        signature.check(request(tensor("A", (size,))))
    assert len(rule.accepted) <= 256
