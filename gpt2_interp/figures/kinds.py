"""Means over target tokens taken apart by kind of token: losses, context gain, lens, ablation, grafts."""

from __future__ import annotations

import numpy as np

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.numbers import signed
from gpt2_interp.figures.panels import (
    BLUE,
    CATEGORIES,
    GREY,
    INSIDE,
    ORANGE,
    SHOWN,
    SNAPSHOT_AXIS,
    BarPanel,
    Bars,
    Line,
    LinePanel,
    MapPanel,
    Maps,
    heading,
    layer_name,
    measure_label,
    not_measured,
    symmetric_range,
)
from gpt2_interp.snapshots.table import MEASURE
from gpt2_interp.statistics.intervals import FEWEST_TO_RESAMPLE, bootstrap_band, interval, nan_mean

SHARE_TITLE = "What the fall of the loss on the probes is made of, by kind of token"
GRAFT_TITLE = "Which blocks carry what was learned, by kind of token (pale: the 95% interval over probes holds 0)"
SLOT = "value_first "  # and the slot: the first tokens of its values
NAMES = {
    "all": "all tokens",
    "value_first": "first token of a value",
    "value_rest": "rest of a value",
    "copied": "other words of the source",
    "template": "template words",
    "new": "words not in the source",
    "frequent": "frequent words",
    "middle": "less frequent words",
    "rare": "rare words",
}
COLORS = (ORANGE, BLUE, *CATEGORIES[2:5])  # the first kind, the one to look at, has the strongest
WRITTEN = 12  # columns of a map up to which its cells have room for numbers


def kind_name(label: str) -> str:
    """Return the plain name of a label of the axis token_kind."""
    slot = label.removeprefix(SLOT)
    return NAMES.get(label, label) if slot == label else f"first token of {_slot_name(slot)}"


def _slot_name(slot: str) -> str:
    return slot.replace("_", " ")


def divisions(m: Measurements) -> dict[str, list[int]]:
    """Return how the target tokens are divided: {title: places of its kinds on the axis token_kind}, the most important
    division first; {} for a run without kinds."""
    found: dict[str, list[int]] = {}
    for place, label in enumerate(m.labels("token_kind") if "token_kind" in m.info["axes"] else ()):
        if label.startswith(SLOT):
            title = "by slot, first tokens of values"
        elif label.startswith("position"):
            title = "by position in the text"
        elif label in ("frequent", "middle", "rare"):
            title = "by frequency of the word"
        else:
            title = "by kind of token"
        if label != "all":
            found.setdefault(title, []).append(place)
    return found


def _stack(m: Measurements, name: str) -> tuple[list[int], np.ndarray]:
    """Return (steps, array [step, probe, ..., kind]) of <name>_by_kind. Raises InputError for a run without kinds."""
    if not divisions(m) or not m.has(f"{name}_by_kind"):
        raise InputError(f"run {m.paths.run_name!r} did not measure {name} by kind of token.")
    return m.stack(f"{name}_by_kind")


def _missing(name: str) -> str:
    return f"{not_measured(f'{name}_by_kind')} Runs of earlier versions lack it."


# --- over the step -----------------------------------------------------------------------------------------------


def kind_panels(m: Measurements, name: str, title: str, log_y: bool = False) -> list[LinePanel]:
    """Return a line panel of a measure with one value for each probe, for each division of the tokens; one panel with a
    sentence where the run has no kinds."""
    label = measure_label(name)
    try:
        steps, values = _stack(m, name)  # [step, example, kind]
    except InputError:
        return [LinePanel(f"{title} by kind of token", label, note=_missing(name))]
    clusters = m.clusters(values.shape[1], MEASURE[name].axes[0])
    labels, panels = m.labels("token_kind"), []
    for division, places in divisions(m).items():
        defined = [place for place in places if np.isfinite(values[..., place]).any()]
        if not defined:
            continue  # a text without a source gains nothing from one
        lines = []
        for place in (*defined, 0):
            mean, low, high, band = bootstrap_band(values[..., place], clusters)
            of_all = place == 0
            color = GREY if of_all else COLORS[places.index(place) % len(COLORS)]
            slot = labels[place].removeprefix(SLOT)
            named = kind_name(slot) if slot == labels[place] else _slot_name(slot)
            lines.append(Line(named, np.array(steps), mean, color, low, high, not of_all, of_all))
        heading = f"{title} {division} ({band.removeprefix('95% bootstrap over ')})"
        panels.append(LinePanel(heading, label, lines, log_y=log_y, end_labels=True))
    return panels or [LinePanel(f"{title} by kind of token", label, note=f"{name} is undefined at every snapshot.")]


