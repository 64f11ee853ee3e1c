"""Which models a model is made of: the steps of an ensemble, or of its versions' pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuili.server.repository import pipeline
from tuili.server.repository.config import ModelConfig, step_models
from tuili.server.repository.layout import versions_of
from tuili.server.repository.namespaces import step_name


def models_needed(folder: Path, config: ModelConfig, places: Sequence[Path] = ()) -> list[str]:
    """Their names, each once, whole where `places` have namespaces.

    Raises InvalidModel when a pipeline cannot be read.
    """
    found = step_models(config)
    for version in config.versions.select(versions_of(folder)):
        path = folder / str(version) / pipeline.FILE
        if path.is_file():
            found += [step_name(places, config.name, each) for each in pipeline.read(path).models]
    return list(dict.fromkeys(found))
