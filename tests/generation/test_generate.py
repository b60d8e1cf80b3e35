import contextlib
import itertools
import random

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from gpt2_interp.errors import InputError
from gpt2_interp.generation import processors
from gpt2_interp.generation.generate import (
    Generated,
    GenerationInterrupted,
    TextStream,
    _BatchRun,
    _Row,
    generate,
    text_of,
)
from gpt2_interp.generation.probabilities import token_probabilities
from gpt2_interp.model import fast_layers
from gpt2_interp.model.fast_layers import RoomyLayer, head_in_blocks
from gpt2_interp.model.load import MODEL_CLASSES, add_lora
from gpt2_interp.model.settings import ModelArguments
from gpt2_interp.model.tokenizers import load_tokenizer
from tests.conftest import decoding

PROMPTS = [[40, 41, 42], [50] * 20, [60, 61, 62, 63, 64, 65, 66], [7], [599, 8, 9, 8, 9, 8]]
NEW = 12
MODES = [
    decoding("greedy", max_new_tokens=NEW),
    decoding("greedy", max_new_tokens=NEW, no_repeat_ngram=1, repetition_penalty=1.3),
    decoding("beam", num_beams=3, max_new_tokens=NEW),
    decoding("beam", max_new_tokens=NEW, num_sequences=3, length_penalty=-1.5, no_repeat_ngram=2),
    decoding("beam", max_new_tokens=NEW, early_stopping=True, repetition_penalty=1.5),
    decoding("sampling", max_new_tokens=NEW, seed=3),
    decoding("sampling", max_new_tokens=NEW, temperature=0.6, repetition_penalty=1.4, num_sequences=3),
    decoding("top_k", max_new_tokens=NEW, top_k=7, no_repeat_ngram=2),
    decoding("top_p", max_new_tokens=NEW, top_p=0.7, num_sequences=2),
    decoding("top_p", max_new_tokens=NEW, top_p=0.8, top_k=20, temperature=1.7, repetition_penalty=0.8),
]
DRAWN = [settings for settings in MODES if settings.is_random]
SEARCHED = [settings for settings in MODES if not settings.is_random]


def spread(base, implementation="huggingface"):
    """The toy base with a sharper head, so that its distribution is neither flat nor decided."""
    model = MODEL_CLASSES[implementation].from_pretrained(base)
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(8)
    return model.eval()


@pytest.fixture(scope="module")
def toy(toy_base):
    return spread(toy_base), load_tokenizer(str(toy_base))


