"""What `triton_python_backend_utils` takes and refuses, with the errors of Triton's classes."""

import re

import numpy as np
import pytest

from tuili.backends import triton_utils as pb

X = pb.Tensor("x", np.zeros(1, np.int32))
WHOLE = {"model_name": "m", "inputs": [X], "requested_output_names": ["y"]}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, None),
        ({"inputs": [], "requested_output_names": []}, None),
        ({"correlation_id": "text"}, None),
        ({"parameters": {"a": 1, "b": "x", "c": True}}, None),
        ({"inputs": [None]}, pb.TritonModelException),
        ({"inputs": None}, TypeError),
        ({"model_name": None}, TypeError),
        ({"requested_output_names": None}, TypeError),
        ({"requested_output_names": [None]}, TypeError),
        ({"request_id": None}, TypeError),
        ({"correlation_id": None}, TypeError),
        ({"model_version": None}, TypeError),
        ({"flags": None}, TypeError),
        ({"parameters": {"a": 0.5}}, pb.TritonModelException),
    ],
)
def test_requests_are_made_of_what_they_need(changes, error):
    if error is None:
        made = pb.InferenceRequest(**WHOLE | changes)
        assert made.correlation_id() == changes.get("correlation_id", 0)
    else:
        with pytest.raises(error, match=r"None|float"):
            pb.InferenceRequest(**WHOLE | changes)


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_requests_name_model_inputs_and_outputs(missing):
    with pytest.raises(TypeError, match="got None"):
        pb.InferenceRequest(**{key: value for key, value in WHOLE.items() if key != missing})


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ([], "Expect dict, got <class 'list'>"),
        ({1: "a"}, "Expect parameters keys to have type str, found type <class 'int'>"),
        ({"a": 0.5}, "Expect parameters values to have type bool/int/str, found type <class 'flo"),
        ({"a": None}, "Expect parameters values to have type bool/int/str, found type <class 'Non"),
        ({"a": ["b"]}, "Expect parameters values to have type bool/int/str, found type <class 'li"),
    ],
)
def test_parameters_of_answers_are_checked(parameters, text):
    with pytest.raises(pb.TritonModelException, match=re.escape(text)):
        pb.InferenceResponse([X], parameters=parameters)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: pb.InferenceResponse([None]), pb.TritonModelException),
        (lambda: pb.InferenceResponse(None), TypeError),
        (lambda: pb.Tensor(None, np.zeros(1)), TypeError),
        (lambda: pb.Tensor("x", None), TypeError),
        (lambda: pb.Tensor.from_dlpack("x", None), pb.TritonModelException),
        (lambda: pb.Tensor.from_dlpack("", np.zeros(1)), pb.TritonModelException),
        (lambda: pb.Logger.log("text", 1), TypeError),
        (lambda: pb.Logger.log_info(None), TypeError),
    ],
)
def test_what_is_nothing_is_refused(make, error):
    with pytest.raises(error, match=r"None|empty|level"):
        make()


def test_messages_take_a_level_of_the_logger():
    pb.Logger.log("text")
    pb.Logger.log("text", pb.Logger.WARNING)
    pb.Logger.log("text", level=pb.LogLevel.VERBOSE)
