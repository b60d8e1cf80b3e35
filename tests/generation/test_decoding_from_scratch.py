"""The decoding algorithms written out: the very tokens of transformers.generate, and their own slow references.

Scratch model and own algorithm stand on one side, GPT2LMHeadModel and `generate` on the other.
"""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_interp.generation import decoding_from_scratch
from gpt2_interp.generation.decoding_from_scratch import Rules, beam_search, keep_top_k, keep_top_p
from gpt2_interp.model.gpt2_from_scratch import ScratchGPT2LMHeadModel
from gpt2_interp.model.tokenizers import load_tokenizer

TINY = Path(__file__).resolve().parents[2] / "assets/tiny_gpt2"


def both(config: GPT2Config, seed: int = 0):
    """(scratch, Hugging Face's) with the same random weights."""
    torch.manual_seed(seed)
    theirs = GPT2LMHeadModel(config).eval()
    own = ScratchGPT2LMHeadModel(config).eval()
    own.load_state_dict(theirs.state_dict())
    return own, theirs


@pytest.fixture(scope="module")
def small():
    """40 tokens, and weights large enough that some continuations are much likelier than others, the end among them."""
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=64, vocab_size=40, initializer_range=0.3, bos_token_id=0,
        eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return both(config)


@pytest.fixture(scope="module")
def tiny():
    models = [kind.from_pretrained(TINY, dtype=torch.float32) for kind in (ScratchGPT2LMHeadModel, GPT2LMHeadModel)]
    return (*(model.eval() for model in models), load_tokenizer(str(TINY)))


@pytest.fixture(scope="module")
def gpt2_vocabulary(real_data):
    config = GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=128, initializer_range=0.1)
    return (*both(config), load_tokenizer(str(real_data / "gpt2_tokenizer")))


@pytest.fixture(scope="module")
def real_texts(real_data) -> list[str]:
    """100 of three kinds: web pages, prompts for stories, five-sentence stories."""

    def rows(file, count):
        with (real_data / file).open(encoding="utf-8") as lines:
            return [json.loads(line) for line in itertools.islice(lines, count)]

    pages = [row["text"] for row in rows("webtext/train.jsonl", 34)]
    prompts = [row["prompt"] for row in rows("writingprompts/train.jsonl", 33)]
    stories = [" ".join(row["sentences"]) for row in rows("rocstories/validation.jsonl", 33)]
    return pages + prompts + stories


def prompts_of(texts, tokenizer) -> list[list[int]]:
    """Beginnings of 3 to 40 tokens."""
    return [tokenizer(text)["input_ids"][: 3 + 7 * i % 38] for i, text in enumerate(texts)]


def theirs(model, prompt: list[int], rules: Rules, seed: int | None = None, **settings) -> list[list[int]]:
    """New tokens of `generate`: everything said, nothing left to a default; padding after the end removed."""
    if seed is not None:
        torch.manual_seed(seed)
        settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, **settings}
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=rules.max_new_tokens,
        eos_token_id=rules.eos_token_id,
        pad_token_id=0,
        repetition_penalty=rules.repetition_penalty,
        no_repeat_ngram_size=rules.no_repeat_ngram,
        **{"do_sample": False, "num_beams": 1, **settings},
    )
    rows = [row[len(prompt) :].tolist() for row in output]
    return [row[: row.index(rules.eos_token_id) + 1] if rules.eos_token_id in row else row for row in rows]


def beams(model, prompt, rules, **settings) -> list[list[int]]:
    return [hypothesis.ids for hypothesis in beam_search(model, prompt, rules, **settings)]


RULES = {
    "plain": {},
    "repetition": {"repetition_penalty": 1.3},
    "encouraged": {"repetition_penalty": 0.8},
    "bigrams": {"no_repeat_ngram": 2},
    "words": {"no_repeat_ngram": 1},
    "both": {"repetition_penalty": 1.2, "no_repeat_ngram": 3},
}
EOS = [35, 28, 8]  # tokens that this model likes
PROMPTS = [[5], [3, 9, 3, 9, 4], list(range(1, 20)), [7, 7, 7, 7], [0, 11, 2]]


