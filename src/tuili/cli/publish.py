"""`tuili publish`: a model becomes an immutable version in a repository."""

from __future__ import annotations

import getpass
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tuili import __version__
from tuili.artifact import is_artifact, open_artifact
from tuili.artifact.manifest import TensorEntry, tensor_entries
from tuili.cli.shapes import ShapeOptions, parse_shapes
from tuili.errors import InvalidArgument, NotFound, Unsupported
from tuili.ir.types import TensorType
from tuili.tensors import TensorSpec

if TYPE_CHECKING:
    from tuili.ir.graph import Value

RepositoryOption = Annotated[
    str,
    typer.Option(
        "--repository", "-r", envvar="TUILI_REPOSITORY", help="A folder, or a URL: s3, gs, az."
    ),
]
RepositoryConfig = Annotated[
    Path | None,
    typer.Option(envvar="TUILI_REPOSITORY_CONFIG", help="Credentials of the URL, TOML."),
]


def publish(
    model: Annotated[
        Path,
        typer.Argument(
            help="ONNX file, artifact, model.py, folder with all of a version, or "
            "mlflow:models:/NAME/VERSION."
        ),
    ],
    repository: RepositoryOption,
    name: Annotated[str, typer.Option(help="The model's name.", show_default=False)] = "",
    version: Annotated[
        int | None, typer.Option(min=1, help="Its number; the next one by default.")
    ] = None,
    notes: Annotated[str, typer.Option(help="What is new, for people.")] = "",
    metric: Annotated[
        list[str] | None, typer.Option(metavar="KEY=NUMBER", help="A measure of quality.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="KEY=TEXT", help="A parameter of the experiment.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Data set it was calibrated with; its hash is recorded.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag that points to it.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile/--as-is", help="Compile an ONNX file, or publish it.")
    ] = True,
    target: Annotated[str, typer.Option(help="As of `tuili compile`.")] = "native",
    shape: ShapeOptions = None,
    exact: Annotated[bool, typer.Option("--exact", help="As of `tuili compile`.")] = False,
    allow_signature_change: Annotated[
        bool, typer.Option("--allow-signature-change", help="Inputs and outputs may differ.")
    ] = False,
    sign: Annotated[
        Path | None, typer.Option(help="A private ed25519 key, PEM, to sign the version with.")
    ] = None,
    repository_config: RepositoryConfig = None,
) -> None:
    """Publish a model as the next version: checked, recorded, whole or not at all."""
    from tuili.server.publishing import mlflow_registry, versions
    from tuili.server.publishing.places import place_of
    from tuili.server.publishing.publish import Draft
    from tuili.server.registry.record import Provenance, source_digest

    source, in_mlflow = model.name, mlflow_registry.is_reference(str(model))
    if not in_mlflow and not model.exists():
        raise NotFound(f"no model {str(model)!r}")
    if calibration is not None and not calibration.exists():
        raise NotFound(f"no calibration data {str(calibration)!r}")
    if in_mlflow and not name:
        raise InvalidArgument(f"which name is {str(model)!r} to have here? Give --name")
    name = name or model.stem
    place = place_of(repository, repository_config)
    metrics = {key: _number(key, value) for key, value in pairs("--metric", metric).items()}
    parameters = pairs("--param", param)
    with tempfile.TemporaryDirectory(prefix="tuili-publish-") as scratch:
        if in_mlflow:
            source, fetched = str(model), Path(scratch, "fetched")
            fetched.mkdir()
            model = mlflow_registry.fetch(source, fetched)
        options = _CompileOptions(target, shape or [], exact) if compiled else None
        content = _content(model, Path(scratch), options)
        provenance = Provenance(
            source=source,
            source_sha256=source_digest(model),
            options=content.options,
            calibration=calibration.name if calibration else "",
            calibration_sha256=source_digest(calibration) if calibration else "",
            producer=f"tuili {__version__}",
            at=now(),
            user=user(),
        )
        made = place.publish(
            name,
            Draft(
                content.files,
                provenance,
                content.inputs,
                content.outputs,
                metrics,
                parameters,
                notes,
            ),
            version=version,
            allow_signature_change=allow_signature_change,
            key=sign,
        )
    for each in tag or ():
        by, number = versions.By(user(), now()), str(made.version)
        place.decide(name, partial(versions.tag, text=number, name=each, by=by))
    Console(soft_wrap=True, highlight=False).print(
        f"{name} version {made.version}: {made.digest}", markup=False
    )


@dataclass(frozen=True, slots=True)
class _CompileOptions:
    target: str
    shapes: Sequence[str]
    exact: bool


@dataclass(frozen=True, slots=True)
class _Content:
    """The files of a version, and what the compiler or the importer knows of it."""

    files: dict[str, Path]
    inputs: list[TensorEntry] | None = None
    outputs: list[TensorEntry] | None = None
    options: dict[str, str] = field(default_factory=dict[str, str])


def _content(model: Path, scratch: Path, options: _CompileOptions | None) -> _Content:
    if is_artifact(model):
        return _artifact(model)
    if model.suffix == ".onnx" and model.is_file():
        return _onnx(model) if options is None else _compiled(model, scratch, options)
    if model.suffix == ".py":
        return _Content({"model.py": model})
    if model.is_dir():
        return _Content({each.name: each for each in sorted(model.iterdir())})
    raise Unsupported(
        f"{model} is no ONNX file, artifact, Python file or folder; what it is cannot be served"
    )


def _artifact(path: Path) -> _Content:
    artifact = open_artifact(path)
    artifact.verify()
    manifest = artifact.manifest
    name = "model.tuili" if path.is_dir() else "model.tuiliz"
    return _Content({name: path}, manifest.inputs, manifest.outputs, manifest.options)


def _compiled(model: Path, scratch: Path, options: _CompileOptions) -> _Content:
    import tuili
    from tuili.cli.compile import progress_bar

    with progress_bar(quiet=False) as report:
        artifact = tuili.compile(
            model,
            scratch / "model.tuiliz",
            target=options.target,
            shapes=parse_shapes(options.shapes) or None,
            exact=options.exact,
            on_progress=report,
        )
    found = _artifact(artifact.path)
    given = {"target": options.target, "shapes": " ".join(options.shapes)}
    return _Content(found.files, found.inputs, found.outputs, {**found.options, **given})


def _onnx(model: Path) -> _Content:
    """The file as it is; it must be readable all the same.

    Files that its weights lie in keep their names, since these are written in the model.
    """
    from tuili.importers.onnx import import_model
    from tuili.importers.onnx.external import external_files

    graph = import_model(model)
    files = {"model.onnx": model}
    files |= {path.name: path for path in external_files(model.read_bytes(), model.parent)}
    return _Content(files, _entries(graph.inputs), _entries(graph.outputs))


def _entries(values: Sequence[Value]) -> list[TensorEntry] | None:
    """The signature, as far as all of it are tensors of a known type."""
    specs = [
        TensorSpec(value.name, value.tensor.dtype, value.tensor.shape)
        for value in values
        if isinstance(value.type, TensorType) and value.tensor.shape is not None
    ]
    return tensor_entries(specs) if len(specs) == len(values) else None


def pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    """`KEY=VALUE` options as a dict; raises InvalidArgument."""
    found: dict[str, str] = {}
    for each in given or ():
        key, sign, value = each.partition("=")
        if not key or not sign:
            raise InvalidArgument(f"{option} {each!r}: expected KEY=VALUE")
        if key in found:
            raise InvalidArgument(f"{option} {each!r}: {key!r} is given twice")
        found[key] = value
    return found


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidArgument(f"--metric {key}={value}: expected a finite number")
    return number


def now() -> str:
    """The time, in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def user() -> str:
    """Who is at the keyboard, as far as the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
