"""All cases by name; a network that both exporters write is two cases."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.architectures import timm_networks, transformers_networks
from benchmarks.architectures.case import Case

# Those that are exported with weights and pictures of half the size, too.
HALF = ("resnet18", "convnext_atto", "vit_tiny_patch16_224", "bert", "llama", "t5")


def _all() -> dict[str, Case]:
    scripted = [*timm_networks.TIMM, *transformers_networks.TRANSFORMERS]
    both = {*timm_networks.BOTH, *transformers_networks.BOTH}
    rows = {case.name: case for case in scripted}
    unknown = both - rows.keys()
    assert not unknown, f"no such networks: {unknown}"
    for case in scripted:
        if case.name in both:
            name = f"{case.name}.dynamo"
            rows[name] = replace(case, name=name, exporter="dynamo")
    for name in HALF:
        for dtype in ("float16", "bfloat16"):
            rows[f"{name}.{dtype}"] = replace(rows[name], name=f"{name}.{dtype}", dtype=dtype)
    return rows


CASES = _all()
