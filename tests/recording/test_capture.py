import base64
import itertools
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.data.examples import Example
from gpt2_interp.inside.observation import Stopwatch, batches
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.probes.regions import region_spans
from gpt2_interp.recording.capture import capture, precision_floor
from gpt2_interp.recording.plan import wanted_names
from gpt2_interp.snapshots.patterns import unfold_patterns
from gpt2_interp.snapshots.table import CLAIMED, GROUPS, HALVES, HEADLINE, MEASURE, MEASURES, POOLINGS, REGIONS
from tests.measures.whole_maps import attention_measures

N_LAYER, N_HEAD, D_MODEL, VOCAB = 3, 2, 8, 50


def tiny(**overrides) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=N_LAYER,
        n_head=N_HEAD,
        n_embd=D_MODEL,
        vocab_size=VOCAB,
        n_positions=100,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.5,
        **overrides,
    )
    return GPT2LMHeadModel(config)


def make_probes() -> ProbeSet:
    rng = random.Random(0)

    def example(name, n_source, n_template, n_target):
        return Example(
            name, name, *(tuple(rng.randrange(VOCAB) for _ in range(n)) for n in (n_source, n_template, n_target))
        )

    examples = [
        example("a", 20, 2, 5),
        example("b", 70, 2, 9),
        example("c", 3, 2, 2),
        example("text", 0, 0, 12),
        example("d", 1, 2, 4),
        example("e", 64, 3, 3),
    ]
    return ProbeSet(
        tuple(examples),
        (examples[1], examples[2]),
        control=tuple(example(f"general {n}", 0, 0, n) for n in (30, 12, 20, 40)),
        training=(example("trained", 20, 2, 5),),
        sequences=tuple((0, *row, *row) for row in (tuple(rng.sample(range(1, VOCAB), 9)) for _ in range(3))),
        others=tuple(None if not e.source_ids else replace(e, source_ids=examples[4].source_ids) for e in examples),
    )


PROBES = make_probes()
REFERENCE = {"hidden_pooled_0", "control_hidden_pooled_0", "other_hidden_pooled_0", "attn_logprob_0"}


def measure(model, probes=PROBES, names=None, reference=None, **settings) -> dict[str, np.ndarray]:
    names = names or wanted_names(GROUPS, {"light"}) | REFERENCE
    return capture(model, probes, names, base=BaseWeights(model), reference=reference, **settings)


@pytest.fixture(scope="module")
def captured():
    return measure(tiny(), max_batch_tokens=150)


