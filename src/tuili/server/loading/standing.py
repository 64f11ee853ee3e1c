"""What stands below an ensemble: which load of which model answers each of its steps."""

from __future__ import annotations

from collections.abc import Collection

from tuili.server.repository.departures import Leaver
from tuili.server.repository.lifecycle import Repository
from tuili.server.scheduling.dag import Dag
from tuili.server.serving.ensemble import Ensemble
from tuili.server.serving.ensemble_cache import Standing
from tuili.server.serving.servable import Servable


def standing_of(repository: Repository[Leaver], dag: Dag, own: Collection[int]) -> Standing:
    """Of all steps but its `own`, and those below them; None where none is, or a roll-out runs."""
    found: list[object] = []
    for at, step in enumerate(dag.steps):
        if at in own:
            continue  # they come and go with the ensemble
        part = repository.live.get(step.model, {}).get(step.version)
        if isinstance(part, Ensemble):
            found.append(below := standing_of(repository, part.dag, part.own))
            if below is None:
                return None
        elif not isinstance(part, Servable):
            return None
        found.append(repository.changes[step.model])
    return tuple(found)
