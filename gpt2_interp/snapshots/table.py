"""The measure table: every array that a snapshot holds, declared once.

The store validates what it writes against these rows; `docs/metrics.md`, report captions and axis labels are made from
them; `claims.py` and `recorder.py` ask them what a measure is compared by. How to add one: `docs/add_a_measure.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

REGIONS = ("Q", "A")  # Q: positions that predict a target token; A: all positions >= 8
POOLINGS = ("source_mean", "target_mean", "prompt_last")
HALVES = ("first", "second")  # of the probes, whole clusters: chosen on the first, reported on the second
REFERENCES = ("step 0", "previous snapshot")
SPREAD = ("mean", "2.5%", "97.5%")  # over 200 half-samples of the probes
RESTORED = (  # measures whose number is put back where restoration asks whether its change matters
    "attn_sink",
    "attn_source_ns",
    "attn_gold_lift",
    "attn_distance_ns",
    "attn_entropy_norm_ns",
    "attn_source_normw",
    "head_write",
)
REPEATED = ("prev_token", "duplicate", "induction")  # judged by the loss of a second reading instead
JUDGED_KINDS = ("value_first", "all")  # tokens by whose loss it is judged: the first of these that a run tells apart
N_PROBES = 256  # held-out examples that a snapshot measures, where no other number is asked for
N_SINGULAR = 32  # singular values of a change that are kept
N_INTRUDER = 10  # singular vectors of a matrix that are compared with the base's
# Random perturbations of the base that make up a band: as many as the run can afford, never fewer than the first.
FEWEST_PERTURBATIONS, MOST_PERTURBATIONS = 39, 99

# Axes along which a measure has one value for each probe, by the list of probe_set.json that describes them.
PROBE_AXES = ("example", "few_example", "kl_example", "control_example", "training_example", "sequence", "pair")
# Where a measure has several, the one that is claimed.
HEADLINE = {"region": "Q", "pooling": "target_mean"}


@dataclass(frozen=True)
class Measure:
    """One row of the measure table.

    axes name the array's dimensions, in order; their sizes and labels stand in run.json under "axes".
    folder is one of "attention", "latent", "metrics" (a snapshot's three files) or "reference" (once per run: step 0).
    group is what --measures chooses, and what the cost of a snapshot is told by.
    tier: "light" at every snapshot, "heavy" at five at most, the first and the last among them; "ends" at the first and
    the last; "final" at the last.
    never_negative: its change can only be 0 or more, so that an interval says nothing and only the band does.
    claimed: a change of it is tested by claims.py; it then has a row band_<name>, and control_<name> if general text
    can have it (`control`: the axis of general text that it is measured along), and other_<name> if it is also measured
    behind other sources (`other_source`).
    by_kind: it is a mean over target tokens, and has a row <name>_by_kind of the means over each kind of token.
    smallest: the smallest change that counts as a finding, in the measure's unit; as a factor (1.5: half as much again,
    or two thirds) where `as_factor`.
    label: its plain name in pictures. limits: values up to which the map's colours reach in any case, such as (0, 1)
    for a share; None: no further than the values do.
    """

    name: str
    folder: str
    axes: tuple[str, ...]
    dtype: str
    unit: str
    meaning: str
    formula: str
    source: str = ""
    caution: str = ""
    group: str = ""
    tier: str = "light"
    claimed: bool = False
    never_negative: bool = False
    control: str = ""
    other_source: bool = False
    by_kind: bool = False
    smallest: float = 0.0
    as_factor: bool = False
    label: str = ""
    limits: tuple[float | None, float | None] = (None, None)

    @property
    def probe_axis(self) -> str | None:
        """The axis along which there is one value for each probe, if any; it comes first."""
        return self.axes[0] if self.axes and self.axes[0] in PROBE_AXES else None

    @property
    def unit_axes(self) -> tuple[str, ...]:
        """Axes of what a claim is about (layer and head, say): without the probes and what HEADLINE fixes."""
        return tuple(axis for axis in self.axes if axis != self.probe_axis and axis not in HEADLINE)


EACH_HEAD = ("example", "region", "layer", "head")
PROBE_HEAD = ("example", "layer", "head")


def _attention(name: str, unit: str, meaning: str, formula: str, axes=EACH_HEAD, **more) -> Measure:
    more = {"control": "control_example", **more} if axes == EACH_HEAD else more
    return Measure(name, "attention", axes, "float32", unit, meaning, formula, group="attention", **more)


def _hidden(name: str, axes: tuple[str, ...], unit: str, meaning: str, formula: str, **more) -> Measure:
    return Measure(name, "latent", axes, "float32", unit, meaning, formula, group="hidden", **more)


def _metric(name: str, group: str, axes: tuple[str, ...], unit: str, meaning: str, formula: str, **more) -> Measure:
    return Measure(name, "metrics", axes, "float32", unit, meaning, formula, group=group, **more)


ATTENTION = (
    _attention(
        "attn_entropy",
        "bits",
        "How widely a head spreads its attention: 0 is one token, log2(visible keys) is all alike.",
        "H_i = -sum_j a_ij log2 a_ij; mean over the queries i of the region",
        caution="Grows with the number of visible keys; compare the same probes only.",
        label="spread of attention",
    ),
    _attention(
        "attn_entropy_norm",
        "0..1",
        "Entropy as a share of what uniform attention would have.",
        "H_i / log2 m, m = i + 1 visible keys; mean over queries",
        label="spread of attention, share of the most",
    ),
    _attention(
        "attn_entropy_norm_ns",
        "0..1",
        "How widely a head spreads the attention that does not rest on the first token, as a share of the uniform.",
        "a'_ij = a_ij / (1 - a_i0) over keys 1..i; H'_i / log2(m - 1); mean over queries",
        claimed=True,
        other_source=True,
        smallest=0.05,
        caution="Where nearly all attention rests on the first token, it describes what little is left.",
        label="spread of attention without the first token",
    ),
    _attention(
        "attn_gini",
        "0..1",
        "Sparsity of a head's attention: 0 is uniform, 1 is a single token.",
        "sorted ascending c_1..c_m: G = [1 - 2 sum_k c_k (m-k+0.5)/m] m/(m-1); mean over queries",
        source="Hurley & Rickard 2009; m/(m-1) removes the dependence on m",
        caution="Nearly the same information as entropy (Spearman -.998 on real GPT-2 heads).",
        label="focus of attention (Gini)",
    ),
    _attention(
        "attn_distance_ns",
        "0..2",
        "How far back a head looks, the first token left out: 1 is what uniform attention would give.",
        "sum_j a'_ij (i-j)/((i-1)/2) over keys j = 1..i, a' renormalised without key 0; mean over queries",
        claimed=True,
        other_source=True,
        smallest=0.05,
        caution="Without leaving out the first token it would mostly repeat attn_sink.",
        label="how far back it looks",
    ),
    _attention(
        "attn_sink",
        "0..1",
        "Share of attention that rests on the very first token.",
        "a_i0, i >= 1; mean over queries",
        source="Xiao et al. 2023",
        claimed=True,
        other_source=True,
        smallest=0.02,
        label="attention to the first token",
    ),
    _attention(
        "attn_source",
        "0..1",
        "Share of attention that the target's queries give to the source.",
        "mean over i in Q of sum_{j in S} a_ij",
        PROBE_HEAD,
        caution="Much of the rest is the sink: compare attn_source_ns with its chance.",
        label="attention to the article, first token included",
    ),
    _attention(
        "attn_source_ns",
        "0..1",
        "Share of the attention not resting on the first token that the target's queries give to the source.",
        "mean over i in Q of sum_{j in S} a_ij / (1 - a_i0)",
        PROBE_HEAD,
        claimed=True,
        control="control_example",
        other_source=True,
        smallest=0.02,
        label="attention to the article",
    ),
    _attention(
        "attn_source_chance",
        "0..1",
        "What attn_source_ns would be if attention were uniform.",
        "mean over i in Q of n_S / (m - 1)",
        ("example",),
        label="attention to the article if even",
    ),
    _attention(
        "attn_gold_lift",
        "ratio",
        "How much more a head looks at the value it is about to write than at the rest of the source: 1 is chance.",
        "over queries q that predict a token of a stated value, gold(q) the tokens of that value in the source: "
        "sum_q sum_{gold(q)} a / sum_q (n_gold(q)/n_S) sum_S a, a ratio of sums",
        PROBE_HEAD,
        claimed=True,
        smallest=1.5,
        as_factor=True,
        caution="Needs a corpus whose answers are known. A head that hardly looks at the source can have a high lift.",
        label="attention to the right value",
    ),
    _attention(
        "attn_gold_sentence_lift",
        "ratio",
        "How much more a head looks at the whole sentence of the value it is about to write than at the other sentence "
        "nearest to that one in position and length.",
        "sum_q mean_{gold sentence} a / sum_q mean_{control sentence} a",
        PROBE_HEAD,
        label="attention to the right value's sentence",
    ),
    _attention(
        "attn_source_normw",
        "0..1",
        "Share of what a head writes that comes from the source: attention weighted by the norm of what it moves.",
        "mean over i in Q of sum_{j in S} w_ij, w_ij = a_ij ||f(x_j)|| / sum_k a_ik ||f(x_k)||, "
        "f(x) = (ln_1(x) W_V^h + b_V^h) W_O^h",
        PROBE_HEAD,
        source="Kobayashi et al. 2020; c_proj's bias is left out",
        claimed=True,
        control="control_example",
        other_source=True,
        smallest=0.02,
        label="what it takes from the article",
    ),
    _attention(
        "head_write",
        "ratio",
        "How much a head adds to the residual stream, against what is there.",
        "mean over i in Q of ||sum_j a_ij f(x_j)|| / ||resid_pre_i||",
        PROBE_HEAD,
        claimed=True,
        other_source=True,
        smallest=0.02,
        control="control_example",
        label="how much it writes",
    ),
    _attention(
        "attn_kl0",
        "bits",
        "How far a head's attention has moved from the base model's, on the same probes.",
        "mean over 16 fixed rows i in Q of sum_j a^t_ij log2(a^t_ij / a^0_ij), from log-softmax",
        ("kl_example", "layer", "head"),
        claimed=True,
        smallest=0.05,
        caution="Never negative: compare it with the band, not with 0.",
        never_negative=True,
        label="distance of its attention from the base's",
    ),
    _attention(
        "prev_token",
        "0..1",
        "Attention to the token before, on random tokens read twice.",
        "sequences [BOS, r_1..r_T, r_1..r_T]: mean over q = T+1..2T of a at key q-1",
        ("sequence", "layer", "head"),
        source="Olsson et al. 2022; stripes as in TransformerLens",
        claimed=True,
        smallest=0.02,
        label="attention to the token before",
    ),
    _attention(
        "duplicate",
        "0..1",
        "Attention to the same token in the first reading.",
        "sequences [BOS, r_1..r_T, r_1..r_T]: mean over q = T+1..2T of a at key q-T",
        ("sequence", "layer", "head"),
        source="Olsson et al. 2022",
        claimed=True,
        smallest=0.02,
        label="attention to the same token earlier",
    ),
    _attention(
        "induction",
        "0..1",
        "Attention to the token after the same token in the first reading: what copying needs.",
        "sequences [BOS, r_1..r_T, r_1..r_T]: mean over q = T+1..2T of a at key q-T+1; chance is 1/(q+1)",
        ("sequence", "layer", "head"),
        source="Olsson et al. 2022",
        claimed=True,
        smallest=0.02,
        label="attention to what followed last time",
    ),
    Measure(
        "attn_pattern",
        "attention",
        ("pattern_example", "layer", "head", "query_key"),
        "float16",
        "0..1",
        "The full attention pattern of a few short probes, after softmax, row by row: query i has keys 0..i. Padding "
        "is NaN.",
        "a_ij = softmax_j(q_i k_j / sqrt(d_head)); stored at i(i+1)/2 + j",
        group="patterns",
        label="attention",
    ),
)

HIDDEN = (
    Measure(
        "hidden_pooled",
        "latent",
        ("example", "pooling", "hidden_layer", "d_model"),
        "float16",
        "activation",
        "The residual stream after each block, averaged over the source, over the target queries, or read at the "
        "last prompt position.",
        "X_l, l = 0..n_layer; l = 0 is the embedding, l = n_layer is taken before ln_f",
        caution="Rounded to half precision; the numbers below come from the unrounded states.",
        group="hidden",
        label="states of the texts",
    ),
    _hidden(
        "hidden_displacement",
        ("example", "pooling", "hidden_layer"),
        "ratio",
        "How far a probe's hidden state has moved from the base model's, against the spread over probes.",
        "||x_t - x_0|| / mean over probes of ||xc_0||, xc centred over probes",
        source="same basis at every step, so it needs no alignment",
        claimed=True,
        other_source=True,
        smallest=0.05,
        control="control_example",
        caution="Never negative: compare it with the band, not with 0.",
        never_negative=True,
        label="how far each text's states moved",
    ),
    _hidden(
        "hidden_norm",
        ("example", "pooling", "hidden_layer"),
        "activation",
        "Length of a probe's hidden state.",
        "||x_l||",
        label="length of the states",
    ),
    _hidden(
        "displacement",
        ("pooling", "hidden_layer"),
        "ratio",
        "Displacement of all probes together.",
        "||X_t - X_0||_F / ||Xc_0||_F",
        limits=(0, None),
        label="how far the states moved",
    ),
    _hidden(
        "cka_debiased",
        ("pooling", "hidden_layer", "reference"),
        "<= 1",
        "Whether the probes still lie to each other as they did in the reference: 1 alike, 0 unrelated.",
        "K = XX', L = YY', zero diagonals; HSIC1 = [tr(KL) + 1'K1 1'L1/((n-1)(n-2)) - 2/(n-2) 1'KL1]/(n(n-3)); "
        "CKA = HSIC1(K,L)/sqrt(HSIC1(K,K) HSIC1(L,L))",
        source="Song et al. 2012; Nguyen et al. 2021; Murphy et al. 2024",
        caution="Can be negative; needs at least 4 probes. A few large dimensions decide it: see cka_scaled.",
        limits=(0, 1),
        label="likeness of the texts (CKA)",
    ),
    _hidden(
        "cka_within_clusters",
        ("pooling", "hidden_layer"),
        "<= 1",
        "Whether the probes of each cluster still lie to each other as they did in the base: what lies between the "
        "clusters, which any model tells apart, does not count.",
        "sum_c HSIC1(K_c, L_c) / sqrt(sum_c HSIC1(K_c, K_c) sum_c HSIC1(L_c, L_c)), clusters c of 4 probes or more; "
        "K_c, L_c: the rows and columns of cka_debiased's K and L that belong to c",
        caution="NaN where no cluster has 4 probes, as where each probe is its own cluster.",
        limits=(0, 1),
        label="likeness within kinds of text (CKA)",
    ),
    _hidden(
        "cka_scaled",
        ("pooling", "hidden_layer", "reference"),
        "<= 1",
        "Whether the probes still lie to each other as they did, each dimension divided by its standard deviation over "
        "probes at step 0.",
        "CKA of X / sd(X_0) and Y / sd(X_0)",
        limits=(0, 1),
        label="likeness, dimensions scaled (CKA)",
    ),
    _hidden(
        "procrustes",
        ("pooling", "hidden_layer"),
        "0..1",
        "What is left of the difference to the base after the best rotation, in its 16 widest directions.",
        "A, B = Xc_0, Xc_t projected on the top 16 PCs of Xc_0, each / ||.||_F; 1 - ||A'B||_*",
        source="Ding et al. 2021",
        caution="Unrelated states don't give 1: compare it with procrustes_chance.",
        limits=(0, None),
        label="what no rotation explains (Procrustes)",
    ),
    _hidden(
        "procrustes_chance",
        ("pooling", "hidden_layer"),
        "0..1",
        "Value of procrustes where the probes of one side are shuffled.",
        "1 - ||A'PB||_*, P a permutation of the probes; mean over 20",
        limits=(0, None),
        label="what no rotation explains, texts shuffled",
    ),
    _hidden(
        "rsa",
        ("pooling", "hidden_layer"),
        "-1..1",
        "Whether the same pairs of probes are alike as in the base model.",
        "Spearman of the upper triangles of 1 - cosine(Xc rows)",
        source="Kriegeskorte et al. 2008",
        caution="No p-value from pairs, and no independent support for CKA: both read the same similarities.",
        limits=(0, 1),
        label="same pairs alike (RSA)",
    ),
    _hidden(
        "knn_overlap",
        ("pooling", "hidden_layer"),
        "0..1",
        "Share of a probe's 10 nearest probes that it still has.",
        "|N10(X_t) and N10(X_0)| / 10, cosine on Xc; chance is 10/(n-1)",
        limits=(0, 1),
        label="neighbours kept",
    ),
    _hidden(
        "cka_half_samples",
        ("hidden_layer", "spread"),
        "<= 1",
        "cka_debiased to step 0 (target_mean) over half the probes.",
        "mean, 2.5% and 97.5% over 200 half-samples without replacement",
        tier="heavy",
    ),
    _hidden(
        "rsa_half_samples",
        ("hidden_layer", "spread"),
        "-1..1",
        "rsa (target_mean) over half the probes.",
        "mean, 2.5% and 97.5% over 200 half-samples without replacement",
        tier="heavy",
    ),
    _hidden(
        "knn_half_samples",
        ("hidden_layer", "spread"),
        "0..1",
        "knn_overlap (target_mean) over half the probes.",
        "mean, 2.5% and 97.5% over 200 half-samples without replacement",
        tier="heavy",
    ),
    _hidden(
        "anisotropy",
        ("pooling", "hidden_layer"),
        "-1..1",
        "How much all hidden states point the same way.",
        "mean pairwise cosine of uncentred rows",
        source="Ethayarajh 2019",
        label="states point the same way",
    ),
    _hidden(
        "anisotropy_top3",
        ("pooling", "hidden_layer"),
        "share",
        "How much of the anisotropy three dimensions make.",
        "share of the mean cosine that the 3 dimensions with the largest contributions give",
        source="Timkey & van Schijndel 2021",
    ),
)

LEARNING = (
    _metric(
        "probe_loss",
        "loss",
        ("example",),
        "nats/token",
        "Negative log-likelihood of the probe's target, the loss that training lowers.",
        "mean over supervised tokens of -log p(token | prefix)",
        claimed=True,
        smallest=0.01,
        control="control_example",
        by_kind=True,
        label="loss on held-out texts",
    ),
    _metric(
        "training_probe_loss",
        "loss",
        ("training_example",),
        "nats/token",
        "Negative log-likelihood of the target on rows that are trained on.",
        "mean over supervised tokens of -log p(token | prefix)",
        label="loss on texts trained on",
    ),
    _metric(
        "context_gain",
        "context_gain",
        ("example",),
        "nats/token",
        "How much its own source helps to predict a target, against another probe's source.",
        "NLL(y | another probe's source) - NLL(y | own source); a fixed derangement within bins of length",
        claimed=True,
        by_kind=True,
        smallest=0.01,
        label="what the article is worth",
    ),
    _metric(
        "context_gain_copied",
        "context_gain",
        ("example",),
        "nats/token",
        "How much its own source helps to predict the target tokens that occur in the source.",
        "NLL(y | another probe's source) - NLL(y | own source), mean over tokens of y that occur in x",
        label="what it is worth for words it has",
    ),
    _metric(
        "context_gain_new",
        "context_gain",
        ("example",),
        "nats/token",
        "How much its own source helps to predict the target tokens that don't occur in the source.",
        "NLL(y | another probe's source) - NLL(y | own source), mean over tokens of y that don't occur in x",
        label="what it is worth for words it lacks",
    ),
    _metric(
        "twin_effect",
        "twins",
        ("pair",),
        "nats",
        "How much the model prefers the value that its source states, when one fact of the source is swapped.",
        "1/2 [log p(v|x) - log p(v'|x) + log p(v'|x') - log p(v|x')] at the first token where v and v' differ",
        claimed=True,
        smallest=0.01,
        label="how strongly it picks its article's fact",
    ),
    _metric(
        "twin_right",
        "twins",
        ("pair",),
        "0 or 1",
        "Whether both orders of a twin pair are right; coin flips give 0.25.",
        "log p(v|x) > log p(v'|x) and log p(v'|x') > log p(v|x')",
        label="pairs in which it picks its article's fact",
    ),
)

GRADIENTS = (
    _metric(
        "grad_norm_total",
        "gradients",
        (),
        "norm",
        "Norm of the whole training gradient of this step, before clipping (after accumulation).",
        "||g||_2 as the Trainer logs it; undefined (NaN) at step 0",
        caution="Of one batch: compare trends, not single steps.",
        label="size of the gradient",
    ),
    _metric(
        "grad_share",
        "gradients",
        ("grad_matrix",),
        "0..1",
        "Share of the training gradient's norm that falls on one weight matrix; the squares sum to 1.",
        "||g_m|| / ||g|| at on_pre_optimizer_step: the same before and after clipping; norm = share x grad_norm_total",
        label="share of the gradient",
    ),
    _metric(
        "probe_grad",
        "probe_gradient",
        ("matrix",),
        "norm",
        "How steeply the loss on the probes falls with a weight matrix: what the task still asks of it.",
        "||d(mean probe loss)/dW||_F by backward passes over 64 probes; LoRA: of the matrix beneath the adapter",
        tier="heavy",
        label="what held-out texts still ask",
    ),
    _metric(
        "probe_grad_cosine",
        "probe_gradient",
        ("matrix",),
        "-1..1",
        "Whether two halves of the probes ask for the same change of a matrix.",
        "cosine of the gradients of the two halves' mean losses",
        caution="Near 0: what probe_grad shows is noise.",
        tier="heavy",
        label="agreement on what they ask",
    ),
)

WEIGHTS = (
    _metric(
        "weight_change",
        "weights",
        ("matrix",),
        "norm",
        "How far a weight matrix has moved from the base model.",
        "||W_t - W_0||_F; LoRA: scaling x B A",
        label="how far the weights moved",
    ),
    _metric(
        "weight_change_relative",
        "weights",
        ("matrix",),
        "ratio",
        "How far a weight matrix has moved from the base model, against the size of the base matrix.",
        "||W_t - W_0||_F / ||W_0||_F",
        label="how far the weights moved",
    ),
    _metric(
        "weight_change_rms",
        "weights",
        ("matrix",),
        "per weight",
        "How far a weight matrix has moved, per weight: comparable between matrices of different size.",
        "||W_t - W_0||_F / sqrt(numel)",
        label="how far the weights moved",
    ),
    _metric(
        "ov_change",
        "weights",
        ("layer", "head"),
        "ratio",
        "How far what a head moves (its OV circuit) has changed.",
        "||W_V W_O (t) - W_V W_O (0)||_F / ||W_V W_O (0)||_F of one head",
        source="Elhage et al. 2021",
        label="change of what it moves",
    ),
    _metric(
        "qk_change",
        "weights",
        ("layer", "head"),
        "ratio",
        "How far where a head looks (its QK circuit) has changed.",
        "||W_Q W_K' (t) - W_Q W_K' (0)||_F / ||W_Q W_K' (0)||_F of one head; biases left out",
        source="Elhage et al. 2021",
        label="change of where it looks",
    ),
    _metric(
        "stable_rank",
        "spectra",
        ("matrix",),
        "rank",
        "In how many directions a weight matrix has changed.",
        "||D||_F^2 / ||D||_2^2 of D = W_t - W_0; NaN at step 0; at most r for LoRA",
        tier="heavy",
        source="Rudelson & Vershynin 2007",
        label="number of directions",
    ),
    _metric(
        "weight_spectrum",
        "spectra",
        ("matrix", "singular"),
        "norm",
        "The largest singular values of the change.",
        "sigma_1..sigma_32 of D = W_t - W_0",
        tier="heavy",
        label="size of each direction",
    ),
    _metric(
        "intruder_cosine",
        "spectra",
        ("matrix", "intruder"),
        "0..1",
        "How well each of the tuned matrix's top 10 directions is one that the base had: low is an intruder.",
        "max_i |cos(u_i^0, u_j^t)| over all output-side singular vectors of W_0, j = 1..10; intruders have < 0.5",
        tier="heavy",
        source="Shuttleworth et al. 2024",
        label="likeness to the base's directions",
    ),
)

NEURON_AXES = ("half", "region", "layer", "d_mlp")
NEURONS = (
    _metric(
        "neuron_mean",
        "neurons",
        NEURON_AXES,
        "activation",
        "Mean activation of an MLP neuron over the region's tokens, each probe with equal weight.",
        "a = input of mlp.c_proj; mean over tokens in a probe, then over the probes of a half",
        label="mean activation",
    ),
    _metric(
        "neuron_sd",
        "neurons",
        NEURON_AXES,
        "activation",
        "Standard deviation of an MLP neuron's activation over the region's tokens, each probe with equal weight.",
        "sqrt(mean(a^2) - mean(a)^2)",
        label="spread of its activation",
    ),
    _metric(
        "neuron_active",
        "neurons",
        NEURON_AXES,
        "0..1",
        "Share of tokens at which the neuron is active.",
        "share of a > 0 (= pre-activation > 0)",
        label="how often it is active",
    ),
    _metric(
        "neuron_max",
        "neurons",
        ("region", "layer", "d_mlp"),
        "activation",
        "Largest activation of an MLP neuron on any token of the region.",
        "max a",
        label="largest activation",
    ),
    Measure(
        "neuron_max_token",
        "metrics",
        ("region", "layer", "d_mlp"),
        "int32",
        "token id",
        "The token at which an MLP neuron's largest activation occurred; -1 where a region has no tokens.",
        "argmax a",
        group="neurons",
        label="token of the largest activation",
    ),
)


def _lens(name: str, unit: str, meaning: str, formula: str, **more) -> Measure:
    return _metric(f"lens_{name}", "lens", ("few_example", "hidden_layer"), unit, meaning, formula, **more)


def _untested(measure: Measure, **changes: Any) -> Measure:
    """Return a row made from another one, of which no change is tested itself."""
    plain: dict[str, Any] = {"claimed": False, "control": "", "other_source": False, "by_kind": False, "smallest": 0.0}
    return replace(measure, **plain | changes)


def _frozen(lens: Measure) -> Measure:
    return _untested(
        lens,
        name=lens.name.replace("lens_", "lens_base_"),
        meaning=f"{lens.meaning.rstrip('.')}, read with the base model's ln_f and output matrix.",
        formula=f"{lens.formula}, with (ln_f, W_U) of step 0",
        label=f"{lens.label}, read with the base's output",
    )


_LENS = (
    _lens(
        "entropy",
        "bits",
        "How undecided a layer is about the next token.",
        "entropy of p_l = softmax(W_U ln_f(h_l)); mean over Q",
        source="nostalgebraist 2020; Belrose et al. 2023",
        label="how undecided",
    ),
    _lens(
        "kl",
        "bits",
        "How far a layer's prediction is from the final one.",
        "KL(p_final || p_l); 0 at the last layer",
        limits=(0, None),
        label="distance to the final prediction",
    ),
    _lens(
        "rank",
        "rank",
        "Where the right token stands in a layer's prediction; 1 is first.",
        "1 + #{logits > the target's}; mean over Q",
        caution="A mean of ranks is ruled by the worst; compare its logarithm.",
        label="place of the right token",
    ),
    _lens(
        "logprob",
        "nats",
        "How probable a layer finds the right token.",
        "log p_l(target); mean over Q",
        claimed=True,
        by_kind=True,
        smallest=0.01,
        caution="Read with the current ln_f and W_U: a change at an early layer may come from those alone.",
        label="log-probability of the right token",
    ),
)
LENS = (*_LENS, *map(_frozen, _LENS))

CAUSES = (
    _metric(
        "ablation_approx",
        "probe_gradient",
        ("few_example", "layer", "head"),
        "nats/token",
        "What taking a head away would cost, by a straight line.",
        "sum over positions of (zbar - z) dNLL/dz from one backward pass, / target tokens",
        source="Nanda 2023; Kramar et al. 2024",
        caution="Not a measurement: rank correlation with the exact one .98 early, .32 at convergence.",
        tier="heavy",
        label="cost of taking it away, estimate",
    ),
    _metric(
        "ablation_exact",
        "ablation",
        ("few_example", "layer", "head"),
        "nats/token",
        "What taking a head away costs: its output replaced by its mean over other probes.",
        "z = the head's slice of c_proj's input, replaced at all positions by its mean over the other probe half, in "
        "source and target separately; mean NLL(target) ablated - intact",
        tier="ends",
        source="Wang et al. 2022",
        by_kind=True,
        label="cost of taking it away",
    ),
    _metric(
        "graft_necessity",
        "graft",
        ("few_example", "block"),
        "nats/token",
        "What is lost if one block goes back to the base.",
        "L(W_t, block := W_0) - L(W_t)",
        tier="final",
        by_kind=True,
        label="lost without the tuned block",
    ),
    _metric(
        "graft_sufficiency",
        "graft",
        ("few_example", "block"),
        "nats/token",
        "What one tuned block alone brings the base.",
        "L(W_0) - L(W_0, block := W_t)",
        tier="final",
        by_kind=True,
        caution="Blocks need each other: these don't add up to the whole.",
        label="brought by the tuned block alone",
    ),
)


def _restored(name: str, axes: tuple[str, ...], meaning: str, formula: str, **more) -> Measure:
    return _metric(f"restore_{name}", "restoration", axes, "nats/token", meaning, formula, tier="final", **more)


OF_HEAD = ("few_example", "layer", "head", "token_kind")
OF_NUMBER = ("few_example", "restored", "layer", "head", "token_kind")
RESTORATION = (
    _restored(
        "pattern_needed",
        OF_HEAD,
        "What is lost if a head looks where it looked in the base. Positive: the change of its pattern helps.",
        "L(f_t | z := A_0 V_t) - L(f_t), z a head's output, A its pattern, V its values, at all positions",
        source="Prakash et al. 2024 (patching between base and fine-tuned models)",
    ),
    _restored(
        "pattern_enough",
        OF_HEAD,
        "What a head's tuned pattern alone brings the base.",
        "L(f_0) - L(f_0 | z := A_t V_0)",
    ),
    _restored(
        "value_needed",
        OF_HEAD,
        "What is lost if a head moves what it moved in the base, from where it looks now.",
        "L(f_t | z := A_t V_0) - L(f_t)",
    ),
    _restored(
        "output_needed",
        OF_HEAD,
        "What is lost if a head puts out what it put out in the base.",
        "L(f_t | z := z_0) - L(f_t)",
    ),
    _restored(
        "qk_needed",
        OF_HEAD,
        "What is lost if a head gets the base's query and key weights back: near 0 beside restore_pattern_needed, the "
        "pattern changed because the head's input did.",
        "L(f_t | W_Q, W_K, b_Q, b_K of the head := those of the base) - L(f_t); LoRA: of the merged matrix",
    ),
    _restored(
        "measure_needed",
        OF_NUMBER,
        "What is lost if one measured number of a head goes back to the base's, and nothing else does.",
        "L(f_t | a') - L(f_t), at each query of region Q a' = argmin KL(a' || a_t) with number(a') = number(a_0)",
        source="Csiszar 1975 (I-projection)",
        caution="attn_gold_lift: the gold tokens' share of a query's attention to the source. attn_source_normw: the "
        "values stay the tuned ones. head_write: z := z_t w_0 / w_t. A query whose row can't have the number keeps its "
        "row.",
    ),
    _restored(
        "measure_enough",
        OF_NUMBER,
        "What one measured number of a tuned head alone brings the base.",
        "L(f_0) - L(f_0 | a'), a' = argmin KL(a' || a_0) with number(a') = number(a_t)",
    ),
    _restored(
        "all_patterns_needed",
        ("few_example", "token_kind"),
        "What is lost if all heads look where they looked in the base.",
        "L(f_t | every pattern := A_0) - L(f_t); values are those of the stream that results",
    ),
    _restored(
        "all_patterns_enough",
        ("few_example", "token_kind"),
        "What the tuned patterns of all heads together bring the base.",
        "L(f_0) - L(f_0 | every pattern := A_t)",
    ),
    _restored(
        "second_reading",
        ("sequence", "layer", "head"),
        "What a second reading of random tokens loses if a head looks where it looked in the base. Negative: "
        "the change hurts copying.",
        "sequences [BOS, r_1..r_T, r_1..r_T]: mean NLL of r_2..r_T read again with z := A_0 V_t, minus that without",
    ),
    _metric(
        "second_reading_tuned",
        "restoration",
        ("sequence",),
        "nats/token",
        "Loss of random tokens when they are read a second time.",
        "sequences [BOS, r_1..r_T, r_1..r_T]: mean NLL of r_2..r_T read again",
        tier="final",
    ),
    _metric(
        "second_reading_base",
        "restoration",
        ("sequence",),
        "nats/token",
        "Loss of the base on random tokens when they are read a second time.",
        "sequences [BOS, r_1..r_T, r_1..r_T]: mean NLL of r_2..r_T read again",
        tier="final",
    ),
)


def _under_noise(name: str, axes: tuple[str, ...], of: str) -> Measure:
    """Return the row of a restoration in bases that changed by noise."""
    return _metric(
        f"band_restore_{name}",
        "restoration",
        ("perturbation", *axes),
        "nats/token",
        f"{of} where a perturbed base stands for the tuned model: what such a patch costs if the change is noise.",
        "mean over 12 probes, of the first of value_first and all that the run has; 19 perturbations, and only where "
        "the interval of the real cost excludes 0",
        tier="final",
    )


UNDER_NOISE = (
    _under_noise("pattern", ("layer", "head"), "restore_pattern_needed"),
    _under_noise("measure", ("restored", "layer", "head"), "restore_measure_needed"),
    _under_noise("second_reading", ("layer", "head"), "restore_second_reading"),
)

_MEASURED = (*ATTENTION, *HIDDEN, *LEARNING, *GRADIENTS, *WEIGHTS, *NEURONS, *LENS, *CAUSES, *RESTORATION, *UNDER_NOISE)


def _control(measure: Measure) -> Measure:
    """Return the row of the same measure on general text."""
    return _untested(
        measure,
        name=f"control_{measure.name}",
        axes=(measure.control, *measure.axes[1:]),
        label=f"{measure.label}, general text",
        meaning=f"{measure.name} on general text, which nothing was trained on, "
        + ("over all tokens of the text." if measure.name == "probe_loss" else "at the positions of probes."),
    )


def _other(measure: Measure) -> Measure:
    """Return the row of the same measure with every target behind another probe's source, at the headline alone."""
    return _untested(
        measure,
        name=f"other_{measure.name}",
        axes=(measure.axes[0], *measure.unit_axes),
        label=f"{measure.label}, another article",
        meaning=f"{measure.name} of each target behind another probe's source and template: what the format alone does "
        "to it. In region Q.",
    )