def theirs(model, tokenizer, prompt, s, **more):
    """What transformers' own `generate` makes of one prompt at the same settings: [sequence] of new ids without EOS."""
    arguments = {
        "do_sample": s.is_random, "max_new_tokens": s.max_new_tokens, "repetition_penalty": s.repetition_penalty,
        "no_repeat_ngram_size": s.no_repeat_ngram, "pad_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    if s.is_random:
        arguments |= {"temperature": s.temperature, "top_k": s.top_k or 0, "top_p": s.top_p or 1.0}
    if s.is_beam:
        names = ("num_beams", "early_stopping", "length_penalty")
        arguments |= {name: getattr(s, name) for name in names} | {"num_return_sequences": s.num_sequences}
    output = model.generate(torch.tensor([prompt]), **arguments, **more)[:, len(prompt) :].tolist()
    eos = tokenizer.eos_token_id
    return [tuple(ids[: ids.index(eos)] if eos in ids else ids) for ids in output]


def ids_of(results):
    return [[g.ids for g in sequences] for sequences in results]


# --- the same tokens as ... ---------------------------------------------------------------------------------------


def test_greedy_equals_the_argmax_loop(toy):
    model, tokenizer = toy
    ids = list(PROMPTS[2])
    for _ in range(NEW):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert tokenizer.eos_token_id not in ids
    new = tuple(ids[len(PROMPTS[2]) :])
    (generated,) = generate(model, tokenizer, [PROMPTS[2]], MODES[0])[0]
    assert generated == Generated(new, tokenizer.decode(new), "length", None)


@pytest.mark.parametrize("settings", SEARCHED, ids=str)
def test_searches_equal_transformers(toy, settings):
    for prompt in PROMPTS:
        assert ids_of(generate(*toy, [prompt], settings)) == [theirs(*toy, prompt, settings)]


@pytest.mark.parametrize("settings", DRAWN, ids=str)
def test_draws_equal_transformers_from_the_same_seed(toy, settings):
    """Sequence k is what transformers draws from seed + k."""
    for prompt in PROMPTS:
        expected = []
        for k in range(settings.num_sequences):
            torch.manual_seed(settings.seed + k)
            expected += theirs(*toy, prompt, settings)
        assert ids_of(generate(*toy, [prompt], settings)) == [expected]


@pytest.mark.parametrize("settings", MODES, ids=str)
def test_a_batch_equals_one_by_one_in_the_given_order(toy, settings):
    """Other prompts of other lengths beside a prompt, padding (which is EOS) and several sequences change nothing."""
    seeds = [11, 5, 11, 0, 2**32]
    if not settings.is_random:
        seeds = None
    together = generate(*toy, PROMPTS, settings, seeds=seeds, batch_size=16)
    alone = [
        generate(*toy, [prompt], settings, seeds=seeds and [seeds[i]], batch_size=1)[0]
        for i, prompt in enumerate(PROMPTS)
    ]
    assert together == alone
    assert generate(*toy, PROMPTS[::-1], settings, seeds=seeds and seeds[::-1], batch_size=4) == alone[::-1]
    assert len({g.ids for sequences in together for g in sequences}) > 4
    counts = {len(sequences) for sequences in together}
    assert counts == {settings.num_sequences}
    if settings.is_random:
        assert [g.seed for g in together[1]] == [5 + k for k in range(len(together[1]))]


def test_the_written_out_model_and_an_adapter_are_models_like_any_other(toy, toy_base):
    model, tokenizer = toy
    scratch = spread(toy_base, "scratch")
    adapted = add_lora(spread(toy_base), ModelArguments(), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():  # as if it were trained
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    for settings in (MODES[1], MODES[3], DRAWN[-1]):
        expected = generate(model, tokenizer, PROMPTS, settings)
        assert generate(scratch, tokenizer, PROMPTS, settings) == expected
        ours = generate(adapted, tokenizer, PROMPTS, settings)
        assert ours == [generate(adapted, tokenizer, [prompt], settings)[0] for prompt in PROMPTS]
        assert ours != expected


# --- what the settings promise --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        decoding("sampling", temperature=0.5, max_new_tokens=1),
        decoding("top_p", top_k=40, top_p=0.8, temperature=1.5, max_new_tokens=1),
    ],
    ids=str,
)
def test_draws_have_the_processed_distribution(toy, settings):
    """Chi-square of 20,000 first tokens against the probabilities computed here by hand."""
    model, tokenizer = toy
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1].double() / settings.temperature
    order = logits.argsort(descending=True)
    p = torch.zeros_like(logits)
    kept = order[: settings.top_k]
    p[kept] = logits[kept].softmax(0)
    if settings.top_p is not None:  # the fewest tokens that together reach p
        cut = int((p[kept].cumsum(0) < settings.top_p).sum()) + 1
        p[kept[cut:]] = 0
        p /= p.sum()
    n = 20_000
    row = torch.tensor([PROMPTS[0]])
    processors = LogitsProcessorList(
        _BatchRun(model, tokenizer, [_Row(0, PROMPTS[0], 1, seed) for seed in range(n)], settings, None)._processors()
    )
    with torch.no_grad():
        scores = model(row).logits[:, -1].expand(n, -1)
    drawn = processors(row.expand(n, -1), scores).argmax(dim=1).bincount(minlength=len(p)).numpy()
    assert drawn[p.numpy() == 0].sum() == 0
    expected = n * p.numpy()
    common = expected >= 5
    observed = [*drawn[common], drawn[~common].sum()]
    wanted = [*expected[common], expected[~common].sum()]
    if wanted[-1] == 0:
        observed, wanted = observed[:-1], wanted[:-1]
    assert len(wanted) > 10
    assert chisquare(observed, wanted).pvalue > 1e-3
    wrong = np.roll(wanted, 1)
    assert chisquare(observed, wrong).pvalue < 1e-9  # the test sees a difference


