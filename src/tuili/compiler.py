"""compile(): the order of everything between a model file and an artifact, as one list."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tuili import __version__
from tuili.artifact import Artifact, CodeFile, Contents, is_artifact, open_artifact, write_artifact
from tuili.artifact.producer import producer_digest
from tuili.artifact.write import refuse_foreign
from tuili.codegen.cache import ObjectCache, cache_folder, content_key
from tuili.codegen.compilers import extra_flags
from tuili.codegen.decisions import decisions_files, tuned_option
from tuili.codegen.emit import RUN_UNIT, SourceUnit, emit
from tuili.codegen.targets import Target, find_target, native_target
from tuili.codegen.toolchain import Toolchain, Unit
from tuili.codegen.translate import translate
from tuili.codegen.tuning import Times, read_times
from tuili.errors import InvalidArgument, InvalidArtifact, NotFound, ToolchainError, TuiliError
from tuili.host import HostSteps, host_files, host_step
from tuili.importers.onnx import import_model
from tuili.importers.onnx.loadable import loadable, model_digest
from tuili.importers.onnx.strangers import kind_of_folder
from tuili.ir import Graph, verify
from tuili.limits import Limits
from tuili.lower.choice import Pick
from tuili.lower.memory import MemoryPlan
from tuili.lower.program import Program
from tuili.ops.infer import infer
from tuili.ops.plugin_digest import is_current, plugins_of
from tuili.ops.table import Op, using
from tuili.passes.asked_shapes import Shapes, checked_shapes, set_shapes
from tuili.passes.map_outputs import plain_map_outputs
from tuili.passes.pipeline import optimise
from tuili.precision import EXACT, PRECISIONS, Precision
from tuili.runtime import Model
from tuili.runtime import load as load_artifact
from tuili.runtime.cpu import host_features, processor

if TYPE_CHECKING:
    from onnx import ModelProto

_LONG_RUN = 1_500_000  # bytes of the run function's C; a network of 700 nodes has a third of it
_SINGLE_FILE = ".tuiliz"
# Of the models that `load` and `tuili run` compiled: the least recently used go first.
_MODELS_LIMIT_BYTES = 16 << 30
_OPERATORS = "operators"  # the manifest's option that holds the plug-ins' digests

Source: TypeAlias = "str | Path | bytes | Graph | ModelProto"
OnPass: TypeAlias = Callable[[str, Graph], None]
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What changes the compiled code; the same options and model give the same bytes."""

    target: str = "native"
    shapes: Shapes = field(default_factory=dict[str, Sequence[int | str]])
    exact: bool = False  # no Winograd, no cheaper arithmetic that rounds otherwise
    plain_maps: bool = False  # outputs that are dictionaries per row become tensors
    tuning: Path | None = None  # a record of measured times; the user's own by default
    precision: Precision = EXACT  # bf16: products, convolutions and weights may round to it

    def __post_init__(self) -> None:
        """Refuse a precision that there is not, and one that is not exact where that is asked."""
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise InvalidArgument(f"unknown precision {self.precision!r}. Known: {known}")
        if self.exact and self.precision != EXACT:
            raise InvalidArgument(
                f"precision {self.precision!r} rounds, which `exact` forbids: ask for one of them"
            )

    def key(self) -> str:
        """The options as one line of text, for caches and manifests."""
        shapes = {name: list(dims) for name, dims in sorted(self.shapes.items())}
        target = self.resolve().name
        found = {"exact": self.exact, "shapes": shapes, "target": target}
        if self.plain_maps:
            found["plain_maps"] = True
        if self.precision != EXACT:
            found["precision"] = self.precision
        return json.dumps(found)

    def resolve(self) -> Target:
        """The target; `native` is the best one that this machine runs."""
        if self.target == "native":
            return _native()
        return find_target(self.target)

    def times(self) -> Times:
        """What the tuning record knows about the target on this processor."""
        return read_times(self.tuning, self.resolve().name, processor())


@cache
def _native() -> Target:
    """The best target of this machine and its compiler; without one, what the machine runs."""
    return native_target(host_features(), compiles=_compiles)


def _compiles(target: Target) -> bool:
    try:
        return Toolchain.find().knows(target.flags)
    except ToolchainError:
        return True  # said where code is compiled


