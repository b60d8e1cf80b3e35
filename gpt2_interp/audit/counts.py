"""The proof that the embedded corpus keeps its promises (python -m gpt2_interp.audit --audit).

Counts over each split; what baselines get that read nothing or only compare words, because an attribution method has
to beat them; what a fine-tuned model makes of deletions and twins (checks.py); and a verdict on each promise
(verdict.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import transformers
from scipy.stats import chisquare
from sklearn.feature_extraction.text import TfidfVectorizer

from gpt2_interp.audit.checks import DEFAULT_MODEL, check_model, sentence_spans
from gpt2_interp.audit.verdict import promises
from gpt2_interp.evaluation.facts import fact_ratios, fact_scores, occurrences, stated_facts, written_values
from gpt2_interp.evaluation.rouge import lead3
from gpt2_interp.model.load import load_trained
from gpt2_interp.model.tokenizers import load_tokenizer
from gpt2_interp.statistics.intervals import estimate
from gpt2_interp.synthetic.rows import SLOTS, SPLITS, news_plan, news_rows, story_plan
from gpt2_interp.synthetic.templates import CUE, KEY, Plan, Sentence

SHUFFLES = 200  # how often values are shuffled over the rows to learn what chance alone gives


# ---------------------------------------------------------------------------------------------------------------------
# Counts
# ---------------------------------------------------------------------------------------------------------------------
def unlabelled(row: dict) -> list[str]:
    """Occurrences of gold values in the article that no span covers; must be none."""
    return [
        f"{row['id']}: {form}"
        for fact in row["facts"]
        for form in fact["forms"]
        for start, end in occurrences(row["article"], form)
        if not any(a <= start and end <= b for a, b in fact["value_spans"])
    ]


def wording_of(sentence: Sentence) -> str:
    """Return a sentence with its values left open."""
    return "".join(f"{{{payload}}}" if kind == KEY else payload for kind, payload in sentence.pieces if kind != CUE)


def association(left: np.ndarray, right: np.ndarray) -> float:
    """Cramer's V of two labels [row] (integers from 0): 0 when independent, 1 when one fixes the other."""
    counts = np.zeros((left.max() + 1, right.max() + 1))
    np.add.at(counts, (left, right), 1)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / len(left)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    return float((chi2 / len(left) / max(1, min(counts.shape) - 1)) ** 0.5)


def strongest_association(plans: Sequence[tuple[str, Plan]], seed: int = 0) -> tuple[float, float]:
    """Largest V of a value with the event, with another value and with the wording of its own sentence.

    Second, the largest when each value is shuffled over the rows, so that only chance is left. Values and wordings
    enter as one of four classes.
    """
    events = np.unique([event for event, _ in plans], return_inverse=True)[1]
    values, wordings = [], []
    for slot in SLOTS:
        values.append(_classes(plan.values[slot].stated for _, plan in plans))
        wordings.append(_classes(wording_of(next(s for s in plan.sentences if s.kind == slot)) for _, plan in plans))

    def strongest() -> float:
        found = [association(events, value) for value in values]
        found += [association(a, b) for a, b in zip(values, wordings, strict=True)]
        return max(found + [association(a, b) for i, a in enumerate(values) for b in values[:i]])

    real, rng = strongest(), np.random.default_rng(seed)
    shuffled = []
    for _ in range(SHUFFLES):
        values = [rng.permutation(value) for value in values]
        shuffled.append(strongest())
    return real, max(shuffled)


def _classes(texts) -> np.ndarray:
    return np.array([sum(map(ord, text)) % 4 for text in texts])


def gold_positions(rows: Sequence[dict]) -> tuple[list[float], float]:
    """Share of gold sentences in each fifth of the article, and p of "every sentence is as likely to be gold"."""
    found, expected = np.zeros(5), np.zeros(5)
    for row in rows:
        spans = sentence_spans(row)
        fifths = [int(5 * (at + 0.5) / len(spans)) for at in range(len(spans))]
        np.add.at(expected, fifths, len(row["facts"]) / len(spans))
        np.add.at(found, [fifths[spans.index(tuple(fact["sentence_span"]))] for fact in row["facts"]], 1)
    return [round(share, 3) for share in found / found.sum()], float(chisquare(found, expected).pvalue)


