import json
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.data.examples import Example, collate
from gpt2_interp.inside.attention_observer import LIFTS, OBSERVED, AttentionObserver, RepeatedTokens, output_grams
from gpt2_interp.inside.observation import hooks, measuring, observed_states
from gpt2_interp.measures.attention import QUERY_BLOCK, QUERY_MEASURES, STRIPES
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.probes.probe_set import KL_ROWS, GoldFact, ProbeSet
from gpt2_interp.probes.regions import region_spans, source_masks, span_masks
from tests.measures.whole_maps import attention_measures

N_LAYER, N_HEAD, D_MODEL, VOCAB = 3, 2, 8, 50
D_HEAD = D_MODEL // N_HEAD
PER_HEAD = [name for name in OBSERVED if name not in (*QUERY_MEASURES, "attn_source_chance", "attn_logprob")]


def tiny(**overrides) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_layer": N_LAYER, "n_head": N_HEAD, "n_embd": D_MODEL, "vocab_size": VOCAB, "n_positions": 100}
    config = GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.5, **overrides})
    return GPT2LMHeadModel(config).eval()


def example(name: str, n_source: int, n_template: int, n_target: int) -> Example:
    rng = random.Random(name)
    parts = (tuple(rng.randrange(VOCAB) for _ in range(n)) for n in (n_source, n_template, n_target))
    return Example(name, name, *parts)


EXAMPLES = [
    example("a", 20, 2, 5),
    example("b", 70, 2, 19),  # three blocks of queries are not aligned with its target
    example("text", 0, 0, 12),
    example("c", 1, 2, 4),  # its source is position 0 alone
    example("d", 64, 3, 3),
    example("no target", 9, 2, 0),
]
GOLD = [
    [
        GoldFact("who", (22, 23), (3, 4, 9), (2, 3, 4, 5), (6, 7, 8, 9, 10)),
        GoldFact("where", (25,), (0, 1), (0, 1), ()),  # at position 0, and nothing to hold its sentence against
    ],
    [GoldFact("who", (71, 80), (66, 67), (60, 61, 62, 66, 67), (50, 51, 52))],
    [],
    [GoldFact("who", (3,), (0,), (0,), ())],
    [GoldFact("who", (66, 67), (5,), (5, 6), (1, 2))],
    [],
]
KL_ROW_LISTS = [ProbeSet.kl_rows(e) for e in EXAMPLES[:3]] + [(), (67,), ()]