@pytest.mark.parametrize("name", RULES)
def test_greedy(small, name):
    own, hugging_face = small
    for prompt in PROMPTS:
        rules = Rules(14, None, **RULES[name])
        endless = decoding_from_scratch.greedy_search(own, prompt, rules)
        assert endless == theirs(hugging_face, prompt, rules)[0]
        ended = decoding_from_scratch.greedy_search(own, prompt, replace(rules, eos_token_id=endless[4]))
        assert ended == theirs(hugging_face, prompt, replace(rules, eos_token_id=endless[4]))[0]
        assert ended == endless[: endless.index(endless[4]) + 1]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_beam_search_finds_the_same_beams_in_the_same_order(small, name, early_stopping):
    own, hugging_face = small
    ends = set()
    for i, (prompt, length_penalty) in enumerate(zip(PROMPTS + PROMPTS[:2], [1.0, 2.0, -0.5, 0.3] * 2, strict=False)):
        eos, num_beams = EOS[i % 3], (2, 5)[i % 2]
        rules = Rules(8, eos, **RULES[name])
        settings = {"num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
        expected = theirs(hugging_face, prompt, rules, num_return_sequences=num_beams, **settings)
        assert beams(own, prompt, rules, **settings) == expected
        ends.update(map(len, expected))
    assert 8 in ends
    assert len(ends) > 2


@pytest.mark.parametrize(("eos", "length_penalty"), [(28, 1.0), (39, 1.0), (39, 2.0)])
def test_the_three_ways_to_stop_differ_and_are_transformers(small, eos, length_penalty):
    own, hugging_face = small
    found = {}
    for early_stopping in (False, True, "never"):
        settings = {"num_beams": 2, "length_penalty": length_penalty, "early_stopping": early_stopping}
        found[early_stopping] = [beams(own, prompt, Rules(16, eos), **settings) for prompt in PROMPTS]
        for prompt, texts in zip(PROMPTS, found[early_stopping], strict=True):
            assert texts == theirs(hugging_face, prompt, Rules(16, eos), num_return_sequences=2, **settings)
    assert found[False] != found[True] != found["never"] != found[False]


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("ancestral_sampling", {}),
        ("ancestral_sampling", {"temperature": 0.6}),
        ("top_k_sampling", {"top_k": 4}),
        ("top_k_sampling", {"top_k": 6, "temperature": 1.7, "top_p": 0.8}),
        ("top_p_sampling", {"top_p": 0.7}),
        ("top_p_sampling", {"top_p": 0.95, "temperature": 0.8, "top_k": 5}),
        ("top_p_sampling", {"top_p": 1e-6}),
        ("top_k_sampling", {"top_k": 100}),
    ],
)
def test_sampling(small, algorithm, settings):
    own, hugging_face = small
    texts = []
    for seed, name in enumerate(RULES):
        prompt, rules = PROMPTS[seed % len(PROMPTS)], Rules(12, EOS[seed % 3], **RULES[name])
        generator = torch.Generator().manual_seed(seed)
        texts.append(getattr(decoding_from_scratch, algorithm)(own, prompt, rules, generator, **settings))
        assert texts[-1] == theirs(hugging_face, prompt, rules, seed, **settings)[0]
    assert len({tuple(text) for text in texts}) > 2


def test_sequences_of_one_call_share_their_random_numbers(small):
    """Why the k-th of several sequences is compared by a seed of its own."""
    _, hugging_face = small
    alone = theirs(hugging_face, PROMPTS[0], Rules(12), 3)[0]
    assert alone not in theirs(hugging_face, PROMPTS[0], Rules(12), 3, num_return_sequences=2)


def test_the_cache_changes_nothing(small):
    """Greedy search as it is defined: everything read anew for every token."""
    own, _ = small
    ids = list(PROMPTS[1])
    for _ in range(10):
        with torch.no_grad():
            ids.append(int(own(torch.tensor([ids])).logits[0, -1].argmax()))
    assert decoding_from_scratch.greedy_search(own, PROMPTS[1], Rules(10)) == ids[len(PROMPTS[1]) :]


def log_p(model, prompt: list[int], texts: torch.Tensor) -> torch.Tensor:
    """log P(text | prompt) of every row. texts: [n, length]. Returns [n]."""
    rows = torch.cat([torch.tensor([prompt]).expand(len(texts), -1), texts], dim=1)
    with torch.no_grad():
        all_log_p = model(rows).logits.log_softmax(-1)[:, len(prompt) - 1 : -1]  # [n, length, V]
    return all_log_p.gather(2, texts[..., None]).sum((1, 2))


def test_with_enough_beams_it_is_exhaustive_search():
    """V^(n - 1) beams hold every text of n - 1 tokens, so the best of n tokens is found; fewer beams miss some."""
    vocabulary, length = 5, 4
    config = GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=16, vocab_size=vocabulary, initializer_range=0.6)
    texts = torch.tensor(list(itertools.product(range(vocabulary), repeat=length)))  # [V^n, n]
    found_by_two = []
    for seed in range(8):
        own, _ = both(config, seed)
        every = log_p(own, [1, 2], texts)  # [V^n]
        found = beam_search(own, [1, 2], Rules(length), num_beams=vocabulary ** (length - 1))
        order = every.argsort(descending=True)[: len(found)]
        assert found[0].ids == texts[order[0]].tolist()
        torch.testing.assert_close(torch.tensor([text.score for text in found]), every[order] / length)
        found_by_two.append(beam_search(own, [1, 2], Rules(length), num_beams=2)[0].ids == found[0].ids)
    assert not all(found_by_two)