@pytest.mark.parametrize("top_p", [None, 0.95])
def test_every_drawn_token_is_among_the_k_likeliest(toy, top_p):
    settings = decoding("top_k", top_k=4, top_p=top_p, temperature=3.0, max_new_tokens=40, num_sequences=4)
    ranks = []
    for sequence in generate(*toy, [PROMPTS[0]], settings)[0]:
        ranks += [token.rank for token in token_probabilities(toy[0], PROMPTS[0], sequence.ids)]
    assert set(ranks) == {1, 2, 3, 4} and len(ranks) > 100


def test_every_drawn_token_is_in_the_nucleus(toy):
    """The tokens likelier than the drawn one have less than p together."""
    settings = decoding("top_p", top_p=0.5, max_new_tokens=40, num_sequences=4)
    seen = 0
    for sequence in generate(*toy, [PROMPTS[0]], settings)[0]:
        tokens = token_probabilities(toy[0], PROMPTS[0], sequence.ids, top=600)
        seen += sum(token.rank > 3 for token in tokens)
        for token in tokens:
            assert sum(p for _, p in token.alternatives[: token.rank - 1]) < 0.5 + 1e-6
    assert seen > 10


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_occurs_twice_and_padding_is_no_text(toy, size):
    settings = decoding(max_new_tokens=60, no_repeat_ngram=size)
    plain = generate(*toy, PROMPTS, decoding(max_new_tokens=60))
    for i, (generated,) in enumerate(generate(*toy, PROMPTS, settings)):
        text = [*PROMPTS[i], *generated.ids]
        made = [tuple(text[j : j + size]) for j in range(len(text) - size + 1)]
        # What the prompt repeats itself stays; each new n-gram is new.
        first = max(0, len(PROMPTS[i]) - size + 1)
        assert all(gram not in made[:j] for j, gram in enumerate(made) if j >= first)
        assert generated.ids != plain[i][0].ids


def test_lengths(toy):
    model, tokenizer = toy
    context = model.config.n_positions
    counted = generate(*toy, PROMPTS[:3], decoding(max_length=22))
    assert [(len(g.ids), g.ended) for (g,) in counted] == [(19, "length"), (2, "length"), (15, "length")]
    whole = generate(*toy, PROMPTS[:3], decoding(max_new_tokens=30))
    assert [g.ids for (g,) in counted] == [w.ids[: len(g.ids)] for (g,), (w,) in zip(counted, whole, strict=True)]
    with pytest.raises(InputError, match="--max_length 20"):
        generate(*toy, PROMPTS, decoding(max_length=20))
    with pytest.raises(InputError, match=f"context {context}"):
        generate(*toy, [[5] * context], decoding())
    with pytest.raises(InputError, match="empty"):
        generate(*toy, [[5], []], decoding())


@pytest.mark.parametrize("method", ["greedy", "beam", "sampling"])
def test_a_long_and_a_short_prompt_share_a_batch_up_to_the_context(toy, caplog, method):
    """Beside 30 new tokens of the short prompt, the long one's 5 end where the context does."""
    model, tokenizer = toy
    prompts = [[3, 4, 5], [40, 41, 42, 43] * 100]
    prompts[1] = prompts[1][: model.config.n_positions - 5]
    settings = decoding(method, max_new_tokens=30)
    together = generate(*toy, prompts, settings)
    assert len(together[0][0].ids) > 20  # positions beyond the context, beside it
    assert (len(together[1][0].ids), together[1][0].ended) == (5, "length")
    assert together == [generate(*toy, [prompt], settings)[0] for prompt in prompts]
    assert not caplog.records
    assert not model._forward_pre_hooks and "forward" not in vars(model.lm_head)


