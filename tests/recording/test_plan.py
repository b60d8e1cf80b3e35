from types import SimpleNamespace

import pytest

from gpt2_interp.data.examples import Example
from gpt2_interp.errors import InputError
from gpt2_interp.probes.probe_set import ProbeSet
from gpt2_interp.recording.plan import (
    array_bytes,
    chosen_groups,
    expensive_tokens,
    perturbations,
    restores_every_head,
    tiers,
    wanted_names,
)
from gpt2_interp.snapshots.schedule import Schedule
from gpt2_interp.snapshots.table import FEWEST_PERTURBATIONS, GROUPS, MEASURE, MOST_PERTURBATIONS

EXAMPLE = Example("a", "a", tuple(range(200)), (1, 2), tuple(range(50)))
PROBES = ProbeSet(tuple(Example(str(i), str(i), *(EXAMPLE.source_ids, (1,), (2,))) for i in range(256)), ())
GPT2 = {"n_layer": 12, "n_head": 12, "parameters": 124_000_000}


def snapshots(schedule: str, max_steps: int) -> list[int]:
    plan = Schedule.parse(schedule)
    return [step for step in range(1, max_steps + 1) if plan.due(step, max_steps)]


def test_schedules():
    assert snapshots("log", 100) == [1, 2, 4, 8, 16, 32, 64, 100]
    assert snapshots("30", 100) == [30, 60, 90, 100]
    assert snapshots("checkpoints", 100) == []  # the Trainer decides
    state = SimpleNamespace(max_steps=100, save_steps=40)
    args = SimpleNamespace(save_strategy="steps")
    assert Schedule.parse("log").to_come(0, args, state) == 8
    assert Schedule.parse("log").to_come(64, args, state) == 1
    assert Schedule.parse("checkpoints").to_come(0, args, state) == 3


@pytest.mark.parametrize("text", ["0", "-5", "often", "2.5", ""])
def test_a_schedule_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--snapshot_schedule"):
        Schedule.parse(text)


@pytest.mark.parametrize(
    "steps", [[0, 100], list(range(0, 101, 4)), list(range(101)), [0, 1, 2, 4, 8, 16, 32, 64, 100]]
)
def test_heavy_snapshots_are_few_and_the_first_and_last_are_among_them(steps):
    previous, heavy, ends, final = -1, [], [], []
    for step in steps:
        found = tiers(step, previous, 100, is_last=step == 100)
        assert "light" in found
        for name, into in (("heavy", heavy), ("ends", ends), ("final", final)):
            if name in found:
                into.append(step)
        previous = step
    assert {0, 100} <= set(heavy) <= set(steps) and len(heavy) <= 5
    assert len(heavy) >= min(4, len(steps))
    assert ends == [0, 100] and final == [100]


def test_what_a_run_cannot_afford_is_left_out_and_said():
    long_run = 53_800 * 16 * 400  # the cnn_dailymail preset
    assert chosen_groups(["all"], PROBES, GPT2, long_run) == (list(GROUPS), {})
    groups, left_out = chosen_groups(["all"], PROBES, GPT2, 50 * 16 * 400)
    assert set(left_out) == {"ablation", "graft", "band", "restoration"} and set(groups) == set(GROUPS) - set(left_out)
    assert "% of the training" in left_out["ablation"] and "--measures restoration" in left_out["restoration"]
    tiny = {"n_layer": 4, "n_head": 4, "parameters": 1_100_000}
    assert chosen_groups(["all"], PROBES, tiny, 500 * 16 * 250) == (list(GROUPS), {})  # seconds on any machine


def test_every_head_is_restored_where_that_is_cheap_or_asked_for():
    tiny = {"n_layer": 4, "n_head": 4, "parameters": 1_100_000}
    assert restores_every_head(["all"], PROBES, tiny, 500 * 16 * 250)
    medium = 4_000 * 16 * 400  # steps: then a band is cheap, but not every head
    groups, left_out = chosen_groups(["all"], PROBES, GPT2, medium)
    assert "restoration" in groups and "restoration" not in left_out
    assert not restores_every_head(["all"], PROBES, GPT2, medium)
    assert restores_every_head(["restoration"], PROBES, GPT2, medium)


def test_a_group_that_is_named_is_measured_whatever_it_costs():
    assert chosen_groups(["ablation", "hidden"], PROBES, GPT2, 1) == (["hidden", "ablation"], {})
    with pytest.raises(InputError, match="--measures: heads is no group"):
        chosen_groups(["hidden", "heads"], PROBES, GPT2, 1)


def test_expensive_tokens_by_hand():
    few = 64 * 202
    assert expensive_tokens("ablation", PROBES, GPT2) == 2 * few * (2 + 12 * 13 / 2)
    assert expensive_tokens("graft", PROBES, GPT2) == few * (2 + 2 * 26)
    assert expensive_tokens("band", PROBES, GPT2) == 40 * few / 2
    assert expensive_tokens("band", PROBES, GPT2, 99) == 100 * few / 2


def test_a_band_has_as_many_draws_as_the_run_can_afford():
    tiny = {"n_layer": 2, "n_head": 2, "parameters": 100_000}
    assert perturbations(PROBES, tiny, 1000) == MOST_PERTURBATIONS  # little work on any machine
    assert perturbations(PROBES, GPT2, 1e6) == FEWEST_PERTURBATIONS
    assert perturbations(PROBES, GPT2, 1e9) == MOST_PERTURBATIONS  # little beside the training


def test_names_and_bytes():
    losses = {"probe_loss", "probe_loss_by_kind", "training_probe_loss", "control_probe_loss"}
    assert wanted_names(["loss"], {"light"}) == losses
    assert "ablation_exact" not in wanted_names(GROUPS, {"light", "heavy"})
    assert {"band_induction", "graft_necessity"} <= wanted_names(GROUPS, {"final"})
    assert not any(MEASURE[name].folder == "reference" for name in wanted_names(GROUPS, {"light", "heavy", "final"}))
    axes = {"example": 5, "training_example": 2, "control_example": ["a", "b", "c"]}
    assert array_bytes(["probe_loss", "training_probe_loss", "control_probe_loss"], axes) == 4 * (5 + 2 + 3)
