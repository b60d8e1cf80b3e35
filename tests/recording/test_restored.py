import numpy as np
import pytest
import torch

from gpt2_interp.inside.observation import measuring
from gpt2_interp.inside.restoration import restorations
from gpt2_interp.model.base_weights import BaseWeights
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.recording import restored
from gpt2_interp.recording.capture import capture
from gpt2_interp.recording.plan import wanted_names
from gpt2_interp.recording.restored import OF_HEADS, changed_heads, judged_kind, restoration_arrays, texts_of
from gpt2_interp.snapshots.table import MEASURE, REPEATED, RESTORED
from tests.measures.test_weights import disturb
from tests.recording.test_capture import N_HEAD, N_LAYER, PROBES, tiny

FEW, DRAWS = len(PROBES.few), 4
NOTHING = {name: np.zeros((N_LAYER, N_HEAD), bool) for name in OF_HEADS}


@pytest.fixture(scope="module")
def tuned():
    """Return (a model, its base's weights)."""
    gpt2 = tiny().eval()
    base = BaseWeights(gpt2)
    with torch.no_grad():
        disturb(gpt2, 0.2)
    return gpt2, base


def arrays_of(tuned, changed, every_head=False, probes=PROBES):
    gpt2, base = tuned
    with measuring(gpt2):
        return restoration_arrays(gpt2, probes, base, changed, every_head, DRAWS, 200)


def only(name: str, layer: int, head: int) -> dict[str, np.ndarray]:
    changed = {**NOTHING, name: np.zeros((N_LAYER, N_HEAD), bool)}
    changed[name][layer, head] = True
    return changed


def test_only_what_changed_is_paid_for(tuned):
    arrays = arrays_of(tuned, only("attn_sink", 1, 0))
    assert set(arrays) == wanted_names(["restoration"], {"final"})
    paid = np.isfinite(arrays["restore_measure_needed"][..., 0]).any(axis=0)  # [restored, layer, head]
    assert np.argwhere(paid).tolist() == [[RESTORED.index("attn_sink"), 1, 0]]
    parts = np.isfinite(arrays["restore_pattern_needed"][..., 0]).any(axis=0)
    assert np.argwhere(parts).tolist() == [[1, 0]]
    assert np.argwhere(np.isfinite(arrays["restore_second_reading"][0])).tolist() == [[1, 0]]
    assert np.isfinite(arrays["restore_all_patterns_needed"][:, 0]).all()
    every = arrays_of(tuned, only("attn_sink", 1, 0), every_head=True)
    assert np.isfinite(every["restore_pattern_needed"][..., 0]).all()
    np.testing.assert_array_equal(every["restore_measure_needed"], arrays["restore_measure_needed"])


def test_without_anything_known_every_head_is_paid_for_or_none(tuned):
    assert np.isfinite(arrays_of(tuned, {}, every_head=True)["restore_measure_needed"][:, 0, ..., 0]).any(axis=0).all()
    nothing = arrays_of(tuned, {})
    assert np.isnan(nothing["restore_pattern_needed"]).all() and np.isnan(nothing["restore_measure_needed"]).all()


def test_probes_are_spread_over_the_few(tuned, monkeypatch):
    monkeypatch.setattr(restored, "RESTORED_PROBES", 3)
    arrays, (gpt2, base) = arrays_of(tuned, {}, every_head=True), tuned
    defined = np.isfinite(arrays["restore_pattern_needed"][:, 0, 0, 0])
    assert defined.shape == (FEW,) and defined.sum() == 3
    rows = [PROBES.few[i] for i in np.flatnonzero(defined)]
    every = np.ones((N_LAYER, N_HEAD), bool)
    with measuring(gpt2):
        again = restorations(gpt2, base, texts_of(PROBES, rows), every, np.zeros((len(RESTORED), *every.shape), bool))
    np.testing.assert_allclose(arrays["restore_pattern_needed"][defined], again["restore_pattern_needed"], atol=1e-6)


