"""Fits: tensors between models of an ensemble of which one has batches and the other has none.

As in Triton: what a model without batches made gets a leading 1 for one with batches, where its
shape is that of a single row; and a leading 1 is taken off the other way round, where the shape
does not fit with it. No other shape is changed: the model's own check tells what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuili.server.protocol.messages import Array
from tuili.server.protocol.signature import Signature, TensorRule
from tuili.server.scheduling.dag import Dag


@dataclass(frozen=True, slots=True)
class Fit:
    """What a tensor is made to fit: a rule without a batch, or one row of it."""

    rule: TensorRule
    batched: bool

    def apply(self, array: Array) -> Array:
        """The array with one leading 1 more or less, or as it is."""
        matches = self.rule.fits(array.shape)
        if self.batched and matches:
            return array[None]
        if not self.batched and not matches and array.shape[:1] == (1,):
            return array[0]
        return array


@dataclass(frozen=True, slots=True)
class Fits:
    """The edges of an ensemble between models with batches and without: to steps and outputs."""

    inputs: Mapping[tuple[int, str], Fit] = field(default_factory=dict)
    outputs: Mapping[str, Fit] = field(default_factory=dict)

    def into(self, at: int, name: str, array: Array) -> Array:
        """A tensor as input `name` of a step."""
        fit = self.inputs.get((at, name))
        return array if fit is None else fit.apply(array)

    def out(self, name: str, array: Array) -> Array:
        """A tensor as an output of the ensemble."""
        fit = self.outputs.get(name)
        return array if fit is None else fit.apply(array)


NO_FITS = Fits()


def fits_of(dag: Dag, signature: Signature, signatures: Sequence[Signature]) -> Fits:
    """The edges that join both kinds; `signatures` are those of the steps."""
    batched = dict.fromkeys(dag.inputs, signature.max_batch_size > 0)
    for tensor, at in dag.makers.items():
        batched[tensor] = signatures[at].max_batch_size > 0
    inputs = {
        (at, name): Fit(model.inputs[name], model.max_batch_size > 0)
        for at, (step, model) in enumerate(zip(dag.steps, signatures, strict=True))
        for name, tensor in step.needs.items()
        if batched[tensor] != (model.max_batch_size > 0)
    }
    outputs = {
        name: Fit(rule, signature.max_batch_size > 0)
        for name, rule in signature.outputs.items()
        if batched[name] != (signature.max_batch_size > 0)
    }
    return Fits(inputs, outputs)
