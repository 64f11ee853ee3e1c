"""Which models a model is made of: the steps of an ensemble, or of its versions' pipelines."""

from __future__ import annotations

from pathlib import Path

from tuili.server.repository import pipeline
from tuili.server.repository.config import ModelConfig, step_models
from tuili.server.repository.layout import versions_of


def models_needed(folder: Path, config: ModelConfig) -> list[str]:
    """Their names, each once; InvalidModel when a pipeline cannot be read."""
    found = step_models(config)
    for version in config.versions.select(versions_of(folder)):
        path = folder / str(version) / pipeline.FILE
        if path.is_file():
            found += pipeline.read(path).models
    return list(dict.fromkeys(found))
