"""The words of claims.json: which one follows from which comparison, and what is said where a comparison is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2_interp.analysis.changes import FEWEST_NULL_RUNS, Comparisons
from gpt2_interp.analysis.derived import most_sink
from gpt2_interp.snapshots.table import FEWEST_PERTURBATIONS, Measure
from gpt2_interp.statistics.simultaneous import CONFIDENCE, FEWEST_SEEDS, FEWEST_TO_TEST

if TYPE_CHECKING:
    from gpt2_interp.analysis.judged import Judged
    from gpt2_interp.analysis.measurements import Series
    from gpt2_interp.analysis.restorations import Restoration

WORDS = {  # word -> when it is used
    "differs": "the simultaneous interval of the change excludes zero. Nearly every unit differs after training, so "
    "this alone means little.",
    "beyond noise": "it differs, it is a larger multiple of what random perturbations of the base do to the same unit "
    "than any unit of the measure reaches in 95% of perturbations (the band), and it is larger than what the precision "
    "of training does (the floor). A step of training of the same size is aimed, and noise is not: this is no more "
    "than a first filter.",
    "counted": "beyond noise with one error rate over the units of all measures, and no smaller than the measure's "
    "smallest effect of interest. Only these enter counts over measures.",
    "beyond training": f"larger than in all of at least {FEWEST_NULL_RUNS} short runs on the base's own kind of text, "
    "to the same relative change of the weights (--null_training), and than one more of them shows in 95% of cases "
    "(normal prediction limit: mean + t s sqrt(1 + 1/n) of the sizes of their changes).",
    "content-specific": "the own article changes it more than another row's article in the same format does: the "
    "interval of that difference excludes zero and exceeds the band; and it changes less with permuted targets, where "
    "there is such a run.",
    "format": "beyond noise, and not content-specific: another article in the same format changes it as much.",
    "the change helps": "no smaller than the smallest effect of interest; and putting the base's number back into the "
    "tuned model, for this head alone, raises the loss: the interval excludes zero, and the cost exceeds that of the "
    "same patch in bases that noise changed.",
    "the change hurts": "putting the base's number back lowers the loss, by the same rule.",
    "the head matters": "taking the head away from the tuned model changes the loss. This is about the head, not about "
    "the change.",
    "reproduced": f"at least {FEWEST_SEEDS} runs that differ in their seed agree: the t interval of their mean "
    "excludes zero, simultaneously over units, and the mean is no smaller than the smallest effect of interest. All "
    "seeds share one base.",
}

FIELDS = {  # of one entry of "changes"
    "measure, unit, step": "what changed, of which head or layer, and the last snapshot, which is judged",
    "before, after, change": "means over clusters of probes: at step 0, at the last snapshot, and their difference",
    "low, high, p": "simultaneous 95% interval of the change over the units of the measure, and its adjusted p",
    "change_by_half": "the change on each half of the probes: choose on the first, report the second",
    "times_noise": "the size of the change over the root mean square of what random perturbations do to this unit; "
    "compare with the measure's `band`",
    "half_change": "the first snapshot at which half of the change is reached, with its 95% interval over clusters",
    "general_text": "change and interval on general text, at the positions that the task's queries have",
    "other_article": "how much more the own article changes it than another row's article, with its interval",
    "training_on_base_text": "the largest size of the change of this unit in the runs of --null_training",
    "permuted_targets": "change of this unit in the run with permuted targets",
    "ablation": "cost of taking the head away: before training, now with its interval, and the change of that cost",
    "restoration": "cost of putting the base's number back into the tuned model (`needed`, with its interval), what "
    "the tuned number brings the base (`enough`), the largest cost of the same patch in a base changed by noise "
    "(`noise`), and the kind of token whose loss that is",
    "differs, beyond_noise, large, counted, beyond_training, larger_than_on_general_text, content_specific, "
    "change_matters, head_matters, reproduced": "the answers; null where a comparison is missing (the measure's "
    "`missing` names it). `large`: no smaller than the smallest effect of interest",
    "words": "the words that follow",
}


def words(entry: Mapping[str, Any]) -> list[str]:
    """Return the words of WORDS that follow from the answers of one change, the weakest first.

    A change that is not beyond noise is only ever said to differ; what is true of the head stands beside that.
    """
    found = ["differs"] if entry["differs"] else []
    if entry["beyond_noise"]:
        found = ["beyond noise"]
        found += ["counted"] * bool(entry["counted"])
        found += ["beyond training"] * bool(entry["beyond_training"])
        if entry["content_specific"] is not None:
            found.append("content-specific" if entry["content_specific"] else "format")
        found += [f"the change {entry['change_matters']}"] * (entry["change_matters"] in ("helps", "hurts"))
        found += ["reproduced"] * bool(entry["reproduced"])
    return found + ["the head matters"] * bool(entry["head_matters"])


def why_unmeasured(measure: Measure, series: Series | None, steps: list[int]) -> str | None:
    """Return why there is no change to look at; None if there is one."""
    if series is None:
        return f"It was not measured: --measures is without {measure.group}, or this run has nothing to measure it on."
    if series.steps[0] != 0:
        return "There is no snapshot of step 0 to compare with."
    if series.steps[-1] != steps[-1]:
        return f"The last snapshot, of step {steps[-1]}, does not have it intact."
    if len(series.steps) == 1:
        return "There is only one snapshot: nothing can have changed yet."
    if not np.isfinite(series.values[-1] - series.values[0]).any():
        return "It is not defined on any of this run's probes at both step 0 and the last snapshot."
    if measure.name == "attn_sink" and (most := most_sink(series.values)) < measure.smallest:
        return f"There is no attention sink (at most {most:.2g})."
    return None


def why_nothing(entry: Mapping[str, Any]) -> str | None:
    """Return why no change is beyond noise: what is missing, else what was found; None if some change is."""
    counts = entry["counts"]
    if counts["beyond_noise"]:
        return None
    if entry["n_clusters"] < FEWEST_TO_TEST:
        return (
            f"The probes form {entry['n_clusters']} clusters; below {FEWEST_TO_TEST} too few patterns of signs "
            f"exist for a test at {1 - CONFIDENCE:.0%}."
        )
    if entry["band"] is None:
        return (
            f"Fewer than {FEWEST_PERTURBATIONS} random perturbations of the base were measured at the last snapshot, "
            "so there is no band to exceed."
        )
    if not counts["differs"]:
        return "No change's interval excludes zero."
    return (
        f"{counts['differs']} of {entry['n_units']} differ from zero, none by more than the band ({entry['band']:.3g} "
        "times its own noise) and the floor."
    )


def missing_tests(one: Judged, restored: Restoration | None, against: Comparisons) -> list[str]:
    """Return a sentence for each comparison that can't be made, which names the number that is missing."""
    found = []
    if one.draws is None:
        found.append("beyond noise: random perturbations of the base were not measured (group band).")
    runs = against.of_training(one.measure.name)
    n_runs = 0 if runs is None else len(runs)
    if n_runs < FEWEST_NULL_RUNS:
        found.append(
            f"beyond training: {n_runs} of at least {FEWEST_NULL_RUNS} runs on the base's own kind of text "
            f"(--null_training {FEWEST_NULL_RUNS})."
        )
    if one.own_article is None:
        found.append("content-specific: it was not measured behind another row's article.")
    if one.general is None:
        found.append("larger than on general text: it was not measured on general text.")
    if one.measure.unit_axes == ("layer", "head"):
        if against.ablation is None:
            found.append("the head matters: no head was taken away (group ablation).")
        if restored is None and one.worth_a_cause.any():
            found.append("the change helps or hurts: the base's numbers were not put back (group restoration).")
    if len(against.seeds) + 1 < FEWEST_SEEDS:
        found.append(f"reproduced: {len(against.seeds) + 1} of at least {FEWEST_SEEDS} seeds.")
    return found