def compile(  # noqa: A001, PLR0913 - the public verb; one parameter per option
    model: Source,
    output: str | Path | None = None,
    *,
    target: str = "native",
    shapes: Shapes | None = None,
    exact: bool = False,
    plain_maps: bool = False,
    tuning: str | Path | None = None,
    precision: Precision = EXACT,
    check: bool = False,
    on_pass: OnPass | None = None,
    on_progress: Progress | None = None,
    operators: Iterable[Op] = (),
) -> Artifact:
    """Compile a model file (or bytes, ModelProto, Graph) to an artifact.

    `output` is a folder, or one file when it ends in `.tuiliz`; by default a folder beside the
    model. `shapes` fixes or renames dims of inputs: `{"x": [1, 3, "H", "W"]}`; `{"x": ["*"]}` lets
    its open dims differ from those that the file calls alike. `exact` forbids transformations that
    change the order of arithmetic, and keeps subnormal sums of products, which are zeros otherwise
    on x86. `plain_maps` lets outputs that are a dictionary per row
    (`ZipMap`, which classifiers of scikit-learn end in) be tensors of [rows, classes], as a server
    needs them. `tuning` is a record of `tune`, in the place of the user's own. With the `precision`
    "bf16" products and convolutions round what they multiply to bfloat16 where the target has an
    instruction for it, and large weights of products are kept in it everywhere; sums and all else
    stay f32. `operators` are plug-in operators that the model uses, beside those of installed
    packages; see `tuili.operator`.
    Raises InvalidModel, UnsupportedOperator, InvalidArgument, ToolchainError.
    """
    record = Path(tuning) if tuning is not None else None
    options = Options(target, checked_shapes(shapes), exact, plain_maps, record, precision)
    progress = on_progress or _silent
    place = Path(output) if output is not None else _beside(model)
    refuse_foreign(place)
    progress("importing", 0, 1)
    with using(operators):
        graph = model if isinstance(model, Graph) else import_model(model)
        compiled = generate(graph, options, on_pass, check=check)
        return package(compiled, options, place, progress)


def load(
    model: str | Path | bytes | ModelProto | Artifact,
    threads: int = 0,
    *,
    shapes: Shapes | None = None,
    limits: Limits | None = None,
    operators: Iterable[Op] = (),
) -> Model:
    """A model ready to run; an ONNX model is compiled once and found in the cache afterwards.

    A run takes up to `threads` cores, 0 for all that this process may use, if it is worth them.
    `limits` bound loops and the memory of data-dependent shapes; see `tuili.Limits`. `operators`
    are plug-in operators, beside those of installed packages; see `tuili.operator`.
    """
    options = Options(shapes=checked_shapes(shapes))
    found = loadable(model)
    with using(operators):
        if isinstance(found, Path) and is_artifact(found):
            return load_artifact(found, threads=threads, host=HostSteps, limits=limits)
        path = compile_cached(found, options).path
        try:
            return load_artifact(path, threads=threads, host=HostSteps, limits=limits)
        except InvalidArtifact:  # damaged where it lay: the model is at hand
            path.unlink(missing_ok=True)
            path = compile_cached(found, options).path
            return load_artifact(path, threads=threads, host=HostSteps, limits=limits)


def compile_cached(
    model: Path | bytes, options: Options, on_progress: Progress | None = None
) -> Artifact:
    """The artifact of a model, compiled unless the same contents were compiled before."""
    if isinstance(model, Path) and model.is_dir():
        raise NotFound(f"{str(model)!r} {kind_of_folder(model)}")
    parts = (model_digest(model), options.key(), options.times().digest, producer_digest())
    key = content_key((*parts, *extra_flags()))
    cache = ObjectCache(cache_folder() / "models")
    if found := _usable(cache.find(key, _SINGLE_FILE)):
        return found
    with cache.making(key, _SINGLE_FILE) as scratch:
        if scratch is None:
            return open_artifact(cache.path(key, _SINGLE_FILE))
        made = compile(
            model,
            scratch / f"model{_SINGLE_FILE}",
            target=options.target,
            shapes=options.shapes,
            exact=options.exact,
            plain_maps=options.plain_maps,
            tuning=options.tuning,
            precision=options.precision,
            on_progress=on_progress,
        )
        artifact = open_artifact(cache.keep(key, _SINGLE_FILE, made.path))
    cache.prune_at_times(_MODELS_LIMIT_BYTES)
    return artifact


def _usable(path: Path | None) -> Artifact | None:
    """A cached artifact; a damaged or outdated one is thrown away and made again."""
    if path is None:
        return None
    try:
        artifact = open_artifact(path)
        if is_current(json.loads(artifact.manifest.options.get(_OPERATORS, "{}"))):
            return artifact
    except TuiliError:
        pass
    path.unlink(missing_ok=True)
    return None


