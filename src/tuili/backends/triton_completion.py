"""ModelConfig: what a Triton Python model's `auto_complete_config` fills in of its configuration.

The error texts are those of Triton, whose tests compare them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]

_FIELDS: Final = {
    "input": ("name", "data_type", "dims", "optional"),
    "output": ("name", "data_type", "dims"),
}
_SCHEDULERS: Final = ("sequence_batching", "ensemble_scheduling")


class ModelConfig:
    """A configuration that may be completed, and not contradicted."""

    def __init__(self, model_config: str) -> None:
        self._model_config: Json = json.loads(model_config)

    def as_dict(self) -> Json:
        """The configuration so far."""
        return self._model_config

    @property
    def _where(self) -> str:
        return f"auto-complete-config function for model '{self._model_config['name']}'"

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Set the batch limit; ValueError if a larger one is written down."""
        written = self._model_config["max_batch_size"]
        if written > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {written}, but in {self._where} "
                f"specified max_batch_size {max_batch_size}"
            )
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Join requests, unless another scheduler is written down (ValueError)."""
        found = next((each for each in _SCHEDULERS if each in self._model_config), None)
        if found is not None:
            raise ValueError(
                f"Configuration specified scheduling_choice as '{found}', but {self._where} tries "
                "to set scheduling_choice as 'dynamic_batching'"
            )
        self._model_config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, transaction_policy_dict: Mapping[str, Any]) -> None:
        """Say whether the model is decoupled; ValueError if the opposite is written down."""
        name = self._model_config["name"]
        if any(key != "decoupled" for key in transaction_policy_dict):
            raise ValueError(
                f"model transaction property in {self._where} contains property other than "
                "'decoupled'."
            )
        policy: Json = self._model_config.setdefault("model_transaction_policy", {})
        if "decoupled" in transaction_policy_dict:
            wanted = transaction_policy_dict["decoupled"]
            if policy.get("decoupled", wanted) != wanted:
                raise ValueError(
                    f"trying to change decoupled property in auto-complete-config for model "
                    f"'{name}', which is already set to '{policy['decoupled']}'."
                )
            policy["decoupled"] = wanted

    def add_input(self, input: Mapping[str, Any]) -> None:  # noqa: A002 - Triton's name
        """Add an input, or complete the one of that name."""
        self._add("input", dict(input))

    def add_output(self, output: Mapping[str, Any]) -> None:
        """Add an output, or complete the one of that name."""
        self._add("output", dict(output))

    def _add(self, role: str, given: Json) -> None:
        self._check_fields(role, given)
        written: list[Json] = self._model_config[role]
        for entry in written:
            if entry["name"] == given["name"]:
                self._check_agreement(role, entry, given)
                entry.update(given)
                return
        written.append(given)

    def _check_fields(self, role: str, given: Json) -> None:
        allowed = _FIELDS[role]
        told = f"{role} '{given['name']}'" if "name" in given else role
        if any(key not in allowed for key in given):
            names = ", ".join(f"'{key}'" for key in allowed[:-1])
            raise ValueError(
                f"{told} in {self._where} contains property other than {names} and '{allowed[-1]}'."
            )
        for key in ("name", "data_type", "dims"):
            if key not in given:
                raise ValueError(f"{told} in {self._where} is missing '{key}' property.")

    def _check_agreement(self, role: str, entry: Json, given: Json) -> None:
        model, name = self._model_config["name"], given["name"]
        written_type = entry.get("data_type", "TYPE_INVALID")
        if written_type not in ("TYPE_INVALID", given["data_type"]):
            raise ValueError(
                f"unable to load model '{model}', configuration expects datatype {written_type} "
                f"for {role} '{name}', model provides {given['data_type']}"
            )
        dims, optional = entry.get("dims"), entry.get("optional")
        if dims and list(dims) != list(given["dims"]):
            raise ValueError(
                f"model '{model}', tensor '{name}': the model expects dims {given['dims']} but the "
                f"model configuration specifies dims {dims}"
            )
        if optional is not None and given.get("optional", optional) != optional:
            raise ValueError(
                f"model '{model}', tensor '{name}': the model expects optional "
                f"{given['optional']} but the model configuration specifies optional {optional}"
            )