@torch.no_grad()
def one_by_one(model, example: Example) -> dict[str, np.ndarray]:
    """The same numbers for one probe without batches, padding, blocks or hooks of ours: Hugging Face's own outputs."""
    model.eval()
    model.set_attn_implementation("eager")
    neurons = []
    handles = [
        block.mlp.c_proj.register_forward_hook(lambda m, args, out: neurons.append(args[0][0]))
        for block in model.transformer.h
    ]
    before_ln_f = []
    handles.append(model.transformer.ln_f.register_forward_hook(lambda m, args, out: before_ln_f.append(args[0])))
    ids = torch.tensor([example.input_ids])
    out = model(ids, output_attentions=True, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    assert len(out.attentions) == N_LAYER
    hidden = torch.stack([*out.hidden_states[:-1], before_ln_f[0]])[:, 0]  # [hidden_layer, seq, d_model]
    n, n_prompt = len(example.input_ids), len(example.prompt_ids)
    queries = {"Q": [t - 1 for t in range(n_prompt, n) if t > 0], "A": list(range(8, n))}
    masks = torch.zeros(1, 2, n, dtype=torch.bool)
    for row, region in enumerate(REGIONS):
        masks[0, row, queries[region]] = True
    positions = {
        "source_mean": list(range(1, len(example.source_ids))),
        "target_mean": queries["Q"],
        "prompt_last": [n_prompt - 1] if n_prompt else [],
    }
    nothing = torch.full((N_LAYER + 1, D_MODEL), torch.nan)
    log_p = F.log_softmax(out.logits[0], -1)
    return {
        "attention": [attention_measures(a, masks) for a in out.attentions],
        "patterns": torch.stack(out.attentions)[:, 0],
        "hidden_pooled": torch.stack([hidden[:, positions[p]].mean(1) if positions[p] else nothing for p in POOLINGS]),
        "probe_loss": -torch.stack([log_p[t, ids[0, t + 1]] for t in queries["Q"]]).mean(),
        "neurons": torch.stack(neurons),  # [layer, seq, d_mlp]
        "queries": queries,
    }


def test_equals_hugging_face_one_probe_at_a_time(captured):
    model = tiny()
    for index, example in enumerate(PROBES.examples):
        slow = one_by_one(model, example)
        np.testing.assert_allclose(captured["hidden_pooled_0"][index], slow["hidden_pooled"], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(captured["probe_loss"][index], slow["probe_loss"], rtol=1e-5)
        for layer in range(N_LAYER):
            for name, values in slow["attention"][layer].items():  # [1, region, head]
                np.testing.assert_allclose(captured[name][index, :, layer], values[0], atol=2e-5, err_msg=name)


def test_neurons_equal_hugging_face_one_probe_at_a_time(captured):
    slow = [one_by_one(tiny(), example) for example in PROBES.examples]
    for (half, _), (row, region) in itertools.product(enumerate(HALVES), enumerate(REGIONS)):
        here = [one for one, own in zip(slow, PROBES.halves, strict=True) if own == half and one["queries"][region]]
        parts = [one["neurons"][:, one["queries"][region]] for one in here]  # [layer, queries, d_mlp]
        mean = torch.stack([p.mean(1) for p in parts]).mean(0)
        square = torch.stack([p.square().mean(1) for p in parts]).mean(0)
        np.testing.assert_allclose(captured["neuron_mean"][half, row], mean, atol=1e-5)
        np.testing.assert_allclose(captured["neuron_sd"][half, row], (square - mean**2).sqrt(), atol=1e-4)
        np.testing.assert_allclose(
            captured["neuron_active"][half, row],
            torch.stack([(p > 0).float().mean(1) for p in parts]).mean(0),
            atol=1e-5,
        )
    for row, region in enumerate(REGIONS):
        everywhere = torch.cat([one["neurons"][:, one["queries"][region]] for one in slow], 1)
        np.testing.assert_allclose(captured["neuron_max"][row], everywhere.amax(1), atol=1e-5)


def test_patterns_are_whole_and_padded_with_nan(captured):
    folded = captured["attn_pattern"]
    assert folded.shape == (2, N_LAYER, N_HEAD, 81 * 82 // 2) and folded.dtype == np.float16
    patterns = unfold_patterns(folded)
    for index, example in enumerate(PROBES.pattern_examples):
        n = len(example.input_ids)
        slow = one_by_one(tiny(), example)["patterns"].numpy()
        seen = np.tril(np.ones((n, n), bool))
        np.testing.assert_allclose(patterns[index, :, :, :n, :n][..., seen], slow[..., seen], atol=1e-3)
        assert np.isnan(patterns[index, :, :, n:]).all() and np.isnan(patterns[index, :, :, :, n:]).all()


def test_undefined_is_nan(captured):
    by_name = {e.id: i for i, e in enumerate(PROBES.examples)}
    pooling = {name: captured["hidden_pooled"][:, i] for i, name in enumerate(POOLINGS)}
    assert np.isnan(pooling["source_mean"][by_name["text"]]).all()  # plain text has no source
    assert np.isnan(pooling["prompt_last"][by_name["text"]]).all()
    assert np.isnan(pooling["source_mean"][by_name["d"]]).all()  # its source is position 0 alone
    assert np.isfinite(pooling["target_mean"]).all() and np.isfinite(captured["probe_loss"]).all()
    assert np.isnan(captured["attn_entropy"][by_name["c"], REGIONS.index("A")]).all()  # 7 tokens: nothing from 8 on
    assert np.isfinite(captured["attn_entropy"][:, REGIONS.index("Q")]).all()


def test_batches_do_not_change_the_numbers(captured):
    alone = measure(tiny(), max_batch_tokens=1)
    for name, values in captured.items():
        tolerance = 1e-3 if values.dtype == np.float16 else 1e-4
        np.testing.assert_allclose(values, alone[name], atol=tolerance, rtol=1e-4, err_msg=name)


def test_a_planted_head_is_found_in_its_own_cell():
    """A head that looks at the first token only, by its query and key weights: no cell may mix heads or layers."""
    model = tiny()
    d_head = D_MODEL // N_HEAD
    attn = model.transformer.h[1].attn.c_attn
    with torch.no_grad():
        model.transformer.wpe.weight[0] = 0
        model.transformer.wpe.weight[0, 0] = 200.0  # position 0 is a huge vector, which ln_1 turns to (7, -1, ..., -1)
        attn.weight[:, d_head : 2 * d_head] = 0  # head 1's queries are a constant,
        attn.bias[d_head : 2 * d_head] = 50.0
        attn.weight[:, D_MODEL + d_head : D_MODEL + 2 * d_head] = 0  # and its keys read dimension 0
        attn.weight[0, D_MODEL + d_head : D_MODEL + 2 * d_head] = 50.0
    arrays = measure(model)
    sink = np.nanmin(arrays["attn_sink"], axis=(0, 1))  # [layer, head]
    assert sink[1, 1] > 0.999
    assert (np.delete(sink.ravel(), 1 * N_HEAD + 1) < 0.9).all()
    assert np.nanmax(arrays["attn_entropy"][:, :, 1, 1]) < 0.01 < np.nanmin(arrays["attn_entropy"][:, 0, 1, 0])


def test_model_and_randomness_are_left_as_they_were():
    model = tiny()
    model.train()
    model.transformer.h[1].eval()  # someone froze this block's dropout
    model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    implementation, modes = model.config._attn_implementation, [m.training for m in model.modules()]
    activation = model.transformer.h[0].mlp.act
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    measure(model)
    assert all(torch.equal(p.grad, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert model.config._attn_implementation == implementation
    assert [m.training for m in model.modules()] == modes
    assert model.transformer.h[0].mlp.act is activation
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_model_is_given_back_after_a_failure():
    model = tiny().train()
    too_long = Example("x", "x", tuple(range(40)) * 3, (), (1,))
    with pytest.raises(IndexError):
        measure(model, ProbeSet((too_long,), ()))
    assert model.training and model.config._attn_implementation == "sdpa"
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_wrapped_models(captured, tmp_path):
    lora = get_peft_model(tiny(), LoraConfig(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True))
    compiled = torch.compile(tiny(), backend="eager")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        wrapped = [lora, compiled, torch.nn.parallel.DistributedDataParallel(tiny())]
        for model in wrapped:
            for name, values in measure(model, max_batch_tokens=150).items():
                np.testing.assert_allclose(values, captured[name], atol=1e-4, rtol=1e-4, err_msg=name)
    finally:
        torch.distributed.destroy_process_group()


def test_an_adapter_that_does_something_is_measured(captured):
    config = LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    model = get_peft_model(tiny(), config)
    changed = measure(model)
    assert abs(changed["attn_entropy"] - captured["attn_entropy"])[:, 0].max() > 0.01
    merged = measure(model.merge_and_unload())
    np.testing.assert_allclose(changed["probe_loss"], merged["probe_loss"], rtol=1e-4)


def test_precision_is_float32_whatever_the_caller_has(captured):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = measure(tiny(), max_batch_tokens=150)
    for name, values in captured.items():
        np.testing.assert_array_equal(inside[name], values, err_msg=name)


def test_the_floor_is_what_the_precision_of_training_changes(captured):
    model, names = tiny(), {measure.name for measure in CLAIMED}
    reference = {name: captured[name] for name in REFERENCE}
    rough = precision_floor(model, PROBES, names, BaseWeights(model), reference, torch.bfloat16)
    assert {"floor_attn_sink", "floor_induction", "floor_context_gain"} <= set(rough)
    for name, values in rough.items():
        assert 0 < np.abs(values).max() < 1, name


def test_general_text_is_measured_as_probes_are(captured):
    alone = measure(tiny(), replace(PROBES, examples=PROBES.control, others=(), kinds=()))
    for name in ("attn_sink", "attn_entropy_norm_ns", "head_write"):
        np.testing.assert_allclose(captured[f"control_{name}"], alone[name], atol=1e-5, err_msg=name)
    assert (captured["control_hidden_displacement"][:, 1] == 0).all()
    texts = measure(tiny(), replace(PROBES, examples=PROBES.general, others=(), kinds=()))
    np.testing.assert_allclose(captured["control_probe_loss"], texts["probe_loss"], atol=1e-5)
    assert all(not e.source_ids and e.target_ids for e in PROBES.general)


def test_targets_behind_other_sources_are_measured_as_probes_are(captured):
    there = [i for i, other in enumerate(PROBES.others) if other is not None]
    assert 0 < len(there) < len(PROBES.others)
    alone = measure(tiny(), replace(PROBES, examples=tuple(PROBES.others[i] for i in there), others=(), kinds=()))
    names = [measure.name for measure in MEASURES if measure.other_source and f"other_{measure.name}" in captured]
    assert {"attn_sink", "attn_distance_ns", "attn_entropy_norm_ns", "attn_source_ns", "head_write"} <= set(names)
    for name in names:
        values = alone[name]
        for axis, labels in (("region", REGIONS), ("pooling", POOLINGS)):
            if axis in MEASURE[name].axes:
                values = values.take(labels.index(HEADLINE[axis]), axis=1)
        stored = captured[f"other_{name}"]
        np.testing.assert_allclose(stored[there], values, atol=2e-5, err_msg=name)
        assert np.isnan(np.delete(stored, there, axis=0)).all(), name
    no_gain = measure(tiny(), names={"other_attn_sink"}, max_batch_tokens=150)
    np.testing.assert_array_equal(no_gain["other_attn_sink"], captured["other_attn_sink"])


def test_what_other_sources_do_to_hidden_states_is_counted_from_the_base(captured):
    model, names = tiny(), {"other_hidden_displacement"}
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.bias.add_(0.1)
    reference = {name: captured[name] for name in REFERENCE}
    moved = measure(model, names=names, reference=reference)["other_hidden_displacement"]
    assert np.nanmax(moved[:, :2]) < 1e-5 and (np.nanmin(moved[:, 2:], axis=0) > 0.01).all()


def test_the_band_is_what_perturbed_bases_show():
    """Against perturbing by hand, and only what is claimed is in it."""
    model = tiny()
    base = BaseWeights(model)
    reference = {name: measure(model)[name] for name in REFERENCE}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    band = capture(model, PROBES, wanted_names(["band"], {"final"}), base=base, reference=reference)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    few, norms = list(PROBES.kl), base.change_norms(model)
    names = {"attn_sink", "induction", "context_gain", "probe_loss", "hidden_displacement"}
    with base.replaced(model):
        start = capture(model, PROBES, names, base=base, reference=reference)
    for seed in (0, 38):
        with base.perturbed(model, seed, norms):
            found = capture(model, PROBES, names, base=base, reference=reference)
        sink = found["attn_sink"][few, 0] - start["attn_sink"][few, 0]
        np.testing.assert_allclose(band["band_attn_sink"][seed], sink.mean(0), atol=1e-5)
        moved = found["hidden_displacement"][few, POOLINGS.index("target_mean")]
        np.testing.assert_allclose(
            band["band_hidden_displacement"][seed], moved.mean(0), rtol=0.05
        )  # few: their spread
        for name, asked in (("induction", slice(None)), ("probe_loss", few)):
            by_hand = (found[name] - start[name])[asked].mean(0)
            np.testing.assert_allclose(band[f"band_{name}"][seed], by_hand, atol=1e-5)
        gain = np.nanmean(found["context_gain"][few]) - np.nanmean(start["context_gain"][few])
        np.testing.assert_allclose(band["band_context_gain"][seed], gain, atol=1e-5)
    assert "band_twin_effect" not in band and "band_attn_gold_lift" not in band  # these probes have neither


def test_the_stopwatch_counts_what_is_inside_once():
    now = iter([0.0, 1.0, 3.0, 10.0])
    watch = Stopwatch(torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt2_interp.inside.observation.time.perf_counter", lambda: next(now))
        with watch("forward"), watch("attention"):
            pass
    assert watch.seconds == {"forward": 1.0 + 7.0, "attention": 2.0}


def test_only_what_is_wanted_is_there():
    names = {"attn_sink", "weight_change", "induction"}
    assert set(measure(tiny(), names=names)) == names


def test_batches_hold_similar_lengths_within_the_budget():
    lengths = [5, 90, 7, 6, 200, 80, 8]
    found = list(batches(lengths, 100))
    assert sorted(index for batch in found for index in batch) == list(range(7))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 100 for b in found)
    assert len(found[0]) == 4


def test_regions_of_an_example():
    assert region_spans(Example("", "", (1,) * 10, (2,) * 2, (3,) * 4)) == [(11, 15), (8, 16)]
    assert region_spans(Example("", "", (), (), (3,) * 4)) == [(0, 3), (4, 4)]  # nothing predicts token 0
    assert region_spans(Example("", "", (1,) * 10, (), ())) == [(0, 0), (8, 10)]


def test_a_real_trained_model_as_its_author_measured_it(real_data):
    """sorting_gpt: attention and neurons of its first layer, every residual stream and the loss, against the
    activations that its author stored."""
    folder = real_data / "sorting_gpt"
    stored = {
        name: np.frombuffer(base64.b64decode(entry["data"]), dtype=np.float32).reshape(entry["shape"])
        for name, entry in json.loads((folder / "stored_activations.json").read_text()).items()
        if name != "config"
    }
    sequences = stored["idx"].astype(int).tolist()  # [3, 11]
    n_prompt = 6  # six digits, then five of their sorted order
    examples = tuple(
        Example(str(i), str(i), tuple(row[:n_prompt]), (), tuple(row[n_prompt:])) for i, row in enumerate(sequences)
    )
    arrays = measure(GPT2LMHeadModel.from_pretrained(folder), ProbeSet(examples, examples))

    queries = range(n_prompt - 1, 10)
    masks = torch.zeros(3, 2, 11, dtype=torch.bool)
    masks[:, 0, queries], masks[:, 1, 8:] = True, True
    patterns = np.nan_to_num(unfold_patterns(arrays["attn_pattern"]))
    np.testing.assert_allclose(patterns[:, 0], stored["attSm"], atol=5e-4)  # half precision
    for name, values in attention_measures(torch.tensor(stored["attSm"]), masks).items():
        np.testing.assert_allclose(arrays[name][:, :, 0], values, atol=1e-5, err_msg=name)
    for hidden_layer, name in enumerate(("x", "block0", "block1", "block2")):
        pooled = arrays["hidden_pooled_0"][:, :, hidden_layer]
        np.testing.assert_allclose(pooled[:, 0], stored[name][:, 1:n_prompt].mean(1), atol=1e-5)
        np.testing.assert_allclose(pooled[:, 1], stored[name][:, queries].mean(1), atol=1e-5)
        np.testing.assert_allclose(pooled[:, 2], stored[name][:, n_prompt - 1], atol=1e-5)
    halves = ProbeSet(examples, examples).halves
    for half in (0, 1):
        own = [i for i in range(3) if halves[i] == half]
        mean = stored["gelu"][own][:, queries].mean((0, 1))
        np.testing.assert_allclose(arrays["neuron_mean"][half, 0, 0], mean, atol=1e-5)
    np.testing.assert_allclose(arrays["neuron_max"][1, 0], stored["gelu"][:, 8:].max((0, 1)), atol=1e-5)
    loss = [-np.mean([np.log(stored["probs"][i, t, row[t + 1]]) for t in queries]) for i, row in enumerate(sequences)]
    np.testing.assert_allclose(arrays["probe_loss"], loss, atol=1e-5)