def _silent(step: str, done: int, total: int) -> None:
    """The progress of a compilation that nobody watches."""


def _beside(model: Source) -> Path:
    if isinstance(model, str | Path):
        return Path(model).with_suffix(".tuili")
    raise InvalidArgument("a model that is no file needs `output`, the path of its artifact")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A model on its way to an artifact."""

    graph: Graph
    program: Program
    units: tuple[SourceUnit, ...]
    plan: MemoryPlan | None
    operators: Mapping[str, str]  # plug-ins, and their digests


def generate(
    graph: Graph,
    options: Options,
    on_pass: OnPass | None = None,
    *,
    check: bool = False,
    timed: bool = False,
    pick: Pick | None = None,
) -> Compiled:
    """The C of a graph, in order: types, passes, kernels, memory, text. Changes the graph.

    `pick` decides between several plans of a kernel; by default the tuning record does.
    """
    target = options.resolve()
    operators = plugins_of(graph)
    set_shapes(graph, options.shapes)
    if options.plain_maps:
        plain_map_outputs(graph)
    requirements = infer(graph).requirements
    watch = _checked(on_pass, check=check)
    optimise(graph, block=target.block, on_pass=watch, exact=options.exact)
    contents = infer(graph)
    pick = pick or options.times().pick
    program = translate(
        graph,
        contents,
        target,
        exact=options.exact,
        pick=pick,
        bf16=options.precision == "bf16",
    )
    program.require(requirements)
    emitted = emit(program, target, timed=timed)
    return Compiled(graph, program, emitted.units, emitted.plan, operators)


def _checked(on_pass: OnPass | None, *, check: bool) -> OnPass:
    def watch(name: str, graph: Graph) -> None:
        if check:
            verify(graph, after=name)
        if on_pass is not None:
            on_pass(name, graph)

    return watch


def _level(unit: SourceUnit) -> str:
    """How hard the C compiler tries: the run function has no loops, and is one function.

    At -O1 gcc takes 81 s for 2,400 calls that threads share and 0.2 s for 100; plainly it takes 9.
    """
    if unit.name != RUN_UNIT:
        return "-O3"
    return "-O1" if len(unit.text) < _LONG_RUN else "-O0"


def build(units: Sequence[SourceUnit], target: Target, library: Path, progress: Progress) -> None:
    """Compile the units to a library."""
    flags = ("-ffp-contract=fast", *target.flags)
    sources = [Unit(u.name, u.text, (_level(u), *flags)) for u in units]
    toolchain = Toolchain.find(target.machine)
    toolchain.build(sources, library, lambda done, total: progress("compiling", done, total))


def package(
    compiled: Compiled, options: Options, place: Path, progress: Progress | None = None
) -> Artifact:
    """Build what `generate` made and write the artifact."""
    with tempfile.TemporaryDirectory(prefix="tuili-") as scratch:
        library = Path(scratch) / "model.so"
        build(compiled.units, options.resolve(), library, progress or _silent)
        contents = _contents(compiled, options, library)
        return write_artifact(contents, place, single_file=place.suffix == _SINGLE_FILE)


def _contents(compiled: Compiled, options: Options, library: Path) -> Contents:
    program, plan, target = compiled.program, compiled.plan, options.resolve()
    code = CodeFile(library, target.name, target.requires, target.machine)
    source = "\n".join(unit.shown for unit in compiled.units)
    return Contents(
        name=program.name,
        producer=f"tuili {__version__}",
        inputs=program.inputs,
        outputs=program.outputs,
        symbols=program.symbols,
        code=[code],
        weights=[(weight.buffer.offset, weight.array) for weight in program.weights],
        arena_bytes=plan.size if plan else None,
        arena_lower_bound=plan.lower_bound if plan else None,
        metadata=compiled.graph.metadata,
        options=_recorded(compiled, options),
        host_steps=[host_step(graph) for graph in program.host],
        extra={
            "model.c": source.encode(),
            **host_files(program.host),
            **decisions_files(program.decisions),
        },
    )


def _recorded(compiled: Compiled, options: Options) -> dict[str, str]:
    plugins = {_OPERATORS: json.dumps(compiled.operators)} if compiled.operators else {}
    return {"options": options.key(), **tuned_option(compiled.program.decisions), **plugins}
