"""The report of the audit: a verdict on each promise of the embedded corpus, and a text to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpt2_interp.audit.checks import DEFAULT_MODEL
from gpt2_interp.synthetic.rows import SLOTS


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts
# ---------------------------------------------------------------------------------------------------------------------
def promises(result: Mapping) -> list[dict]:
    """The eight promises, what was found, and the verdict: True (kept), False, or None where no model has shown it."""
    counts, overlap, model = list(result["counts"].values()), result["test in other splits"], result["model"]
    missing = sum(one["unlabelled occurrences"] for one in counts)
    excess, strongest, by_chance = max((v - chance, v, chance) for v, chance in map(_association, counts))
    least = {name: min(one[name] for one in counts) for name in counts[0] if name != "gold position by fifth"}
    two, apart, transformed = (
        100 * least[name] for name in (">= 2 distractors", "cue apart from value", "transformed")
    )
    p_uniform = least["p if gold anywhere alike"]
    found = [
        (
            "every occurrence of a value is labelled",
            f"{missing} are not, in {least['rows']} articles of each split",
            missing == 0,
        ),
        (
            "values are independent of event, wording and each other; those of test occur nowhere else",
            f"Cramer's V at most {strongest:.3f} ({by_chance:.3f} by chance); of test, also in another split: "
            + ", ".join(f"{count} {name}" for name, count in overlap.items()),
            excess <= 0 and not any(overlap.values()),
        ),
        (
            "two distractors of the same type; the gold sentence stands anywhere",
            f"{two:.1f}% of facts have two; p of equal positions at least {p_uniform:.3f}",
            two == 100 and p_uniform > 0.001,
        ),
        ("the cue is apart from the value", f"in {apart:.1f}% of facts", apart == 100),
        ("each fact has a twin of as many tokens", *_twins_found(model)),
        ("at least 30% of values are transformed in the highlight", f"{transformed:.1f}% are", transformed >= 30),
        ("with its value deleted a fact isn't stated, with its sentence alone it is", *_deletions(model)),
        ("attributions are scored where the model passes the twin test, on most facts", *_ground_truth(model)),
    ]
    return [{"promise": what, "found": shown, "kept": kept} for what, shown, kept in found]


def _association(counts: Mapping) -> tuple[float, float]:
    return counts["largest association (Cramer's V)"], counts["the largest by chance"]


BOUNDS = {"value": "", "low": "_low", "high": "_high"}
NO_MODEL = ("needs a model", None)


def _twins_found(model: Mapping | None) -> tuple[str, bool | None]:
    if model is None:
        return NO_MODEL
    pairs, none = model["twins"]["all"]["pairs"], model["twins"]["all"]["no twin"]
    return f"{none} of {pairs + none} have none", none <= 0.01 * (pairs + none)


def _deletions(model: Mapping | None) -> tuple[str, bool | None]:
    if model is None:
        return NO_MODEL
    names = ("gold sentence alone", "all mentions deleted", "no source (the prior)")
    alone, deleted, prior = (model["slot accuracy"][name]["all"]["value"] for name in names)
    shown = f"{deleted:.1f}% are and {alone:.1f}%; without the source {prior:.1f}%"
    if deleted > prior + 1:  # a point for luck
        return shown, False
    return shown, True if alone >= 90 else None  # a model that fails even then shows nothing about the corpus


def _ground_truth(model: Mapping | None) -> tuple[str, bool | None]:
    if model is None:
        return NO_MODEL
    share = model["kept"]["pairs"]["value"]  # an attribution explains one value, so facts are kept, not whole rows
    return (f"{share:.1f}% of facts are kept", True) if share >= 50 else (f"{share:.1f}% are: no ground truth", None)


# ---------------------------------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------------------------------
def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with aligned columns, the first to the left and the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    ]


def with_bounds(numbers: Mapping[str, float | None], digits: int = 1) -> str:
    """Return {"value", "low", "high"} as "97.5 [95.0, 99.1]", and "-" where nothing could be measured."""
    value, low, high = (numbers[key] for key in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def report(result: Mapping) -> str:
    """The audit as text for the eye."""
    verdicts = {True: "kept", False: "NOT KEPT", None: "not shown"}
    lines = [f"Audit of the embedded news, seed {result['seed']}", "", "PROMISES"]
    for number, one in enumerate(result["promises"], start=1):
        lines += [f"{number}  {verdicts[one['kept']]:9}  {one['promise']}", f"{'':14}{one['found']}"]
    return "\n".join([*lines, "", *_counts_lines(result), "", *_baseline_lines(result), "", *_model_lines(result)])


def _counts_lines(result: Mapping) -> list[str]:
    counts = result["counts"]

    def cell(value: object) -> str:
        return " ".join(f"{share:.2f}"[1:] for share in value) if isinstance(value, list) else str(value)

    names = list(counts["test"])
    return [
        "A. COUNTS, no model; shares are of facts unless the line says otherwise",
        *table(["", *counts], [[name, *(cell(counts[split][name]) for split in counts)] for name in names]),
        f"{result['seconds per 100,000 articles']} seconds per 100,000 articles",
    ]


def _baseline_lines(result: Mapping) -> list[str]:
    found = result["baselines"]
    recall = []
    for name, scores in found["facts"].items():
        whole = [
            with_bounds({key: scores.get(f"{score}{end}") for key, end in BOUNDS.items()})
            for score in ("fact_recall", "fact_precision")
        ]
        recall.append([name, *whole, *(f"{scores[f'fact_recall_{slot}']:.1f}" for slot in SLOTS)])
    place = [
        [name, *(with_bounds(scores[kind]) for kind in ("all", "as written", "transformed")), f"{scores['chance']:.1f}"]
        for name, scores in found["place"].items()
    ]
    return [
        f"B. BASELINES on {found['rows']} test rows, percent with 95% intervals (rows resampled)",
        *table(["facts in extracts", "stated", "values right", *(f"stated, {slot}" for slot in SLOTS)], recall),
        "",
        *table(["points at the value's place", "all facts", "as written", "transformed", "chance"], place),
    ]


def _model_lines(result: Mapping) -> list[str]:
    model = result["model"]
    if model is None:
        return [
            f"C. MODEL: there is none in {DEFAULT_MODEL}; ./run_experiment.sh makes it, --model_path names another one."
        ]
    slots, accuracy = ["all", *SLOTS], []
    for condition, scores in model["slot accuracy"].items():
        accuracy.append([condition, *(with_bounds(scores[slot]) for slot in slots)])
        accuracy.append(["  a candidate at random", *(f"{scores[slot]['chance']:.1f}" for slot in slots)])
    twins = []
    for slot, one in model["twins"].items():
        numbers = [with_bounds(one["effect"], 2), with_bounds(one["accuracy"]), one["pairs"], one["no twin"]]
        twins.append([slot, *numbers])
    return [
        f"C. MODEL {model['path']} on {model['rows']} test rows ({model['sources cut']} articles cut to its length)",
        *table(["value stated next, percent", *slots], accuracy),
        "",
        *table(["twins", "effect, nats", "both right, % (coin flips: 25)", "pairs", "no twin of equal length"], twins),
        "",
        *(
            f"{kind} kept (twin test passed{' for all slots' if kind == 'rows' else ''}): {with_bounds(share)}%"
            + (": no ground truth" if share["value"] < 50 else "")
            for kind, share in model["kept"].items()
        ),
    ]
