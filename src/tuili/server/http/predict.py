"""The predict route of TensorFlow Serving's REST API, which KServe's V1 protocol took over.

Rows (`instances`) are answered by rows (`predictions`), columns (`inputs`) by columns (`outputs`).
https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from tuili.errors import InvalidArgument, TuiliError, nearest
from tuili.server.dataplane import DataPlane
from tuili.server.http.connection import HttpConnection
from tuili.server.http.head import Head
from tuili.server.http.infer_reply import variant_headers
from tuili.server.http.inference import Begin
from tuili.server.http.json_text import dump_json, parse_json
from tuili.server.http.limits import HttpLimits
from tuili.server.http.long_json import parse_long
from tuili.server.http.long_values import LongArray
from tuili.server.http.predict_values import BASE64, column_of, read_tensor, rows_of
from tuili.server.http.refusals import JsonMistake, Refusals
from tuili.server.http.reply import JSON, Buffer, Reply, error_reply
from tuili.server.http.routes import Match
from tuili.server.protocol.messages import InferRequest, InferResponse, InputTensor
from tuili.server.steps import Steps, at_once
from tuili.server.tensorflow_serving import check_signature

_LOG: Final = logging.getLogger("tuili.server.http")

Writer = Callable[[InferResponse], bytes]


class Asked(NamedTuple):
    """The values of a request by the names of inputs, and how many rows it has if it has rows."""

    columns: dict[str, Any]
    rows: int | None


class Predictions:
    """Answers predict requests; one per front end."""

    def __init__(self, dataplane: DataPlane, limits: HttpLimits, refusals: Refusals) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._refusals = refusals

    def predict(self, connection: HttpConnection, head: Head, match: Match, body: Buffer) -> None:
        """Start to answer one request; TuiliError when it is refused before it is submitted."""
        at_once(self._read(match, parse_json(body, self._limits)))(connection)

    def begin(self, head: Head, match: Match, body: Buffer) -> Steps[Begin]:
        """As `predict`, of a long text: what is to be done once it is read."""
        document = yield from parse_long(body, self._limits)
        return (yield from self._read(match, document))

    def _read(self, match: Match, document: Any) -> Steps[Begin]:
        version = match.version or match.label
        metadata = self._dataplane.model_metadata(match.model, version)
        inputs = {str(item["name"]): str(item["datatype"]) for item in metadata["inputs"]}
        asked = yield from read(document, list(inputs))
        tensors: list[InputTensor] = []
        for name, value in asked.columns.items():
            tensors.append((yield from read_tensor(name, inputs[name], value)))
        request = InferRequest(match.model, tensors, version)
        writer = by_columns if asked.rows is None else partial(by_rows, asked.rows)
        return lambda connection: self._submit(connection, request, writer)

    def _submit(self, connection: HttpConnection, request: InferRequest, writer: Writer) -> None:
        request.origin = connection
        answer = _Answer(connection, writer, self._refusals)
        ticket = self._dataplane.submit(request, answer.reply)
        if not answer.done:
            connection.work = ticket


def read(document: Any, inputs: list[str]) -> Steps[Asked]:
    """What a request asks of a model with these inputs."""
    if not isinstance(document, dict):
        raise JsonMistake("the request JSON must be an object with 'instances' or 'inputs'")
    check_signature(document.get("signature_name"))
    given = [key for key in ("instances", "inputs") if key in document]
    if len(given) != 1:
        found = ", ".join(map(repr, document)) or "nothing"
        raise InvalidArgument(
            f"expected either 'instances' (rows) or 'inputs' (columns), found {found}"
        )
    value = document[given[0]]
    if given[0] == "inputs":
        return Asked(_columns(value, inputs), None)
    if not value or not isinstance(value, list | LongArray):
        raise JsonMistake("'instances' must be a list of at least one row")
    columns = yield from _columns_of_rows(value, inputs)
    return Asked(columns, value.size if isinstance(value, LongArray) else len(value))


def _columns(value: Any, inputs: list[str]) -> dict[str, Any]:
    """Columns by name, or the value of the only input without its name."""
    if isinstance(value, dict) and BASE64 not in value:
        return {_known(name, inputs, "inputs"): column for name, column in value.items()}
    return {_only(inputs, "inputs"): value}


def _columns_of_rows(rows: list[Any] | LongArray, inputs: list[str]) -> Steps[dict[str, Any]]:
    parts = rows.parts if isinstance(rows, LongArray) else [rows]
    first = parts[0][0]
    if not isinstance(first, dict) or BASE64 in first:
        return {_only(inputs, "instances"): rows}
    columns = {_known(name, inputs, "instances"): LongArray() for name in first}
    index = 0
    for part in parts:
        for row in part:
            if not isinstance(row, dict) or row.keys() != first.keys():
                found = sorted(row) if isinstance(row, dict) else type(row).__name__
                raise InvalidArgument(
                    f"instances[{index}]: expected an object with the keys of the first row, "
                    f"{sorted(first)}, found {found}"
                )
            index += 1
        for name, column in columns.items():
            column.add([row[name] for row in part])
        yield
    return columns


def _known(name: str, inputs: list[str], where: str) -> str:
    if name not in inputs:
        raise InvalidArgument(
            f"{where}: the model has no input {name!r}.{nearest(name, inputs)} "
            f"Inputs: {', '.join(inputs)}"
        )
    return name


def _only(inputs: list[str], where: str) -> str:
    if len(inputs) != 1:
        raise InvalidArgument(
            f"{where}: the model has {len(inputs)} inputs, so values need their names: "
            f"{', '.join(inputs)}"
        )
    return inputs[0]


def by_columns(response: InferResponse) -> bytes:
    """`{"outputs": ...}`: the value of the only output, or an object of all."""
    columns = [(output.name, *column_of(output)) for output in response.outputs]
    finite = all(is_finite for _, _, is_finite in columns)
    values = {name: value for name, value, _ in columns}
    only = len(values) == 1
    return dump_json({"outputs": next(iter(values.values())) if only else values}, finite)


def by_rows(count: int, response: InferResponse) -> bytes:
    """`{"predictions": [...]}`: a value for each row, or an object where there are more outputs."""
    columns = [(output.name, *rows_of(output, count)) for output in response.outputs]
    finite = all(is_finite for _, _, is_finite in columns)
    if len(columns) == 1:
        return dump_json({"predictions": columns[0][1]}, finite)
    rows = [{name: values[row] for name, values, _ in columns} for row in range(count)]
    return dump_json({"predictions": rows}, finite)


class _Answer:
    """Waits for the response to one request."""

    __slots__ = ("_connection", "_refusals", "_writer", "done")

    def __init__(self, connection: HttpConnection, writer: Writer, refusals: Refusals) -> None:
        self._connection = connection
        self._writer = writer
        self._refusals = refusals
        self.done = False

    def reply(self, answer: InferResponse | TuiliError) -> None:
        """Called by the data plane, once for a request; never raises."""
        self.done = True
        try:
            if isinstance(answer, TuiliError):
                raise answer
            text = self._writer(answer)
            self._connection.reply(Reply(200, (text,), JSON, variant_headers(answer)))
        except TuiliError as error:
            self._connection.reply(self._refusals.reply(error))
        except Exception:  # noqa: BLE001 - a bug of ours must not reach the batcher
            _LOG.exception("the answer to a prediction could not be sent")
            self._connection.reply(
                error_reply(500, "internal error; the server's log has the details")
            )
