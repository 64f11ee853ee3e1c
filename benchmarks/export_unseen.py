"""Exports networks of common shapes with random weights: what nobody tuned the kernels for.

Run by `benchmarks/unseen.py` with the Python of an environment that has torch and transformers:
`python export_unseen.py NAME OUTPUT.onnx`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf
from torch import nn

OPSET = 17
Made = tuple[nn.Module, tuple[torch.Tensor, ...]]


class First(nn.Module):
    """The first output of a transformers model, from inputs given by name."""

    def __init__(self, network: nn.Module, *names: str, **fixed: object) -> None:
        super().__init__()
        self.network, self.names, self.fixed = network, names, fixed

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        named = dict(zip(self.names, inputs, strict=True))
        return self.network(**named, **self.fixed, return_dict=False)[0]


def _picture(size: int = 224) -> torch.Tensor:
    return torch.rand(1, 3, size, size)


def _vision(network: nn.Module, size: int = 224) -> Made:
    return First(network, "pixel_values"), (_picture(size),)


def resnet18() -> Made:
    """Basic blocks of 3x3 convolutions."""
    config = hf.ResNetConfig(
        layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2]
    )
    return _vision(hf.ResNetModel(config))


def mobilenet_v2() -> Made:
    """Inverted bottlenecks."""
    return _vision(hf.MobileNetV2Model(hf.MobileNetV2Config()))


def regnet_y() -> Made:
    """Grouped convolutions, squeeze and excitation."""
    config = hf.RegNetConfig(
        embedding_size=32, hidden_sizes=[48, 120, 336, 888], depths=[2, 6, 17, 2], groups_width=24
    )
    return _vision(hf.RegNetModel(config))


def efficientnet_b0() -> Made:
    """Depthwise convolutions with SiLU, squeeze and excitation."""
    config = hf.EfficientNetConfig(
        image_size=224, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280
    )
    return _vision(hf.EfficientNetModel(config))


def convnext_tiny() -> Made:
    """7x7 depthwise convolutions, channels-last normalisation and GELU."""
    return _vision(hf.ConvNextModel(hf.ConvNextConfig()))


def vit_small() -> Made:
    """197 tokens of 384."""
    config = hf.ViTConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_hidden_layers=6
    )
    return _vision(hf.ViTModel(config, add_pooling_layer=False))


def swin_tiny() -> Made:
    """Attention in shifted windows."""
    config = hf.SwinConfig(depths=[2, 2, 2, 2])
    return _vision(hf.SwinModel(config, add_pooling_layer=False))


def segformer_b0() -> Made:
    """Attention over reduced maps, and a head of resized features."""
    network = hf.SegformerForSemanticSegmentation(hf.SegformerConfig())
    return _vision(network, 256)


def distilbert() -> Made:
    """Twelve heads of 64 over 64 tokens."""
    network = hf.DistilBertModel(hf.DistilBertConfig(n_layers=3))
    ids = torch.randint(0, 30000, (1, 64))
    return First(network, "input_ids", "attention_mask"), (ids, torch.ones_like(ids))


def gpt2() -> Made:
    """A causal decoder over 32 tokens."""
    network = hf.GPT2Model(hf.GPT2Config(n_layer=4))
    ids = torch.randint(0, 50000, (1, 32))
    return First(network, "input_ids", "attention_mask", use_cache=False), (
        ids,
        torch.ones_like(ids),
    )


def whisper_encoder() -> Made:
    """1-D convolutions, then attention over 1500 frames."""
    config = hf.WhisperConfig(encoder_layers=2)
    return First(hf.WhisperModel(config).encoder, "input_features"), (torch.rand(1, 80, 3000),)


def wav2vec2() -> Made:
    """Long 1-D convolutions with GELU over a second of sound."""
    network = hf.Wav2Vec2Model(hf.Wav2Vec2Config(num_hidden_layers=2))
    return First(network, "input_values"), (torch.rand(1, 16000),)


class _Down(nn.Sequential):
    def __init__(self, ins: int, outs: int) -> None:
        super().__init__(
            nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU(),
            nn.Conv2d(outs, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU(),
        )  # fmt: skip


class _UNet(nn.Module):
    """An encoder, a decoder of transposed convolutions, and what jumps across."""

    def __init__(self) -> None:
        super().__init__()
        widths = [32, 64, 128, 256]
        self.down = nn.ModuleList(map(_Down, [3, *widths[:-1]], widths))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[-2::-1]
        )
        self.merge = nn.ModuleList(_Down(2 * width, width) for width in widths[-2::-1])
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, merge, beside in zip(self.up, self.merge, kept[-2::-1], strict=True):
            x = merge(torch.cat([beside, up(x)], 1))
        return self.head(x)


def unet() -> Made:
    """Segments 160x160."""
    return _UNet(), (_picture(160),)


def _scans(ins: int, outs: int) -> nn.Sequential:
    twice = [(ins, outs), (outs, outs)]
    return nn.Sequential(*(
        layer
        for here, there in twice
        for layer in (
            nn.Conv3d(here, there, 3, padding=1),
            nn.InstanceNorm3d(there, affine=True),
            nn.LeakyReLU(0.01),
        )
    ))  # fmt: skip


class _VolumeUNet(nn.Module):
    """A U-Net over volumes with instance norms, in the manner of nnU-Net."""

    def __init__(self) -> None:
        super().__init__()
        widths = [16, 32, 64]
        self.down = nn.ModuleList(map(_scans, [1, *widths[:-1]], widths))
        self.smaller = nn.ModuleList(nn.Conv3d(width, width, 2, stride=2) for width in widths[:-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(2 * width, width, 2, stride=2) for width in widths[-2::-1]
        )
        self.merge = nn.ModuleList(_scans(2 * width, width) for width in widths[-2::-1])
        self.head = nn.Conv3d(widths[0], 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else self.smaller[index - 1](x))
            kept.append(x)
        for up, merge, beside in zip(self.up, self.merge, kept[-2::-1], strict=True):
            x = merge(torch.cat([beside, up(x)], 1))
        return self.head(x)


def volume_unet() -> Made:
    """Segments 32x48x48."""
    return _VolumeUNet(), (torch.rand(1, 1, 32, 48, 48),)


class _Tagger(nn.Module):
    """Words to labels: embedding, two bidirectional LSTMs, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(8000, 128)
        self.lstm = nn.LSTM(128, 128, num_layers=2, bidirectional=True, batch_first=True)
        self.labels = nn.Linear(256, 17)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.labels(self.lstm(self.words(ids))[0])


def lstm_tagger() -> Made:
    """40 words."""
    return _Tagger(), (torch.randint(0, 8000, (1, 40)),)


NETWORKS: dict[str, Callable[[], Made]] = {
    each.__name__: each
    for each in (
        resnet18, mobilenet_v2, regnet_y, efficientnet_b0, convnext_tiny, vit_small, swin_tiny,
        segformer_b0, distilbert, gpt2, whisper_encoder, wav2vec2, unet, volume_unet,
        lstm_tagger,
    )
}  # fmt: skip


def main() -> None:
    """Export one network."""
    name, output = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(1)
    network, example = NETWORKS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            example,
            str(output),
            input_names=[f"x{index}" for index in range(len(example))],
            opset_version=OPSET,
            dynamo=False,
        )


if __name__ == "__main__":
    main()
