"""The MLP neurons that changed most: chosen on one half of the probes, shown with the numbers of the other half."""

from __future__ import annotations

import html
from dataclasses import dataclass

import matplotlib
import numpy as np

from gpt2_interp.analysis.derived import most_changed, neuron_change
from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.errors import InputError
from gpt2_interp.figures.attention_patterns import readable
from gpt2_interp.figures.gif import Canvas, Film, draw_film, only_one, step_durations
from gpt2_interp.figures.panels import SMALLEST_TEXT, STYLE, MapPanel, Maps, color_map, symmetric_range
from gpt2_interp.snapshots.table import HALVES, HEADLINE

NEURONS_PER_LAYER = 16  # in the animation
NEURONS_NAMED = 6  # per layer in the table
Z_LABEL = "change (z) [SDs at step 0]"
TITLE = "MLP neurons whose mean activation changed most"


@dataclass(frozen=True)
class NeuronEvolution:
    """z [step, layer, rank]: change of the mean activation on the second half of the probes; z_first the same on the
    first, by which they were chosen; neurons [layer, rank] says which neuron stands where."""

    steps: list[int]
    neurons: np.ndarray
    z: np.ndarray
    z_first: np.ndarray
    z_range: float


def neuron_evolution(m: Measurements, per_layer: int = NEURONS_PER_LAYER) -> NeuronEvolution:
    """The neurons with the largest |z| on the first half at the last step, in that order; region Q.

    Raises InputError if neurons were not measured, or if the probes could not be divided into halves.
    """
    steps, mean = m.headline("neuron_mean")  # [step, half, layer, d_mlp]
    _, sd = m.headline("neuron_sd")
    first, second = (HALVES.index(half) for half in HALVES)
    if np.isnan(mean[0, second]).all():
        raise InputError(
            f"all probes of run {m.paths.run_name!r} are of one cluster, so neurons can't be chosen on one half and "
            "shown on the other: give rows whose ids differ."
        )

    def z_of(half: int) -> np.ndarray:  # [step, layer, d_mlp]
        return neuron_change(mean[:, half], mean[0, half], sd[0, half])

    z_first = z_of(first)
    neurons = most_changed(z_first[-1], per_layer)  # [layer, rank]
    shown, chosen_by = (np.take_along_axis(z, neurons[None], axis=2) for z in (z_of(second), z_first))
    return NeuronEvolution(steps, neurons, shown, chosen_by, symmetric_range(shown))


# --- the table -----------------------------------------------------------------------------------------------------


def neuron_panels(m: Measurements) -> list[MapPanel]:
    """One map [layer, rank]: number, z on the second half, and the token at which the neuron fires most at the end."""
    data = neuron_evolution(m, NEURONS_NAMED)
    tokens = _strongest_tokens(m, data.neurons)
    texts, hover = [], []
    for layer, row in enumerate(data.neurons):
        texts.append([])
        hover.append([])
        for rank, neuron in enumerate(row):
            z, chosen_by = data.z[-1, layer, rank], data.z_first[-1, layer, rank]
            token = tokens[layer][rank]
            texts[-1].append(f"#{neuron}  {z:+.1f}\n{token}")
            said = f"layer {layer}, neuron {neuron}<br>z {z:+.2f} on the second half ({chosen_by:+.2f} on the first)"
            hover[-1].append(said + f"<br>fires most at: {html.escape(token)}")
    ranks = [str(rank) for rank in range(1, data.neurons.shape[1] + 1)]
    limits = (-data.z_range, data.z_range)
    return [
        MapPanel(
            f"Step {data.steps[-1]}: neuron, z on the second half of the probes, token at which it fires most",
            Z_LABEL,
            m.labels("layer"),
            ranks,
            data.z[-1],
            limits,
            diverging=True,
            x_label="rank by change on the first half",
            texts=texts,
            hover=hover,
        )
    ]


def _strongest_tokens(m: Measurements, neurons: np.ndarray) -> list[list[str]]:
    """Return [layer][rank] text of neuron_max_token at the last snapshot; its id where the text is not known."""
    try:
        _, ids = m.headline("neuron_max_token")  # [step, layer, d_mlp]
    except InputError:
        return [["–"] * neurons.shape[1] for _ in neurons]
    chosen = np.take_along_axis(ids[-1], neurons, axis=1)
    return [["–" if i < 0 else _text(m, int(i)) for i in row] for row in chosen]


def _text(m: Measurements, token_id: int) -> str:
    return readable(m.tokens[token_id]) if token_id in m.tokens else f"id {token_id}"


def changed_neurons(m: Measurements) -> Maps:
    panels = neuron_panels(m)
    n_row = len(panels[0].rows)
    return Maps(TITLE, panels, 1, 0.32 * n_row + 1.1, 1, 40 * n_row + 120)


# --- the animation -------------------------------------------------------------------------------------------------


@draw_film.register
def _(data: NeuronEvolution, m: Measurements) -> Film:
    n_layer, n_rank = data.neurons.shape
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(max(2.2, 0.22 * n_layer + 1.1))
        ax = canvas.figure.subplots()
        image = ax.imshow(data.z[0], cmap=color_map("RdBu_r"), vmin=-data.z_range, vmax=data.z_range, aspect="auto")
        ax.set(
            xlabel="rank by change at the last step, first half of the probes (the number in a cell is the neuron)",
            ylabel="layer",
            xticks=range(n_rank),
            xticklabels=range(1, n_rank + 1),
            yticks=range(n_layer),
        )
        ax.grid(False)
        cells = [(layer, rank) for layer in range(n_layer) for rank in range(n_rank)]
        numbers = [
            ax.text(rank, layer, str(data.neurons[layer, rank]), ha="center", va="center", fontsize=SMALLEST_TEXT)
            for layer, rank in cells
        ]
        canvas.figure.colorbar(image, ax=ax, label=Z_LABEL)
        title = canvas.figure.suptitle("\n")

        def show(i: int) -> None:
            image.set_data(data.z[i])
            for cell, number in zip(cells, numbers, strict=True):
                number.set_color("white" if abs(data.z[i][cell]) > 0.55 * data.z_range else "#333333")
            title.set_text(
                f"{m.paths.run_name} · step {data.steps[i]}{only_one(data.steps)}\n"
                f"{TITLE}: region {HEADLINE['region']}, second half of the probes"
            )

        return Film(canvas, show, step_durations(len(data.steps)))
