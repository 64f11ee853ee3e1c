"""`tuili mirror`: published versions are told to MLflow's model registry."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tuili.cli.publish import RepositoryConfig, RepositoryOption


def mirror(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    repository: RepositoryOption,
    version: Annotated[str, typer.Option(help="A number or tag; all by default.")] = "",
    repository_config: RepositoryConfig = None,
) -> None:
    """Register published versions in MLflow, with their files, metrics, digests and tags.

    Which server is MLflow's own setting, MLFLOW_TRACKING_URI. What is there already is left alone.
    """
    from tuili.server.publishing import mlflow_registry
    from tuili.server.publishing.places import place_of

    folder = place_of(repository, repository_config).whole(name)
    console = Console(soft_wrap=True, highlight=False)
    for each in mlflow_registry.mirror(folder, version):
        told = "registered as" if each.is_new else "is there as"
        console.print(f"{name} version {each.version} {told} {each.theirs}", markup=False)
