"""Why tests of Triton fail here, by the end of their names: what the run showed, and no guesses."""

# ruff: noqa: E501 - one case, one line

from __future__ import annotations

_SINCE = "mended since: its row alone passes"
_IN_USE = "a region that is unregistered goes at once; in Triton it stays while requests use it"

WHY: dict[str, str] = {
    "input_string_shape_validation": "both inputs are wrong, and INPUT0 is named where the test expects INPUT1",
    "InferenceParametersTest.test_headers": "a header's value ends with a blank, which is not part of it (RFC 9110, 5.5)",
    "classification_output_tensor_too_large": f"answers that large were not refused; {_SINCE}",
    "test_cache_counters_missing": f"models without a cache had its counters; {_SINCE}",
    "OutputNameValidationTest.test_grpc": f"the row lacked two models; {_SINCE}",
    "test_large_shm_register_offset": "the row's model had no batch dim; the table has since, not run again",
    "test_infer_integer_overflow": "the error had another text; it has Triton's since, not run again",
    "during_inference_single_req_http": _IN_USE,
    "during_inference_multiple_req_http": _IN_USE,
    "during_inference_single_req_grpc": _IN_USE,
    "during_inference_multiple_req_grpc": _IN_USE,
    "test_non_decoupled_zero_response_pre_return": f"the error had another text; {_SINCE}",
    "test_non_decoupled_two_response_pre_return": f"a second answer was an error; {_SINCE}",
    "test_non_decoupled_one_response_pre_and_on_return": f"the returned answer went before the sent one; {_SINCE}",
    "test_concurrent_execute_multi_request_bls": "one answer had come where four were counted; why was not looked into",
    "GrpcEndpointTest.test_grpc_decoupled": "a Python model without inputs was refused; it is served since, not run again",
    "GrpcEndpointTest.test_grpc_non_decoupled": "a Python model without inputs was refused; it is served since, not run again",
}
