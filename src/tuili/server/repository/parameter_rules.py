"""What the entries of `parameters` that tuili reads may say, as one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from tuili.server.repository.source import Source

# Far above all that makes sense, and far below what overflows a clock or a size.
_MOST: Final = 1e12
_MOST_THREADS: Final = 1024
_CORES: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def _number(text: str) -> bool:
    try:
        return 0 <= float(text) <= _MOST
    except ValueError:
        return False


def _any_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) <= _MOST


def _threads(text: str) -> bool:
    return _whole(text) and int(text) <= _MOST_THREADS


def _positive(text: str) -> bool:
    return _whole(text) and int(text) > 0


def _sizes(text: str) -> bool:
    return all(_positive(part.strip()) for part in text.split(",") if part.strip())


def _cores(text: str) -> bool:
    ranges = [_CORES.fullmatch(part.strip()) for part in re.split("[,;]", text)]
    return not text or all(found and int(found[1]) <= int(found[2] or found[1]) for found in ranges)


def _word(*known: str) -> Callable[[str], bool]:
    return lambda text: text in known


Rule = tuple[Callable[[str], bool], str]
_NUMBER: Final[Rule] = (_number, "a number of at least 0")
_WHOLE: Final[Rule] = (_whole, "a whole number of at least 0")
_SIZES: Final[Rule] = (_sizes, "positive numbers with commas between, such as 1,4,16")
_TRUTH: Final[Rule] = (_word("true", "false"), "true or false")
RULES: Final[Mapping[str, Rule]] = {
    "isolation": (_word("auto", "process", "none"), "auto, process or none"),
    "threads": (_threads, f"a number of threads up to {_MOST_THREADS}, or 0 for all cores"),
    "idempotent": _TRUTH,
    "host_load_timeout_s": _NUMBER,
    "host_run_timeout_s": _NUMBER,
    "host_max_rss_mb": _NUMBER,
    "latency_target_ms": _NUMBER,
    "batch_buckets": _SIZES,
    "length_buckets": _SIZES,
    "pad_value": (_any_number, "a number"),
    "max_wait_ms": _NUMBER,
    "max_concurrency": _WHOLE,
    "max_client_concurrency": _WHOLE,
    "max_rate": _NUMBER,
    "max_client_rate": _NUMBER,
    "rate_burst_s": _NUMBER,
    "degrade_cached": _TRUTH,
    "cpu_cores": (_cores, "cores such as '0-3;4,5', one part per instance"),
    "max_instances": (_positive, "a whole number of at least 1"),
}


def check_parameters(parameters: Mapping[str, str], where: Source) -> None:
    """InvalidModel for the first entry with a value that its reader has no use for."""
    for name, text in parameters.items():
        fits, allowed = RULES.get(name.partition(".")[0], (None, ""))
        if fits is not None and not fits(text):
            raise where.error(f"parameter {name!r} must be {allowed}, got {text!r}", name)
