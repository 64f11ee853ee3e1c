"""Load, reload, unload and poll, with a launch that tests control."""

import asyncio
import shutil
import threading
from collections.abc import Sized
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tuili.errors import InternalError, InvalidModel, NotFound
from tuili.server.registry import ledger
from tuili.server.repository import namespaces
from tuili.server.repository.lifecycle import Repository
from tuili.server.repository.overrides import Overrides
from tuili.server.repository.states import NEXT, State


@dataclass(eq=False)
class Version:
    number: int
    config: object
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[str] = field(default_factory=list)
    is_shut: bool = False

    def open_sequences(self):
        return 0

    def shut(self):
        self.is_shut = True

    async def drain(self, timeout_s=None):
        self.log.append("drain")
        if self.busy.is_set():
            await asyncio.sleep(0)
        return True

    async def close(self):
        self.log.append("close")


class Launcher:
    def __init__(self):
        self.broken: set[int] = set()
        self.made: list[Version] = []

    async def __call__(self, folder: Path, config, version: int) -> Version:
        await asyncio.sleep(0)
        if version in self.broken:
            raise InvalidModel("its file is broken")
        self.made.append(Version(version, config))
        return self.made[-1]


def add(repository: Path, model: str, *versions: int, config: str = "") -> Path:
    folder = repository / model
    for version in versions:
        (folder / str(version)).mkdir(parents=True, exist_ok=True)
    if config:
        (folder / "config.pbtxt").write_text(config)
    return folder


@pytest.fixture
def launcher():
    return Launcher()


def made(tmp_path, launcher):
    return Repository([tmp_path], launcher)


def states(repository, model):
    return {v: entry.state.value for v, entry in repository.states_of(model).items()}


def test_the_newest_version_is_the_default(tmp_path, launcher):
    add(tmp_path, "m", 1, 2, 10, config="version_policy { latest { num_versions: 2 } }")
    repository = made(tmp_path, launcher)
    asyncio.run(repository.load("m"))
    live = repository.live["m"]
    assert set(live) == {"2", "10", ""}
    assert live[""] is live["10"]
    assert states(repository, "m") == {2: "READY", 10: "READY"}


def test_a_failed_version_names_its_reason_and_the_others_serve(tmp_path, launcher):
    add(tmp_path, "m", 1, 2, config="version_policy { all {} }")
    launcher.broken = {2}
    repository = made(tmp_path, launcher)
    with pytest.raises(
        InvalidModel, match="load failed for model 'm': version 2: its file is broken"
    ):
        asyncio.run(repository.load("m"))
    assert set(repository.live["m"]) == {"1", ""}
    assert repository.failures() == {"m": "version 2: its file is broken"}
    assert {
        "name": "m",
        "version": "2",
        "state": "UNAVAILABLE",
        "reason": "its file is broken",
    } in (repository.index())


def test_reload_switches_then_drains_the_old(tmp_path, launcher):
    add(tmp_path, "m", 1)
    repository = made(tmp_path, launcher)

    async def scenario():
        await repository.load("m")
        await repository.load("m")
        await repository.close()

    asyncio.run(scenario())
    old, new = launcher.made
    assert old.log == new.log == ["drain", "close"]


def test_names_that_are_no_models_leave_nothing_behind(tmp_path, launcher):
    repository = made(tmp_path, launcher)

    async def scenario():
        for at in range(10):
            with pytest.raises(InternalError, match="failed to load 'no"):
                await repository.load(f"no{at}")
            await repository.unload(f"no{at}")

    asyncio.run(scenario())
    kept = [each for each in vars(repository).values() if isinstance(each, Sized)]
    assert not any(map(len, kept))
    assert not repository.departures.under_way()
    assert not list(repository.loads)


def test_a_failed_reload_leaves_the_old_one_serving(tmp_path, launcher):
    add(tmp_path, "m", 1)
    repository = made(tmp_path, launcher)

    async def scenario():
        await repository.load("m")
        launcher.broken = {1}
        with pytest.raises(InvalidModel, match="its file is broken"):
            await repository.load("m")

    asyncio.run(scenario())
    assert repository.live["m"]["1"] is launcher.made[0]
    assert launcher.made[0].log == []
    assert states(repository, "m") == {1: "READY"}
    assert "reload failed" in repository.index()[0]["reason"]