@torch.no_grad()
def observe(gpt2: GPT2LMHeadModel, observer, token_ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """One forward pass that shows `observer` what the capture shows it."""

    def on_hidden(layer, x):
        if layer < gpt2.config.n_layer:
            observer.see_residual(layer, x)

    ids = torch.zeros(len(token_ids), max(map(len, token_ids)), dtype=torch.long)
    for row, tokens in enumerate(token_ids):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    with measuring(gpt2), hooks(gpt2, on_hidden):
        observed_states(gpt2, ids, observer)
    return observer.result()


def observe_examples(model, examples=EXAMPLES, wanted=OBSERVED, gold=GOLD, kl_rows=KL_ROW_LISTS, **more):
    gpt2 = find_gpt2(model)
    observer = AttentionObserver(gpt2, examples, wanted=wanted, gold=gold, kl_rows=kl_rows, **more)
    return observe(gpt2, observer, [e.input_ids for e in examples])


@torch.no_grad()
def inside(model: GPT2LMHeadModel, tokens: Sequence[int]) -> dict[str, np.ndarray]:
    """Hugging Face's own attention [layer, head, query, key], values [layer, head, seq, d_head] and residual stream
    [layer, seq, d_model] of one sequence, float64."""
    model.set_attn_implementation("eager")
    found = []
    handles = [
        block.attn.c_attn.register_forward_hook(lambda module, args, out: found.append(out[0, :, 2 * D_MODEL :]))
        for block in model.transformer.h
    ]
    out = model(torch.tensor([list(tokens)]), output_attentions=True, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    values = torch.stack(found).unflatten(-1, (N_HEAD, D_HEAD)).transpose(1, 2)
    return {
        "a": torch.cat(out.attentions).double().numpy(),
        "value": values.double().numpy(),
        "residual": torch.cat(out.hidden_states[:-1]).double().numpy(),
    }


def ratio(over: float, under: float) -> float:
    return over / under if under else math.nan


def slow_head(a, value, residual, w_o, e: Example, facts, rows, a0) -> dict[str, float]:
    """One head of one example, as the measure table has it. a: [query, key]; value: [seq, d_head];
    residual: [seq, d_model]; w_o: [d_head, d_model]; a0: the base's a."""
    n, n_prompt, n_source = len(e.input_ids), len(e.prompt_ids), len(e.source_ids)
    S = range(1, n_source)
    Q = [t - 1 for t in range(n_prompt, n) if t > 0]
    f = value @ w_o
    length = [float(np.linalg.norm(f[j])) for j in range(n)]

    def mean(values):
        return sum(values) / len(values) if values else math.nan

    lift, sentence_lift = [0.0, 0.0], [0.0, 0.0]
    for fact in facts:
        gold, sentence, control = ([k for k in ks if k in S] for ks in (fact.value, fact.sentence, fact.control))
        for q in fact.queries:
            if gold:
                lift[0] += sum(a[q, k] for k in gold)
                lift[1] += len(gold) / len(S) * sum(a[q, k] for k in S)
            if sentence and control:
                sentence_lift[0] += mean([a[q, k] for k in sentence])
                sentence_lift[1] += mean([a[q, k] for k in control])
    kl = [sum(a[i, j] * math.log2(a[i, j] / a0[i, j]) for j in range(i + 1)) for i in rows]
    return {
        "attn_source": mean([sum(a[i, j] for j in S) for i in Q]) if len(S) else math.nan,
        "attn_source_ns": mean([sum(a[i, j] for j in S) / (1 - a[i, 0]) for i in Q]) if len(S) else math.nan,
        "attn_source_normw": mean(
            [ratio(sum(a[i, j] * length[j] for j in S), sum(a[i, j] * length[j] for j in range(i + 1))) for i in Q]
        )
        if len(S)
        else math.nan,
        "head_write": mean([np.linalg.norm(a[i] @ f) / np.linalg.norm(residual[i]) for i in Q]),
        "attn_gold_lift": ratio(*lift),
        "attn_gold_sentence_lift": ratio(*sentence_lift),
        "attn_kl0": mean(kl),
    }


def changed() -> GPT2LMHeadModel:
    """`tiny` with other weights: the fine-tuned model."""
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(scope="module")
def logprob_0() -> Tensor:
    return observe_examples(tiny(), wanted={"attn_logprob"})["attn_logprob"]


@pytest.fixture(scope="module")
def observed(logprob_0) -> dict[str, Tensor]:
    return observe_examples(changed(), logprob_0=logprob_0)


def test_equals_loops_over_hugging_faces_own_outputs(observed):
    model, base = changed(), tiny()
    for b, e in enumerate(EXAMPLES):
        now, then = inside(model, e.input_ids), inside(base, e.input_ids)
        for layer, head in np.ndindex(N_LAYER, N_HEAD):
            weight = model.transformer.h[layer].attn.c_proj.weight.detach().double().numpy()
            slow = slow_head(
                now["a"][layer, head], now["value"][layer, head], now["residual"][layer],
                weight[head * D_HEAD : (head + 1) * D_HEAD], e, GOLD[b], KL_ROW_LISTS[b], then["a"][layer, head],
            )  # fmt: skip
            assert set(slow) == set(PER_HEAD)
            for name, expected in slow.items():
                found = observed[name][b, layer, head].item()
                assert found == pytest.approx(expected, rel=5e-4, abs=1e-5, nan_ok=True), (name, e.id, layer, head)


def test_query_measures_are_those_of_whole_maps(observed):
    for b, e in enumerate(EXAMPLES):
        a = torch.tensor(inside(changed(), e.input_ids)["a"], dtype=torch.float32)
        masks = span_masks([region_spans(e)] * N_LAYER, len(e.input_ids))
        for name, values in attention_measures(a, masks).items():  # [layer, region, head]
            torch.testing.assert_close(
                observed[name][b], values.transpose(0, 1), atol=2e-5, rtol=1e-4, equal_nan=True, msg=f"{name} {e.id}"
            )


def test_shapes_and_what_is_undefined(observed):
    row = {e.id: b for b, e in enumerate(EXAMPLES)}
    n, longest = len(EXAMPLES), max(len(e.input_ids) for e in EXAMPLES)
    assert set(observed) == set(OBSERVED)
    for name, values in observed.items():
        shape = {
            "attn_source_chance": (n,),
            "attn_logprob": (n, N_LAYER, N_HEAD, KL_ROWS, longest),
            **dict.fromkeys(QUERY_MEASURES, (n, 2, N_LAYER, N_HEAD)),
        }.get(name, (n, N_LAYER, N_HEAD))
        assert values.shape == shape and values.dtype == torch.float32, name
    of_source = ("attn_source", "attn_source_ns", "attn_source_normw", "attn_source_chance", *LIFTS)
    for name in of_source:
        assert observed[name][[row["text"], row["c"], row["no target"]]].isnan().all(), name
        assert observed[name][[row["a"], row["b"], row["d"]]].isfinite().all(), name
    assert observed["head_write"][: row["no target"]].isfinite().all()
    assert observed["head_write"][row["no target"]].isnan().all()
    assert observed["attn_kl0"][[row["c"], row["no target"]]].isnan().all()
    chance = [19 / i for i in range(21, 26)]
    assert observed["attn_source_chance"][row["a"]].item() == pytest.approx(np.mean(chance))


def test_stored_reference_is_the_log_of_attention(logprob_0):
    assert len(KL_ROW_LISTS[1]) == KL_ROWS < len(EXAMPLES[1].target_ids)
    for b, (e, rows) in enumerate(zip(EXAMPLES, KL_ROW_LISTS, strict=True)):
        a = inside(tiny(), e.input_ids)["a"]
        for r, q in enumerate(rows):
            stored = logprob_0[b, :, :, r]
            np.testing.assert_allclose(stored[..., : q + 1].exp(), a[:, :, q, : q + 1], atol=1e-5)
            assert (stored[..., q + 1 :] == -torch.inf).all()
        assert logprob_0[b, :, :, len(rows) :].isnan().all()


def test_an_unchanged_model_has_no_divergence(logprob_0):
    # As wide as the longest example with rows at step 0: more or less than the longest of a batch now.
    wider = torch.nn.functional.pad(logprob_0, (0, 7), value=-torch.inf)
    narrower = logprob_0[..., : max(q for rows in KL_ROW_LISTS for q in rows) + 1]
    assert narrower.shape[-1] < logprob_0.shape[-1]
    for reference in (wider, narrower):
        kl = observe_examples(tiny(), wanted={"attn_kl0"}, logprob_0=reference)["attn_kl0"]
        assert kl[[0, 1, 2, 4]].abs().max() < 1e-6
    assert "attn_kl0" not in observe_examples(tiny(), wanted={"attn_kl0"})  # nothing to compare with


def test_batch_and_padding_change_nothing(observed, logprob_0):
    for b, e in enumerate(EXAMPLES):
        alone = observe_examples(
            changed(), [e], gold=[GOLD[b]], kl_rows=[KL_ROW_LISTS[b]], logprob_0=logprob_0[b : b + 1]
        )
        for name, values in alone.items():
            together = observed[name][b, ..., : len(e.input_ids)] if name == "attn_logprob" else observed[name][b]
            torch.testing.assert_close(values[0], together, atol=2e-5, rtol=1e-3, equal_nan=True, msg=f"{name} {e.id}")


@pytest.mark.parametrize("name", OBSERVED)
def test_only_what_is_wanted(name, observed, logprob_0):
    result = observe_examples(changed(), wanted={name}, logprob_0=logprob_0)
    assert list(result) == [name]
    torch.testing.assert_close(result[name], observed[name], equal_nan=True)


def test_measures_are_float32_under_autocast():
    """As where the precision of training is measured: what surrounds the observer must not round its numbers."""
    names = set(OBSERVED) - {"attn_kl0", "attn_logprob"}
    plain = AttentionObserver(tiny(), EXAMPLES[1:2], wanted=names, gold=GOLD[1:2])
    n = len(EXAMPLES[1].input_ids)
    scores = torch.randn(1, N_HEAD, n, n, generator=torch.Generator().manual_seed(0))
    a = scores.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
    expected = show(plain, a)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = AttentionObserver(tiny(), EXAMPLES[1:2], wanted=names, gold=GOLD[1:2])
        with torch.autocast("cpu", enabled=False):  # as during the forward pass
            show(rounded, a)
        found = rounded.result()
    for name in names:
        assert torch.equal(found[name], expected[name]), name


def test_without_answers_rows_or_targets():
    result = observe_examples(tiny(), gold=(), kl_rows=(), logprob_0=torch.zeros(6, N_LAYER, N_HEAD, KL_ROWS, 100))
    for name in (*LIFTS, "attn_kl0", "attn_logprob"):
        assert result[name].isnan().all(), name
    nothing = observe_examples(tiny(), [example("x", 12, 2, 0)], gold=(), kl_rows=())
    assert all(nothing[name].isnan().all() for name in OBSERVED if name in nothing and name not in QUERY_MEASURES)
    assert nothing["attn_sink"][0, 1].isfinite().all()


# --- planted attention, without a model's ------------------------------------------------------------------------


def show(observer, a: Tensor, log_a: Tensor | None = None) -> dict[str, Tensor]:
    """a: [batch, head, query, key], the same for all layers; its values are all alike."""
    value = torch.ones(*a.shape[:3], D_HEAD)
    log_a = a.log() if log_a is None else log_a
    for layer in range(N_LAYER):
        observer.see_residual(layer, torch.ones(a.shape[0], a.shape[2], D_MODEL))
        for first in range(0, a.shape[2], QUERY_BLOCK):
            stop = min(first + QUERY_BLOCK, a.shape[2])
            block = a[:, :, first:stop, :stop]
            observer(layer, first, log_a[:, :, first:stop, :stop], block, value, block @ value[:, :, :stop])
    return observer.result()


def test_uniform_attention_is_chance_everywhere_and_a_planted_head_is_not():
    e = EXAMPLES[1]
    n, facts = len(e.input_ids), GOLD[1]
    uniform = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    planted = 0.5 * uniform
    planted[:, list(facts[0].value)] += 0.5 / len(facts[0].value)
    observer = AttentionObserver(tiny(), [e], wanted=set(OBSERVED) - {"attn_kl0", "attn_logprob"}, gold=[facts])
    result = show(observer, torch.stack([uniform, planted])[None])
    ones = torch.ones(N_LAYER)
    for name in LIFTS:
        torch.testing.assert_close(result[name][0, :, 0], ones)
    for name in ("attn_entropy_norm", "attn_entropy_norm_ns", "attn_distance_ns"):
        torch.testing.assert_close(result[name][0, :, :, 0], torch.ones(2, N_LAYER))
    torch.testing.assert_close(result["attn_source_ns"][0, :, 0], ones * result["attn_source_chance"])
    # Alike values have norms alike: the norm-weighted share is the share, the sink's keys counted.
    torch.testing.assert_close(result["attn_source_normw"], result["attn_source"])
    # Half on two of 69 source tokens, half uniform over i + 1 keys.
    over = sum(0.5 + 0.5 * 2 / (q + 1) for q in facts[0].queries)
    under = sum(2 / 69 * (0.5 + 0.5 * 69 / (q + 1)) for q in facts[0].queries)
    torch.testing.assert_close(result["attn_gold_lift"][0, :, 1], ones * over / under)
    over = sum(0.5 / 5 + 0.5 / (q + 1) for q in facts[0].queries)
    under = sum(0.5 / (q + 1) for q in facts[0].queries)
    torch.testing.assert_close(result["attn_gold_sentence_lift"][0, :, 1], ones * over / under)


def test_real_gpt2_heads(real_data):
    """144 heads of the real 124M GPT-2, scores and softmax as stored by someone else, against scipy in float64."""
    from scipy.special import rel_entr

    stored = json.loads((real_data / "gpt2_reference_outputs" / "prompt_1.json").read_text())["outputs"]

    def heads(kind: str) -> np.ndarray:
        rows = [[stored[f"block_{i}_attn_head_{h}_attn_{kind}"]["data"] for h in range(12)] for i in range(12)]
        return np.array(rows, dtype=np.float64)  # [layer, head, query, key]; None becomes NaN

    a, scores = heads("softmax"), np.nan_to_num(heads("masked"), nan=-np.inf)
    n = a.shape[-1]
    e = Example("", "", tuple(range(3)), (), tuple(range(n - 3)))
    queries, rows = range(2, n - 1), list(range(2, n - 1))
    gpt2 = tiny(n_layer=12, n_head=12, n_embd=48)
    tensor = torch.tensor(a, dtype=torch.float32)
    value = torch.randn(12, 1, 12, n, 4, generator=torch.Generator().manual_seed(0))
    x = torch.ones(1, n, 48)

    def run(wanted, order, **more):
        observer = AttentionObserver(gpt2, [e], wanted=wanted, kl_rows=[rows], **more)
        for layer, shown in enumerate(order):
            observer.see_residual(layer, x)
            s = torch.tensor(scores[shown], dtype=torch.float32)[None]
            observer(layer, 0, s, tensor[shown][None], value[layer], tensor[shown][None] @ value[layer])
        return observer.result()

    result = run({"attn_source", "attn_source_ns", "head_write", "attn_source_normw", "attn_logprob"}, range(12))
    np.testing.assert_allclose(result["attn_source"][0], a[:, :, queries, 1:3].sum(-1).mean(-1), atol=1e-6)
    ns = a[:, :, queries, 1:3].sum(-1) / a[:, :, queries, 1:].sum(-1)
    np.testing.assert_allclose(result["attn_source_ns"][0], ns.mean(-1), atol=1e-5)
    # Another layer's heads against these: distributions that really occur, sinks of .99 among them.
    order = list(reversed(range(12)))
    kl = run({"attn_kl0"}, order, logprob_0=result["attn_logprob"])["attn_kl0"][0]
    expected = rel_entr(a[order][:, :, queries], a[:, :, queries]).sum(-1).mean(-1) / np.log(2)
    np.testing.assert_allclose(kl, expected, rtol=1e-3, atol=1e-5)
    assert expected.max() > 1
    f = np.einsum("lhkd,lhdm->lhkm", value[:, 0].double(), output_weights(gpt2).double())  # [layer, head, key, d_model]
    written = np.linalg.norm(a @ f, axis=-1) / math.sqrt(48)
    np.testing.assert_allclose(result["head_write"][0], written[:, :, queries].mean(-1), rtol=1e-4)
    w = a * np.linalg.norm(f, axis=-1)[:, :, None]
    share = w[:, :, queries, 1:3].sum(-1) / w[:, :, queries].sum(-1)
    np.testing.assert_allclose(result["attn_source_normw"][0], share.mean(-1), rtol=1e-4)


def output_weights(gpt2: GPT2LMHeadModel) -> Tensor:
    """[layer, head, d_head, d_model] of a model without adapters."""
    n_head, d_model = gpt2.config.n_head, gpt2.config.n_embd
    return torch.stack(
        [block.attn.c_proj.weight.detach().view(n_head, d_model // n_head, d_model) for block in gpt2.transformer.h]
    )


# --- W_O with adapters -------------------------------------------------------------------------------------------


def with_lora() -> torch.nn.Module:
    config = LoraConfig(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, r=2, init_lora_weights=False)
    return get_peft_model(tiny(), config).eval()


def test_output_matrix_includes_the_adapter():
    model, plain = with_lora(), output_grams(tiny())
    found = output_grams(find_gpt2(model))
    with model.disable_adapter():
        torch.testing.assert_close(output_grams(find_gpt2(model)), plain)
    model.merge_adapter()
    torch.testing.assert_close(output_grams(find_gpt2(model)), found)
    weights = output_weights(with_lora().merge_and_unload())
    torch.testing.assert_close(found, weights @ weights.transpose(-1, -2))
    assert (found - plain).abs().max() > 0.1
    head = tiny().transformer.h[2].attn.c_proj.weight[D_HEAD:]  # head 1 of layer 2: the rows that its output meets
    torch.testing.assert_close(plain[2, 1], (head @ head.T).detach())


def test_an_adapted_model_is_measured_as_the_merged_one():
    names = {"head_write", "attn_source_normw"}
    adapted = observe_examples(with_lora(), wanted=names)
    merged = with_lora().merge_and_unload()
    expected = observe_examples(merged, wanted=names, grams=output_grams(merged))
    plain = observe_examples(tiny(), wanted=names)
    for name in names:
        torch.testing.assert_close(adapted[name], expected[name], rtol=1e-4, atol=1e-5, equal_nan=True)
        assert (adapted[name] - plain[name]).nan_to_num().abs().max() > 0.01


# --- repeated random tokens --------------------------------------------------------------------------------------


def test_repeated_tokens_equal_loops_over_hugging_faces_own_outputs():
    period, rng = 40, random.Random(0)  # 81 tokens: two blocks
    sequences = []
    for _ in range(3):
        tokens = rng.sample(range(1, VOCAB), period)
        sequences.append([0, *tokens, *tokens])
    result = observe(tiny(), RepeatedTokens(N_LAYER, period), sequences)
    assert tuple(result) == STRIPES
    for b, tokens in enumerate(sequences):
        a = inside(tiny(), tokens)["a"]
        for name, back in (("prev_token", 1), ("duplicate", period), ("induction", period - 1)):
            expected = np.mean([a[:, :, q, q - back] for q in range(period + 1, 2 * period + 1)], axis=0)
            np.testing.assert_allclose(result[name][b], expected, rtol=1e-3, atol=1e-6)


def test_a_planted_induction_head_is_found_in_its_own_cell():
    period = 45
    n = 2 * period + 1
    uniform = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    induction = uniform.clone()
    for q in range(period + 1, n):
        induction[q] = torch.nn.functional.one_hot(torch.tensor(q - period + 1), n)
    result = show(RepeatedTokens(N_LAYER, period), torch.stack([uniform, induction])[None])
    chance = np.mean([1 / (q + 1) for q in range(period + 1, n)])
    np.testing.assert_allclose(result["induction"][0], [[chance, 1]] * N_LAYER, rtol=1e-5)
    np.testing.assert_allclose(result["duplicate"][0], [[chance, 0]] * N_LAYER, rtol=1e-5)
    np.testing.assert_allclose(result["prev_token"][0], [[chance, 0]] * N_LAYER, rtol=1e-5)


# --- regions -----------------------------------------------------------------------------------------------------


def test_regions_and_source_of_an_example():
    assert region_spans(Example("", "", (1,) * 10, (2,) * 2, (3,) * 4)) == [(11, 15), (8, 16)]
    assert region_spans(Example("", "", (), (), (3,) * 4)) == [(0, 3), (4, 4)]  # nothing predicts token 0
    assert region_spans(Example("", "", (1,) * 10, (), ())) == [(0, 0), (8, 10)]
    masks = source_masks([example("x", n, 2, 3) for n in (4, 1, 0)], 9)
    assert [row.nonzero().flatten().tolist() for row in masks] == [[1, 2, 3], [], []]
    batch = collate(EXAMPLES, 0)
    spans = span_masks([region_spans(e) for e in EXAMPLES], batch["input_ids"].shape[1])
    assert torch.equal(spans[:, 0, :-1], batch["labels"][:, 1:] >= 0)  # Q: where the next token is supervised