@pytest.mark.parametrize("row", [1, 3])
def test_an_end_of_text_ends_its_row_only(toy_base, row):
    """The written EOS is no part of the ids; other rows go on. Row 3 is padded with EOS, which it may write once."""
    model, tokenizer = spread(toy_base), load_tokenizer(str(toy_base))
    eos, settings = tokenizer.eos_token_id, decoding(max_new_tokens=NEW, no_repeat_ngram=1)
    before = generate(model, tokenizer, PROMPTS, settings)
    fourth = before[row][0].ids[3]
    others = [i for i in range(len(PROMPTS)) if fourth not in before[i][0].ids]
    assert others
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())  # untied
    with torch.no_grad():  # EOS takes the place of that token
        model.lm_head.weight[[fourth, eos]] = model.lm_head.weight[[eos, fourth]]
    after = generate(model, tokenizer, PROMPTS, settings)
    assert (after[row][0].ids, after[row][0].ended) == (before[row][0].ids[:3], "end of text")
    assert [after[i] for i in others] == [before[i] for i in others]
    assert after[row] == generate(model, tokenizer, [PROMPTS[row]], settings)[0]


@pytest.mark.parametrize("method", ["greedy", "beam", "top_p"])
def test_time_ends_a_text_and_keeps_it(toy, monkeypatch, method):
    clock = iter(range(1000))
    monkeypatch.setattr(processors.time, "monotonic", lambda: next(clock))  # a second a step
    settings = decoding(method, max_new_tokens=50, max_seconds=6)
    limited = generate(*toy, PROMPTS, settings)
    assert [(len(g.ids), g.ended) for (g,) in limited] == [(6, "time")] * len(PROMPTS)
    monkeypatch.undo()
    if method != "beam":  # where six tokens may begin another text than fifty
        whole = generate(*toy, PROMPTS, decoding(method, max_new_tokens=50))
        assert [g.ids for (g,) in limited] == [g.ids[:6] for (g,) in whole]


def test_settings_decide_and_not_the_folder(toy_base):
    model, tokenizer = spread(toy_base), load_tokenizer(str(toy_base))
    expected = [generate(model, tokenizer, PROMPTS, settings) for settings in (MODES[0], MODES[2], DRAWN[0])]
    config = model.generation_config
    config.do_sample, config.temperature, config.top_k, config.top_p = True, 0.3, 3, 0.2
    config.repetition_penalty, config.no_repeat_ngram_size, config.num_beams, config.max_time = 2.0, 1, 2, 1e-9
    config.max_length, config.length_penalty, config.num_return_sequences = 30, 3.0, 2
    assert [generate(model, tokenizer, PROMPTS, settings) for settings in (MODES[0], MODES[2], DRAWN[0])] == expected


def test_wrong_settings_and_streams_are_refused(toy):
    with pytest.raises(InputError, match="--temperature"):
        generate(*toy, PROMPTS, decoding(temperature=0.5))
    for prompts, settings in (
        (PROMPTS[:2], decoding()),
        (PROMPTS[:1], decoding("beam")),
        (PROMPTS[:1], decoding("sampling", num_sequences=2)),
    ):
        with pytest.raises(InputError, match="streamed"):
            generate(*toy, prompts, settings, streamer=TextStream(toy[1], print))


# --- what surrounds them --------------------------------------------------------------------------------------------


