"""The untouched model inside a trained one: its weights are put back for a moment, alone or with random noise on
top."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from gpt2_interp.model.anatomy import (
    _in_use,
    columns_are_outputs,
    find_gpt2,
    frobenius_norm,
    lora_factors,
    matrix_parts,
    measured_modules,
    stored_weight,
)


class BaseWeights:
    """The untouched model: the initial value of every trainable parameter of the GPT-2 inside `model` (CPU copies).

    With LoRA these are the adapters alone (their initial values needn't be 0) and what stands in modules_to_save. What
    is frozen is the base already and is not copied. A tensor that two layers share is held once, under the name that
    gpt2.named_parameters() gives it (wte for a tied output matrix).
    """

    def __init__(self, model: nn.Module):
        named = find_gpt2(model).named_parameters()
        self.copies = {name: p.detach().to("cpu", copy=True) for name, p in named if p.requires_grad}

    def initial(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return a function: parameter of the GPT-2 inside `model` -> its value in the base, to be read only; a CPU
        copy, or the parameter itself where it is frozen. Raises ValueError as `replaced` does."""
        copies = {id(parameter): copy for _, parameter, copy in self._pairs(model)}
        return lambda parameter: copies.get(id(parameter), parameter)

    def replaced(self, model: nn.Module, only: Callable[[str], bool] | None = None) -> AbstractContextManager[None]:
        """Make the model the base inside this context, or only its parameters whose name satisfies `only`.

        only: is given names as in gpt2.named_parameters(), such as transformer.h.0.attn.c_attn.weight. Afterwards the
        very tensors of before are back, also after an exception. The base's values are lent, so nothing may write to
        them inside. Raises ValueError when a parameter is gone, has another shape, or became trainable after this copy
        was made, and when adapters are merged into the weights beneath.
        """
        refuse_merged(model)
        pairs = self._pairs(model)
        return _swapped((parameter, copy) for name, parameter, copy in pairs if only is None or only(name))

    def trained_names(self, model: nn.Module) -> list[str]:
        """Names, as in gpt2.named_parameters(), of the parameters that `replaced` puts back. Raises ValueError as
        `replaced` does."""
        refuse_merged(model)
        return [name for name, _, _ in self._pairs(model)]

    def change_norms(self, model: nn.Module) -> dict[str, float]:
        """||W_t - W_0||_F of each matrix of `anatomy.matrix_names`: what `perturbed` needs."""
        return {name: frobenius_norm(delta) for name, delta, _ in weight_deltas(model, self)}

    def perturbed(self, model: nn.Module, seed: int, norms: Mapping[str, float]) -> AbstractContextManager[None]:
        """Make the model, inside this context, the base plus noise of exactly the given Frobenius norms.

        norms: from `change_norms(model)`, taken before any perturbation. Each matrix of `anatomy.matrix_names` gets
        Gaussian noise; query, key and value each their own norm. Beneath LoRA the noise is a product of two Gaussian
        matrices with the adapters' rank, added to the frozen weight, while the adapters have their initial values;
        query, key and value share the factor that reads the residual stream, as they do in LoRA. Biases and layer norms
        are the base's. An adapter on a tied wte changes the embedding alone; the noise beneath it also reaches the
        output matrix. The noise depends on `seed` and `norms` alone and leaves the global random state untouched. Takes
        one more copy of the matrices that changed. Raises ValueError as `replaced` does, and for norms that are not of
        this model or not finite.
        """
        refuse_merged(model)
        noisy = _noisy_modules(model, norms)
        initial, pairs = self.initial(model), self._pairs(model)
        matrices = {id(stored_weight(module)) for module in noisy.values()}
        generator = torch.Generator().manual_seed(seed)

        def values() -> Iterator[tuple[nn.Parameter, Tensor]]:  # one at a time: the noise is made on the CPU
            yield from ((parameter, copy) for _, parameter, copy in pairs if id(parameter) not in matrices)
            for name, module in noisy.items():
                parameter = stored_weight(module)
                noise = _noise(name, module, norms, generator)
                yield parameter, noise.add_(initial(parameter).detach().to("cpu", torch.float32))

        return _swapped(values())

    def _pairs(self, model: nn.Module) -> list[tuple[str, nn.Parameter, Tensor]]:
        """Return (name, parameter, its initial value) for every copy."""
        parameters = dict(find_gpt2(model).named_parameters())
        for name, copy in self.copies.items():
            if name not in parameters:
                raise ValueError(f"the base's parameter {name} is gone from the model; take BaseWeights of this model")
            if parameters[name].shape != copy.shape:
                raise ValueError(
                    f"parameter {name} had shape {tuple(copy.shape)} in the base and has "
                    f"{tuple(parameters[name].shape)} now; take BaseWeights after resizing"
                )
        for name, parameter in parameters.items():
            if parameter.requires_grad and name not in self.copies:
                raise ValueError(f"parameter {name} became trainable after its base was copied, so its start is lost")
        return [(name, parameters[name], copy) for name, copy in self.copies.items()]


def refuse_merged(model: nn.Module) -> None:
    """Refuse merged adapters: then no swap of adapters can give the base back. Raises ValueError."""
    if any(isinstance(module, BaseTunerLayer) and module.merged for module in find_gpt2(model).modules()):
        raise ValueError("adapters are merged into the weights beneath; unmerge them before asking for the base")


def _noisy_modules(model: nn.Module, norms: Mapping[str, float]) -> dict[str, nn.Module]:
    """Measured modules of which at least one matrix has changed, by name."""
    modules = measured_modules(find_gpt2(model))
    parts = {name: matrix_parts(name) for name in modules}
    if {part for names in parts.values() for part in names} != set(norms):
        raise ValueError("the norms are not of this model's matrices; take them from change_norms(model)")
    if not all(math.isfinite(norm) for norm in norms.values()):
        raise ValueError("the model has changed by NaN or infinity; noise of that size says nothing")
    return {name: module for name, module in modules.items() if any(norms[part] for part in parts[name])}


def _noise(name: str, module: nn.Module, norms: Mapping[str, float], generator: torch.Generator) -> Tensor:
    """Noise of a module's shape, float32 on the CPU; each of its matrices has its norm."""
    rows, columns = stored_weight(module).shape
    rank = sum(len(a) for a, _, _ in lora_factors(name, module))
    if rank:  # columns scaled in thirds, as below, keep the rank
        noise = torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)
    else:
        noise = torch.randn(rows, columns, generator=generator)
    parts = matrix_parts(name)
    for part, block in zip(parts, noise.chunk(len(parts), dim=1), strict=True):
        block *= norms[part] / frobenius_norm(block)
    return noise


