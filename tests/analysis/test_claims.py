"""Claims on small runs with planted changes, written through a store.

The statistics of the rule, over simulated runs, are tested in tests/statistics/.
"""

import json
import zlib

import numpy as np
import pytest

from gpt2_interp.analysis.changes import is_large
from gpt2_interp.analysis.claim_words import FIELDS, WORDS, summary, words
from gpt2_interp.analysis.claims import claims, current_claims, write_claims
from gpt2_interp.analysis.judged import is_larger_than_general
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import CLAIMED, FEWEST_PERTURBATIONS, MEASURE, POOLINGS, REGIONS, RESTORED
from gpt2_interp.statistics.simultaneous import Intervals


def claims_of(store: SnapshotStore) -> dict:
    """The claims of the run, read anew."""
    return claims(Measurements(store.paths))


# --- the rule, number by number ----------------------------------------------------------------------------------


def intervals(low, high) -> Intervals:
    low, high = np.array(low, float), np.array(high, float)
    return Intervals((low + high) / 2, low, high, np.full(low.shape, 0.5), critical=2.0, patterns=1)


def test_larger_than_on_general_text_compares_the_near_end_with_the_far_one():
    task = intervals([2, 2, -4, 2, -1], [4, 4, -2, 4, 9])
    general = intervals([0, -3, -1.9, 1, 0], [1.9, 1, 1.9, 2, 0.1])
    assert is_larger_than_general(task, general).tolist() == [True, False, True, False, False]


def test_the_smallest_effect_is_a_difference_or_a_factor():
    sink, lift = MEASURE["attn_sink"], MEASURE["attn_gold_lift"]
    assert is_large(sink, np.array([0.5, 0.5, 0.5]), np.array([0.02, -0.03, 0.019])).tolist() == [True, True, False]
    assert is_large(lift, np.array([2.0, 2, 3, 2]), np.array([1.0, 0.9, -1, np.nan])).tolist() == [
        True,
        False,
        True,
        False,
    ]


ANSWERS = {
    "differs": True,
    "beyond_noise": True,
    "counted": True,
    "beyond_training": True,
    "content_specific": True,
    "change_matters": "helps",
    "head_matters": True,
    "reproduced": True,
}


def test_the_words_that_follow_from_the_answers():
    every = ["beyond noise", "counted", "beyond training", "content-specific", "the change helps", "reproduced"]
    assert words(ANSWERS) == [*every, "the head matters"]
    assert words(ANSWERS | {"beyond_noise": False}) == ["differs", "the head matters"]  # of the head, not of the change
    unasked = dict.fromkeys(ANSWERS) | {"differs": True, "beyond_noise": True}
    assert words(unasked) == ["beyond noise"]
    other = {"content_specific": False, "change_matters": "hurts", "head_matters": False}
    assert words(unasked | other) == ["beyond noise", "format", "the change hurts"]
    assert words(unasked | {"change_matters": "no"}) == ["beyond noise"]
    assert set(every) < set(WORDS) and {"differs", "format", "the change hurts", "the head matters"} < set(WORDS)


# --- through a store ---------------------------------------------------------------------------------------------

STEPS = (0, 50, 100)
N, N_FEW, N_CONTROL = 24, 12, 16
AXES = {
    "example": N,
    "few_example": N_FEW,
    "kl_example": 6,
    "control_example": N_CONTROL,
    "pair": 0,
    "region": list(REGIONS),
    "pooling": list(POOLINGS),
    "layer": 2,
    "hidden_layer": ["embedding", "block 1", "block 2 (before ln_f)"],
    "head": 3,
    "perturbation": FEWEST_PERTURBATIONS,
}
ARGUMENTS = {"learning_rate": 1e-3, "seed": 1, "run_name": "run", "max_steps": 100, "null_targets": False}
# Heads: changed on the task; on general text and behind another article as much; within noise; beyond it, but tiny.
TASK, EQUAL, SMALL, TINY = (0, 0), (1, 2), (1, 0), (0, 1)
PLANTED = {TASK: 0.5, EQUAL: -0.4, SMALL: 0.08, TINY: 0.015}
NOISE = {TASK: 0.05, EQUAL: 0.05, SMALL: 0.08, TINY: 0.001}  # what perturbations do to each head; others 0.05
FLOOR = 0.001


