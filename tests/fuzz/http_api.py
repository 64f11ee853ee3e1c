"""`make fuzz-http`: what the OpenAPI document allows, and what it does not, against a real server.

    python -m tests.fuzz.http_api --examples 100

schemathesis makes the requests of the document that the server itself hands out, valid and
mutated. No answer may be a failure of the server, none may differ from what the document says of
it, and afterwards the server must answer as before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.end_to_end.conftest import add_identity, serving

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
# What the document leaves open, closed to what is there, so that requests get somewhere.
KNOWN = {"model": ["small", "small", "gone"], "version": ["1", "1", "7"], "label": ["x"]}
# Answers of 500 and above that are meant: not built, not available, a failed load as in Triton.
MEANT = ("not supported", "failed to load", "can not be", "to predict instead")


@contextmanager
def server() -> Iterator[Any]:
    """A server with all its doors open."""
    with tempfile.TemporaryDirectory(prefix="tuili-fuzz-") as folder:
        add_identity(Path(folder), "small", dims="-1")
        options = ("--allow-client-shm", "--model-control-mode=explicit", "--load-model=*")
        with serving(Path(folder), *options) as found:
            yield found


def operations(url: str) -> list[Any]:
    """The operations of the document; what takes the model away comes last."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = [operation.ok() for operation in schema.get_all_operations()]
    return sorted(found, key=lambda operation: operation.path.endswith("/unload"))


def check(operation: Any, url: str, examples: int, seed: int = 1) -> None:
    """Some requests of one operation; AssertionError or schemathesis's failures if one is bad."""
    modes = schemathesis.GenerationMode
    cases = st.one_of(
        operation.as_strategy(generation_mode=modes.POSITIVE),
        operation.as_strategy(generation_mode=modes.NEGATIVE),
    )

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.seed(seed)
    @hypothesis.given(case=cases, data=st.data())
    def one(case: Any, data: st.DataObject) -> None:
        for name, values in KNOWN.items():
            if name in case.path_parameters:
                case.path_parameters[name] = data.draw(st.sampled_from(values))
        answer = case.call(base_url=url, timeout=20)
        told = answer.text
        assert answer.status_code < 500 or any(each in told for each in MEANT), (
            f"{case.as_curl_command()}\n{answer.status_code} {told}"
        )
        case.validate_response(answer, checks=CHECKS)

    one()


def main() -> int:
    """All operations; prints those that are not as they should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    bad = 0
    with server() as running:
        url = f"http://{running.url('http')}"
        found = operations(url)
        for operation in found:
            try:
                check(operation, url, options.examples, options.seed)
            except Exception as error:  # noqa: BLE001 - all kinds are printed alike
                bad += 1
                print(f"{operation.label}\n{error}\n")
        alive = running.process.poll() is None
    print(f"{len(found) - bad} of {len(found)} operations are as the document says")
    return 1 if bad or not alive else 0


if __name__ == "__main__":
    sys.exit(main())