@contextmanager
def _swapped(values: Iterable[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Lend parameters other values; afterwards they have the very tensors of before."""
    kept = []
    try:
        for parameter, value in values:
            kept.append((parameter, parameter.data))
            parameter.data = value.to(parameter.device, parameter.dtype)
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data


def weight_deltas(model: nn.Module, base: BaseWeights) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (matrix, W_t - W_0, W_0) for each matrix of `matrix_names`, one alive at a time; float32 on the CPU, read
    only.

    Shapes as GPT-2 stores them, Conv1D [in, out]. With LoRA the difference is taken from the adapters (scaling B A),
    not from their sum with the frozen weight, where a small change would drown in rounding. Raises ValueError for
    adapters other than plain LoRA, for quantised weights, and as BaseWeights.replaced does for a base of another model.
    """
    initial = base.initial(model)
    for name, module in measured_modules(find_gpt2(model)).items():
        delta, before = _delta_and_base(name, module, initial)
        parts = matrix_parts(name)
        columns = (delta.chunk(len(parts), dim=1), before.chunk(len(parts), dim=1))
        yield from zip(parts, *columns, strict=True)


def _delta_and_base(name: str, module: nn.Module, initial: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return (W_t - W_0, W_0) of a whole module, as stored."""

    def now_and_before(parameter: Tensor) -> tuple[Tensor, Tensor]:
        return _float_cpu(name, parameter), _float_cpu(name, initial(parameter))

    stored, stored_0 = now_and_before(stored_weight(module))
    factors = lora_factors(name, module)
    if not factors:
        return stored - stored_0, stored_0
    change, start = torch.zeros_like(stored), torch.zeros_like(stored)
    for *factor, scaling in factors:
        (a, a_0), (b, b_0) = map(now_and_before, factor)
        products = (b - b_0) @ a + b_0 @ (a - a_0), b_0 @ a_0  # the first: B_t A_t - B_0 A_0, where little cancels
        for total, product in zip((change, start), products, strict=True):  # product: [out, in]
            total += scaling * (product.T if columns_are_outputs(module) else product)
    if _in_use(module).merged:  # the stored weight has the adapters in it
        return change, stored - change
    return change + (stored - stored_0), stored_0 + start


def _float_cpu(name: str, weight: Tensor) -> Tensor:
    if not weight.is_floating_point():
        raise ValueError(f"weight change needs floating-point weights; {name} is stored as {weight.dtype}")
    return weight.detach().to("cpu", torch.float32)
