"""Restoration against a slow reference: Hugging Face's eager attention, one example, head and kind of token at a
time."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import softmax, xlogy
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.inside.observation import measuring
from gpt2_interp.inside.restoration import PARTS, restoration_tokens, restorations, second_readings
from gpt2_interp.inside.restoration_batches import Texts
from gpt2_interp.inside.restoration_under_noise import restorations_under_noise
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.model.copying_start import INDUCTION, PREVIOUS, start_copying
from gpt2_interp.probes.probe_set import GoldFact
from gpt2_interp.snapshots.table import RESTORED
from gpt2_interp.statistics.simultaneous import simultaneous_intervals
from tests.inside.test_losses import EXAMPLES, N_HEAD, N_LAYER, tiny, tiny_lora
from tests.measures.test_weights import disturb

GOLD = [
    (GoldFact("who", (21, 22), (3, 4), (), ()), GoldFact("where", (24,), (0, 9), (), ())),  # 0 is no source token
    (GoldFact("who", (72,), (60,), (), ()),),
    *((),) * 4,
]
KINDS = [np.stack([np.ones(len(e.target_ids), bool), np.arange(len(e.target_ids)) % 3 == 1], axis=1) for e in EXAMPLES]
TEXTS = Texts(EXAMPLES, KINDS, GOLD)
EVERY_HEAD, EVERY_UNIT = np.ones((N_LAYER, N_HEAD), bool), np.ones((len(RESTORED), N_LAYER, N_HEAD), bool)
D_HEAD = 8 // N_HEAD


def pair(make, size: float = 0.3):
    """Return (the tuned model, with adapters or without; its base's weights; (tuned, base) as plain models)."""
    model = make().eval()
    base = BaseWeights(model)
    plain = []
    for change in (lambda: None, lambda: disturb(model, size)):
        with torch.no_grad():
            change()
        merged = copy.deepcopy(model)
        merged = merged.merge_and_unload() if hasattr(merged, "merge_and_unload") else merged
        merged.set_attn_implementation("eager")
        plain.append(merged.double().eval())
    return model, base, plain[::-1]


PAIRS = {"full": lambda **more: pair(tiny, **more), "lora": lambda **more: pair(tiny_lora, **more)}


class Slow:
    """One example in one plain model, in double precision."""

    def __init__(self, gpt2, example: Example):
        self.gpt2, self.example = gpt2, example
        inputs, self.resid = [], []
        hooks = [
            b.attn.c_attn.register_forward_hook(lambda m, a, out: inputs.append(out[0])) for b in gpt2.transformer.h
        ]
        hooks += [b.register_forward_pre_hook(lambda m, a: self.resid.append(a[0][0])) for b in gpt2.transformer.h]
        with torch.no_grad():
            out = gpt2(torch.tensor([example.input_ids]), output_attentions=True)
        for hook in hooks:
            hook.remove()
        self.a = [a[0] for a in out.attentions]  # [head, query, key]
        self.v = [x.chunk(3, -1)[2].unflatten(-1, (N_HEAD, -1)).transpose(0, 1) for x in inputs]
        self.plain = self.nll(out.logits[0])

    def nll(self, logits) -> np.ndarray:
        ids, n_prompt = self.example.input_ids, len(self.example.prompt_ids)
        log_p = logits.log_softmax(-1)
        return np.array([np.nan if t == 0 else -log_p[t - 1, ids[t]].item() for t in range(n_prompt, len(ids))])

    @torch.no_grad()
    def with_output(self, layer, head, z) -> np.ndarray:
        """NLL of each target token with a head's output [query, d_head]."""

        def change(module, args):
            new = args[0].clone()
            new[0, :, head * D_HEAD : (head + 1) * D_HEAD] = z
            return (new,)

        hook = self.gpt2.transformer.h[layer].attn.c_proj.register_forward_pre_hook(change)
        try:
            return self.nll(self.gpt2(torch.tensor([self.example.input_ids])).logits[0])
        finally:
            hook.remove()

    @torch.no_grad()
    def with_patterns(self, other) -> np.ndarray:
        """NLL with every head's pattern of another model; values are this model's own, one layer after the other."""
        x = (
            self.gpt2.transformer.wte.weight[list(self.example.input_ids)]
            + self.gpt2.transformer.wpe.weight[: len(self.example.input_ids)]
        )
        for layer, block in enumerate(self.gpt2.transformer.h):
            v = block.attn.c_attn(block.ln_1(x)).chunk(3, -1)[2].unflatten(-1, (N_HEAD, -1)).transpose(0, 1)
            x = x + block.attn.c_proj((other.a[layer] @ v).transpose(0, 1).flatten(1))
            x = x + block.mlp(block.ln_2(x))
        return self.nll(self.gpt2.lm_head(self.gpt2.transformer.ln_f(x)))

    def moved(self, layer, head, vectors) -> torch.Tensor:
        """Norms of what vectors [..., d_head] write to the stream."""
        w_o = self.gpt2.transformer.h[layer].attn.c_proj.weight.detach()[head * D_HEAD : (head + 1) * D_HEAD]
        return (vectors @ w_o).norm(dim=-1)

    def number(self, name, layer, head, i, gold) -> float:
        """A measure at the query i, by its definition."""
        a = self.a[layer][head, i, : i + 1]
        norms, source = self.moved(layer, head, self.v[layer][head][: i + 1]), range(1, len(self.example.source_ids))
        S = [j for j in source if j <= i]  # noqa: N806
        if name == "head_write":
            return (self.moved(layer, head, a @ self.v[layer][head][: i + 1]) / self.resid[layer][i].norm()).item()
        return restored_number(name, a.numpy(), norms.numpy(), S, [k for k in gold if k in S])


def restored_number(name, a, norms, S, gold) -> float:  # noqa: N803
    i = len(a) - 1
    rest = a[1:] / a[1:].sum() if i else np.array([])
    if name == "attn_sink":
        return a[0] if i >= 1 else np.nan
    if name == "attn_distance_ns":
        return sum(p * (i - j) for j, p in enumerate(rest, start=1)) / ((i - 1) / 2) if i >= 2 else np.nan
    if name == "attn_entropy_norm_ns":
        return -xlogy(rest, rest).sum() / np.log(i) if i >= 2 else np.nan
    if not S:
        return np.nan
    if name == "attn_source_ns":
        return sum(a[S]) / a[1:].sum()
    if name == "attn_source_normw":
        return sum(a[S] * norms[S]) / sum(a * norms)
    return sum(a[gold]) / sum(a[S]) if gold else np.nan


def restored_row(name, a, norms, S, gold, target) -> np.ndarray:  # noqa: N803
    """a' with the number `target`: one parameter, found by bisection."""
    i = len(a) - 1
    keys, others = np.arange(i + 1), np.arange(i + 1) > 0
    member = {"attn_sink": keys == 0, "attn_source_ns": np.isin(keys, S), "attn_gold_lift": np.isin(keys, gold)}
    inside = np.isin(keys, S) if name == "attn_gold_lift" else others

    def candidate(x: float) -> np.ndarray:
        if name == "attn_entropy_norm_ns":
            old, new = softmax(np.log(a[others])), softmax(np.exp(x) * np.log(a[others]))
            cost = (xlogy(new, new) - xlogy(new, old)).sum()
            row = np.concatenate([a[:1], a[others].sum() * np.exp(-cost) * new])
            return row / row.sum()
        if name == "attn_sink":
            values = member[name]
        elif name == "attn_distance_ns":
            values = np.where(others, (i - keys) / ((i - 1) / 2) - target, 0)
        elif name == "attn_source_normw":
            values = norms * (np.isin(keys, S) - target) / norms.max()
        else:  # a share of part of the row
            values = np.where(inside, member[name] - target, 0)
        return softmax(np.log(a) + x * values)

    def lacking(x: float) -> float:
        return restored_number(name, candidate(x), norms, S, gold) - target

    low, high = (-12, 7) if name == "attn_entropy_norm_ns" else (-200, 200)
    if not lacking(low) * lacking(high) < 0:
        return a  # no row has this number
    return candidate(brentq(lacking, low, high, xtol=1e-12))


def by_kind(nll: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(nll)
    return np.array([nll[defined & of_kind].mean() if (defined & of_kind).any() else np.nan for of_kind in kinds.T])


def slow_parts(tuned, start, index, qk) -> dict[str, np.ndarray]:
    """The arrays of PARTS and all patterns for one example; qk: [layer][head] models with that head's base weights."""
    e, kinds = EXAMPLES[index], KINDS[index]
    t, s = Slow(tuned, e), Slow(start, e)
    found = {name: np.full((N_LAYER, N_HEAD, 2), np.nan) for name in PARTS}
    for layer in range(N_LAYER):
        for head in range(N_HEAD):
            a_t, a_0, v_t, v_0 = t.a[layer][head], s.a[layer][head], t.v[layer][head], s.v[layer][head]
            for name, nll in {
                "restore_pattern_needed": t.with_output(layer, head, a_0 @ v_t) - t.plain,
                "restore_value_needed": t.with_output(layer, head, a_t @ v_0) - t.plain,
                "restore_output_needed": t.with_output(layer, head, a_0 @ v_0) - t.plain,
                "restore_qk_needed": Slow(qk[layer][head], e).plain - t.plain,
                "restore_pattern_enough": s.plain - s.with_output(layer, head, a_t @ v_0),
            }.items():
                found[name][layer, head] = by_kind(nll, kinds)
    found["restore_all_patterns_needed"] = by_kind(t.with_patterns(s) - t.plain, kinds)
    found["restore_all_patterns_enough"] = by_kind(s.plain - s.with_patterns(t), kinds)
    return found


def slow_measures(own, other, index) -> np.ndarray:
    """[restored, layer, head, kind], loss with the other model's numbers minus loss without."""
    e, kinds, facts = EXAMPLES[index], KINDS[index], GOLD[index]
    o, there = Slow(own, e), Slow(other, e)
    found = np.full((len(RESTORED), N_LAYER, N_HEAD, 2), np.nan)
    for m, name in enumerate(RESTORED):
        for layer in range(N_LAYER):
            for head in range(N_HEAD):
                a, v = o.a[layer][head].clone(), o.v[layer][head]
                z, known = a @ v, False
                for i in range(max(len(e.prompt_ids) - 1, 0), len(e.input_ids) - 1):
                    gold = [k for fact in facts if i in fact.queries for k in fact.value]
                    target = there.number(name, layer, head, i, gold)
                    if np.isnan(target):
                        continue
                    known = True
                    if name == "head_write":
                        z[i] *= target / o.number(name, layer, head, i, gold)
                        continue
                    S = [j for j in range(1, len(e.source_ids)) if j <= i]  # noqa: N806
                    norms = o.moved(layer, head, v[: i + 1]).numpy()
                    row = restored_row(name, a[i, : i + 1].numpy(), norms, S, [k for k in gold if k in S], target)
                    z[i] = torch.from_numpy(row) @ v[: i + 1]
                if known:
                    found[m, layer, head] = by_kind(o.with_output(layer, head, z) - o.plain, kinds)
    return found


@torch.no_grad()
def with_base_qk(tuned, start) -> list[list[GPT2LMHeadModel]]:
    """The tuned model with the base's query and key weights in one head: [layer][head]."""
    models = [[copy.deepcopy(tuned) for _ in range(N_HEAD)] for _ in range(N_LAYER)]
    for layer in range(N_LAYER):
        for head in range(N_HEAD):
            into, of = (m.transformer.h[layer].attn.c_attn for m in (models[layer][head], start))
            for which in (0, 8):  # queries, keys
                columns = slice(which + head * D_HEAD, which + (head + 1) * D_HEAD)
                into.weight[:, columns], into.bias[columns] = of.weight[:, columns], of.bias[columns]
    return models


@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_parts_equal_one_head_at_a_time(make):
    model, base, (tuned, start) = make()
    qk = with_base_qk(tuned, start)
    slow = [slow_parts(tuned, start, index, qk) for index in range(len(EXAMPLES))]
    for max_tokens in (100, 2048):
        with measuring(find_gpt2(model)):
            fast = restorations(find_gpt2(model), base, TEXTS, EVERY_HEAD, ~EVERY_UNIT, max_tokens)
        for name in slow[0]:
            expected = np.stack([one[name] for one in slow])
            assert fast[name].shape == expected.shape and fast[name].dtype == np.float32
            np.testing.assert_allclose(fast[name], expected, atol=5e-5, rtol=1e-4, err_msg=name)
            assert np.nanmax(np.abs(expected)) > 0.01, name
        assert np.isnan(fast["restore_measure_needed"]).all() and np.isnan(fast["restore_measure_enough"]).all()


@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_measures_equal_one_query_at_a_time(make):
    model, base, (tuned, start) = make()
    units = EVERY_UNIT.copy()
    units[0, 1, 1] = units[3, 0] = False
    with measuring(find_gpt2(model)):
        fast = restorations(find_gpt2(model), base, TEXTS, ~EVERY_HEAD, units, 300)
    for way, own, other, sign in (("needed", tuned, start, 1), ("enough", start, tuned, -1)):
        for index in range(len(EXAMPLES)):
            expected = np.where(units[..., None], sign * slow_measures(own, other, index), np.nan)
            found = fast[f"restore_measure_{way}"][index]
            np.testing.assert_allclose(found, expected, atol=5e-5, err_msg=f"{way} {index}")
        assert (np.nanmax(np.abs(fast[f"restore_measure_{way}"]), axis=(0, 2, 3, 4)) > 1e-3).all()
    assert all(np.isnan(fast[name]).all() for name in PARTS)


def test_a_model_that_did_not_change_gives_0():
    gpt2 = tiny().eval()
    with measuring(gpt2):
        found = restorations(gpt2, BaseWeights(gpt2), TEXTS, EVERY_HEAD, EVERY_UNIT)
    for name, values in found.items():
        np.testing.assert_allclose(np.nan_to_num(values), 0, atol=1e-5, err_msg=name)
        of_text = np.isfinite(values[..., 0].reshape(len(EXAMPLES), -1))
        assert of_text[0].all()  # it has a source and known answers
        assert of_text.all() != name.startswith("restore_measure")  # others lack them


def test_examples_without_a_loss_are_nan():
    texts = Texts([Example("", "", (1, 2, 3), (), ()), EXAMPLES[0]], [np.zeros((0, 2), bool), KINDS[0]], ())
    gpt2 = tiny().eval()
    base = BaseWeights(gpt2)
    with measuring(gpt2), torch.no_grad():
        disturb(gpt2)
        found = restorations(gpt2, base, texts, EVERY_HEAD, EVERY_UNIT)
        noise = restorations_under_noise(gpt2, base, texts, EVERY_HEAD, EVERY_UNIT, 0, 1)
    for values in found.values():
        assert np.isnan(values[0]).all() and np.isfinite(values[1]).any()
    assert all(np.isfinite(values).any() for values in noise)  # means over the examples that have one
    assert np.isfinite(noise[0]).all()


@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_under_noise_a_perturbed_base_stands_for_the_tuned_model(make):
    model, base, _ = make(size=0.1)
    gpt2 = find_gpt2(model)
    units = np.zeros_like(EVERY_UNIT)
    units[RESTORED.index("attn_sink"), 1, 0] = units[RESTORED.index("head_write"), 2, 1] = True
    heads = np.zeros_like(EVERY_HEAD)
    heads[1, 1] = True
    with measuring(gpt2):
        patterns, numbers = restorations_under_noise(gpt2, base, TEXTS, heads, units, 1, 2, 300)
    norms = base.change_norms(model)
    for seed in range(2):
        with base.perturbed(model, seed, norms):
            perturbed = copy.deepcopy(model)
        with base.replaced(model):
            start = copy.deepcopy(model)
        plain = [m.merge_and_unload() if hasattr(m, "merge_and_unload") else m for m in (perturbed, start)]
        for one in plain:
            one.double().eval().set_attn_implementation("eager")
        slow = np.nanmean([slow_measures(*plain, index)[..., 1] for index in range(len(EXAMPLES))], axis=0)
        np.testing.assert_allclose(numbers[seed], np.where(units, slow, np.nan), atol=5e-5)
        costs = []
        for e, kinds in zip(EXAMPLES, KINDS, strict=True):
            own, start = (Slow(one, e) for one in plain)
            nll = own.with_output(1, 1, start.a[1][1] @ own.v[1][1]) - own.plain
            costs.append(by_kind(nll, kinds)[1])
        np.testing.assert_allclose(patterns[seed], np.where(heads, np.nanmean(costs), np.nan), atol=5e-5)


def test_second_readings():
    sequences = [(0, *ids, *ids) for ids in ((5, 9, 3, 7, 1), (8, 2, 6, 4, 11))]
    model, base, (tuned, start) = PAIRS["full"]()
    with measuring(model):
        found = second_readings(model, base, sequences, EVERY_HEAD)
    for index, ids in enumerate(sequences):
        example = Example("", "", ids[:7], (), ids[7:])
        t, s = Slow(tuned, example), Slow(start, example)
        assert found["second_reading_tuned"][index] == pytest.approx(t.plain.mean(), abs=1e-5)
        assert found["second_reading_base"][index] == pytest.approx(s.plain.mean(), abs=1e-5)
        for layer in range(N_LAYER):
            for head in range(N_HEAD):
                changed = t.with_output(layer, head, s.a[layer][head] @ t.v[layer][head])
                expected = changed.mean() - t.plain.mean()
                assert found["restore_second_reading"][index, layer, head] == pytest.approx(expected, abs=2e-5)


def test_a_planted_circuit_is_found_and_nothing_else():
    """The tuned model has two heads that copy, given by construction; its base is the same without them."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=4, n_embd=64, n_positions=64, vocab_size=200)
    gpt2 = GPT2LMHeadModel(config).eval()
    start_copying(gpt2)
    copying = {name: p.detach().clone() for name, p in gpt2.named_parameters()}
    width = config.n_embd // config.n_head
    with torch.no_grad():  # the base: the two heads ask and answer at random, what they write stays
        for layer, head in (PREVIOUS, INDUCTION):
            weight = gpt2.transformer.h[layer].attn.c_attn.weight.view(config.n_embd, 3, config.n_embd)
            columns = slice(head * width, (head + 1) * width)
            weight[:, :2, columns] = 0.02 * torch.randn(config.n_embd, 2, width)
    base = BaseWeights(gpt2)
    with torch.no_grad():
        for name, parameter in gpt2.named_parameters():
            parameter.copy_(copying[name])
    generator = np.random.default_rng(0)
    rows = [generator.permutation(np.arange(1, 200))[:20].tolist() for _ in range(40)]
    examples = [Example("", "", (0, *row, row[0]), (), tuple(row[1:])) for row in rows]
    texts = Texts(examples, [np.ones((19, 1), bool)] * len(rows), ())
    with measuring(gpt2):
        found = restorations(gpt2, base, texts, np.ones((2, 4), bool), np.zeros((len(RESTORED), 2, 4), bool))
    needed = simultaneous_intervals(found["restore_pattern_needed"][..., 0])
    enough = simultaneous_intervals(found["restore_pattern_enough"][..., 0])
    planted = np.zeros((2, 4), bool)
    planted[PREVIOUS] = planted[INDUCTION] = True
    np.testing.assert_array_equal(needed.low > 0, planted)
    # The second head's pattern has what the first one wrote in it; the first one's alone helps nobody.
    planted[PREVIOUS] = False
    np.testing.assert_array_equal(enough.low > 0, planted)
    others = ~planted
    others[PREVIOUS] = False
    assert max(np.abs(x.mean[others]).max() for x in (needed, enough)) < 1e-3


def test_what_it_costs():
    """Counted by a hook, as for ablation: tokens that pass the MLPs."""
    gpt2 = tiny().eval()
    examples, passed = [EXAMPLES[0]] * 4, []
    base = BaseWeights(gpt2)
    with torch.no_grad():
        disturb(gpt2)
    for block in gpt2.transformer.h:
        block.mlp.register_forward_pre_hook(lambda module, args: passed.append(args[0].shape[:-1].numel()))
    texts = Texts(examples, [KINDS[0]] * 4, ())
    restorations(gpt2, base, texts, EVERY_HEAD, ~EVERY_UNIT)
    saved = 4 * len(PARTS) * N_LAYER * N_HEAD * (len(examples[0].input_ids) - len(examples[0].target_ids))
    assert sum(passed) + saved == restoration_tokens(examples, N_LAYER, N_HEAD) * N_LAYER