def probe_entries(n: int, per_cluster: int = 2) -> list[dict]:
    n_cluster = n // per_cluster
    return [{"id": f"p{i}", "cluster": f"c{i % n_cluster}", "half": i % n_cluster % 2} for i in range(n)]


def write_run(root, name="run", steps=STEPS, scale=1.0, without=(), arguments=None, **info) -> SnapshotStore:
    """A run in which attn_sink of PLANTED changes in proportion to the step, times `scale`; nothing else does.

    Taking TASK's head away costs nothing at first and 0.3 at last; EQUAL's always costs 0.3.
    """
    store = SnapshotStore(RunPaths(name, root))
    arguments = ARGUMENTS | {"run_name": name} | (arguments or {})
    decides = {"record": ["logging_steps"], "nothing": []}
    store.create({"axes": AXES, "arguments": arguments, "decides": decides} | info)
    entries = probe_entries(N)
    store.write_probe_set(
        {"example": entries, "few_example": entries[:N_FEW], "control_example": probe_entries(N_CONTROL), "pair": []}
    )
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    base = rng.normal(size=(N, 2, 2, 3)) * 0.1 + 0.5
    for step in steps:
        t = scale * step / 100
        sink, control, other = base.copy(), base[:N_CONTROL].copy(), base[:, 0].copy()
        for (layer, head), size in PLANTED.items():
            sink[:, 0, layer, head] += t * size
        control[:, 0, *EQUAL] += t * PLANTED[EQUAL]
        other[:, *EQUAL] += t * PLANTED[EQUAL]
        noise = 0.004 * (step > 0)
        sink += noise * rng.normal(size=(N, 1, 1, 1)) + noise * rng.normal(size=sink.shape)
        other += noise * rng.normal(size=other.shape)
        sink[:, 1] = 7 * t  # region A, which nothing is claimed of
        cost = 0.02 * rng.normal(size=(N_FEW, 2, 3))
        cost[:, *TASK] += 0.3 * t
        cost[:, *EQUAL] += 0.3
        arrays = {
            "attn_sink": sink,
            "other_attn_sink": other,
            "control_attn_sink": control + noise * rng.normal(size=control.shape),
            "probe_loss": 3 - t + 0.1 * rng.normal(size=N),
            "hidden_displacement": t * (1 + 0.1 * rng.normal(size=(N, 3, 3))),
            "twin_effect": np.zeros(0),
        }
        if step in (steps[0], steps[-1]):
            arrays["ablation_exact"] = cost
        if step == steps[-1]:
            arrays["band_attn_sink"] = draws(np.random.default_rng(5))
            arrays["band_hidden_displacement"] = np.full((FEWEST_PERTURBATIONS, 3), 5.0)
        store.write(step, {key: value for key, value in arrays.items() if key not in without})
    store.write_reference({"floor_attn_sink": np.full((2, 3), FLOOR)})
    return store


@pytest.mark.parametrize(("made", "claimed"), [(0.012, 0), (0.3, 6)])
def test_nothing_is_claimed_of_a_sink_where_there_is_none(tmp_path, made, claimed):
    """Neither before training nor after; a sink that training made can be claimed."""
    store = write_run(tmp_path)
    for step in STEPS:
        arrays = store.load(step)
        noise = 1e-4 * np.random.default_rng(step).normal(size=arrays["attn_sink"].shape)
        store.write(step, arrays | {"attn_sink": 0.002 + (step > 0) * made + noise})
    got = claims_of(store)
    assert len([change for change in got["changes"] if change["measure"] == "attn_sink"]) == claimed
    said = got["measures"]["attn_sink"]["why_none"] or ""
    assert ("no attention sink" in said and "0.014" in said) == (claimed == 0)


def draws(rng) -> np.ndarray:
    """Changes of attn_sink under perturbations, [perturbation, layer, head]."""
    scale = np.full((2, 3), 0.05)
    for head, size in NOISE.items():
        scale[head] = size
    return scale * rng.uniform(-1.5, 1.5, size=(FEWEST_PERTURBATIONS, 2, 3))