def test_a_newer_version_retires_the_older_one(tmp_path, launcher):
    folder = add(tmp_path, "m", 1)
    repository = made(tmp_path, launcher)

    async def scenario():
        await repository.load("m")
        (folder / "2").mkdir()
        await repository.poll()
        await asyncio.gather(*repository.departures.under_way())

    asyncio.run(scenario())
    assert set(repository.live["m"]) == {"2", ""}
    assert states(repository, "m") == {1: "UNAVAILABLE", 2: "READY"}
    assert repository.failures() == {}


def test_a_newer_version_that_does_not_load_leaves_the_older_one_serving(tmp_path, launcher):
    add(tmp_path, "m", 1)
    repository = made(tmp_path, launcher)

    async def scenario():
        await repository.load("m")
        launcher.broken = {2}
        add(tmp_path, "m", 2)
        await repository.poll()
        answering = repository.live["m"][""]
        assert (answering.number, answering.log) == (1, [])
        assert repository.failures() == {}
        assert [(e["version"], e["state"], e.get("reason", "")) for e in repository.index()] == [
            ("1", "READY", ""), ("2", "UNAVAILABLE", "its file is broken"),
        ]  # fmt: skip
        launcher.broken = set()
        (tmp_path / "m" / "2" / "mended").touch()
        await repository.poll()
        await asyncio.sleep(0.01)
        assert repository.live["m"][""].number == 2
        assert answering.log == ["drain", "close"]

    asyncio.run(scenario())


def test_a_withdrawn_version_does_not_stay_when_the_one_before_is_broken(tmp_path, launcher):
    folder = add(tmp_path, "m", 1, 2)
    repository = made(tmp_path, launcher)

    async def scenario():
        await repository.load("m")
        launcher.broken = {1}
        ledger.append(folder, ledger.Event("now", "me", "withdraw", 2))
        await repository.poll()
        assert "m" not in repository.live
        assert "its file is broken" in repository.failures()["m"]

    asyncio.run(scenario())


def test_a_repository_that_cannot_be_read_changes_nothing(tmp_path, launcher):
    place = tmp_path / "repository"
    add(place, "m", 1)
    repository = made(place, launcher)

    async def scenario():
        await repository.poll()
        place.rename(tmp_path / "away")
        with pytest.raises(NotFound, match="cannot be read"):
            await repository.poll()
        assert repository.live["m"][""].log == []
        (tmp_path / "away").rename(place)
        await repository.poll()
        assert [each.number for each in launcher.made] == [1]

    asyncio.run(scenario())


def test_polling_loads_new_models_and_unloads_gone_ones(tmp_path, launcher):
    folder = add(tmp_path, "m", 1)
    repository = made(tmp_path, launcher)

    async def scenario():
        await repository.load_all(repository.find())
        await repository.poll()
        assert len(launcher.made) == 1
        (folder / "1").rmdir()
        folder.rmdir()
        add(tmp_path, "n", 1)
        await repository.poll()

    asyncio.run(scenario())
    assert set(repository.live) == {"n"}
    assert repository.index() == [{"name": "n", "version": "1", "state": "READY"}]


def test_a_look_waits_neither_for_a_slow_load_nor_for_a_busy_model(tmp_path):
    ends = {"slow": asyncio.Event(), "busy": asyncio.Event()}

    class Busy(Version):
        async def drain(self, timeout_s=None):
            await ends["busy"].wait()
            return await super().drain()

    async def launch(folder, config, version):
        if config.name == "slow":
            await ends["slow"].wait()
        return (Busy if config.name == "busy" else Version)(version, config)

    folder = add(tmp_path, "busy", 1)
    repository = made(tmp_path, launch)
    repository.look_s = 0.01

    def states_now():
        return [(entry["name"], entry.get("state")) for entry in repository.index()]

    async def looks_until(condition):
        async with asyncio.timeout(20):
            while not condition():
                await repository.poll()

    async def scenario():
        await repository.load("busy")
        first = repository.live["busy"][""]
        shutil.rmtree(folder)
        add(tmp_path, "slow", 1)
        await looks_until(lambda: states_now() == [("busy", "UNLOADING"), ("slow", "LOADING")])
        assert set(repository.live) == set()
        add(tmp_path, "busy", 1)
        add(tmp_path, "other", 1)
        await looks_until(lambda: set(repository.live) == {"busy", "other"})
        for end in ends.values():
            end.set()
        repository.look_s = 30
        await repository.poll()
        assert first.log == ["drain", "close"]
        assert set(repository.live) == {"busy", "other", "slow"}
        assert {each["state"] for each in repository.index()} == {"READY"}
        await repository.close()

    asyncio.run(scenario())