# --- what the fall of the loss is made of ------------------------------------------------------------------------


def _token_counts(m: Measurements, n_example: int) -> np.ndarray:
    """Return [example, kind], how many predicted target tokens of each kind every probe has. Raises InputError."""
    entries = m.probe_set.get("token_kinds", [])
    if len(entries) != n_example:
        raise InputError(f"probe_set.json of run {m.paths.run_name!r} does not have the kinds of its probes' tokens.")
    # Nothing predicts the token at position 0.
    return np.array([[sum(at > 0 for at in positions) for positions in kinds.values()] for kinds in entries])


def shares_of_the_fall(m: Measurements) -> tuple[np.ndarray, np.ndarray]:
    """Return (share of the target tokens, share of the fall of probe_loss from the first to the last snapshot and its
    95% bounds): [kind] and [kind, 3].

    A kind's part of a probe's fall is the kind's share of the probe's tokens times the fall of its mean loss: the parts
    of a division add up to the fall of the probe's loss. Probes have equal weight. Whole clusters are resampled, or
    probes where clusters are few. Raises InputError where the loss did not fall.
    """
    steps, values = _stack(m, "probe_loss")
    fall = values[0] - values[-1]  # [example, kind]
    counts = _token_counts(m, len(fall))
    shares = counts / np.maximum(counts[:, :1], 1)
    parts = np.where(counts > 0, fall, 0) * shares
    measured = np.isfinite(parts).all(axis=1)
    if not parts[measured, 0].sum() > 0:
        raise InputError(f"the loss on the probes of run {m.paths.run_name!r} did not fall up to step {steps[-1]}.")
    clusters = np.unique(np.array(m.clusters(len(fall)))[measured], return_inverse=True)[1]
    if clusters.max() + 1 < FEWEST_TO_RESAMPLE:
        clusters = np.arange(measured.sum())
    sums = np.zeros((clusters.max() + 1, parts.shape[1]))
    np.add.at(sums, clusters, parts[measured])
    of_fall = np.stack([sums.sum(axis=0) / sums[:, 0].sum()] * 3, axis=1)
    for kind in range(1, parts.shape[1] if len(sums) > 1 else 0):
        of_fall[kind, 1:] = interval(lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis), sums[:, kind], sums[:, 0])
    return nan_mean(shares, axis=0), of_fall


def fall_by_kind(m: Measurements) -> Bars:
    """Return bars of every kind: share of the tokens, share of the fall, loss at the first and the last snapshot."""
    of_tokens, of_fall = shares_of_the_fall(m)
    steps, values = _stack(m, "probe_loss")
    clusters = m.clusters(values.shape[1])
    places = [place for division in divisions(m).values() for place in division]
    rows = [kind_name(label) for label in np.array(m.labels("token_kind"))[places]]
    percent = 100 * of_fall[places]
    panels = [
        BarPanel("Share of the tokens", "% of the target tokens", rows, *[100 * of_tokens[places]] * 3, color=GREY),
        BarPanel("Share of the fall", f"% of the fall to step {steps[-1]}", rows, *percent.T, color=ORANGE),
    ]
    for index in (0, -1):
        mean, low, high, _ = bootstrap_band(values[index].T[places], clusters)
        panels.append(
            BarPanel(f"Loss at step {steps[index]}", measure_label("probe_loss"), rows, mean, low, high, BLUE)
        )
    return Bars(SHARE_TITLE, panels)


# --- maps --------------------------------------------------------------------------------------------------------


def _first_division(m: Measurements) -> list[int]:
    return next(iter(divisions(m).values()))


