"""Artifacts on disk: what is written is read back; whatever is damaged or foreign is refused."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuili.artifact import (
    ALIGNMENT,
    Artifact,
    CodeFile,
    Contents,
    Pin,
    is_artifact,
    open_artifact,
    write_artifact,
)
from tuili.artifact.manifest import decode_manifest, encode_manifest
from tuili.artifact.schema import manifest_schema
from tuili.errors import AlreadyExists, InvalidArtifact, NotFound
from tuili.tensors import DType, TensorSpec, parse_shape

ROOT = Path(__file__).parents[2]
WEIGHTS = [
    (0, np.arange(5, dtype=np.float32)),
    (64, np.array(3.0)),
    (128, np.ones((2, 3), np.int8)),
]


def spec(name: str, dtype: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, DType.parse(dtype), parse_shape(shape))


def contents(folder: Path) -> Contents:
    library = folder / "made.so"
    library.write_bytes(b"code" * 100)
    return Contents(
        name="toy",
        producer="tuili 0.0",
        inputs=[spec("x", "f32", "N", 3, "H")],
        outputs=[spec("y", "bf16", "N", "(H + 3) // 4 * 4")],
        symbols=["N", "H"],
        code=[
            CodeFile(library, "plain", (), "x86_64"),
            CodeFile(library, "fast", ("avx9",), "x86_64"),
        ],
        weights=WEIGHTS,
        arena_bytes=640,
        arena_lower_bound=320,
        metadata={"author": "someone"},
        options={"exact": "false"},
        extra={"model.c": b"int x;\n"},
    )


Form = Callable[[Path], Artifact]


@pytest.fixture(params=[False, True], ids=["folder", "file"])
def artifact(request: pytest.FixtureRequest, tmp_path: Path) -> Artifact:
    return write_artifact(contents(tmp_path), tmp_path / "toy.tuili", single_file=request.param)


# -- what is written is read back ----------------------------------------------------------------


def test_everything_is_read_back(artifact: Artifact) -> None:
    read = open_artifact(artifact.path)
    read.verify()
    assert read.name == "toy"
    assert [str(s) for s in (*read.inputs, *read.outputs)] == [
        "x: f32[N, 3, H]",
        "y: bf16[N, 4*((H + 3) // 4)]",
    ]
    assert read.manifest.symbols == ["N", "H"]
    assert [entry.target for entry in read.manifest.code] == ["plain", "fast"]
    assert read.manifest.metadata == {"author": "someone"}
    assert read.manifest.arena.bytes == 640
    assert read.member("model.c").read(100) == b"int x;\n"
    assert read.size_bytes == 134 + 800


def test_weights_are_mapped_at_their_aligned_offsets(artifact: Artifact) -> None:
    mapped = np.frombuffer(artifact.weights.map(), np.uint8)
    assert mapped.ctypes.data % ALIGNMENT == 0
    for offset, array in WEIGHTS:
        found = mapped[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
        np.testing.assert_array_equal(found, array)
    assert not mapped.flags.writeable


def test_without_weights_there_is_an_empty_file(tmp_path: Path) -> None:
    for single_file in (False, True):
        made = write_artifact(
            replace(contents(tmp_path), weights=[]),
            tmp_path / f"a{single_file}",
            single_file=single_file,
        )
        made.verify()
        assert len(made.weights.map()) == 0


def files_of(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {item.name: item.read_bytes() for item in sorted(path.iterdir())}


@pytest.mark.parametrize("single_file", [False, True])
def test_the_same_contents_give_the_same_bytes(tmp_path: Path, single_file: bool) -> None:
    made = [
        write_artifact(contents(tmp_path), tmp_path / name, single_file=single_file).path
        for name in ("one", "two")
    ]
    assert files_of(made[0]) == files_of(made[1])


def test_a_single_file_is_a_zip_that_other_tools_read(tmp_path: Path) -> None:
    made = write_artifact(contents(tmp_path), tmp_path / "toy.tuili", single_file=True)
    with zipfile.ZipFile(made.path) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "manifest.json"
        assert json.loads(archive.read("manifest.json"))["name"] == "toy"


@given(st.lists(st.integers(0, 300), min_size=1, max_size=5))
def test_members_are_aligned_whatever_their_sizes(sizes: list[int]) -> None:
    from tempfile import TemporaryDirectory

    from tuili.artifact.storage import SingleFile
    from tuili.artifact.write import pack

    with TemporaryDirectory() as folder:
        names = [f"{'n' * (index + 1)}.bin" for index in range(len(sizes))]
        for name, size in zip(names, sizes, strict=True):
            (Path(folder) / name).write_bytes(b"x" * size)
        pack(Path(folder), names, Path(folder) / "all.zip")
        storage = SingleFile(Path(folder) / "all.zip")
        for name, size in zip(names, sizes, strict=True):
            member = storage.find(name)
            assert member is not None
            assert (member.offset % ALIGNMENT, member.read(1000)) == (0, b"x" * size)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_writing_replaces_an_older_artifact(tmp_path: Path, first: bool, second: bool) -> None:
    output = tmp_path / "toy.tuili"
    write_artifact(contents(tmp_path), output, single_file=first)
    newer = replace(contents(tmp_path), name="newer")
    assert write_artifact(newer, output, single_file=second).name == "newer"
    assert open_artifact(output).name == "newer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.so", "toy.tuili"]


def test_a_reader_can_tell_that_an_artifact_was_replaced(artifact: Artifact) -> None:
    single_file = artifact.path.is_file()
    with Pin(artifact.path) as pin:
        assert pin.holds()
        for _ in range(3):
            write_artifact(contents(artifact.path.parent), artifact.path, single_file=single_file)
            assert not pin.holds()


def test_many_writers_of_one_output_leave_one_whole_artifact(tmp_path: Path) -> None:
    made = contents(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_artifact(made, tmp_path / "toy.tuili"), range(16)))
    open_artifact(tmp_path / "toy.tuili").verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.so", "toy.tuili"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "work"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with pytest.raises(AlreadyExists, match=r"work is a folder, and no artifact"):
        write_artifact(contents(tmp_path), mine)
    assert (mine / "thesis.txt").read_text() == "years"


def test_a_failed_write_leaves_the_old_artifact(tmp_path: Path) -> None:
    output = tmp_path / "toy.tuili"
    write_artifact(contents(tmp_path), output)
    with pytest.raises(InvalidArtifact, match="uses"):
        write_artifact(replace(contents(tmp_path), symbols=["N"]), output)
    open_artifact(output).verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.so", "toy.tuili"]


# -- choosing code -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "target"), [((), "plain"), (("sse2",), "plain"), (("avx9", "sse2"), "fast")]
)
def test_the_code_that_uses_most_of_the_host_is_chosen(
    artifact: Artifact, features: tuple[str, ...], target: str
) -> None:
    assert artifact.choose_code(features, "linux", "x86_64").target == target


def test_code_for_no_host_like_this_is_refused(artifact: Artifact) -> None:
    with pytest.raises(
        InvalidArtifact, match=r"\(linux, riscv64\): model.plain.so is for linux, x86"
    ):
        artifact.choose_code((), "linux", "riscv64")


def test_code_for_a_better_cpu_is_refused(tmp_path: Path) -> None:
    made = contents(tmp_path)
    made = write_artifact(replace(made, code=made.code[1:]), tmp_path / "toy.tuili")
    with pytest.raises(
        InvalidArtifact, match=r"model.fast.so \(fast\) needs CPU features avx9, which"
    ):
        made.choose_code(("sse2",), "linux", "x86_64")


# -- refusals ------------------------------------------------------------------------------------

Edit = Callable[[dict[str, Any]], object]


def put(*path: Any) -> Edit:
    """An edit of the manifest: the last item is put at the path of the others."""
    *keys, last, value = path

    def edit(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in keys:
            place = place[key]
        place[last] = value

    return edit


BAD_MANIFESTS: list[tuple[Edit, str]] = [
    (put("format", "zip"), "format is 'zip', expected 'tuili-artifact'"),
    (put("version", 2), "version is 2, this tuili reads version 1; upgrade tuili"),
    (put("abi", 7), "abi is 7, this tuili reads abi 2; upgrade tuili"),
    (put("abi", 0), "abi is 0, this tuili reads abi 2; compile the model again"),
    (put("version", "1"), "Expected `int`, got `str` - at `\\$.version`"),
    (put("inputz", []), "unknown field `inputz`.* Did you mean 'inputs'"),
    (lambda m: m.pop("weights"), "missing required field `weights`"),
    (put("inputs", {}), r"Expected `array`, got `object` - at `\$.inputs`"),
    (put("outputs", []), r"length >= 1 - at `\$.outputs`"),
    (put("inputs", 0, "dtype", "float"), "tensor 'x': unknown element type 'float'"),
    (put("inputs", 0, "shape", ["N", "H +"]), "tensor 'x': .*not a dim expression"),
    (put("inputs", 0, "shape", ["N", "__import__('os')"]), "tensor 'x': .*expected a number"),
    (put("inputs", 0, "shape", ["N", "3 // 0"]), "tensor 'x': .*zero"),
    (put("inputs", 0, "shape", [-1]), ">= 0"),
    (put("inputs", 0, "shape", [1 << 60]), "<= 281474976710656"),
    (put("inputs", 0, "shape", ["("* 1900]), "not a dim expression"),
    (put("inputs", 0, "shape", ["N"] * 65), "length <= 64"),
    (put("inputs", 0, "name", ""), "length >= 1"),
    (lambda m: m["inputs"].append(m["inputs"][0]), "inputs: name 'x' appears more than once"),
    (put("symbols", ["N"]), r"uses \['H'\], which `symbols` does not list"),
    (put("symbols", ["N", "N", "H"]), "symbol 'N' appears more than once"),
    (put("symbols", ["N", "H", "a b"]), "matching regex"),
    (put("code", []), "length >= 1"),
    (put("code", 0, "file", "../../lib/evil.so"), r"matching regex .* at `\$.code\[0\].file`"),
    (put("code", 0, "file", "/lib/evil.so"), "matching regex"),
    (put("code", 0, "file", "manifest.json"), "file 'manifest.json' appears more than once"),
    (put("code", 1, "target", "plain"), "target 'plain' appears more than once"),
    (put("code", 0, "sha256", "abc"), "matching regex"),
    (put("weights", "file", "..\\w.bin"), "matching regex"),
    (put("weights", "bytes", -5), ">= 0"),
    (put("weights", "bytes", 1 << 60), "<= 281474976710656"),
    (put("arena", "bytes", 1 << 60), "<= 281474976710656"),
    (put("files", {"../a": "0" * 64}), "matching regex"),
    (put("files", {"a": "b"}), "matching regex"),
    (put("files", {"weights.bin": "0" * 64}), "file 'weights.bin' appears more than once"),
    (put("metadata", {"a": 1}), "Expected `str`, got `int`"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(tmp_path: Path, edit: Edit, message: str) -> None:
    path = write_artifact(contents(tmp_path), tmp_path / "toy.tuili").path
    manifest = json.loads((path / "manifest.json").read_bytes())
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidArtifact, match=f"(?s)toy.tuili: manifest.json: .*{message}"):
        open_artifact(path)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"PK\x03\x04", b"[" * 9999]
)
def test_a_manifest_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArtifact, match="here: not a manifest: "):
        decode_manifest(data, "here")


@given(st.data())
def test_any_bytes_are_a_manifest_or_refused(data: st.DataObject) -> None:
    """Cut and overwrite a good manifest anywhere: either it still reads or it is refused."""
    good = (ROOT / "tests/artifact/manifest.json").read_bytes()
    at = data.draw(st.integers(0, len(good)))
    insert = data.draw(st.binary(max_size=5))
    cut = data.draw(st.integers(0, 20))
    try:
        decode_manifest(good[:at] + insert + good[at + cut :], "here")
    except InvalidArtifact as error:
        refusal = str(error)
    else:
        refusal = "here: none"
    assert refusal.startswith("here: ")


def test_the_form_of_the_manifest_is_kept(tmp_path: Path) -> None:
    """Older artifacts must stay readable: this one was written by an older tuili."""
    old = (ROOT / "tests/artifact/manifest.json").read_bytes()
    assert encode_manifest(decode_manifest(old, "old")) == old


def flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: (p / "manifest.json").unlink(), "no manifest.json in it"),
    (lambda p: (p / "weights.bin").unlink(), "weights.bin is missing"),
    (lambda p: (p / "model.fast.so").unlink(), "model.fast.so is missing"),
    (
        lambda p: os.truncate(p / "weights.bin", 50),
        "weights.bin has 50 bytes, the manifest says 134",
    ),
    (lambda p: os.truncate(p / "model.fast.so", 50), "model.fast.so is damaged: sha256"),
    (
        lambda p: flip_last_byte(p / "weights.bin"),
        "weights.bin is damaged: sha256 is .*, the manifest",
    ),
    (lambda p: flip_last_byte(p / "model.plain.so"), "model.plain.so is damaged"),
    (lambda p: flip_last_byte(p / "model.c"), "model.c is damaged"),
    (lambda p: (p / "model.c").unlink(), "model.c is missing"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_folder_is_refused(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    path = write_artifact(contents(tmp_path), tmp_path / "toy.tuili").path
    damage(path)
    with pytest.raises(InvalidArtifact, match=message):
        open_artifact(path).verify()


def test_a_settled_file_is_read_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_artifact(contents(tmp_path), tmp_path / "toy.tuili")
    weights = tmp_path / "toy.tuili/weights.bin"
    os.utime(weights, ns=(1, 1))
    later = weights.stat().st_ctime_ns + 10**10
    monkeypatch.setattr("tuili.artifact.storage.time.time_ns", lambda: later)
    made.verify()
    with monkeypatch.context() as patch:
        patch.setattr("tuili.artifact.storage.hashlib.sha256", None)
        made.verify_weights()
    flip_last_byte(weights)
    with pytest.raises(InvalidArtifact, match=r"weights.bin is damaged"):
        made.verify()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_artifact(contents(tmp_path), tmp_path / "toy.tuili", single_file=True).path
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidArtifact, match=r"toy\.tuili"):
            open_artifact(path).verify()


def test_a_file_with_any_byte_changed_is_refused_or_unharmed(tmp_path: Path) -> None:
    path = write_artifact(contents(tmp_path), tmp_path / "toy.tuili", single_file=True).path
    whole = path.read_bytes()
    for at in range(0, len(whole), 31):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            found = open_artifact(path)
            found.verify()
        except InvalidArtifact:
            continue
        # Only padding, or text that a checksum of the code and weights does not cover.
        assert found.weights.sha256() == found.manifest.weights.sha256


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("zipped")
    return write_artifact(contents(folder), folder / "a", single_file=True).path.read_bytes()


@given(st.data())
def test_a_file_damaged_in_any_way_is_refused_or_unharmed(
    zipped: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.tuili"
    at = data.draw(st.integers(0, len(zipped)) | st.integers(len(zipped) - 600, len(zipped)))
    insert = data.draw(st.binary(max_size=8))
    cut = data.draw(st.integers(0, 8))
    path.write_bytes(zipped[:at] + insert + zipped[at + cut :])
    try:
        open_artifact(path).verify()
    except InvalidArtifact as error:
        refusal = str(error)
    else:
        refusal = str(path)
    assert str(path) in refusal


def test_a_compressed_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.tuili"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", "{}" * 100)
    with pytest.raises(InvalidArtifact, match="member 'manifest.json' is compressed or encrypted"):
        open_artifact(path)


def test_a_member_off_its_alignment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.tuili"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("manifest.json", "{}")
    with pytest.raises(InvalidArtifact, match="starts at byte 43, expected a multiple of 64"):
        open_artifact(path)


@pytest.mark.parametrize(
    "data", [b"", b"\x08\x07onnx", b"PK\x05\x06" + bytes(18), b"PK\x03\x04junk"]
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert not is_artifact(path)
    with pytest.raises(InvalidArtifact, match=r"model.onnx: (damaged or no artifact|no manifest)"):
        open_artifact(path)


def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    assert not is_artifact(tmp_path / "none")
    with pytest.raises(NotFound, match="no artifact at .*none"):
        open_artifact(tmp_path / "none")


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_artifact(contents(tmp_path), tmp_path / "toy.tuili").path

    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InvalidArtifact, match="manifest.json cannot be read: Permission denied"):
        open_artifact(path)
    with pytest.raises(InvalidArtifact, match="toy.tuili cannot be read: Permission denied"):
        Pin(path)


def test_artifacts_are_told_from_other_files(artifact: Artifact) -> None:
    assert is_artifact(artifact.path)
    assert not is_artifact(artifact.path.parent)


# -- the schema ----------------------------------------------------------------------------------


def test_the_published_schema_is_the_one_that_is_read() -> None:
    """To renew it: python -m tuili.artifact.schema > docs/reference/artifact.schema.json"""
    assert (ROOT / "docs/reference/artifact.schema.json").read_text() == manifest_schema()


def test_what_we_write_obeys_the_schema(artifact: Artifact) -> None:
    manifest = json.loads(artifact.member("manifest.json").read(1 << 20))
    jsonschema.Draft202012Validator(json.loads(manifest_schema())).validate(manifest)
