"""`tuili bench`: models on several engines, or (with --server) load on a running server."""

from __future__ import annotations

from pathlib import Path

from tuili.cli import bench_options as o
from tuili.cli.precision import PrecisionOption
from tuili.cli.shapes import SizeOptions, concrete_shapes
from tuili.errors import InvalidArgument
from tuili.precision import EXACT


def bench(
    models: o.Models,
    shape: SizeOptions = None,
    output: o.JsonFile = None,
    threads: o.Threads = 1,
    rounds: o.Rounds = 20,
    engine: o.Engines = None,
    dynamic: o.Dynamic = False,
    precision: PrecisionOption = EXACT,
    scenario: o.Scenarios = "single-stream",
    costs: o.WithCosts = False,
    server: o.Server = "",
    concurrency: o.Concurrency = "1,8,32",
    rate: o.Rate = "",
    distribution: o.Distribution = "poisson",
    slo_ms: o.SloMs = None,
    percentile: o.Percentile = 99.0,
    shared_memory: o.SharedMemory = False,
    json_tensors: o.JsonTensors = False,
    ids: o.Ids = False,
    connections: o.Connections = 0,
    model_version: o.ModelVersion = "",
    inputs: o.Inputs = None,
    expect: o.Expect = None,
    variety: o.Variety = 8,
    window: o.WindowS = 1.0,
    windows: o.Windows = 10,
    warm_up: o.WarmUp = 1.0,
    seed: o.Seed = 0,
    server_pid: o.ServerPid = 0,
    csv: o.CsvFile = None,
    plot: o.PlotFile = None,
) -> None:
    """Time models on tuili, onnxruntime and openvino; or put load on a server and check answers."""
    shapes = concrete_shapes(shape)
    if not server:
        from tuili.bench.engines import Settings as EngineSettings
        from tuili.cli.bench_engines import Asked, bench_engines

        settings = EngineSettings(
            threads, fixed_shapes=not dynamic, precision=precision, scenario=scenario
        )
        asked = Asked(rounds, engine or (), costs, output, csv, plot)
        bench_engines([Path(each) for each in models], shapes, settings, asked)
        return

    from tuili.bench.load.payloads import Question
    from tuili.bench.load.session import Settings
    from tuili.cli.bench_server import Files, Loads, bench_server, numbers

    if len(models) != 1:
        raise InvalidArgument(f"--server loads one model, got {len(models)}: {', '.join(models)}")
    bench_server(
        server,
        Question(models[0], model_version, json_tensors=json_tensors, ids=ids),
        Settings(
            warm_up_s=warm_up, window_s=window, windows=windows, connections=connections,
            variety=variety, seed=seed, metronome=distribution == "constant",
            server_pid=server_pid,
        ),
        Loads(
            [int(each) for each in numbers("--concurrency", concurrency)],
            numbers("--rate", rate), slo_ms, percentile, shared_memory,
        ),
        Files(shapes, inputs, expect, output, csv, plot),
    )  # fmt: skip