def value_share(rows: Sequence[dict], tokenizer=None) -> float:
    """Share of the articles' tokens (without a tokenizer, of their words) that lie in a labelled value, or reach in."""
    inside = total = 0
    for row in rows:
        text = row["article"]
        if tokenizer is None:
            spans = [match.span() for match in re.finditer(r"\S+", text)]
        else:
            spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        labelled = np.zeros(len(text), dtype=bool)
        for fact in row["facts"]:
            for a, b in fact["value_spans"]:
                labelled[a:b] = True
        inside += sum(bool(labelled[a:b].any()) for a, b in spans)
        total += len(spans)
    return inside / total


def _fact_numbers(fact: dict, in_lead: bool) -> dict[str, float]:
    spans = fact["value_spans"]
    return {
        "labelled repeats per fact": len(spans) - 1,
        "facts that recur": len(spans) > 1,
        "cue apart from value": all(b <= c or d <= a for a, b in spans for c, d in fact["cue_spans"]),
        ">= 2 distractors": len(fact["distractors"]) >= 2,
        "transformed": fact["transformed"],
        "lead-3 fact recall": in_lead,
    }


def audit_split(split: str, count: int, seed: int = 0, tokenizers: Mapping[str, object] | None = None) -> dict:
    """Counts over `count` news rows of one split; shares are of facts unless the name says otherwise."""
    rows = list(news_rows(count, seed, split))
    numbers = []
    for row in rows:
        lead = row["article"][: sentence_spans(row)[2][1]]
        in_lead = stated_facts(row["facts"], written_values(lead, row["facts"]))
        numbers += map(_fact_numbers, row["facts"], in_lead)
    fifths, p_uniform = gold_positions(rows)
    strongest, by_chance = strongest_association([news_plan(split, seed, index) for index in range(count)])
    return {
        "rows": count,
        "words per article": round(float(np.mean([len(row["article"].split()) for row in rows])), 1),
        "unlabelled occurrences": sum(len(unlabelled(row)) for row in rows),
        **{name: round(float(np.mean([one[name] for one in numbers])), 3) for name in numbers[0]},
        "value share of words": round(value_share(rows), 3),
        **{
            f"value share of tokens ({name})": round(value_share(rows, tokenizer), 3)
            for name, tokenizer in (tokenizers or {}).items()
        },
        "gold position by fifth": fifths,
        "p if gold anywhere alike": round(p_uniform, 3),
        "largest association (Cramer's V)": round(strongest, 3),
        "the largest by chance": round(by_chance, 3),
    }


def held_out_overlap(count: int, seed: int = 0) -> dict[str, int]:
    """Return how many values, pairs of values and article wordings of split "test" occur in any other split; all must
    be 0."""
    names = ("values", "pairs", "wordings")
    seen = {side: {name: set() for name in names} for side in ("test", "others")}
    for split in SPLITS:
        sets = seen["test" if split == "test" else "others"]
        for index in range(count):
            for _, plan in (news_plan(split, seed, index), story_plan(split, seed, index)):
                values = [value for value in plan.values.values() if value.type != "thing"]
                sets["values"].update(form for value in values for form in value.forms)
                sets["pairs"].update((a.stated, b.stated) for a in values for b in values if a.stated < b.stated)
                sets["wordings"].update(map(wording_of, plan.sentences))
    return {name: len(seen["test"][name] & seen["others"][name]) for name in names}


