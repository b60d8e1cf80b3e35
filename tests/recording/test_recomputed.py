"""Stored numbers, computed again by a stranger: from probe_set.json, two checkpoints and the formulas of the table.

The functions below use nothing of the recorder: Hugging Face's attentions and hidden states, one probe at a time,
autograd and numpy. They cover at least one measure of each group. Only `grad_share` needs more: the rows trained on.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from gpt2_interp import open_run
from gpt2_interp.data.examples import Example, collate
from gpt2_interp.probes.choose import choose_probes
from gpt2_interp.probes.probe_set import GoldFact, TwinPair
from gpt2_interp.recording.recorder import SnapshotRecorder
from gpt2_interp.run_paths import RunPaths
from gpt2_interp.snapshots.store import SnapshotStore
from gpt2_interp.snapshots.table import GROUPS, MEASURE
from tests.toy import measure_fewer

VOCAB, N_LAYER, N_HEAD, D_MODEL = 40, 2, 2, 16
D_HEAD = D_MODEL // N_HEAD
KINDS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
MODULES = ["wte", "wpe", *(f"h.{i}.{kind}" for i in range(N_LAYER) for kind in KINDS)]


# --- a recorded run ----------------------------------------------------------------------------------------------


def make_examples(count: int) -> list[Example]:
    rng = random.Random(0)
    rows = [tuple(rng.randrange(1, VOCAB) for _ in range(rng.randint(20, 33))) for _ in range(count)]
    return [Example(f"row {k}", f"cluster {k % 2}", row[:-8], row[-8:-6], row[-6:]) for k, row in enumerate(rows)]


EXAMPLES = make_examples(24)
TRAIN = EXAMPLES[8:]


def gold(example: Example) -> tuple[GoldFact, ...]:
    first = len(example.prompt_ids) - 1
    who = GoldFact("who", (first, first + 1), (3, 4), (2, 3, 4, 5), (6, 7, 8))
    return who, GoldFact("where", (first + 3,), (9,), (9, 10), ())


def twin(k: int) -> TwinPair:
    one = EXAMPLES[k].input_ids
    return TwinPair(f"twin {k}", f"cluster {k}", "who", (one[:15], (*one[:4], 7, *one[5:15])), (3 + k, 11 + k))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the run "toy" of two steps, each on all training rows, and base and checkpoints as models."""
    root = tmp_path_factory.mktemp("recorded")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=48, n_embd=D_MODEL, n_layer=N_LAYER, n_head=N_HEAD, initializer_range=0.3,
        embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.save_pretrained(root / "checkpoint-0")
    with pytest.MonkeyPatch.context() as patch:
        measure_fewer(patch)
        probes = choose_probes(
            EXAMPLES[:8],
            training=TRAIN,
            control=TRAIN,
            twins=[twin(k) for k in range(5)],
            gold=gold,
            n_positions=48,
            bos_id=0,
        )
        arguments = TrainingArguments(
            str(root), max_steps=2, save_steps=1, logging_steps=1, per_device_train_batch_size=len(TRAIN),
            learning_rate=3e-2, use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        Trainer(
            model,
            arguments,
            train_dataset=[{"example": e} for e in TRAIN],
            data_collator=lambda items: collate([item["example"] for item in items], 0),
            callbacks=[SnapshotRecorder(SnapshotStore(RunPaths("toy", root)), probes)],
        ).train()
    return root


@pytest.fixture(scope="module")
def run(root):
    return open_run("toy", root)


@pytest.fixture(scope="module")
def models(root) -> list[GPT2LMHeadModel]:
    """The base and the model after each of the two steps."""
    folders = [root / f"checkpoint-{step}" for step in range(3)]
    return [GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval() for folder in folders]


# --- one probe at a time -----------------------------------------------------------------------------------------


class Pass:
    """One forward pass over one row of probe_set.json, with Hugging Face's outputs."""

    @torch.no_grad()
    def __init__(self, model: GPT2LMHeadModel, entry: dict):
        ids = torch.tensor([entry["token_ids"]])
        seen: dict[str, list[Tensor]] = {"neurons": [], "z": [], "last": []}
        with inputs_of(model, seen):
            out = model(ids, output_attentions=True, output_hidden_states=True)
        n, n_prompt = ids.shape[1], entry.get("n_source", 0) + entry.get("n_template", 0)
        self.attentions = torch.stack(out.attentions)[:, 0]  # [layer, head, query, key]
        self.hidden = torch.stack([*out.hidden_states[:-1], *seen["last"]])[:, 0]  # [hidden_layer, seq, d_model]
        self.neurons = torch.stack(seen["neurons"])[:, 0]  # [layer, seq, d_mlp]
        self.z = torch.stack(seen["z"])[:, 0]  # [layer, seq, d_model]
        self.Q = list(range(max(n_prompt - 1, 0), n - 1))
        self.A = list(range(8, n))
        self.S = list(range(1, entry.get("n_source", 0)))
        self.answers = ids[0, self.Q[0] + 1 :]
        self.n_prompt = n_prompt
        self.nll = -out.logits[0, self.Q].log_softmax(-1)[range(len(self.Q)), self.answers]  # [n_target]
        self.logits = out.logits[0]


@contextmanager
def inputs_of(model: GPT2LMHeadModel, seen: dict[str, list[Tensor]]) -> Iterator[None]:
    """Keep the inputs of each c_proj and of ln_f."""
    handles = [model.transformer.ln_f.register_forward_pre_hook(lambda _, args: seen["last"].append(args[0]))]
    for block in model.transformer.h:
        for module, name in ((block.mlp.c_proj, "neurons"), (block.attn.c_proj, "z")):
            handles.append(module.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0])))
    yield
    for handle in handles:
        handle.remove()


