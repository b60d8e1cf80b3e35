"""Statistics of MLP neurons over the probes' tokens, gathered batch by batch.

a = input of mlp.c_proj. Each probe has the same weight, however many tokens it has. Means are kept for each half of the
probes, so that neurons can be chosen on one and reported on the other; the maximum is only illustration, and kept once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gpt2_interp.snapshots.table import HALVES


class NeuronStatistics:
    """Mean, SD and share of active tokens of every neuron by half, region and layer, and its maximum with the token."""

    def __init__(self, n_region: int, n_layer: int, d_mlp: int):
        shape = (n_region, n_layer, d_mlp)
        halved = (len(HALVES), *shape)
        self.sums = {name: torch.zeros(halved, dtype=torch.float64) for name in ("a", "square", "active")}
        self.max = torch.full(shape, -torch.inf)
        self.max_token = torch.full(shape, -1, dtype=torch.int32)
        self.n_probe = torch.zeros((len(HALVES), n_region, n_layer, 1), dtype=torch.float64)

    def update(
        self,
        layer: int,
        a: Tensor,
        spans: Sequence[Sequence[tuple[int, int]]],
        input_ids: Tensor,
        halves: Sequence[int],
    ) -> None:
        """Add one batch of one layer.

        a: [batch, seq, d_mlp]; spans[example][region] = (start, stop) of the region's positions, empty if equal;
        input_ids: [batch, seq]; halves[example]: 0 or 1.
        """
        shape = (len(HALVES), len(spans[0]), a.shape[-1])
        sums = {name: torch.zeros(shape, device=a.device) for name in self.sums}
        for example, (regions, half) in enumerate(
            zip(spans, halves, strict=True)
        ):  # example by example: what is read four times stays in the cache
            stop = max(stop for _, stop in regions)
            rows = a[example, :stop].float()  # [stop, d_mlp]
            weights = torch.zeros(len(regions), stop, device=a.device)  # [region, stop], each row sums to 1 or is 0
            for region, (first, last) in enumerate(regions):
                if last > first:
                    weights[region, first:last] = 1 / (last - first)
                    self.n_probe[half, region, layer] += 1
                    self._update_max(region, layer, rows[first:last], input_ids[example, first:last])
            sums["a"][half] += weights @ rows
            sums["square"][half] += weights @ (rows * rows)
            sums["active"][half] += weights @ torch.gt(rows, 0, out=torch.empty_like(rows))
        for name, values in sums.items():  # to the CPU before they become float64, which MPS does not have
            self.sums[name][:, :, layer] += values.cpu().double()

    def _update_max(self, region: int, layer: int, rows: Tensor, tokens: Tensor) -> None:
        """Update the maxima with rows [n, d_mlp] of tokens [n]. On equal maxima the earlier one stays."""
        largest = rows.amax(dim=0).cpu()  # [d_mlp]
        # argmax costs ten times amax, and after a few batches hardly any neuron has a new maximum
        new = (largest > self.max[region, layer]).nonzero().squeeze(1)  # [neurons with a new maximum]
        where = rows[:, new.to(rows.device)].argmax(dim=0)
        self.max[region, layer, new] = largest[new]
        self.max_token[region, layer, new] = tokens[where].cpu().int()

    def result(self) -> dict[str, np.ndarray]:
        """neuron_mean, neuron_sd, neuron_active: [half, region, layer, d_mlp]; neuron_max, neuron_max_token: [region,
        layer, d_mlp]. NaN (and token -1) for a region that no probe has."""
        mean, square, active = (self.sums[name] / self.n_probe for name in ("a", "square", "active"))
        return {
            "neuron_mean": mean.float().numpy(),
            "neuron_sd": (square - mean.square()).clamp_min(0).sqrt().float().numpy(),
            "neuron_max": self.max.masked_fill(self.max == -torch.inf, torch.nan).numpy(),
            "neuron_max_token": self.max_token.numpy(),
            "neuron_active": active.float().numpy(),
        }
