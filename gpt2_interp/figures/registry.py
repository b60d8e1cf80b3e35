"""The pictures, one row each, in the order in which a reader asks: what each shows, how to read it, what it leaves out.

`visualize_metrics.py` draws these rows and the report shows them. A new picture is one row here and one function that
returns its layout (`panels.py`); the function is imported when the picture is drawn, so this module stays light.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt2_interp.snapshots.table import CLAIMED

HEAD_MEASURES = tuple(measure.name for measure in CLAIMED if measure.unit_axes == ("layer", "head"))


@dataclass(frozen=True)
class Section:
    """A heading of the report; `name` is its anchor, `short` its name in the list of links.

    `<name>_template.html` in the report's folder, where there is one, comes before the section's pictures.
    """

    name: str
    heading: str
    short: str


@dataclass(frozen=True)
class Picture:
    """One picture: its files, and its chapter in the report.

    shows: one line for the list of pictures in --help.
    measures: what it draws, defined below it in the report. A picture without any is placed by its section's own page.
    layout: "module:function" in this folder; the function takes `Measurements` and returns what is drawn.
    formats: suffixes of its files. html_name: the interactive page's name where it is not `name`.
    needs: without any of these measures there is nothing to draw (default: all measures).
    script: which script draws it.
    """

    name: str
    section: str
    heading: str
    shows: str
    measures: tuple[str, ...]
    read: str
    caution: str
    layout: str
    formats: tuple[str, ...] = (".png", ".html")
    needs: tuple[str, ...] = ()
    script: str = "visualize_metrics.py"
    html_name: str = ""

    @property
    def still(self) -> str:
        """The file that a page shows: the PNG or the GIF."""
        return f"{self.name}{next(suffix for suffix in self.formats if suffix != '.html')}"

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all its files."""
        names = {".html": self.html_name or self.name}
        return tuple(f"{names.get(suffix, self.name)}{suffix}" for suffix in self.formats)


SECTIONS = (
    Section("scores", "Scores", "Scores"),
    Section("quality", "Quality of the texts", "Quality"),
    Section("samples", "Samples", "Samples"),
    Section("learned", "What was learned, and when", "Learning"),
    Section("claims", "Which changes to believe", "Changes"),
    Section("heads", "Attention heads", "Heads"),
    Section("hidden", "Hidden states", "Hidden states"),
    Section("weights", "Weights and gradients", "Weights"),
    Section("neurons", "Neurons", "Neurons"),
    Section("lens", "What each layer would predict", "Lens"),
    Section("causes", "Causes", "Causes"),
    Section("costs", "What measuring cost", "Costs"),
    Section("settings", "Settings", "Settings"),
)