def _by_kind(measure: Measure) -> Measure:
    """Return the row of the same measure over the target tokens of each kind."""
    return _untested(
        measure,
        name=f"{measure.name}_by_kind",
        axes=(*measure.axes, "token_kind"),
        label=f"{measure.label}, by kind of token",
        meaning=f"{measure.name} over the target tokens of each kind alone; the first kind is all tokens.",
        formula=f"{measure.formula}; over the target tokens of one kind, undefined where a probe has none",
    )


def _band(measure: Measure) -> Measure:
    """Return the row of what random perturbations of the same size do to a measure."""
    return Measure(
        f"band_{measure.name}",
        "metrics",
        ("perturbation", *measure.unit_axes),
        "float32",
        measure.unit,
        f"Change of {measure.name} when the base is perturbed at random, by as much as training changed it.",
        "mean over the 32 probes of attn_kl0, or 16 twins or sequences, of the change; each matrix of the base plus "
        "noise of the Frobenius norm (LoRA: and rank) of its real change",
        group="band",
        tier="final",
    )


def _floor(measure: Measure) -> Measure:
    """Return the row of what the precision of training alone does to a measure."""
    return Measure(
        f"floor_{measure.name}",
        "reference",
        measure.unit_axes,
        "float32",
        measure.unit,
        f"What the precision of training alone does to {measure.name} at step 0.",
        "mean over the 32 probes of attn_kl0, or 16 twins or sequences, of (training precision - float32); 0 where "
        "float32 is trained",
        group="floor",
    )


