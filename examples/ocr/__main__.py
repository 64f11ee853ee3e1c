"""Reads the text in pictures through a server: `python -m examples.ocr [PICTURE]...`.

Without pictures it reads a rendered sample, whose text it knows, and a photographed book page.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from PIL import Image

from examples.ocr.pictures import KNOWN_TEXT, annotated, book_page, rendered_sample, share_right
from examples.ocr.reader import Page, read
from examples.ocr.service import build_repository, characters, remote, served

ENOUGH = 0.98  # share of the sample's characters that must be right


def main() -> None:
    """Fetch, compile, serve, read, show."""
    parser = argparse.ArgumentParser(prog="python -m examples.ocr", description=__doc__)
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--output", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    start = time.perf_counter()

    repository = build_repository(print)
    symbols = characters()
    with served(repository) as address, remote(address) as infer:
        print(f"serving {repository.name} at {address} after {time.perf_counter() - start:.1f} s")
        for name, picture in _pictures(options.pictures):
            first = read(picture, infer, symbols)
            page = read(picture, infer, symbols)
            target = options.output / f"{name}.annotated.png"
            annotated(picture, page.lines).save(target)
            _show(name, page, first, target)
            if name == "sample":
                _check(page)
    print(f"done in {time.perf_counter() - start:.1f} s")


def _pictures(paths: list[Path]) -> list[tuple[str, Image.Image]]:
    if paths:
        return [(path.stem, Image.open(path)) for path in paths]
    return [("sample", rendered_sample()), ("page", book_page())]


def _show(name: str, page: Page, first: Page, target: Path) -> None:
    print(f"\n{name}")
    for line in page.lines:
        print(f"  {line.confidence:.3f}  {line.text}")
    stages = ", ".join(f"{stage} {1000 * s:.0f}" for stage, s in page.seconds.items())
    total, cold = (1000 * sum(each.seconds.values()) for each in (page, first))
    print(f"  ms: {stages}; all {total:.0f} (the first time {cold:.0f})")
    print(f"  annotated: {target}")


def _check(page: Page) -> None:
    share = share_right(page.text, KNOWN_TEXT)
    print(f"  {100 * share:.1f} % of the {len(KNOWN_TEXT)} known characters are right")
    if share < ENOUGH:
        raise SystemExit(f"expected at least {100 * ENOUGH:.0f} % of the characters to be right")


if __name__ == "__main__":
    main()
