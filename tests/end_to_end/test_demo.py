"""The demo's whole line: compiled networks, a server, the stock client, text."""

import pytest

from examples.ocr.pictures import KNOWN_TEXT, book_page, rendered_sample, share_right
from examples.ocr.reader import read
from examples.ocr.service import build_repository, characters, remote, served

pytestmark = [
    pytest.mark.models,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("ocr"),
]


@pytest.fixture(scope="module")
def infer():
    with served(build_repository(print)) as address, remote(address) as call:
        yield call


def test_the_known_text_is_read_through_the_server(infer):
    page = read(rendered_sample(), infer, characters())
    assert share_right(page.text, KNOWN_TEXT) >= 0.98


def test_the_book_page_is_read_through_the_server(infer):
    page = read(book_page(), infer, characters())
    assert len(page.lines) == 7
    assert "unambiguously as either object or background" in page.text