def passes(model: GPT2LMHeadModel, entries: list[dict]) -> list[Pass]:
    return [Pass(model, entry) for entry in entries]


def losses(model: GPT2LMHeadModel, entries: list[dict]) -> np.ndarray:
    return np.array([one.nll.mean() for one in passes(model, entries)])


def few(probes: dict) -> list[dict]:
    return [probes["example"][entry["example"]] for entry in probes["few_example"]]


def matrices(model: GPT2LMHeadModel, of: Callable[[Tensor], Tensor] = lambda weight: weight) -> list[Tensor]:
    """`of` each measured weight, c_attn in its three parts."""
    found = []
    for name in MODULES:
        weight = of(model.transformer.get_submodule(name).weight).detach()
        found += weight.chunk(3, dim=1) if name.endswith("c_attn") else [weight]
    return found


# --- one function for each measure -------------------------------------------------------------------------------


def attn_entropy(base, before, tuned, probes):
    def of(a: Tensor) -> Tensor:  # [layer, head, query, key] -> [layer, head]
        return -(a * a.clamp(min=1e-38).log2()).sum(-1).mean(-1)

    return [torch.stack([of(p.attentions[:, :, q]) for q in (p.Q, p.A)]) for p in passes(tuned, probes["example"])]


def attn_gold_lift(base, before, tuned, probes):
    lifts = []
    for one, facts in zip(passes(tuned, probes["example"]), probes["gold"], strict=True):
        top = bottom = 0
        for fact in facts:
            for q in fact["queries"]:
                a = one.attentions[:, :, q]
                top = top + a[..., fact["value"]].sum(-1)
                bottom = bottom + len(fact["value"]) / len(one.S) * a[..., one.S].sum(-1)
        lifts.append(top / bottom)
    return lifts


def attn_kl0(base, before, tuned, probes):
    entries = [(probes["example"][e["example"]], e["rows"]) for e in probes["kl_example"]]
    rows = [(Pass(tuned, e).attentions[:, :, at], Pass(base, e).attentions[:, :, at]) for e, at in entries]
    return [torch.where(a > 0, a * (a / a_0).log2(), 0).sum(-1).mean(-1) for a, a_0 in rows]


def induction(base, before, tuned, probes):
    found = []
    for one in passes(tuned, probes["sequence"]):
        T = (one.attentions.shape[-1] - 1) // 2
        found.append(torch.stack([one.attentions[:, :, q, q - T + 1] for q in range(T + 1, 2 * T + 1)]).mean(0))
    return found


def control_attn_sink(base, before, tuned, probes):
    rows = passes(tuned, probes["control_example"])
    return [torch.stack([p.attentions[:, :, [i for i in q if i], 0].mean(-1) for q in (p.Q, p.A)]) for p in rows]


def other_attn_sink(base, before, tuned, probes):
    return [p.attentions[:, :, p.Q, 0].mean(-1) for p in passes(tuned, probes["other_source"])]


