"""The predict route of TensorFlow Serving's REST API, which KServe's V1 protocol took over.

Rows (`instances`) are answered by rows (`predictions`), columns (`inputs`) by columns (`outputs`).
https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
from tuili.server.http.pieces import PLACE, Pieces, spliced
from tuili.server.http.predict_values import (
    BASE64,
    check_rows,
    read_tensor,
    write_column,
    write_rows,
)
from tuili.server.http.refusals import JsonMistake
from tuili.server.http.reply import JSON, Buffer, Reply
from tuili.server.http.responder import Responder
from tuili.server.http.routes import Match
from tuili.server.protocol.messages import InferRequest, InferResponse, InputTensor
from tuili.server.steps import Steps, at_once
from tuili.server.tensorflow_serving import check_signature

Writer = Callable[[InferResponse], Steps[Pieces]]


class Asked(NamedTuple):
    """The values of a request by the names of inputs, and how many rows it has if it has rows."""

    columns: dict[str, Any]
    rows: int | None


class Predictions:
    """Answers predict requests; one per front end."""

    def __init__(self, dataplane: DataPlane, limits: HttpLimits, responder: Responder) -> None:
        self._dataplane = dataplane
        self._limits = limits
        self._responder = responder

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
        answer = _Answer(connection, writer, self._responder)
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


def by_columns(response: InferResponse) -> Steps[Pieces]:
    """`{"outputs": ...}`: the value of the only output, or an object of all."""
    columns: dict[str, Pieces] = {}
    for output in response.outputs:
        columns[output.name] = yield from write_column(output)
    values = dict.fromkeys(columns, PLACE)
    return spliced(
        dump_json({"outputs": PLACE if len(values) == 1 else values}), [*columns.values()]
    )


def by_rows(count: int, response: InferResponse) -> Steps[Pieces]:
    """`{"predictions": [...]}`: a value for each row, or an object where there are more outputs."""
    outputs = response.outputs
    for output in outputs:
        check_rows(output, count)
    only = len(outputs) == 1
    rows = yield from write_column(outputs[0]) if only else write_rows(outputs, count)
    return [b'{"predictions":', *rows, b"}"]


class _Answer:
    """Waits for the response to one request."""

    __slots__ = ("_connection", "_responder", "_writer", "done")

    def __init__(self, connection: HttpConnection, writer: Writer, responder: Responder) -> None:
        self._connection = connection
        self._writer = writer
        self._responder = responder
        self.done = False

    def reply(self, answer: InferResponse | TuiliError) -> None:
        """Called by the data plane, once for a request; never raises."""
        self.done = True
        if isinstance(answer, TuiliError):
            self._connection.reply(self._responder.refusals.reply(answer))
        else:
            self._responder.send(self._connection, self._write(answer))

    def _write(self, answer: InferResponse) -> Steps[Reply]:
        pieces = yield from self._writer(answer)
        return Reply(200, pieces, JSON, variant_headers(answer))
