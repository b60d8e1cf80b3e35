"""Numbers of each supervised token, taken where the model has to predict it.

A new one is a function and a row of `AT_TARGETS`. A snapshot then has its mean over the supervised tokens of each
probe, under the name of its row in the measure table, and `control_<name>` and `band_<name>` where the table asks.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from transformers import GPT2LMHeadModel

from gpt2_interp.inside.losses import token_nll

# name in the measure table -> f(gpt2, states [query, d_model] after ln_f, tokens [query] that come next) -> [query]
AT_TARGETS: dict[str, Callable[[GPT2LMHeadModel, Tensor, Tensor], Tensor]] = {
    "probe_loss": token_nll,
}