def other_attn_entropy_norm_ns(base, before, tuned, probes):
    found = []
    for one in passes(tuned, probes["other_source"]):
        rows = [one.attentions[:, :, i, 1 : i + 1] / one.attentions[:, :, i, 1 : i + 1].sum(-1, True) for i in one.Q]
        found.append(torch.stack([-(a * a.log2()).sum(-1) / np.log2(a.shape[-1]) for a in rows]).mean(0))
    return found


def other_attn_distance_ns(base, before, tuned, probes):
    found = []
    for one in passes(tuned, probes["other_source"]):
        far = []
        for i in one.Q:
            a = one.attentions[:, :, i, 1 : i + 1]
            far.append((a * torch.arange(i - 1, -1, -1)).sum(-1) / a.sum(-1) / ((i - 1) / 2))
        found.append(torch.stack(far).mean(0))
    return found


def _source_share_ns(rows: list[Pass]) -> list[Tensor]:
    found = []
    for one in rows:
        a = one.attentions[:, :, one.Q]
        found.append((a[..., one.S].sum(-1) / (1 - a[..., 0])).mean(-1))
    return found


def other_attn_source_ns(base, before, tuned, probes):
    return _source_share_ns(passes(tuned, probes["other_source"]))


def control_probe_loss(base, before, tuned, probes):
    texts = [{**e, "token_ids": e["text_ids"], "n_source": 0, "n_template": 0, "n_target": len(e["text_ids"])}
             for e in probes["control_example"]]  # fmt: skip
    return losses(tuned, texts)


def control_attn_source_ns(base, before, tuned, probes):
    return _source_share_ns(passes(tuned, probes["control_example"]))


@torch.no_grad()
def _moved(model: GPT2LMHeadModel, one: Pass) -> Tensor:
    """f(x_j) of each head: [layer, head, key, d_model]."""
    found = []
    for block, x in zip(model.transformer.h, one.hidden, strict=False):
        v = block.attn.c_attn(block.ln_1(x)).split(D_MODEL, dim=-1)[2]
        weights = block.attn.c_proj.weight.split(D_HEAD)
        found.append(torch.stack([part @ w for part, w in zip(v.split(D_HEAD, -1), weights, strict=True)]))
    return torch.stack(found)


def _normw(model: GPT2LMHeadModel, rows: list[Pass]) -> list[Tensor]:
    found = []
    for one in rows:
        w = one.attentions[:, :, one.Q] * _moved(model, one).norm(dim=-1)[:, :, None]
        found.append((w[..., one.S].sum(-1) / w.sum(-1)).mean(-1))
    return found


def other_attn_source_normw(base, before, tuned, probes):
    return _normw(tuned, passes(tuned, probes["other_source"]))


def control_attn_source_normw(base, before, tuned, probes):
    return _normw(tuned, passes(tuned, probes["control_example"]))


def other_head_write(base, before, tuned, probes):
    found = []
    for one in passes(tuned, probes["other_source"]):
        written = (one.attentions[:, :, one.Q] @ _moved(tuned, one)).norm(dim=-1)  # [layer, head, query]
        found.append((written / one.hidden[:-1, one.Q].norm(dim=-1)[:, None]).mean(-1))
    return found


def other_hidden_displacement(base, before, tuned, probes):
    x, x_0 = (
        torch.stack([p.hidden[:, p.Q].mean(1) for p in passes(model, probes["other_source"])])
        for model in (tuned, base)
    )
    return (x - x_0).norm(dim=-1) / (x_0 - x_0.mean(0)).norm(dim=-1).mean(0)


