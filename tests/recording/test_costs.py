"""The announced cost of a snapshot, in passes of the model instead of seconds."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from gpt2_interp.measures.gradients import grad_matrix_names
from gpt2_interp.model.anatomy import find_gpt2
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.recording import costs
from gpt2_interp.recording.capture import capture
from gpt2_interp.recording.costs import cost_lines, rare_seconds
from gpt2_interp.recording.plan import wanted_names
from gpt2_interp.recording.recorder import axis_labels
from gpt2_interp.snapshots.table import GROUPS
from tests.recording.test_recorder import PROBES, make_model

RARE = ("graft", "band")


def changed(model):
    """Change all that is trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    return model


def part_lora(model):
    """Adapters on one block of the five that a 2-layer model has beside its embeddings."""
    config = LoraConfig(target_modules=["c_fc"], layers_to_transform=[1], fan_in_fan_out=True, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


@pytest.mark.parametrize(("wrap", "blocks"), [(lambda model: model, 6), (part_lora, 1)])
def test_the_passes_of_the_last_snapshot_are_announced(monkeypatch, wrap, blocks):
    """A clock that counts tokens of forward passes, so that "seconds" don't depend on the machine."""
    model = wrap(make_model())
    base, gpt2 = BaseWeights(model), find_gpt2(model)
    reference = capture(model, PROBES, {"hidden_pooled_0", "attn_logprob_0"}, base=base)
    tokens = [0]

    def count(module, args, kwargs):
        tokens[0] += kwargs["input_ids"].numel()

    handle = gpt2.transformer.register_forward_pre_hook(count, with_kwargs=True)
    clock = SimpleNamespace(perf_counter=lambda: tokens[0])
    monkeypatch.setattr(costs, "time", clock)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    announced = rare_seconds(model, PROBES, GROUPS, base, reference, 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    changed(model)
    for group in RARE:
        start = tokens[0]
        capture(model, PROBES, wanted_names([group], {"final"}), base=base, reference=reference, perturbations=3)
        assert announced[group] == tokens[0] - start > 0, group
    once = sum(len(PROBES.examples[i].input_ids) for i in PROBES.few)
    assert announced["graft"] >= (2 + 2 * blocks) * once  # padding counts too
    assert announced["band"] % (3 + 1) == 0
    handle.remove()
    assert rare_seconds(model, PROBES, ["loss"], base, reference, 3) == {}


def test_what_each_line_names():
    model = make_model()
    axes = axis_labels(find_gpt2(model), PROBES)
    run = {"measures": {"groups": list(GROUPS)}, "axes": axes}
    manifest = {"files": {"metrics": {"arrays": ["probe_loss", "grad_share", "ablation_exact"]}}}
    seconds = {"loss": 2.0, "ablation": 7.0, "spectra": 0.1, "probe_gradient": 3.0}
    light, rare = cost_lines(run, manifest, seconds, {"graft": 11.0, "band": 13.0})
    size = 4 * (len(PROBES.examples) + len(grad_matrix_names(find_gpt2(model))))
    assert f"{size / 1e6:.1f} MB and 2.0 s: loss 2.0" in light
    assert all(
        part in rare
        for part in (
            "probe_gradient 3.0 s",
            "spectra 0.1 s at up to 5",
            "ablation about 7.0 s",
            "graft about 11.0 s",
            "band about 13.0 s",
        )
    )
    run["measures"]["groups"] = ["loss"]
    assert len(cost_lines(run, manifest, {"loss": 2.0}, {})) == 1