def test_random_state_and_mode_are_left_alone(toy_base):
    model, tokenizer = spread(toy_base).train(), load_tokenizer(str(toy_base))
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    first = generate(model, tokenizer, PROMPTS, DRAWN[0])
    assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before
    assert model.training
    torch.manual_seed(6)
    assert first == generate(model, tokenizer, PROMPTS, DRAWN[0])  # dropout is off, and no other seed is read
    assert first != generate(model, tokenizer, PROMPTS, decoding("sampling", max_new_tokens=NEW, seed=4))


def test_autocast_casts_weights_once_and_not_for_every_token(toy):
    model, tokenizer = toy
    shape = list(model.transformer.h[0].attn.c_attn.weight.shape)
    with torch.profiler.profile(record_shapes=True) as profile:
        generate(*toy, PROMPTS[:1], MODES[0], context=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    casts = [
        e for e in profile.events() if e.name == "aten::_to_copy" and e.input_shapes and e.input_shapes[0] == shape
    ]
    assert len(casts) == model.config.n_layer


def test_the_head_in_blocks_is_the_head(toy, monkeypatch):
    model, tokenizer = toy
    monkeypatch.setattr(fast_layers, "HEAD_BLOCK", 70)  # the toy's 600 tokens in nine, the last one short
    x = torch.randn(5, 1, model.config.n_embd)
    expected = model.lm_head(x)
    with head_in_blocks(model):
        assert torch.allclose(model.lm_head(x), expected, atol=1e-5)
        assert torch.equal(model.lm_head(x[:1]), torch.nn.functional.linear(x[:1], model.lm_head.weight))
    assert generate(*toy, PROMPTS, MODES[0]) == [generate(*toy, [prompt], MODES[0])[0] for prompt in PROMPTS]


def test_the_cache_with_room_is_transformers_cache():
    """[row, head, position, d_head], through beam search's choices of rows; what was there before is not copied."""
    torch.manual_seed(0)
    ours, theirs = RoomyLayer(9), DynamicLayer()
    for positions, chosen in ((4, [0, 0, 1]), (1, [2, 1, 1]), (1, [1, 0, 2]), (3, [0, 1, 2])):
        states = torch.randn(2, 3, 2, positions, 5)
        for mine, wanted in zip(ours.update(*states), theirs.update(*states), strict=True):
            assert torch.equal(mine, wanted)
        assert ours.get_seq_length() == theirs.get_seq_length()
        before = ours.keys.data_ptr()
        ours.reorder_cache(torch.tensor(chosen))
        theirs.reorder_cache(torch.tensor(chosen))
        assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
        assert ours.keys.data_ptr() == before


@pytest.mark.parametrize("settings", [MODES[0], MODES[3], MODES[6]], ids=str)
def test_batches_are_handed_over_as_they_end(toy, settings):
    handed = {}

    def on_batch(indices, results):
        assert len(indices) == len(results) and not set(indices) & set(handed)
        handed.update(zip(indices, results, strict=True))
        sizes.append(len(indices))

    sizes: list[int] = []
    results = generate(*toy, PROMPTS, settings, batch_size=4, on_batch=on_batch)
    assert [handed[i] for i in range(len(PROMPTS))] == results
    assert len(sizes) > 1


@contextlib.contextmanager
def ctrl_c_before_pass(model, number):
    passes = itertools.count()

    def interrupt(*_):
        if next(passes) == number:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(interrupt)
    try:
        yield
    finally:
        hook.remove()


def test_ctrl_c_leaves_what_was_handed_over_and_tells_what_was_begun(toy):
    model, tokenizer = toy
    settings = decoding("sampling", max_new_tokens=NEW)
    whole = generate(*toy, PROMPTS, settings, batch_size=2)
    handed = {}
    with pytest.raises(KeyboardInterrupt) as stop, ctrl_c_before_pass(model, NEW + 5):  # in the second batch
        generate(
            *toy, PROMPTS, settings, batch_size=2, on_batch=lambda rows, r: handed.update(zip(rows, r, strict=True))
        )
    shortest = sorted(range(len(PROMPTS)), key=lambda i: len(PROMPTS[i]))
    assert handed == {i: whole[i] for i in shortest[:2]}
    results = stop.value.results
    assert isinstance(stop.value, GenerationInterrupted)
    assert [results[i] for i in shortest[:2]] == [whole[i] for i in shortest[:2]]
    for i in shortest[2:4]:
        (generated,) = results[i]
        assert generated.ended == "interrupted" and generated.ids == whole[i][0].ids[:5]
        assert generated.text == text_of(tokenizer, generated.ids)
    assert results[shortest[4]] == []
    assert not model.training and "forward" not in vars(model.lm_head)


# --- streaming --------------------------------------------------------------------------------------------------------


def test_a_stream_is_the_text_token_by_token(toy):
    model, tokenizer = toy
    for settings in (MODES[1], DRAWN[0], decoding("top_p", top_p=0.95, temperature=2.0, max_new_tokens=80)):
        pieces: list[str] = []
        (generated,) = generate(*toy, PROMPTS[:1], settings, streamer=TextStream(tokenizer, pieces.append))[0]
        assert "".join(pieces) == generated.text
        assert len(pieces) > len(generated.ids) / 3
        assert generate(*toy, PROMPTS[:1], settings)[0] == [generated]


def test_a_token_is_handed_on_at_once_and_a_character_when_it_is_whole(toy):
    tokenizer = toy[1]
    text = ' a Zürich "naïve" 日本 \U0001f600.'
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(text)  # some characters take several tokens
    pieces: list[str] = []
    stream = TextStream(tokenizer, pieces.append)
    stream.put(torch.tensor([[1, 2, 3]]))  # the prompt
    assert not pieces
    for token in ids:
        stream.put(torch.tensor([token]))
        assert text.startswith("".join(pieces))
    assert "".join(pieces) == text and "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert {"日", "本", "\U0001f600"} <= {piece.strip() for piece in pieces}
    half = tokenizer("日", add_special_tokens=False)["input_ids"][:-1]
    stream.put(torch.tensor(half))
    assert "".join(pieces) == text
    stream.end()  # a text that ends within a character
    assert "".join(pieces) == text + tokenizer.decode(half)


def test_ctrl_c_hands_on_what_the_stream_held(toy):
    model, tokenizer = toy
    pieces: list[str] = []
    with pytest.raises(GenerationInterrupted) as stop, ctrl_c_before_pass(model, 7):
        generate(*toy, PROMPTS[:1], DRAWN[0], streamer=TextStream(tokenizer, pieces.append))
    (generated,) = stop.value.results[0]
    assert len(generated.ids) == 7 and "".join(pieces) == generated.text


# --- probabilities ------------------------------------------------------------------------------------------


def test_token_probabilities_are_the_models_own(toy):
    model, tokenizer = toy
    prompt, ids = PROMPTS[2], generate(*toy, PROMPTS[2:3], DRAWN[-1])[0][0].ids
    found = token_probabilities(model, prompt, ids, top=3)
    assert [token.token_id for token in found] == list(ids)
    for k, token in enumerate(found):  # one token after another, without the later ones
        with torch.no_grad():
            p = model(torch.tensor([[*prompt, *ids[:k]]])).logits[0, -1].softmax(0)
        order = p.argsort(descending=True).tolist()
        assert token.probability == pytest.approx(p[ids[k]].item(), rel=1e-4)
        assert token.rank == 1 + order.index(ids[k])
        assert [i for i, _ in token.alternatives] == order[:3]
        assert [q for _, q in token.alternatives] == pytest.approx(p[order[:3]].tolist(), rel=1e-4)
    greedy = generate(*toy, [prompt], MODES[0])[0][0].ids
    assert [token.rank for token in token_probabilities(model, prompt, greedy)] == [1] * NEW
    assert token_probabilities(model, prompt, []) == []