def test_ended_texts_compete_by_their_score_per_length():
    """The same with an end of text: every text that ends anywhere, scored by the formula."""
    vocabulary, length, eos = 4, 4, 0
    config = GPT2Config(n_layer=1, n_head=1, n_embd=8, n_positions=16, vocab_size=vocabulary, initializer_range=0.6)
    lengths = set()
    for seed, penalty in itertools.product(range(5), [0.0, 1.0, 2.0]):
        own, _ = both(config, seed)
        scored = {}
        for n in range(1, length + 1):
            every = list(itertools.product(range(vocabulary), repeat=n))
            texts = [text for text in every if eos not in text[:-1] and (text[-1] == eos or n == length)]
            scores = log_p(own, [1, 2], torch.tensor(texts)) / n**penalty
            scored.update(zip(texts, scores.tolist(), strict=True))
        best = max(scored, key=scored.get)
        found = beam_search(
            own, [1, 2], Rules(length, eos), num_beams=vocabulary ** (length - 1), length_penalty=penalty,
            early_stopping="never",
        )[0]  # fmt: skip
        assert found.ids == list(best)
        assert found.score == pytest.approx(scored[best], abs=1e-5)
        lengths.add(len(best))
    assert len(lengths) > 1


def test_the_nucleus_is_the_smallest_set_with_probability_p():
    generator = torch.Generator().manual_seed(0)
    sizes = set()
    for _ in range(300):
        scores = torch.randn(30, generator=generator) * 3
        p = float(torch.rand(1, generator=generator))
        probabilities = scores.double().softmax(0).tolist()
        nucleus, total = set(), 0.0
        for token in sorted(range(30), key=lambda token: -probabilities[token]):
            nucleus.add(token)
            total += probabilities[token]
            if total >= p:
                break
        kept = keep_top_p(scores, p)
        assert set(kept.isfinite().nonzero().flatten().tolist()) == nucleus
        assert torch.equal(kept[kept.isfinite()], scores[kept.isfinite()])
        sizes.add(len(nucleus))
    assert {1, 2, 8} < sizes


def test_ties():
    """More than k are left when the k-th has equals. At the border of a nucleus the last of equals stay."""
    assert keep_top_k(torch.tensor([3.0, 1.0, 2.0, 2.0]), 2).isfinite().tolist() == [True, False, True, True]
    assert keep_top_p(torch.zeros(4), 0.5).isfinite().tolist() == [False, False, True, True]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_twice(small, n):
    own, _ = small
    for prompt in PROMPTS:
        ids = prompt + decoding_from_scratch.greedy_search(
            own, prompt, Rules(3 if n == 1 else 30, None, no_repeat_ngram=n)
        )
        ngrams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        new = ngrams[len(prompt) - n + 1 :] if len(prompt) >= n else ngrams
        assert all(ngrams.count(ngram) == 1 for ngram in new)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", ["tiny", "gpt2_vocabulary"])
def test_greedy_and_beam_on_100_real_prompts(vocabulary, real_texts, request):
    own, hugging_face, tokenizer = request.getfixturevalue(vocabulary)
    prompts = prompts_of(real_texts, tokenizer)
    assert len(prompts) == 100
    new = 10 if vocabulary == "tiny" else 5  # scores of 50,257 tokens take their time
    rules = Rules(new, tokenizer.eos_token_id)
    variants = [{}, {"repetition_penalty": 1.2}, {"no_repeat_ngram": 2}]
    for i, prompt in enumerate(prompts):
        assert decoding_from_scratch.greedy_search(own, prompt, rules) == theirs(hugging_face, prompt, rules)[0]
        varied = Rules(new, tokenizer.eos_token_id, **variants[i % 3])
        settings = {"num_beams": 4, "early_stopping": i % 2 == 0, "length_penalty": (0.6, 1.0, 1.4)[i % 5 % 3]}
        assert beams(own, prompt, varied, **settings)[0] == theirs(hugging_face, prompt, varied, **settings)[0]


@pytest.mark.parametrize(("vocabulary", "rounds"), [("tiny", 3), ("gpt2_vocabulary", 1)])
def test_sampling_on_real_prompts(vocabulary, rounds, real_texts, request):
    own, hugging_face, tokenizer = request.getfixturevalue(vocabulary)
    algorithms = {
        "ancestral_sampling": [{}, {"temperature": 0.7}, {"temperature": 1.5}],
        "top_k_sampling": [{"top_k": 50}, {"top_k": 10, "temperature": 0.8}, {"top_k": 40, "top_p": 0.9}],
        "top_p_sampling": [{"top_p": 0.9}, {"top_p": 0.5, "temperature": 1.2}, {"top_p": 0.95, "top_k": 100}],
    }
    cases = [(name, settings) for name, variants in algorithms.items() for settings in variants] * rounds
    prompts = prompts_of(real_texts, tokenizer)
    for i, (name, settings) in enumerate(cases):
        prompt = prompts[i * 2]
        rules = Rules(
            16, tokenizer.eos_token_id, repetition_penalty=(1.0, 1.1)[i % 2], no_repeat_ngram=(0, 3)[i // 2 % 2]
        )
        found = getattr(decoding_from_scratch, name)(own, prompt, rules, torch.Generator().manual_seed(i), **settings)
        assert found == theirs(hugging_face, prompt, rules, i, **settings)[0]