def of(result: dict, measure: str, **unit: int) -> dict:
    """The change of one unit."""
    wanted = {axis: str(label) for axis, label in unit.items()}
    return next(c for c in result["changes"] if c["measure"] == measure and c["unit"] == wanted)


def of_head(result: dict, head: tuple[int, int]) -> dict:
    return of(result, "attn_sink", layer=head[0], head=head[1])


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    return claims_of(write_run(tmp_path_factory.mktemp("claims")))


def test_a_planted_change_is_found_with_its_numbers(result):
    change = of_head(result, TASK)
    assert change["words"] == ["beyond noise", "counted", "content-specific", "the head matters"]
    assert change["change"] == pytest.approx(0.5, abs=0.03) and change["low"] < change["change"] < change["high"]
    assert change["after"] - change["before"] == pytest.approx(change["change"], abs=1e-5)
    assert change["change_by_half"] == pytest.approx([0.5, 0.5], abs=0.04)
    assert np.mean(change["change_by_half"]) == pytest.approx(change["change"], abs=1e-5)  # 6 clusters each
    rms = np.sqrt(np.mean(draws(np.random.default_rng(5))[:, *TASK] ** 2))
    assert change["times_noise"] == pytest.approx(change["change"] / rms, rel=1e-5)
    half = change["half_change"]  # half of it was planted at step 50, and the probes are noisy
    assert half["step"] in (50, 100) and (half["low"], half["high"]) == (50, 100) and change["step"] == 100
    assert change["other_article"]["low"] > 0.4 and change["general_text"]["high"] < 0.1
    assert change["p"] <= 0.05 and change["large"] and change["larger_than_on_general_text"]
    for unasked in ("beyond_training", "change_matters", "reproduced", "restoration", "permuted_targets"):
        assert change[unasked] is None
    entry = result["measures"]["attn_sink"]
    assert entry["unit_axes"] == ["layer", "head"] and entry["steps"] == [0, 50, 100] and entry["why_none"] is None
    assert (entry["n_units"], entry["n_probes"], entry["n_clusters"], entry["patterns"]) == (6, 24, 12, 2048)
    assert (entry["floor"], entry["smallest"]) == (FLOOR, 0.02) and 1.5 < entry["band"] < 3
    assert entry["counts"]["beyond_noise"] == 3 and entry["counts"]["counted"] == 2
    assert len([c for c in result["changes"] if c["measure"] == "attn_sink"]) == 6


def test_the_family_is_the_snapshot_judged(tmp_path):
    """Other snapshots are no part of it: without them every interval is the same."""
    store = write_run(tmp_path)
    three = claims_of(store)
    store.manifest_file(50).unlink()
    two = claims_of(SnapshotStore(store.paths))
    assert two["steps"] == [0, 100] and of_head(two, TASK)["high"] == of_head(three, TASK)["high"]


def test_as_much_behind_another_article_is_format(result):
    change = of_head(result, EQUAL)
    assert change["counted"] and change["content_specific"] is False and "format" in change["words"]
    assert change["larger_than_on_general_text"] is False
    assert change["general_text"]["change"] == pytest.approx(-0.4, abs=0.03)
    assert change["other_article"]["low"] < 0 < change["other_article"]["high"]


def test_within_its_own_noise_it_differs_and_no_more(result):
    change = of_head(result, SMALL)
    assert change["low"] > 0 and change["large"] and not change["beyond_noise"] and change["words"] == ["differs"]


def test_a_quiet_heads_tiny_change_is_beyond_noise_and_not_counted(result):
    change = of_head(result, TINY)
    assert change["beyond_noise"] and not change["large"] and not change["counted"]
    assert "counted" not in change["words"]


