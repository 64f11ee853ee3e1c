"""load(): an artifact on disk becomes a model in memory."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tuili.artifact import Artifact, Pin, open_artifact
from tuili.errors import InvalidArgument, TuiliError, Unavailable, Unsupported
from tuili.limits import Limits
from tuili.runtime.cpu import available_threads, host_features
from tuili.runtime.library import Library
from tuili.runtime.model import HostSteps, Model
from tuili.runtime.object_model import ObjectModel

MAX_THREADS = 1024
_ATTEMPTS = 5
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def load(
    path: str | Path,
    threads: int = 0,
    *,
    verify: bool = True,
    host: Callable[[Artifact], HostSteps] | None = None,
    limits: Limits | None = None,
) -> Model:
    """The artifact at `path` as a model; never compiles.

    `threads` is how many threads work on one run, at most those that this process may use at once,
    0 for all of them: threads that share a CPU would wait for each other. Raises NotFound,
    InvalidArtifact, or Unsupported for what the runtime cannot hand over. `verify=False` skips the
    checksum of the weights, for a file that was checked before. `host` makes what runs the nodes
    without native code, for the few models that have some; `tuili.load` gives one. `limits` bound
    what data decides; by default they come from the environment.
    """
    # Callers without types hand in whatever they have.
    is_number = isinstance(threads, int)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_number or not 0 <= threads <= MAX_THREADS:
        raise InvalidArgument(f"threads is {threads!r}, expected 0 (all) to {MAX_THREADS}")
    available = available_threads()
    for _ in range(_ATTEMPTS):
        with Pin(path) as pin:
            try:
                artifact = open_artifact(path)
                library = _open_code(artifact, verify=verify)
                steps = _host_steps(artifact, host)
                kind = ObjectModel if _has_objects(artifact, steps) else Model
                model = kind(artifact, library, min(threads or available, available), steps, limits)
            except (TuiliError, OSError):
                if pin.holds():
                    raise
                continue
            # A writer may have replaced it meanwhile: parts of two would give wrong answers.
            if pin.holds():
                path = Path(path).absolute()
                model.again = partial(load, path, threads, verify=verify, host=host, limits=limits)
                return model
    raise Unavailable(f"{path} was replaced {_ATTEMPTS} times while it was being loaded")


def _open_code(artifact: Artifact, *, verify: bool) -> Library:
    code = artifact.choose_code(host_features(), platform.system().lower(), _machine())
    library = Library(artifact.verify_code(code))
    if verify:
        artifact.verify_weights()
    return library


def _host_steps(
    artifact: Artifact, host: Callable[[Artifact], HostSteps] | None
) -> HostSteps | None:
    steps = artifact.manifest.host_steps
    if not steps:
        return None
    if host is None:
        raise Unsupported(
            f"{artifact.path}: {len(steps)} nodes run in Python ({', '.join(steps[:3])}); "
            "load it with tuili.load"
        )
    return host(artifact)


def _has_objects(artifact: Artifact, steps: HostSteps | None) -> bool:
    specs = (*artifact.inputs, *artifact.outputs)
    return any(spec.is_object for spec in specs) or (steps is not None and steps.passes_objects)


def _machine() -> str:
    machine = platform.machine().lower()
    return _MACHINES.get(machine, machine)