# --- on the console ----------------------------------------------------------------------------------------------


def summary(claims: Mapping[str, Any]) -> list[str]:
    """Lines for the console: of each measure how many units changed beyond noise, or why none did."""
    lines = [f"changes from step 0 to {claims['step']} beyond noise:"]
    unmeasured = []
    for name, entry in claims["measures"].items():
        if not entry["steps"]:
            unmeasured.append(name)
            continue
        lines.append(f"  {name:22} {entry['why_none'] or _found(entry)}")
    if unmeasured:
        lines.append(f"  not measured: {', '.join(unmeasured)}")
    return lines


def _found(entry: Mapping[str, Any]) -> str:
    counts = entry["counts"]
    if not entry["unit_axes"]:
        found, more = "yes", [word for word, key in COUNTED_WORDS.items() if counts[key]]
    else:
        found = f"{counts['beyond_noise']} of {entry['n_units']} {unit_plural(entry['unit_axes'])}"
        more = [f"{counts[key]} {word}" for word, key in COUNTED_WORDS.items() if counts[key]]
    return found + (f" ({', '.join(more)})" if more else "")


COUNTED_WORDS = {
    "counted over measures": "counted",
    "beyond training": "beyond_training",
    "content-specific": "content_specific",
    "that matter": "change_matters",
    "reproduced": "reproduced",
}


def unit_plural(unit_axes: list[str]) -> str:
    return {("layer", "head"): "heads", ("hidden_layer",): "layers"}.get(tuple(unit_axes), "units")
