"""A fixed slice of `make fuzz-http`."""

import warnings

from tests.fuzz import http_api

CHANGING = ("infer", ":predict", "generate", "load", "register", "setting", "logging", "rollouts")


def test_the_server_answers_as_its_document_says():
    with http_api.server() as running:
        url = f"http://{running.url('http')}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for operation in http_api.operations(url):
                if operation.path.endswith(CHANGING) and "{version}" not in operation.path:
                    http_api.check(operation, url, examples=4)
        assert running.process.poll() is None