def test_the_head_matters_is_about_the_head(result):
    at_task, at_equal, at_small = (of_head(result, head) for head in (TASK, EQUAL, SMALL))
    assert at_task["ablation"]["low"] > 0.2 and at_task["ablation"]["change_low"] > 0.2 and at_task["head_matters"]
    assert at_task["ablation"]["before"] == pytest.approx(0, abs=0.05) and at_task["ablation"]["after"] > 0.2
    assert at_equal["head_matters"] is True  # it costs, as much as ever
    assert at_equal["ablation"]["change_low"] < 0 < at_equal["ablation"]["change_high"]
    assert at_small["head_matters"] is False and at_small["ablation"]["low"] < 0


def test_measures_of_other_units(result):
    loss = of(result, "probe_loss")
    assert loss["unit"] == {} and loss["words"] == ["differs"] and loss["change"] == pytest.approx(-1, abs=0.1)
    assert loss["ablation"] is None and loss["general_text"] is None and loss["times_noise"] is None
    assert "no band" in result["measures"]["probe_loss"]["why_none"]
    hidden = [c for c in result["changes"] if c["measure"] == "hidden_displacement"]
    assert [c["unit"]["hidden_layer"] for c in hidden] == AXES["hidden_layer"]
    assert all(c["words"] == ["differs"] for c in hidden)
    assert "none by more than the band" in result["measures"]["hidden_displacement"]["why_none"]
    assert any("hidden_displacement can't be negative" in note for note in result["notes"])


def test_what_was_not_measured_is_named(result):
    assert set(result["measures"]) == {measure.name for measure in CLAIMED}
    for name in ("induction", "twin_effect", "lens_logprob"):
        entry = result["measures"][name]
        assert "not measured" in entry["why_none"] and entry["counts"] == {} and entry["steps"] == []
    lines = "\n".join(summary(result))
    assert "3 of 6 heads (2 counted over measures, 2 content-specific)" in lines
    assert "not measured: " in lines and "induction" in lines and "no band to exceed" in lines
    missing = "\n".join(result["measures"]["attn_sink"]["missing"])
    assert "--null_training 3" in missing and "group restoration" in missing and "1 of at least 5 seeds" in missing
    assert "perturbations" not in missing and "another row" not in missing


def test_every_field_of_a_change_is_described(result):
    described = {key for keys in FIELDS for key in keys.split(", ")}
    assert set(result["changes"][0]) == described


