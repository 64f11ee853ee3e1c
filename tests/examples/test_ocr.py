"""The reading of pictures, with onnxruntime as the engine; geometry and decoding by themselves."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from examples.ocr.detection import detector_input, reading_order, text_boxes
from examples.ocr.geometry import convex_hull, grown, side_lengths, straightened, tight_rectangle
from examples.ocr.pictures import (
    KNOWN_TEXT,
    annotated,
    book_page,
    edit_distance,
    rendered_sample,
    share_right,
)
from examples.ocr.reader import read
from examples.ocr.recognition import batches_by_width, character_list, decoded, strips


def turned(points, degrees):
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.asarray(points, np.float64) @ np.array([[cos, sin], [-sin, cos]])


RECTANGLE = np.array([[0, 0], [10, 0], [10, 4], [0, 4]], np.float64)


def test_hull_drops_inner_points():
    hull = convex_hull(np.vstack([RECTANGLE, [[5, 2], [1, 1], [9, 3]]]))
    assert sorted(map(tuple, hull)) == sorted(map(tuple, RECTANGLE))


@given(st.floats(-40, 40))
def test_tight_rectangle_finds_the_sides_at_any_angle(degrees):
    assert side_lengths(tight_rectangle(turned(RECTANGLE, degrees))) == pytest.approx((10, 4))


@given(st.floats(0.1, 20), st.floats(-40, 40))
def test_grown_adds_the_distance_on_every_side(distance, degrees):
    width, height = side_lengths(grown(turned(RECTANGLE, degrees), distance))
    assert (width, height) == pytest.approx((10 + 2 * distance, 4 + 2 * distance))


def test_straightened_cuts_out_the_rectangle():
    picture = Image.new("RGB", (40, 40), "white")
    picture.paste("black", (10, 20, 30, 28))
    crop = straightened(picture, np.array([[10, 20], [30, 20], [30, 28], [10, 28]], np.float64))
    assert crop.size == (20, 8)
    assert np.asarray(crop).max() < 128


def test_straightened_lays_tall_strips_on_their_side():
    tall = np.array([[0, 0], [5, 0], [5, 30], [0, 30]], np.float64)
    assert straightened(Image.new("RGB", (40, 40)), tall).size == (30, 5)


def test_detector_input_has_sides_of_multiples_of_32():
    pixels = detector_input(Image.new("RGB", (384, 191), "white"))
    assert pixels.shape == (1, 3, 736, 1472)
    assert pixels.dtype == np.float32
    assert pixels.max() == 1


def test_text_boxes_of_a_blank_map_are_none():
    assert text_boxes(np.zeros((64, 64), np.float32), (64, 64)) == []


def test_text_boxes_are_grown_and_scaled_to_the_picture():
    probability = np.zeros((64, 128), np.float32)
    probability[20:30, 30:90] = 0.9
    (box,) = text_boxes(probability, (256, 128))
    width, height = side_lengths(box)
    assert width > 2 * 60
    assert height > 2 * 10


def test_reading_order_is_by_line_then_by_column():
    def box(left, top):
        return np.array(
            [[left, top], [left + 9, top], [left + 9, top + 6], [left, top + 6]], np.float64
        )

    ordered = reading_order([box(50, 31), box(0, 30), box(30, 1), box(0, 0)])
    assert [tuple(b[0]) for b in ordered] == [(0, 0), (30, 1), (0, 30), (50, 31)]


def test_strips_keep_the_aspect_and_pad_with_zeros():
    batch = strips([Image.new("RGB", (20, 10), "white"), Image.new("RGB", (900, 10))], 192)
    assert batch.shape == (2, 3, 48, 192)
    assert (batch[0, :, :, :96] == 1).all()
    assert (batch[0, :, :, 96:] == 0).all()
    assert (batch[1] == -1).all()


def test_batches_join_lines_of_like_width():
    crops = [Image.new("RGB", (width, 48)) for width in (1000, 330, 320, 10)]
    assert batches_by_width(crops) == [([2, 3, 1], 336), ([0], 1000)]


@pytest.mark.parametrize(
    ("symbols", "text"),
    [
        ([0, 0], ""),
        ([1, 1, 0, 1, 2], "aab"),
        ([3, 1, 3, 2, 3], "a b"),
        ([2, 2, 2], "b"),
    ],
)
def test_decoded_joins_repeats_and_drops_blanks(symbols, text):
    found, confidence = decoded(np.eye(4, dtype=np.float32)[symbols], character_list("a\nb"))
    assert found == text
    assert confidence == (1.0 if text else 0.0)


@pytest.mark.parametrize(
    ("found", "expected", "edits"),
    [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)],
)
def test_edit_distance(found, expected, edits):
    assert edit_distance(found, expected) == edits


@pytest.fixture(scope="module")
def engine():
    onnxruntime = pytest.importorskip("onnxruntime")
    from examples.ocr.service import NETWORKS, characters, network_file

    sessions = {name: onnxruntime.InferenceSession(network_file(name)) for name in NETWORKS}

    def infer(name, pixels):
        return sessions[name].run(None, {sessions[name].get_inputs()[0].name: pixels})[0]

    return infer, characters()


@pytest.mark.models
@pytest.mark.parametrize("degrees", [0, 180, 7])
def test_the_rendered_sample_is_read(engine, degrees):
    infer, symbols = engine
    picture = rendered_sample().rotate(
        degrees, expand=True, fillcolor="#f4f1ea", resample=Image.Resampling.BICUBIC
    )
    page = read(picture, infer, symbols)
    assert share_right(page.text, KNOWN_TEXT) >= 0.98
    assert list(page.seconds) == ["prepare", "detect", "boxes", "classify", "read"]


@pytest.mark.models
def test_the_book_page_is_read(engine):
    infer, symbols = engine
    page = read(book_page(), infer, symbols)
    assert len(page.lines) == 7
    assert "unambiguously as either object or background" in page.text
    assert annotated(book_page(), page.lines).size == (768, 191)


@pytest.mark.models
def test_a_blank_picture_has_no_text(engine):
    infer, symbols = engine
    assert read(Image.new("RGB", (200, 100), "white"), infer, symbols).lines == []
