"""Random weights under which a network's outputs are of ordinary size.

Libraries start networks near zero (scales of 1e-6, last layers of zeros), where all agree.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

SEED = 1
_NORMS = ("norm", "bn")
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def randomise(network: nn.Module, example: dict[str, Any]) -> None:
    """Give every parameter a random value, then every batch norm the statistics of an example."""
    generator = torch.Generator().manual_seed(SEED)
    owners = {
        id(parameter): (module, name)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
    }
    with torch.no_grad():
        for parameter in network.parameters():
            _randomise(parameter, *owners[id(parameter)], generator)
    _calibrate(network, example)


def _randomise(p: nn.Parameter, module: nn.Module, name: str, generator: torch.Generator) -> None:
    normal = torch.randn(p.shape, generator=generator)
    uniform = torch.rand(p.shape, generator=generator)
    kind = type(module).__name__.lower()
    if isinstance(module, nn.Embedding):
        p.copy_(normal * 0.7)
    elif p.ndim >= 2 and name.startswith("weight"):
        turned = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d)
        p.copy_(normal / math.sqrt(p.shape[0] if turned else p[0].numel()))
    elif p.ndim == 1 and name == "weight" and any(word in kind for word in _NORMS):
        p.copy_(0.6 + 0.8 * uniform)
    elif name == "bias":
        p.copy_(normal * 0.1)
    elif p.is_floating_point() and float(p.float().std(unbiased=False)) < 0.1:
        # Scales of residuals, tables of positions, class tokens: around 0 or a constant.
        is_scale = p.ndim == 1 and float(p.abs().max()) < 0.1
        p.add_(normal * 0.3 + (0.5 if is_scale else 0.0))


def _calibrate(network: nn.Module, example: dict[str, Any]) -> None:
    norms = [module for module in network.modules() if isinstance(module, _BATCH_NORMS)]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            network(**example)
    network.eval()
    generator = torch.Generator().manual_seed(SEED)
    for norm in norms:
        if norm.running_var is not None and norm.running_mean is not None:
            # A channel that hardly varies in the example would enlarge every rounding error.
            least = 0.1 * float(norm.running_var.mean()) + 1e-3
            rough = torch.rand(norm.running_var.shape, generator=generator)
            norm.running_var.clamp_(min=least).mul_(0.7 + 0.6 * rough)
            shift = 0.1 * torch.randn(norm.running_mean.shape, generator=generator)
            norm.running_mean.add_(shift * norm.running_var.sqrt())