def test_the_same_under_noise_where_it_matters(tuned, monkeypatch):
    monkeypatch.setattr(restored, "DRAWS", 2)
    seen = []

    def matters(costs, clusters, asked):
        assert costs.shape[0] == len(clusters)
        seen.append(costs)
        return asked

    monkeypatch.setattr(restored, "_matters", matters)
    changed = only("attn_sink", 1, 0) | {"attn_kl0": only("attn_kl0", 2, 1)["attn_kl0"]}
    changed |= {REPEATED[2]: only(REPEATED[2], 0, 1)[REPEATED[2]]}
    arrays = arrays_of(tuned, changed)
    expected = {
        "band_restore_measure": (RESTORED.index("attn_sink"), 1, 0),
        "band_restore_pattern": (2, 1),
        "band_restore_second_reading": (0, 1),
    }
    for name, place in expected.items():
        assert arrays[name].shape[0] == DRAWS and np.isnan(arrays[name][2:]).all()
        found = np.argwhere(np.isfinite(arrays[name][:2]))
        assert found.tolist() == [[draw, *place] for draw in range(2)], name
    assert len(seen) == 1 + len(RESTORED) + 1


def test_what_does_not_matter_has_no_noise(tuned):
    arrays = arrays_of(tuned, only("attn_sink", 1, 0))  # six probes: no interval is narrow enough
    assert all(np.isnan(arrays[name]).all() for name in arrays if name.startswith("band_"))


def test_the_loss_of_values_decides_where_there_are_some():
    assert judged_kind(PROBES) == 0
    kinds = tuple(np.ones((len(e.target_ids), 3), bool) for e in PROBES.examples)
    probes = ProbeSet(PROBES.examples, (), token_kinds=("all", "template", "value_first"), kinds=kinds)
    assert judged_kind(probes) == 2


def test_without_sequences(tuned):
    arrays = arrays_of(tuned, {}, probes=ProbeSet(PROBES.examples, ()))
    assert "restore_second_reading" not in arrays and "restore_pattern_needed" in arrays


def test_changed_heads():
    generator = np.random.default_rng(0)
    clusters = [str(i % 12) for i in range(48)]
    start, now = {}, {}
    for name in ("attn_sink", "head_write"):
        shape = [48 if a == "example" else {"region": 2, "layer": 3, "head": 2}[a] for a in MEASURE[name].axes]
        start[name] = generator.normal(size=shape)
        now[name] = start[name] + 0.01 * generator.normal(size=shape)
        now[f"band_{name}"] = 0.05 * generator.normal(size=(39, 3, 2))
    now["attn_sink"][:, 0, 1, 0] += 1  # region Q
    now["attn_sink"][:, 1, 2, 0] += 1  # region A: not what is claimed
    now["head_write"][:, 0, 1] += 0.02  # surely more than 0, but no more than noise does
    found = changed_heads(start, now, {"example": clusters})
    assert set(found) == {"attn_sink", "head_write"}
    assert np.argwhere(found["attn_sink"]).tolist() == [[1, 0]] and not found["head_write"].any()
    del now["band_attn_sink"]
    assert set(changed_heads(start, now, {"example": clusters})) == {"head_write"}


def test_a_snapshot_restores_what_it_found_changed(tuned, monkeypatch):
    gpt2, base = tuned
    seen = {}

    def remember(start, now, clusters):
        seen.update(start=set(start), now=set(now), clusters=clusters)
        return NOTHING

    monkeypatch.setattr("gpt2_interp.recording.capture.changed_heads", remember)
    names = {"attn_sink", "prev_token", "band_attn_sink"} | wanted_names(["restoration"], {"final"})
    found = capture(
        gpt2, PROBES, names, base=base, reference={}, perturbations=2, start={"attn_sink": 1}, every_head=False
    )
    assert names <= set(found)
    assert seen["start"] == {"attn_sink"} and {"attn_sink", "prev_token", "band_attn_sink"} <= seen["now"]
    assert len(seen["clusters"]["example"]) == len(PROBES.examples) and len(seen["clusters"]["sequence"]) == 3
    assert np.isnan(found["restore_pattern_needed"]).all()
    assert capture(gpt2, PROBES, wanted_names(["restoration"], {"final"}), base=base) == {}  # the base itself