def lens_maps(m: Measurements) -> list[MapPanel]:
    """Return a map [hidden_layer, step] of lens_logprob for each kind of token, all on one scale, which the layers
    above the embedding make; one map with a sentence where the run has no kinds."""
    name = "lens_logprob"
    try:
        steps, values = _stack(m, name)  # [step, few_example, hidden_layer, kind]
    except InputError:
        return [MapPanel("Log-probability by kind of token", measure_label(name), note=_missing(name))]
    mean, layers = nan_mean(values, axis=1), [layer_name(label) for label in m.labels("hidden_layer")]
    places = _first_division(m)
    above = mean[:, 1:, places]
    low = float(above[np.isfinite(above)].min(initial=-1e-3))
    panels = []
    for place in places:
        rows = mean[..., place].T
        below = bool((rows[0] < low).any())
        panels.append(
            MapPanel(
                f"Log-probability: {kind_name(m.labels('token_kind')[place])}",
                MEASURE[name].unit,
                layers,
                [str(step) for step in steps],
                rows,
                (low, 0.0),
                x_label=SNAPSHOT_AXIS,
                y_label="",
                texts=_written(rows),
                note="the embedding lies below the colours" if below else "",
            )
        )
    return panels


def ablation_maps(m: Measurements) -> list[MapPanel]:
    """Return a map [layer, head] of what taking a head away costs each kind of token, all on one scale; pale where the
    head's own interval holds 0. One map with a sentence where the run has no kinds."""
    name = "ablation_exact"
    try:
        steps, values = _stack(m, name)  # [step, few_example, layer, head, kind]
    except InputError:
        return [MapPanel(f"{heading(name)}, by kind", measure_label(name), note=_missing(name))]
    places, labels = _first_division(m), m.labels("token_kind")
    half = symmetric_range(nan_mean(values[-1], axis=0)[..., places])
    return [
        _cost_map(
            m,
            values[-1][..., place],
            f"{heading(name)}, step {steps[-1]}: {kind_name(labels[place])}",
            (m.labels("layer"), m.labels("head")),
            half,
        )
        for place in places
    ]


def graft_by_kind(m: Measurements) -> Maps:
    """Return maps [block, kind] of necessity and sufficiency at the last snapshot."""
    places = [0, *_first_division(m)] if divisions(m) else []
    columns = [kind_name(m.labels("token_kind")[place]) for place in places]
    panels = []
    titles = {"graft_necessity": "Lost without the tuned block", "graft_sufficiency": "Brought to the base by it alone"}
    for name, title in titles.items():
        steps, values = _stack(m, name)  # [step, few_example, block, kind]
        last = values[-1][..., places]
        half = symmetric_range(nan_mean(last, axis=0))
        axes = m.labels("block"), columns
        panels.append(_cost_map(m, last, f"{title}, step {steps[-1]}", axes, half, "kind of token", ""))
    height = 0.14 * len(m.labels("block")) + 1.6
    return Maps(GRAFT_TITLE, panels, 2, height, 2, int(120 * height) + 60)


def _cost_map(
    m: Measurements,
    values: np.ndarray,
    title: str,
    axes: tuple[list[str], list[str]],
    half: float,
    x_label: str = "head",
    y_label: str = "layer",
) -> MapPanel:
    """Return the mean over probes of values [few_example, row, column] in nats/token, pale where its interval holds
    0."""
    flat = values.reshape(len(values), -1).T  # cells stand for the steps of bootstrap_band
    mean, low, high, _ = bootstrap_band(flat, m.clusters(len(values), "few_example"))
    shape = values.shape[1:]
    found = mean.reshape(shape)
    return MapPanel(
        title,
        "nats/token",
        *axes,
        found,
        (-half, half),
        diverging=True,
        x_label=x_label,
        y_label=y_label,
        state=np.where((low > 0) | (high < 0), SHOWN, INSIDE).reshape(shape),
        hover=[
            [
                f"{row}, {column}: {signed(found[i, j])} "
                f"({signed(low.reshape(shape)[i, j])} to {signed(high.reshape(shape)[i, j])})"
                for j, column in enumerate(axes[1])
            ]
            for i, row in enumerate(axes[0])
        ],
        texts=_written(found),
    )


def _written(values: np.ndarray) -> list[list[str]] | None:
    """The numbers of a map's cells, without a -0.00, where there is room for them."""
    if values.shape[1] > WRITTEN:
        return None
    digits = 2 if np.nanmax(np.abs(values), initial=0) < 10 else 1
    return [["" if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}" for value in row] for row in values]