CLAIMED = tuple(measure for measure in _MEASURED if measure.claimed)
REFERENCE = (
    Measure(
        "hidden_pooled_0",
        "reference",
        ("example", "pooling", "hidden_layer", "d_model"),
        "float32",
        "activation",
        "hidden_pooled of the base, unrounded.",
        "X_l at step 0, l = 0..n_layer",
        group="hidden",
    ),
    Measure(
        "control_hidden_pooled_0",
        "reference",
        ("control_example", "pooling", "hidden_layer", "d_model"),
        "float32",
        "activation",
        "hidden_pooled of the base on general text, unrounded.",
        "X_l at step 0, l = 0..n_layer",
        group="hidden",
    ),
    Measure(
        "other_hidden_pooled_0",
        "reference",
        ("example", "hidden_layer", "d_model"),
        "float32",
        "activation",
        "The base's hidden states of each target behind another probe's source, mean over region Q, unrounded.",
        "X_l at step 0, l = 0..n_layer",
        group="hidden",
    ),
    Measure(
        "attn_logprob_0",
        "reference",
        ("kl_example", "layer", "head", "kl_row", "kl_key"),
        "float32",
        "nats",
        "Log-attention of the base at the rows of attn_kl0; -inf for keys that a row does not see.",
        "log a^0_ij",
        group="attention",
    ),
    *map(_floor, CLAIMED),
)

MEASURES: tuple[Measure, ...] = (
    *_MEASURED,
    *(_by_kind(measure) for measure in _MEASURED if measure.by_kind),
    *(_control(measure) for measure in _MEASURED if measure.control),
    *(_other(measure) for measure in _MEASURED if measure.other_source),
    *map(_band, CLAIMED),
    *REFERENCE,
)
MEASURE: dict[str, Measure] = {measure.name: measure for measure in MEASURES}
assert len(MEASURE) == len(MEASURES), "two rows of one name"
STORED = tuple(measure for measure in MEASURES if measure.folder in ("attention", "latent", "metrics"))
GROUPS = tuple(dict.fromkeys(measure.group for measure in STORED))


def axis_size(axis: int | Sequence[str]) -> int:
    """Length of an axis, of which run.json gives the size or the labels."""
    return axis if isinstance(axis, int) else len(axis)