PICTURES = (
    Picture(
        "sample_quality",
        "quality",
        "Quality of the samples over the checkpoints",
        "variety, repetition, length of its samples",
        (),
        "perplexity, different bigrams, self-BLEU, repetition, length, share that ended by themselves; facts "
        "where they are known",
        "More variety than theirs is no gain, noise has the most; a lower perplexity than theirs is no gain either: a "
        "model that repeats itself is sure of what comes next.",
        "samples:sample_quality",
    ),
    Picture(
        "learning_timeline",
        "learned",
        "Losses, use of the source, movement",
        "loss, use of the source, twins, displacement",
        (
            "probe_loss",
            "probe_loss_by_kind",
            "training_probe_loss",
            "control_probe_loss",
            "context_gain",
            "context_gain_by_kind",
            "context_gain_copied",
            "context_gain_new",
            "twin_effect",
            "twin_right",
            "hidden_displacement",
            "control_hidden_displacement",
        ),
        "The loss says that something was learned, the other panels what. By kind of token: what every target has in "
        "common is learned first and makes most of the mean; whether a model reads its source shows on the first "
        "token of a value. Context gain above 0 means that the "
        "model uses the source it is given, not only the style of the targets. Twins are two articles that "
        "differ in one fact: accuracy above the dashed line means that the model prefers the first differing token of "
        "the fact that stands there. To write the whole value is harder: see facts stated. Thin lines "
        "in the last row are layers, both panels on one scale.",
        "A band is the uncertainty of a level over these probes, not of the change since step 0, and not over "
        "seeds. Rows trained on can be memorized: compare them with the probes. What became of general text "
        "stands above the losses.",
        "learning:timeline",
    ),
    Picture(
        "loss_by_kind",
        "learned",
        "What the fall of the loss is made of",
        "share of each kind of token in the fall of the loss",
        ("probe_loss_by_kind",),
        "How many of the target tokens are of a kind, how much of the fall of the loss on the probes is theirs, and "
        "their loss at the first and the last snapshot. Kinds of one division add up to 100%; the first tokens of "
        "each slot divide the first tokens of values. Thin lines are 95% intervals over clusters of probes.",
        "A share is of the mean loss: a kind with a small share can be the one that matters. Copied words are "
        'those that occur anywhere in the source, such as "the".',
        "kinds:fall_by_kind",
    ),
    Picture(
        "familiar_and_new",
        "learned",
        "Familiar and new rows",
        "what was learned, on familiar and on new rows",
        ("probe_loss", "context_gain"),
        "Half of the held-out probes are like the rows that were trained on (validation split), half are of the "
        "test split: in the embedded corpora their names, places and wordings were never trained on. Left both, right "
        "their difference: an interval beyond 0 means that the model does otherwise on what is new.",
        "The two halves are other texts, and not equally hard: look at the difference at step 0 first. The scores of "
        "the test rows are of other rows than these.",
        "familiar:familiar_and_new",
        needs=("probe_loss",),
    ),
    Picture(
        "head_changes",
        "heads",
        "Which heads changed",
        "which heads changed by more than chance",
        (*HEAD_MEASURES, "ablation_exact", "ablation_exact_by_kind"),
        "One map for each measure, layers from top to bottom: red cells rose, blue ones fell. Pale cells changed "
        "no more than random perturbations of the base change that very head, or less than the smallest effect of "
        "interest; framed ones count over all measures, and the title counts them. A plus says that the change helps, "
        "a minus that it hurts: putting the base's number back, for that head alone, costs loss or saves some. Grey "
        "means that there is no band or no value. The last maps are what taking each head away costs, of all tokens "
        "and of each kind; pale there means that the interval holds 0.",
        "A changed head need not matter, and a head can matter without having changed. Measures of one head "
        "overlap: changes of one head in several maps can be one finding.",
        "changes:head_changes_layout",
        needs=HEAD_MEASURES,
    ),
    Picture(
        "temporal_metrics_evolution",
        "heads",
        "Attention and hidden states over time",
        "attention and hidden states over time",
        (
            "probe_loss",
            "attn_entropy_norm_ns",
            "attn_source_ns",
            "attn_distance_ns",
            "attn_sink",
            "displacement",
            "cka_within_clusters",
        ),
        "Of attention, each line is a head's change since step 0, where the model predicts the target. The three heads "
        "that changed most have names (L1·H0: layer 1, head 0) and bands, 95% bootstrap intervals of that change, "
        "paired by probe; the grey band holds the middle 80% of the heads. Of hidden states, each line is a layer. "
        "Steps have ticks where a snapshot is: 0 and the first snapshot are as far apart as a step and its double.",
        "Heads that change in opposite directions are no trend, and the named ones were chosen because they changed "
        "most: which changes are more than noise, the maps above say. A model without an attention sink has a "
        "sentence in that panel.",
        "over_time:temporal",
    ),
    Picture(
        "attention_head_evolution",
        "heads",
        "Entropy of every head",
        "entropy of every head and its change",
        ("attn_entropy",),
        "Left, each head's entropy; right, its change since the first snapshot: blue heads became more focused, "
        "red ones more spread out. The colours mean the same in every frame.",
        "No interval is drawn here, and a changed head is not a head that matters: that takes an ablation.",
        "heads:head_evolution",
        formats=(".gif", ".html"),
    ),
    Picture(
        "attention_weights_evolution",
        "heads",
        "Where the most changed heads look",
        "patterns of the heads that changed most",
        ("attn_pattern",),
        "Full patterns of one whole probe. Rows are queries, columns are keys; the thin lines divide source, template "
        "and target; grey cells are later tokens, which a query can't see. Green frames: the row that predicts a value "
        "of the target, at the column where the source states it. The heads shown are those whose "
        "entropy, averaged over all probes, changed most.",
        "One text is an illustration, not evidence. Attention shows where a head reads, not what it does with it.",
        "attention_patterns:pattern_evolution",
        formats=(".gif",),
    ),
    Picture(
        "drift_map",
        "hidden",
        "Drift from the base",
        "hidden states against the base, layer by layer",
        (
            "displacement",
            "cka_debiased",
            "cka_within_clusters",
            "cka_scaled",
            "rsa",
            "knn_overlap",
            "procrustes",
            "procrustes_chance",
            "anisotropy",
        ),
        "Layers from top to bottom (each row: what that layer hands on), snapshots from left to right. Dark is as in "
        "the base, bright is far from it, in every map but that of states that point the same way. Above, how far the "
        "states moved, and whether the probes still lie to each other as they did, over all and within each kind of "
        "text: what lies between kinds keeps the first high. Below it the same at the last token of the prompt, where "
        "the text to be written begins. Then other comparisons: 1 is alike for CKA, RSA and neighbours, 0 for "
        "Procrustes, whose chance value stands above its map. The interactive version has 95% ranges over "
        "half-samples of the probes.",
        "States can move far together without any change of what lies near what. RSA and CKA read the same "
        "similarities: their agreement is no second finding. No noise and no other seed is compared here.",
        "hidden:drift",
    ),
    Picture(
        "latent_space_3d_rotation",
        "hidden",
        "The latent space",
        "the probes in one shared space, step by step",
        ("hidden_pooled",),
        "Each point is a probe; colours are clusters of probes. All steps were projected together into one space, "
        "so that movement is movement of the probe. The line under the title says how many neighbourhoods survive "
        "the projection.",
        "UMAP keeps neighbourhoods, not distances: the size of a cluster and the gap between two of them mean "
        "little. Displacement and CKA above are measured in the full space.",
        "latent:latent_space",
        formats=(".gif", ".html"),
        script="analyze_latent_space.py",
        html_name="latent_space_3d_evolution",
    ),
    Picture(
        "weight_changes_evolution",
        "weights",
        "Which weights moved",
        "which matrices moved",
        ("weight_change_relative",),
        "One panel per kind of matrix, layers from top to bottom, snapshots from left to right. All panels share "
        "one colour scale. c_attn is split into its query, key and value parts.",
        "A large change is not an important one: it depends on the matrix's size, its learning rate and its "
        "gradient's noise. With LoRA, matrices without an adapter stay at exactly 0.",
        "weights:weight_changes",
    ),
    Picture(
        "weight_spectra",
        "weights",
        "In how many directions they moved",
        "in how many directions they moved, intruders",
        ("stable_rank", "weight_spectrum", "intruder_cosine"),
        "Above, the stable rank of each matrix's change: small means that a few directions carry it. In the "
        "middle, its singular values. Below, intruders: directions among a tuned matrix's ten strongest that no "
        "direction of the base is like; the curve shows what other thresholds would count.",
        "Not compared with noise, so no number here is a finding: noise has intruders too, and a high stable rank. "
        "One seed, and no intervals.",
        "weights:spectra",
        needs=("stable_rank",),
    ),
    Picture(
        "gradient_norm_evolution",
        "weights",
        "Gradients",
        "gradient norm and its shares",
        ("grad_norm_total", "grad_share"),
        "Above, the norm at every logged step; below, how it divides among the matrices at each snapshot.",
        "Each value comes from one batch. Grey cells have no gradient: step 0 is before training, and what LoRA "
        "freezes has none.",
        "weights:gradients",
    ),
    Picture(
        "changed_neurons",
        "neurons",
        "The neurons that changed most",
        "neurons that changed most, with their tokens",
        ("neuron_mean", "neuron_sd", "neuron_max_token"),
        "For each layer the MLP neurons whose mean activation changed most on the first half of the probes: "
        "number, z on the second half, and the token at which the neuron fires most at the last snapshot. z is the"
        " change in units of the spread over tokens at step 0: (mean_t - mean_0) / max(sd_0, the layer's 5th "
        "percentile).",
        "Not compared with noise, so no neuron here is a finding; there is no interval either. Chosen on one half and "
        "reported on the other, a z that is only chance falls back towards 0. One token does not say what a neuron "
        "means.",
        "neurons:changed_neurons",
        needs=("neuron_mean",),
    ),
    Picture(
        "neuron_activations_evolution",
        "neurons",
        "The same over time",
        "the same over time",
        ("neuron_mean",),
        "The same choice, step by step, on the second half of the probes. Order and colours are the same in every "
        "frame.",
        "Not compared with noise, so no neuron here is a finding. Neurons of different layers have different spreads: "
        "z compares each with itself.",
        "neurons:neuron_evolution",
        formats=(".gif",),
    ),
    Picture(
        "lens",
        "lens",
        "Logit lens",
        "what each layer would predict",
        ("lens_logprob", "lens_base_logprob", "lens_kl", "lens_base_kl", "lens_logprob_by_kind"),
        "Each hidden layer read as if it were the last. Left with the model's own final norm and output matrix, "
        "right with those of the base: what changes on the left only was done by the output matrix, not by the "
        "layer. Below, the log-probability for each kind of token, all on one scale.",
        "Early layers are not made to be read this way: a poor prediction there is no lack of information.",
        "hidden:lens",
    ),
    Picture(
        "graft",
        "causes",
        "Grafted blocks",
        "which blocks carry what was learned",
        ("graft_necessity", "graft_sufficiency"),
        "Left, the loss that comes back when one block of the tuned model is replaced by the base's; right, what "
        "one tuned block alone brings the base. Lines are 95% intervals over probes.",
        "Not compared with noise, so no bar is a finding by itself: an interval without 0 is of these probes alone. "
        "Blocks need each other, so the bars don't add up to the whole. Most of the loss is words that every target "
        "has. The embeddings are the output matrix too.",
        "causes:graft",
    ),
    Picture(
        "graft_by_kind",
        "causes",
        "Grafted blocks, by kind of token",
        "which blocks carry what was learned of each kind of token",
        ("graft_necessity_by_kind", "graft_sufficiency_by_kind"),
        "The same as above, taken apart: a block may carry template words and another one the values.",
        "Each cell has an interval of its own: of twenty cells without an effect about one is coloured.",
        "kinds:graft_by_kind",
    ),
)
PICTURE: dict[str, Picture] = {picture.name: picture for picture in PICTURES}