def test_unload_keeps_the_name_in_the_index(tmp_path, launcher):
    add(tmp_path, "m", 1)
    repository = made(tmp_path, launcher)

    async def scenario():
        await repository.load("m")
        await repository.unload("m")

    asyncio.run(scenario())
    assert repository.live == {}
    assert repository.index() == [
        {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    ]
    assert repository.index(ready_only=True) == []
    assert launcher.made[0].log == ["drain", "close"]


@pytest.mark.parametrize(
    ("prepare", "kind", "text"),
    [
        (
            lambda path: None,
            InternalError,
            "failed to load 'm', failed to poll from model repository",
        ),
        (lambda path: add(path, "m"), InternalError, "failed to poll"),
        (lambda path: (path / "m").mkdir(), InvalidModel, "at least one version must be available"),
        (lambda path: add(path, "m", 1, config="nme: 1"), InvalidModel, "Did you mean 'name'"),
    ],
)
def test_models_that_cannot_be_loaded(tmp_path, launcher, prepare, kind, text):
    prepare(tmp_path)
    repository = made(tmp_path, launcher)
    with pytest.raises(kind, match=text):
        asyncio.run(repository.load("m"))
    if kind is InvalidModel:
        assert "m" in repository.failures()


def test_models_never_loaded_are_in_the_index_by_name(tmp_path, launcher):
    add(tmp_path, "m", 1)
    assert made(tmp_path, launcher).index() == [{"name": "m"}]


def test_an_override_of_the_configuration(tmp_path, launcher):
    add(tmp_path, "m", 1)
    repository = made(tmp_path, launcher)
    asyncio.run(repository.load("m", Overrides('{"max_batch_size": 3}')))
    assert launcher.made[0].config.max_batch_size == 3


def test_a_launch_with_a_bug_costs_one_model(tmp_path):
    add(tmp_path, "m", 1)

    async def launch(folder, config, version):
        raise ZeroDivisionError("oops")

    repository = Repository([tmp_path], launch)
    asyncio.run(repository.load_all(["m"]))
    assert repository.failures() == {"m": "version 1: oops"}


def test_concurrent_loads_of_one_model_follow_each_other(tmp_path, launcher):
    add(tmp_path, "m", 1)
    repository = made(tmp_path, launcher)

    async def scenario():
        await asyncio.gather(*(repository.load("m") for _ in range(5)), repository.unload("m"))
        await repository.close()

    asyncio.run(scenario())
    assert all(version.log == ["drain", "close"] for version in launcher.made)


def test_every_state_can_be_left():
    assert set(NEXT) == set(State)


def test_requests_go_on_while_a_configuration_is_read(tmp_path, launcher, monkeypatch):
    add(tmp_path, "m", 1)
    went_on, read = threading.Event(), namespaces.read

    def slow(*rest):
        assert went_on.wait(20), "the loop waits for the configuration"
        return read(*rest)

    monkeypatch.setattr(namespaces, "read", slow)
    repository = made(tmp_path, launcher)

    async def scenario():
        loading = asyncio.create_task(repository.load("m"))
        await asyncio.to_thread(lambda: None)
        went_on.set()
        await loading
        went_on.clear()
        (tmp_path / "m" / "2").mkdir()
        adding = asyncio.create_task(repository.add_version("m", 2))
        await asyncio.to_thread(lambda: None)
        went_on.set()
        await adding

    asyncio.run(scenario())
    assert set(repository.live["m"]) == {"1", "2", ""}
