"""The figures of the report, in the order in which a reader asks: which, how to read each, what it does not show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from gpt2_interp.analysis.measurements import Measurements
from gpt2_interp.analysis.projection import load_projection
from gpt2_interp.figures.causes import graft_plotly
from gpt2_interp.figures.changes import HEAD_MEASURES, head_changes_plotly
from gpt2_interp.figures.heads import head_plotly
from gpt2_interp.figures.hidden import DRIFT, LENS, drift_plotly, lens_plotly
from gpt2_interp.figures.latent import latent_plotly
from gpt2_interp.figures.learning import timeline_plotly
from gpt2_interp.figures.neurons import neurons_plotly
from gpt2_interp.figures.over_time import temporal_plotly
from gpt2_interp.figures.weights import gradient_plotly, spectra_plotly, weight_plotly


@dataclass(frozen=True)
class Chapter:
    """One figure of the report: its picture on disk, the interactive version, and how to read it.

    measures: what it draws, defined below it. `needs`: without any of these there is nothing to draw (default: all
    measures).
    """

    name: str
    heading: str
    suffix: str
    measures: tuple[str, ...]
    read: str
    caution: str
    plotly: Callable[[Measurements], go.Figure] | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading of the report with its figures; `name` is its anchor."""

    name: str
    heading: str
    short: str
    chapters: tuple[Chapter, ...]


def _latent_figure(m: Measurements) -> go.Figure:
    projection = load_projection(m.paths.latent / "projection.safetensors")
    n_probe = projection.coordinates.shape[1]
    return latent_plotly(projection, m.probe_ids(n_probe), m.clusters(n_probe), m.paths.run_name)


LEARNED = Section(
    "learned",
    "What was learned, and when",
    "Learning",
    (
        Chapter(
            "learning_timeline",
            "Losses, use of the source, movement",
            ".png",
            (
                "probe_loss",
                "training_probe_loss",
                "control_probe_loss",
                "context_gain",
                "context_gain_copied",
                "context_gain_new",
                "twin_effect",
                "twin_right",
                "hidden_displacement",
                "control_hidden_displacement",
            ),
            "The loss says that something was learned, the other panels what. Context gain above 0 means that the "
            "model uses the source it is given, not only the style of the targets. Twins are two articles that "
            "differ in one fact: accuracy above the dashed line means that the model states the fact that stands "
            "there. Thin lines in the last row are layers, both panels on one scale.",
            "A band is the uncertainty of a level over these probes, not of the change since step 0, and not over "
            "seeds. Rows trained on can be memorized: compare them with the probes. General text moves too.",
            timeline_plotly,
        ),
    ),
)

HEADS = Section(
    "heads",
    "Attention heads",
    "Heads",
    (
        Chapter(
            "head_changes",
            "Which heads changed",
            ".png",
            (*HEAD_MEASURES, "ablation_exact"),
            "One map for each measure, layers from top to bottom: red cells rose, blue ones fell. Pale cells changed "
            "no more than random perturbations of the same size change a head; framed ones are claimed, and the title "
            "counts them. Hatched grey means that there is no band: nothing can be claimed. The last map is what "
            "taking each head away costs; pale there means that the interval holds 0.",
            "A changed head need not matter, and a head can matter without having changed. Measures of one head "
            "overlap: eleven maps are not eleven findings.",
            head_changes_plotly,
            needs=HEAD_MEASURES,
        ),
        Chapter(
            "temporal_metrics_evolution",
            "Attention and hidden states over time",
            ".png",
            ("attn_entropy", "attn_gini", "attn_distance_ns", "attn_sink", "displacement", "cka_debiased"),
            "Thick blue lines are means, their bands 95% bootstrap intervals over the probes; thin lines are single "
            "layers, from dark (first) to light (last). Attention is measured where the model predicts the target.",
            "Changes are paired by probe and can be clearer than the bands suggest. Entropy and Gini are nearly one "
            "measure.",
            temporal_plotly,
        ),
        Chapter(
            "attention_head_evolution",
            "Entropy of every head",
            ".gif",
            ("attn_entropy",),
            "Left, each head's entropy; right, its change since the first snapshot: blue heads became more focused, "
            "red ones more spread out. The colours mean the same in every frame.",
            "No interval is drawn here, and a changed head is not a head that matters: that takes an ablation.",
            head_plotly,
        ),
        Chapter(
            "attention_weights_evolution",
            "Where the most changed heads look",
            ".gif",
            ("attn_pattern",),
            "Full patterns of one probe. Rows are queries, columns are keys; the thin lines divide source, template "
            "and target; grey cells are later tokens, which a query can't see. The heads shown are those whose "
            "entropy, averaged over all probes, changed most.",
            "One text is an illustration, not evidence. Attention shows where a head reads, not what it does with it.",
        ),
    ),
)