def attn_pattern(base, before, tuned, probes):
    n = max(len(entry["token_ids"]) for entry in probes["pattern"])
    folded = np.full((len(probes["pattern"]), N_LAYER, N_HEAD, n * (n + 1) // 2), np.nan)
    for index, one in enumerate(passes(tuned, probes["pattern"])):
        for i in range(one.attentions.shape[-1]):
            folded[index, :, :, i * (i + 1) // 2 :][..., : i + 1] = one.attentions[:, :, i, : i + 1]
    return folded


def pooled(model: GPT2LMHeadModel, probes: dict) -> Tensor:
    """[example, pooling, hidden_layer, d_model]"""
    rows = passes(model, probes["example"])
    places = [(p.S, p.Q, [p.n_prompt - 1]) for p in rows]
    return torch.stack(
        [torch.stack([p.hidden[:, at].mean(1) for at in where]) for p, where in zip(rows, places, strict=True)]
    )


def hsic(K: Tensor, L: Tensor) -> Tensor:
    """The U-statistic: the mean over all tuples of four different examples."""
    tuples = itertools.permutations(range(len(K)), 4)
    return torch.stack([K[i, j] * (L[i, j] + L[k, m] - 2 * L[i, k]) for i, j, k, m in tuples]).mean()


def cka_within_clusters(base, before, tuned, probes):
    clusters = [entry["cluster"] for entry in probes["example"]]
    found = []
    for x, y in zip(*(pooled(model, probes).double().flatten(1, 2).unbind(1) for model in (tuned, base)), strict=True):
        sums = torch.zeros(3, dtype=torch.float64)
        for cluster in set(clusters):
            rows = [i for i, of in enumerate(clusters) if of == cluster]
            if len(rows) >= 4:
                K, L = x[rows] @ x[rows].T, y[rows] @ y[rows].T
                sums += torch.stack([hsic(K, L), hsic(K, K), hsic(L, L)])
        found.append(sums[0] / (sums[1] * sums[2]).sqrt())
    return torch.stack(found).reshape(3, N_LAYER + 1)


def hidden_displacement(base, before, tuned, probes):
    x, x_0 = pooled(tuned, probes), pooled(base, probes)
    return (x - x_0).norm(dim=-1) / (x_0 - x_0.mean(0)).norm(dim=-1).mean(0)


def probe_loss(base, before, tuned, probes):
    return losses(tuned, probes["example"])


def training_probe_loss(base, before, tuned, probes):
    return losses(tuned, probes["training_example"])


def of_kinds(numbers: Tensor, kinds: dict[str, list[int]], n_prompt: int) -> Tensor:
    """Mean of numbers [..., n_target] over the target tokens of each kind, [..., kind]; kinds: positions of tokens."""
    return torch.stack([numbers[..., [at - n_prompt for at in kinds[kind]]].mean(-1) for kind in kinds], dim=-1)


def few_kinds(probes: dict) -> list[dict[str, list[int]]]:
    return [probes["token_kinds"][entry["example"]] for entry in probes["few_example"]]


def probe_loss_by_kind(base, before, tuned, probes):
    rows = zip(passes(tuned, probes["example"]), probes["token_kinds"], strict=True)
    return [of_kinds(one.nll, kinds, one.n_prompt) for one, kinds in rows]


def context_gain_by_kind(base, before, tuned, probes):
    own, other = passes(tuned, probes["example"]), passes(tuned, probes["other_source"])
    rows = zip(own, other, probes["token_kinds"], strict=True)
    return [of_kinds(far.nll - near.nll, kinds, near.n_prompt) for near, far, kinds in rows]


def context_gain(base, before, tuned, probes):
    return losses(tuned, probes["other_source"]) - losses(tuned, probes["example"])


def twin_effect(base, before, tuned, probes):
    def odds(ids: list[int], v: int, other: int) -> float:
        logits = Pass(tuned, {"token_ids": ids}).logits[-1]
        return (logits[v] - logits[other]).item()

    pairs = [(entry["prefixes"], entry["answers"]) for entry in probes["pair"]]
    return np.array([(odds(x, *tokens) - odds(twin, *tokens)) / 2 for (x, twin), tokens in pairs])


def grad_share(base, before, tuned, probes):
    batch = collate(TRAIN, 0)
    before.zero_grad()
    before(**batch).loss.backward()
    squares = dict.fromkeys([*MODULES, "rest"], 0.0)
    for name, parameter in before.transformer.named_parameters():
        module = name.removesuffix(".weight")
        squares[module if module in squares else "rest"] += parameter.grad.double().square().sum().item()
    return np.sqrt(np.array(list(squares.values())) / sum(squares.values()))


def probe_grad(base, before, tuned, probes):
    tuned.zero_grad()
    entries = few(probes)
    for entry in entries:
        ids = torch.tensor([entry["token_ids"]])
        labels = ids.clone()
        labels[:, : entry["n_source"] + entry["n_template"]] = -100
        (tuned(ids, labels=labels).loss / len(entries)).backward()
    return np.array([part.norm().item() for part in matrices(tuned, lambda weight: weight.grad)])


def weight_change(base, before, tuned, probes):
    return np.array([(w - w_0).norm().item() for w, w_0 in zip(matrices(tuned), matrices(base), strict=True)])


def weight_spectrum(base, before, tuned, probes):
    values = np.full((len(matrices(base)), 32), np.nan)
    for row, w, w_0 in zip(values, matrices(tuned), matrices(base), strict=True):
        found = np.linalg.svd((w - w_0).double().numpy(), compute_uv=False)
        row[: len(found)] = found[:32]
    return values


def neuron_mean(base, before, tuned, probes):
    rows = passes(tuned, probes["example"])
    halves = [[p for p, e in zip(rows, probes["example"], strict=True) if e["half"] == half] for half in (0, 1)]
    return torch.stack(
        [
            torch.stack([torch.stack([p.neurons[:, getattr(p, r)].mean(1) for p in half]).mean(0) for r in "QA"])
            for half in halves
        ]
    )


@torch.no_grad()
def log_probabilities(model: GPT2LMHeadModel, one: Pass) -> Tensor:
    """log p of each target token as each layer's state would have it, [hidden_layer, n_target]."""
    log_p = model.lm_head(model.transformer.ln_f(one.hidden[:, one.Q])).log_softmax(-1)
    return log_p[:, range(len(one.Q)), one.answers]


def lens_logprob(base, before, tuned, probes):
    return [log_probabilities(tuned, one).mean(-1) for one in passes(tuned, few(probes))]


def lens_logprob_by_kind(base, before, tuned, probes):
    rows = zip(passes(tuned, few(probes)), few_kinds(probes), strict=True)
    return [of_kinds(log_probabilities(tuned, one), kinds, one.n_prompt) for one, kinds in rows]


def ablated(tuned: GPT2LMHeadModel, probes: dict) -> list[Tensor]:
    """What taking each head away costs each target token, of each few example [layer, head, n_target]."""
    entries = few(probes)
    rows = passes(tuned, entries)
    parts = [torch.stack([p.z[:, : p.n_prompt].mean(1), p.z[:, p.n_prompt :].mean(1)]) for p in rows]
    costs = []
    for one, entry in zip(rows, entries, strict=True):
        costs.append(torch.zeros(N_LAYER, N_HEAD, len(one.nll)))
        others = [part for part, other in zip(parts, entries, strict=True) if other["half"] != entry["half"]]
        prompt, target = torch.stack(others).mean(0)  # each [layer, d_model]
        for layer, head in np.ndindex(N_LAYER, N_HEAD):

            def replace(_, args, layer=layer, head=head, one=one, prompt=prompt, target=target):
                z, at = args[0].clone(), slice(head * D_HEAD, (head + 1) * D_HEAD)
                z[0, : one.n_prompt, at], z[0, one.n_prompt :, at] = prompt[layer, at], target[layer, at]
                return (z,)

            handle = tuned.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replace)
            costs[-1][layer, head] = Pass(tuned, entry).nll - one.nll
            handle.remove()
    return costs


def ablation_exact(base, before, tuned, probes):
    return [costs.mean(-1) for costs in ablated(tuned, probes)]


def ablation_exact_by_kind(base, before, tuned, probes):
    rows = zip(ablated(tuned, probes), few_kinds(probes), few(probes), strict=True)
    return [of_kinds(costs, kinds, entry["n_source"] + entry["n_template"]) for costs, kinds, entry in rows]


def restore_output_needed(base, before, tuned, probes):
    found = []
    rows = zip(few(probes), few_kinds(probes), passes(base, few(probes)), passes(tuned, few(probes)), strict=True)
    for entry, kinds, start, now in rows:
        costs = torch.zeros(N_LAYER, N_HEAD, len(now.nll))
        for layer, head in np.ndindex(N_LAYER, N_HEAD):

            def replace(_, args, layer=layer, head=head, start=start):
                z, at = args[0].clone(), slice(head * D_HEAD, (head + 1) * D_HEAD)
                z[0, :, at] = start.z[layer][:, at]
                return (z,)

            handle = tuned.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replace)
            costs[layer, head] = Pass(tuned, entry).nll - now.nll
            handle.remove()
        found.append(of_kinds(costs, kinds, now.n_prompt))
    return found


def grafted(into: GPT2LMHeadModel, from_: GPT2LMHeadModel, probes: dict) -> list[Tensor]:
    """Loss of each target token of `into` with each block of `from_`, less its own: of each few example [block,
    n_target]."""
    blocks = [("wte", "wpe")]
    for i in range(N_LAYER):
        blocks += [(f"h.{i}.ln_1", f"h.{i}.attn"), (f"h.{i}.ln_2", f"h.{i}.mlp")]
    intact, weights, changes = passes(into, few(probes)), into.state_dict(), []
    for block in [*blocks, ("ln_f",)]:
        mixed = GPT2LMHeadModel(into.config).eval()
        back = {k: v for k, v in from_.state_dict().items() if k.removeprefix("transformer.").startswith(block)}
        mixed.load_state_dict({**weights, **back, "lm_head.weight": {**weights, **back}["transformer.wte.weight"]})
        mixed.set_attn_implementation("eager")
        changes.append([after.nll - one.nll for after, one in zip(passes(mixed, few(probes)), intact, strict=True)])
    return [torch.stack(of_example) for of_example in zip(*changes, strict=True)]


def graft_necessity(base, before, tuned, probes):
    return [changes.mean(-1) for changes in grafted(tuned, base, probes)]


def grafts_by_kind(changes: list[Tensor], probes: dict) -> list[Tensor]:
    rows = zip(changes, few_kinds(probes), few(probes), strict=True)
    return [of_kinds(of_example, kinds, e["n_source"] + e["n_template"]) for of_example, kinds, e in rows]


def graft_necessity_by_kind(base, before, tuned, probes):
    return grafts_by_kind(grafted(tuned, base, probes), probes)


def graft_sufficiency_by_kind(base, before, tuned, probes):
    return grafts_by_kind([-changes for changes in grafted(base, tuned, probes)], probes)


def band_probe_loss(base, before, tuned, probes):
    start, changes = losses(base, few(probes)), []
    for seed in range(2):
        noisy = GPT2LMHeadModel(base.config).eval()
        noisy.load_state_dict(base.state_dict())
        noisy.set_attn_implementation("eager")
        generator = torch.Generator().manual_seed(seed)
        for name in MODULES:
            w, w_0, into = (m.transformer.get_submodule(name).weight.detach() for m in (tuned, base, noisy))
            noise, parts = torch.randn(w.shape, generator=generator), 3 if name.endswith("c_attn") else 1
            for change, part in zip((w - w_0).chunk(parts, 1), noise.chunk(parts, 1), strict=True):
                part *= change.norm() / part.norm()
            into += noise
        changes.append((losses(noisy, few(probes)) - start).mean())
    return np.array(changes)


RECOMPUTED = (
    other_attn_sink, other_attn_entropy_norm_ns, other_attn_distance_ns, other_attn_source_ns, other_attn_source_normw,
    other_head_write, other_hidden_displacement, control_attn_source_ns, control_attn_source_normw, control_probe_loss,
    attn_entropy, attn_gold_lift, attn_kl0, induction, control_attn_sink, attn_pattern, hidden_displacement,
    cka_within_clusters, probe_loss, training_probe_loss, context_gain, twin_effect, grad_share, probe_grad,
    weight_change, weight_spectrum, neuron_mean, lens_logprob, ablation_exact, graft_necessity, band_probe_loss,
    probe_loss_by_kind, context_gain_by_kind, lens_logprob_by_kind, ablation_exact_by_kind, graft_necessity_by_kind,
    graft_sufficiency_by_kind, restore_output_needed,
)  # fmt: skip


def test_every_group_is_recomputed():
    assert {MEASURE[function.__name__].group for function in RECOMPUTED} == set(GROUPS)


def test_the_first_kind_is_the_mean_over_all_tokens(run):
    snapshot = run.snapshot(2)
    by_kind = [name for name in snapshot if name.endswith("_by_kind")]
    assert by_kind == [f"{name}_by_kind" for name in MEASURE if MEASURE[name].by_kind]
    for name in by_kind:
        first = snapshot[name].sel(token_kind="all").values
        np.testing.assert_allclose(first, snapshot[name.removesuffix("_by_kind")].values, rtol=1e-5, atol=1e-6)
        assert not np.isfinite(snapshot[name].values).all()  # not every probe has every kind


@pytest.mark.parametrize("recompute", RECOMPUTED, ids=lambda function: function.__name__)
def test_the_stored_number_is_what_a_stranger_computes(run, models, recompute):
    name = recompute.__name__
    stored = run.snapshot(2, [name])[name].values
    computed = recompute(*models, run.probe_set)
    computed = np.stack([np.asarray(row) for row in computed]) if isinstance(computed, list) else np.asarray(computed)
    assert stored.shape == computed.shape and np.isfinite(stored).any() and np.nanstd(stored) > 0
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if stored.dtype == np.float16 else {"rtol": 1e-3, "atol": 3e-5}
    np.testing.assert_allclose(stored, computed, **tolerance)