def test_the_file_is_strict_json_and_repeats(tmp_path):
    store = write_run(tmp_path)
    path = write_claims(Measurements(store.paths))
    assert path == tmp_path / "interpretability_metrics" / "run" / "claims.json"
    first = path.read_bytes()
    assert write_claims(Measurements(store.paths)).read_bytes() == first
    read = json.loads(first, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert (read["schema_version"], read["run"], read["step"], read["steps"]) == (2, "run", 100, [0, 50, 100])
    assert read["confidence"] == 0.95 and read["comparisons"]["perturbations"] == FEWEST_PERTURBATIONS


def test_one_snapshot_and_none(tmp_path):
    only = claims_of(write_run(tmp_path, "only", steps=(0,)))
    assert only["changes"] == [] and "only one snapshot" in only["measures"]["attn_sink"]["why_none"]
    assert len(summary(only)) > 2
    resumed = claims_of(write_run(tmp_path, "resumed", steps=(50, 100)))
    assert resumed["changes"] == [] and "no snapshot of step 0" in resumed["measures"]["attn_sink"]["why_none"]
    nothing = SnapshotStore(RunPaths("nothing", tmp_path))
    nothing.create({"axes": AXES})
    with pytest.raises(InputError, match="no snapshot"):
        claims_of(nothing)


def test_without_band_control_or_ablation_less_is_said(tmp_path):
    store = write_run(tmp_path, without=("band_attn_sink", "control_attn_sink", "ablation_exact"))
    got = claims_of(store)
    change = of_head(got, TASK)
    assert change["words"] == ["differs"] and change["times_noise"] is None
    assert change["larger_than_on_general_text"] is None and change["head_matters"] is None
    missing = "\n".join(got["measures"]["attn_sink"]["missing"])
    assert all(f"group {name}" in missing for name in ("band", "ablation")) and "general text" in missing
    assert "no band" in got["measures"]["attn_sink"]["why_none"]


def test_few_perturbations_are_no_band(tmp_path):
    store = write_run(tmp_path, without=("band_attn_sink",))
    arrays = store.load(100)
    arrays["band_attn_sink"] = np.full((FEWEST_PERTURBATIONS, 2, 3), np.nan)
    arrays["band_attn_sink"][:19] = 0.01  # as runs of earlier versions had
    store.write(100, arrays)
    got = claims_of(store)
    assert of_head(got, TASK)["words"][0] == "differs" and of_head(got, TASK)["times_noise"] is None
    assert any("band_attn_sink" in note and "19" in note for note in got["notes"])


def test_a_change_below_the_floor_is_not_beyond_noise(tmp_path):
    store = write_run(tmp_path)
    store.write_reference({"floor_attn_sink": np.array([[0, 0, 0], [0, -0.45, 0]])})
    got = claims_of(store)
    assert of_head(got, TASK)["beyond_noise"] and not of_head(got, EQUAL)["beyond_noise"]
    assert got["measures"]["attn_sink"]["floor"] == 0.45


@pytest.mark.parametrize("step", STEPS)
def test_a_damaged_snapshot_is_named_and_skipped(tmp_path, step):
    store = write_run(tmp_path)
    file = store.array_file("attention", step)
    file.write_bytes(file.read_bytes()[:-4] + b"!!!!")
    got = claims_of(SnapshotStore(store.paths))
    assert any(f"Step {step} is left out" in note and file.name in note for note in got["notes"])
    entry = got["measures"]["attn_sink"]
    assert entry["steps"] == [s for s in STEPS if s != step]
    assert of(got, "probe_loss")["change"] < 0  # another file
    if step == 50:
        assert of_head(got, TASK)["counted"] and of_head(got, TASK)["half_change"]["step"] == 100
    else:
        assert entry["counts"] == {} and ("step 0" if step == 0 else "step 100") in entry["why_none"]


def test_a_damaged_manifest_or_reference_is_survived(tmp_path):
    store = write_run(tmp_path)
    store.manifest_file(50).write_text("{")
    store.reference_file.write_bytes(b"")
    got = claims_of(SnapshotStore(store.paths))
    assert of_head(got, TASK)["counted"] and got["measures"]["attn_sink"]["floor"] is None
    assert any("Step 50" in note for note in got["notes"]) and any("precision" in note for note in got["notes"])


def test_probes_that_are_not_described_are_left_out(tmp_path):
    store = write_run(tmp_path)
    store.write_probe_set({"example": probe_entries(N - 2)})
    got = claims_of(store)
    assert got["changes"] == [] and any("probe_set.json does not describe" in note for note in got["notes"])


def test_few_clusters_are_said(tmp_path):
    store = write_run(tmp_path)
    store.write_probe_set({"example": probe_entries(N, per_cluster=6)})
    got = claims_of(store)
    assert "4 clusters" in got["measures"]["attn_sink"]["why_none"]
    change = of_head(got, TASK)
    assert change["change"] == pytest.approx(0.5, abs=0.03) and change["low"] is None
    assert change["words"] == [] and change["half_change"] == {"step": 50, "low": None, "high": None}


def test_undefined_probes_and_heads(tmp_path):
    store = write_run(tmp_path)
    for step in STEPS:
        arrays = store.load(step)
        arrays["attn_sink"][:4, :, 0] = np.nan  # some probes of layer 0
        arrays["attn_sink"][:, :, 1, 1] = np.nan  # a head, everywhere
        store.write(step, {**arrays, "context_gain": np.full(N, np.nan)})
    got = claims_of(store)
    assert of_head(got, TASK)["counted"] and of_head(got, TASK)["head_matters"]
    nothing = of_head(got, (1, 1))
    assert nothing["change"] is None and nothing["words"] == [] and nothing["half_change"]["step"] is None
    assert nothing["change_by_half"] == [None, None]
    assert "not defined" in got["measures"]["context_gain"]["why_none"]


def test_null_run_is_the_one_with_permuted_targets(tmp_path):
    store = write_run(tmp_path)
    write_run(
        tmp_path, "a_null", (0, 50), scale=0.2, arguments={"null_targets": True, "max_steps": 50, "logging_steps": 7}
    )
    write_run(tmp_path, "b_other", arguments={"null_targets": True, "learning_rate": 1e-4})
    got = claims_of(store)
    change = of_head(got, TASK)
    assert change["permuted_targets"] == pytest.approx(0.05, abs=0.03) and change["content_specific"] is True
    assert got["comparisons"]["permuted_targets"] == "a_null"
    assert any("'a_null', at its step 50" in note for note in got["notes"])
    assert of_head(claims_of(SnapshotStore(RunPaths("a_null", tmp_path))), TASK)["permuted_targets"] is None


def test_what_permuted_targets_change_as_much_is_not_content_specific(tmp_path):
    store = write_run(tmp_path)
    write_run(tmp_path, "null", scale=1.2, arguments={"null_targets": True})
    change = of_head(claims_of(store), TASK)
    assert change["content_specific"] is False and "format" in change["words"]


def test_a_difference_between_articles_that_has_no_interval_is_no_word_about_the_format(tmp_path):
    """One cluster alone makes it, so neither content nor format can be named."""
    store = write_run(tmp_path)
    for step in (0, 100):
        arrays = store.load(step)
        arrays["other_attn_sink"][:, *TASK] = arrays["attn_sink"][:, 0, *TASK]
        arrays["other_attn_sink"][[0, 12], *TASK] -= 5 * (step > 0)  # both probes of cluster c0
        store.write(step, arrays)
    change = of_head(claims_of(store), TASK)
    assert change["beyond_noise"] and change["other_article"]["low"] is None
    assert change["content_specific"] is None and not {"format", "content-specific"} & set(change["words"])


def test_beyond_training_takes_three_runs_on_the_bases_own_text(tmp_path):
    store = write_run(tmp_path)
    for k, scale in enumerate((0.2, -0.5)):
        write_run(tmp_path, f"run-null-{k}", scale=scale, arguments={"seed": 10 + k}, null_training_of="run")
    two = claims_of(store)
    assert of_head(two, TASK)["beyond_training"] is None and of_head(two, TASK)["reproduced"] is None
    assert of_head(two, TASK)["training_on_base_text"] == pytest.approx(0.25, abs=0.03)
    assert any("2 of at least 3 runs" in sentence for sentence in two["measures"]["attn_sink"]["missing"])
    write_run(tmp_path, "other", null_training_of="another run")
    write_run(tmp_path, "run-null-2", scale=0.3, arguments={"seed": 12}, null_training_of="run")
    three = claims_of(store)
    assert of_head(three, TASK)["beyond_training"] is True and "beyond training" in of_head(three, TASK)["words"]
    assert three["comparisons"]["training_on_base_text"] == ["run-null-0", "run-null-1", "run-null-2"]
    write_run(tmp_path, "run-null-3", scale=-1.1, arguments={"seed": 13}, null_training_of="run")
    assert of_head(claims_of(store), TASK)["beyond_training"] is False
    left_out = claims_of(SnapshotStore(RunPaths("run-null-3", tmp_path)))
    assert left_out["comparisons"]["training_on_base_text"] == ["run-null-0", "run-null-1", "run-null-2"]


def test_claims_of_another_version_are_computed_anew(tmp_path):
    store = write_run(tmp_path)
    path = write_claims(Measurements(store.paths))
    fresh = json.loads(path.read_text())
    path.write_text(json.dumps(fresh | {"schema_version": 1}))
    old = Measurements(store.paths)
    assert old.claims == {} and current_claims(old) == fresh


KINDS = ["all", "value_first"]


def write_restored(root, needed: dict, noise: float | None = 0.1) -> SnapshotStore:
    """A run in which putting a head's attn_sink back costs `needed` nats at the first token of a value, half of that
    over all tokens."""
    store = write_run(root, axes=AXES | {"restored": list(RESTORED), "token_kind": KINDS})
    rng = np.random.default_rng(3)
    cost = np.full((N_FEW, len(RESTORED), 2, 3, 2), np.nan)
    draws = np.full((FEWEST_PERTURBATIONS, len(RESTORED), 2, 3), np.nan)
    place = RESTORED.index("attn_sink")
    for head, size in needed.items():
        at_value = size + 0.01 * rng.normal(size=N_FEW)
        cost[:, place, *head] = np.stack([at_value / 2, at_value], axis=-1)
        if noise is not None:
            draws[:19, place, *head] = np.linspace(-noise, noise / 2, 19)
    arrays = {"restore_measure_needed": cost, "restore_measure_enough": cost / 4, "band_restore_measure": draws}
    store.write(100, store.load(100) | arrays)
    return store


def test_the_change_matters_where_putting_the_number_back_costs_more_than_noise_does(tmp_path):
    got = claims_of(write_restored(tmp_path / "helps", {TASK: 0.5, EQUAL: -0.3, TINY: 0.5}))
    task, equal, tiny = (of_head(got, head) for head in (TASK, EQUAL, TINY))
    assert task["change_matters"] == "helps" and "the change helps" in task["words"]
    entry = task["restoration"]
    assert (entry["kind"], entry["noise"]) == ("value_first", pytest.approx(0.1))
    assert entry["low"] < entry["needed"] < entry["high"] and entry["needed"] == pytest.approx(0.5, abs=0.02)
    assert entry["enough"] == pytest.approx(0.125, abs=0.01)
    assert equal["change_matters"] == "hurts" and "the change hurts" in equal["words"]
    assert tiny["change_matters"] is None and tiny["restoration"] is None  # too small to ask
    assert of_head(got, SMALL)["restoration"] is None  # not beyond noise
    assert got["measures"]["attn_sink"]["counts"]["change_matters"] == 2


def test_a_cost_like_the_noise_s_or_without_a_null_is_no_word(tmp_path):
    like_noise = of_head(claims_of(write_restored(tmp_path / "a", {TASK: 0.09})), TASK)
    assert like_noise["change_matters"] == "no" and not any("the change" in word for word in like_noise["words"])
    nothing = of_head(claims_of(write_restored(tmp_path / "b", {TASK: 0.0})), TASK)
    assert nothing["change_matters"] == "no"
    without = of_head(claims_of(write_restored(tmp_path / "c", {TASK: 0.5}, noise=None)), TASK)
    assert without["change_matters"] is None and without["restoration"]["noise"] is None
    unpaid = of_head(claims_of(write_restored(tmp_path / "d", {EQUAL: 0.5})), TASK)
    assert unpaid["change_matters"] is None and unpaid["restoration"]["needed"] is None


def test_reproduced_takes_five_seeds(tmp_path):
    store = write_run(tmp_path, "seed1")
    for seed, scale in ((2, 1.1), (3, 0.9), (4, 1.05)):
        write_run(tmp_path, f"seed{seed}", scale=scale, arguments={"seed": seed})
    write_run(tmp_path, "again", arguments={"seed": 2})  # a seed counts once
    write_run(tmp_path, "shorter", steps=(0, 50), arguments={"seed": 9})
    write_run(tmp_path, "faster", arguments={"seed": 8, "learning_rate": 1.0})
    four = claims_of(store)
    assert of_head(four, TASK)["reproduced"] is None and any("takes 5" in note for note in four["notes"])
    write_run(tmp_path, "seed5", arguments={"seed": 5})
    five = claims_of(store)
    assert of_head(five, TASK)["reproduced"] is True and any("5 runs have" in note for note in five["notes"])
    assert of_head(five, (0, 2))["reproduced"] is False  # nothing was planted there
    write_run(tmp_path, "seed6", scale=-1, arguments={"seed": 6})
    assert of_head(claims_of(store), TASK)["reproduced"] is False
    random = write_run(tmp_path, "random", arguments={"seed": 7, "config_name": "gpt2"})
    assert of_head(claims_of(random), TASK)["reproduced"] is None


def test_every_claimed_measure_can_be_read():
    """Units and controls follow from the table: a control has its measure's units, and probes of general text."""
    for measure in CLAIMED:
        assert measure.probe_axis is not None
        if measure.control:
            control = MEASURE[f"control_{measure.name}"]
            assert control.unit_axes == measure.unit_axes and control.probe_axis == "control_example"