HIDDEN = Section(
    "hidden",
    "Hidden states",
    "Hidden states",
    (
        Chapter(
            "drift_map",
            "Drift from the base",
            ".png",
            tuple(DRIFT),
            "Layers from top to bottom, snapshots from left to right. Displacement is how far the states moved; the "
            "others ask whether the probes still lie to each other as they did: 1 is alike for CKA, RSA and "
            "neighbours, 0 for Procrustes, which has its chance value beside it on the same scale. The interactive "
            "version has 95% ranges over half-samples of the probes.",
            "States can move far together without any change of what lies near what. RSA and CKA read the same "
            "similarities: their agreement is no second finding.",
            drift_plotly,
        ),
        Chapter(
            "latent_space_3d_rotation",
            "The latent space",
            ".gif",
            ("hidden_pooled",),
            "Each point is a probe; colours are clusters of probes. All steps were projected together into one space, "
            "so that movement is movement of the probe. The line under the title says how many neighbourhoods survive "
            "the projection.",
            "UMAP keeps neighbourhoods, not distances: the size of a cluster and the gap between two of them mean "
            "little. Displacement and CKA above are measured in the full space.",
            _latent_figure,
        ),
    ),
)

WEIGHTS = Section(
    "weights",
    "Weights and gradients",
    "Weights",
    (
        Chapter(
            "weight_changes_evolution",
            "Which weights moved",
            ".png",
            ("weight_change_relative",),
            "One panel per kind of matrix, layers from top to bottom, snapshots from left to right. All panels share "
            "one colour scale. c_attn is split into its query, key and value parts.",
            "A large change is not an important one: it depends on the matrix's size, its learning rate and its "
            "gradient's noise. With LoRA, matrices without an adapter stay at exactly 0.",
            weight_plotly,
        ),
        Chapter(
            "weight_spectra",
            "In how many directions they moved",
            ".png",
            ("stable_rank", "weight_spectrum", "intruder_cosine"),
            "Above, the stable rank of each matrix's change: small means that a few directions carry it. In the "
            "middle, its singular values. Below, intruders: directions among a tuned matrix's ten strongest that no "
            "direction of the base is like; the curve shows what other thresholds would count.",
            "The stable rank of noise is high, so a high one is no sign of rich learning. One seed: spectra have no "
            "intervals here.",
            spectra_plotly,
            needs=("stable_rank",),
        ),
        Chapter(
            "gradient_norm_evolution",
            "Gradients",
            ".png",
            ("grad_norm_total", "grad_share"),
            "Above, the norm at every logged step; below, how it divides among the matrices at each snapshot.",
            "Each value comes from one batch. Grey cells have no gradient: step 0 is before training, and what LoRA "
            "freezes has none.",
            gradient_plotly,
        ),
    ),
)

NEURONS = Section(
    "neurons",
    "Neurons",
    "Neurons",
    (
        Chapter(
            "changed_neurons",
            "The neurons that changed most",
            ".png",
            ("neuron_mean", "neuron_sd", "neuron_max_token"),
            "For each layer the MLP neurons whose mean activation changed most on the first half of the probes: "
            "number, z on the second half, and the token at which the neuron fires most at the last snapshot. z is the"
            " change in units of the spread over tokens at step 0: (mean_t - mean_0) / max(sd_0, the layer's 5th "
            "percentile).",
            "Chosen on one half and reported on the other, a z that is only chance falls back towards 0; there is no "
            "interval. One token does not say what a neuron means.",
            neurons_plotly,
            needs=("neuron_mean",),
        ),
        Chapter(
            "neuron_activations_evolution",
            "The same over time",
            ".gif",
            ("neuron_mean",),
            "The same choice, step by step, on the second half of the probes. Order and colours are the same in every "
            "frame.",
            "Neurons of different layers have different spreads: z compares each with itself.",
        ),
    ),
)

READOUT = Section(
    "lens",
    "What each layer would predict",
    "Lens",
    (
        Chapter(
            "lens",
            "Logit lens",
            ".png",
            tuple(LENS),
            "Each hidden layer read as if it were the last. Left with the model's own final norm and output matrix, "
            "right with those of the base: what changes on the left only was done by the output matrix, not by the "
            "layer.",
            "Early layers are not made to be read this way: a poor prediction there is no lack of information.",
            lens_plotly,
        ),
    ),
)

CAUSES = Section(
    "causes",
    "Causes",
    "Causes",
    (
        Chapter(
            "graft",
            "Grafted blocks",
            ".png",
            ("graft_necessity", "graft_sufficiency"),
            "Left, the loss that comes back when one block of the tuned model is replaced by the base's; right, what "
            "one tuned block alone brings the base. Lines are 95% intervals over probes.",
            "Blocks need each other, so the bars don't add up to the whole.",
            graft_plotly,
        ),
    ),
)

SECTIONS = (LEARNED, HEADS, HIDDEN, WEIGHTS, NEURONS, READOUT, CAUSES)
CHAPTERS = tuple(chapter for section in SECTIONS for chapter in section.chapters)
