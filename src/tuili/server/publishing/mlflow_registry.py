"""MLflow's model registry: versions come from there, and published ones are told to it.

The server to speak to and its credentials are MLflow's own (`MLFLOW_TRACKING_URI` and others).
A version there is a run that holds the files and metrics, and a model version with what tuili knows
of it as tags, by which it is found again: mirroring twice adds nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from tuili.errors import InvalidArgument, InvalidModel, Unavailable, Unsupported
from tuili.server.publishing import versions
from tuili.server.registry import ledger, record
from tuili.server.registry.record import RECORD, SEAL, Record

SCHEME: Final = "mlflow:"
_EXPERIMENT: Final = "tuili"
_FOLDER: Final = "model"
# What is taken of a version of MLflow, the first that is there.
_SOUGHT: Final = ("model.tuili", "model.tuiliz", "model.onnx")


class Mirrored(NamedTuple):
    """A version here and the number that it has in MLflow."""

    version: int
    theirs: str
    is_new: bool


def is_reference(text: str) -> bool:
    """Whether a model is in MLflow: `mlflow:models:/NAME/VERSION`, or any URI of an artifact."""
    return text.startswith(SCHEME)


def fetch(reference: str, folder: Path) -> Path:
    """The file or folder to publish of a version of MLflow, copied into `folder`."""
    artifacts = _mlflow("mlflow.artifacts")
    uri = reference.removeprefix(SCHEME)
    try:
        found = Path(artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except Exception as error:
        raise Unavailable(
            f"{uri} cannot be fetched from MLflow at {_address()}: {error}"
        ) from error
    return found if found.is_file() else _model_in(found, uri)


def mirror(folder: Path, only: str = "") -> list[Mirrored]:
    """Tell MLflow of a model's published versions, or of one; tags become aliases."""
    client_of, refused = _mlflow("mlflow").MlflowClient, _mlflow("mlflow.exceptions")
    wanted = [versions.resolve(folder, only)] if only else versions.versions_of(folder)
    abouts = [each for number in wanted if (each := record.read(folder / str(number)))]
    if not abouts:
        raise InvalidModel(f"{folder} has no published version; others have no record to mirror")
    try:
        client = client_of()
        known = _known(client, folder.name)
        found = [_told(client, folder, about, known) for about in abouts]
        theirs = {each.version: each.theirs for each in found}
        for tag, number in ledger.read(folder).tags.items():
            if number in theirs:
                client.set_registered_model_alias(folder.name, tag, theirs[number])
    except (refused.MlflowException, OSError) as error:
        raise Unavailable(f"MLflow at {_address()}: {error}") from error
    return found


def _known(client: Any, name: str) -> dict[tuple[str, str], str]:
    """MLflow's numbers by version and digest; the registered model is made if there is none."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, tags={"tuili": "mirror"})
    return {
        (each.tags.get("tuili.version", ""), each.tags.get("tuili.digest", "")): str(each.version)
        for each in client.search_model_versions(f"name = '{name}'")
    }


def _told(client: Any, folder: Path, about: Record, known: dict[tuple[str, str], str]) -> Mirrored:
    key = (str(about.version), about.digest)
    if key in known:
        return Mirrored(about.version, known[key], is_new=False)
    experiment = client.get_experiment_by_name(_EXPERIMENT)
    number = experiment.experiment_id if experiment else client.create_experiment(_EXPERIMENT)
    run = client.create_run(number, run_name=f"{about.model}-{about.version}")
    for name, value in about.metrics.items():
        client.log_metric(run.info.run_id, name, value)
    for name, text in about.parameters.items():
        client.log_param(run.info.run_id, name, text)
    client.log_artifacts(run.info.run_id, str(folder / str(about.version)), _FOLDER)
    client.set_terminated(run.info.run_id)
    made = client.create_model_version(
        about.model,
        source=f"{run.info.artifact_uri}/{_FOLDER}",
        run_id=run.info.run_id,
        tags=_tags(about),
        description=about.notes or None,
    )
    return Mirrored(about.version, str(made.version), is_new=True)


def _tags(about: Record) -> dict[str, str]:
    def texts(entries: Any) -> str:
        return ", ".join(f"{each.name} {record.spec_text(each)}" for each in entries or ())

    tags = {
        "tuili.version": str(about.version),
        "tuili.digest": about.digest,
        "tuili.inputs": texts(about.inputs),
        "tuili.outputs": texts(about.outputs),
        "tuili.source_sha256": about.provenance.source_sha256,
        "tuili.user": about.provenance.user,
    }
    tags |= {f"tuili.metric.{name}": f"{value:g}" for name, value in about.metrics.items()}
    return {name: text for name, text in tags.items() if text}


def _model_in(folder: Path, uri: str) -> Path:
    """What of a version's files is a model; one that was mirrored from here is whole again."""
    about = record.read(folder)
    if about is not None:
        for path in (folder / RECORD, folder / SEAL, *record.files_of(folder).values()):
            if path.relative_to(folder).as_posix() not in about.files:
                path.unlink(missing_ok=True)  # MLflow adds notes of its own
        return folder
    there = [folder / name for name in _SOUGHT if (folder / name).exists()]
    there = there or sorted(folder.rglob("*.onnx"))
    if not there:
        names = sorted(path.name for path in folder.iterdir())
        raise Unsupported(
            f"{uri} holds {', '.join(names) or 'nothing'}, and none is an ONNX file or an "
            "artifact; log the model with mlflow.onnx, or publish the file itself"
        )
    if len(there) > 1 and there[0].name not in _SOUGHT:
        names = sorted(path.relative_to(folder).as_posix() for path in there)
        raise InvalidArgument(f"{uri} holds several ONNX files: {', '.join(names)}; name one")
    return there[0]


def _mlflow(name: str) -> Any:
    """A module of MLflow; Unsupported where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Unsupported(f"{error}: MLflow needs `pip install 'tuili[mlflow]'`") from error


def _address() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", "") or "its default (MLFLOW_TRACKING_URI is unset)"