def seconds_per_100_000(seed: int = 0, sample: int = 2000) -> float:
    """Processor seconds that 100,000 news articles take, from a sample."""
    start = time.process_time()
    for _ in news_rows(sample, seed):
        pass
    return round((time.process_time() - start) * 100_000 / sample, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Baselines
# ---------------------------------------------------------------------------------------------------------------------
def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def sentences_of(row: dict) -> list[str]:
    return [row["article"][a:b] for a, b in sentence_spans(row)]


def tfidf_of(rows: Sequence[dict]) -> TfidfVectorizer:
    """Word weights from the sentences of these articles; they need no answers, so the test rows' own may be used."""
    return TfidfVectorizer(token_pattern=r"\w+").fit([text for row in rows for text in sentences_of(row)])


def central_sentences(sentences: Sequence[str], tfidf: TfidfVectorizer, count: int = 3) -> str:
    """The sentences whose tf-idf vectors are nearest (cosine) to their mean, in their order, one a line."""
    vectors = tfidf.transform(sentences).toarray()  # [sentence, word], of length 1
    nearest = np.argsort(-vectors @ vectors.mean(axis=0), kind="stable")[:count]
    return "\n".join(sentences[i] for i in sorted(nearest))


def places(row: dict, fact: dict, tfidf: TfidfVectorizer) -> dict[str, tuple[float, float]]:
    """Return for each baseline whether (or how probably) it points at the place that the fact's value comes from, and
    its chance.

    The place is the gold sentence for those that name a sentence, the value inside it for those that name a word.
    """
    sentences, highlights, (at, _) = sentence_spans(row), row["highlights"], fact["highlight_span"]
    gold = sentences.index(tuple(fact["sentence_span"]))
    line = highlights.splitlines()[highlights.count("\n", 0, at)]
    similarity = (tfidf.transform(sentences_of(row)) @ tfidf.transform([line]).T).toarray()[:, 0]
    start, end = next((a, b) for a, b in fact["value_spans"] if sentences[gold][0] <= a < sentences[gold][1])
    article, stated = list(re.finditer(r"\w+", row["article"])), set(_words(fact["stated"]))
    equal = [start <= match.start() < end for match in article if match.group() in stated]
    a_sentence, a_word = 1 / len(sentences), len(_words(row["article"][start:end])) / len(article)
    return {
        "position": (int(len(sentences) * at / len(highlights)) == gold, a_sentence),
        "TF-IDF": (int(similarity.argmax()) == gold, a_sentence),
        "string match": (any(equal), a_word),
        "string match, one at random": (float(np.mean(equal)) if equal else 0.0, a_word),
    }


def baselines(rows: Sequence[dict]) -> dict:
    """Facts in extractive summaries, and how often a value's place is found without a model; all in percent."""
    tfidf, facts = tfidf_of(rows), [row["facts"] for row in rows]
    summaries = {
        "lead-3": [lead3(row["article"]) for row in rows],
        "TF-IDF": [central_sentences(sentences_of(row), tfidf) for row in rows],
    }
    found = [[places(row, fact, tfidf) for fact in row["facts"]] for row in rows]
    transformed = np.array([[fact["transformed"] for fact in row] for row in facts])
    place = {}
    for name in found[0][0]:
        hit, chance = (100 * np.array([[fact[name][k] for fact in row] for row in found]) for k in (0, 1))
        kinds = {"all": np.ones_like(transformed), "as written": ~transformed, "transformed": transformed}
        place[name] = {kind: estimate(np.where(one, hit, np.nan)) for kind, one in kinds.items()}
        place[name]["chance"] = float(chance.mean())
    return {
        "rows": len(rows),
        "facts": {name: fact_scores(fact_ratios(texts, facts)) for name, texts in summaries.items()},
        "place": place,
    }


# ---------------------------------------------------------------------------------------------------------------------
# All of it
# ---------------------------------------------------------------------------------------------------------------------
def audit(count: int = 200, seed: int = 0, model_path: str | None = None, tokenizer_name: str | None = None) -> dict:
    """Counts of 5 * `count` rows per split, baselines and model on `count` test rows. Raises InputError.

    Without `model_path` the quickstart's model is taken if there is one, else "model" is None.
    """
    if model_path is None and Path(DEFAULT_MODEL).is_dir():
        model_path = DEFAULT_MODEL
    tokenizers = {tokenizer_name: load_tokenizer(tokenizer_name)} if tokenizer_name else {}
    rows, checked = list(news_rows(count, seed, "test")), None
    if model_path:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model, tokenizer = load_trained(model_path)
        checked = check_model(model_path, model, tokenizer, rows, list(tokenizers.values()))
        tokenizers = {model_path: tokenizer, **tokenizers}
    result = {
        "seed": seed,
        "counts": {split: audit_split(split, 5 * count, seed, tokenizers) for split in SPLITS},
        "test in other splits": held_out_overlap(5 * count, seed),
        "seconds per 100,000 articles": seconds_per_100_000(seed),
        "baselines": baselines(rows),
        "model": checked,
    }
    return {"promises": promises(result), **result}
