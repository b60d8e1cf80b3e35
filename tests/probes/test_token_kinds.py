import random

import numpy as np

from gpt2_interp.data.examples import Example
from gpt2_interp.probes.token_kinds import copied_tokens, token_kinds


def kinds_of(examples, values=None, training=()) -> tuple[tuple[str, ...], list[dict[str, list[int]]]]:
    """The labels, and for each example the places in its target that are of each kind."""
    labels, members = token_kinds(examples, values or [()] * len(examples), training)
    for example, one in zip(examples, members, strict=True):
        assert one.shape == (len(example.target_ids), len(labels)) and one.dtype == bool
    return labels, [
        {label: np.flatnonzero(column).tolist() for label, column in zip(labels, one.T, strict=True)} for one in members
    ]


def test_copied_tokens_are_those_of_the_own_source():
    example = Example("", "", (5, 6, 7), (8,), (7, 8, 5, 9, 7))
    assert copied_tokens(example).tolist() == [True, False, True, False, True]  # 8 is only in the template
    assert copied_tokens(Example("", "", (), (), (1, 2))).tolist() == [False, False]


def test_known_facts_divide_a_target_in_four():
    news = Example("", "", (5, 6, 7, 9), (8,), (5, 6, 8, 7, 3, 9, 0))
    other = Example("", "", (1, 2), (8,), (2, 0))
    labels, (kinds, of_other) = kinds_of([news, other], [[("who", (5, 6)), ("when", (9,))], [("who", (8 - 5,))]])
    assert labels == (
        "all", "value_first", "value_rest", "copied", "template", "value_first who", "value_first when",
    )  # fmt: skip
    assert kinds["all"] == list(range(7))
    assert (kinds["value_first"], kinds["value_rest"]) == ([0, 4], [1])
    assert (kinds["copied"], kinds["template"]) == ([3, 5], [2, 6])
    assert (kinds["value_first who"], kinds["value_first when"]) == ([0], [4])
    assert (of_other["value_first"], of_other["value_first when"], of_other["template"]) == ([0], [], [1])


def test_a_source_without_known_facts_has_copied_and_new_tokens():
    labels, (kinds,) = kinds_of([Example("", "", (5, 6), (8,), (6, 8, 5, 0))])
    assert labels == ("all", "copied", "new")
    assert (kinds["copied"], kinds["new"]) == ([0, 2], [1, 3])


def test_plain_text_has_bands_of_position():
    labels, (short, long) = kinds_of([Example("", "", (), (), (1,) * n) for n in (20, 300)])
    assert [label for label in labels if label.startswith("position")] == [
        "position 0-15", "position 16-63", "position 64-255", "position 256+",
    ]  # fmt: skip
    assert short["position 16-63"] == [16, 17, 18, 19] and short["position 256+"] == []
    assert long["position 64-255"] == list(range(64, 256)) and long["position 256+"] == list(range(256, 300))
    labels, _ = kinds_of([Example("", "", (), (), (1,) * 16)])
    assert "position 16-63" not in labels  # no probe reaches it


def test_words_are_frequent_as_they_are_in_the_training_texts():
    rng = random.Random(0)
    running = [rng.choice([1] * 40 + [2] * 20 + [3] * 15 + list(range(10, 50))) for _ in range(3000)]
    training = [Example("", "", (), (), tuple(running[k : k + 30])) for k in range(0, 3000, 30)]
    text = Example("", "", (), (), (1, 2, 3, 10, 49, 2000))
    labels, (kinds,) = kinds_of([text], training=[*training, Example("", "", (7,), (), (49,) * 9999)])
    assert set(labels) == {"all", "position 0-15", "frequent", "middle", "rare"}  # 49 is rare: of texts alone
    # Slowly: by decreasing count, a word belongs to the third in which its first running token lies.
    before, band = 0, {}
    for word in sorted(set(running), key=lambda word: (-running.count(word), word)):
        band[word] = ("frequent", "middle", "rare")[3 * before // len(running)]
        before += running.count(word)
    expected = [band.get(word, "rare") for word in text.target_ids]
    assert [next(name for name in labels[2:] if t in kinds[name]) for t in range(6)] == expected
    assert set(expected) == {"frequent", "middle", "rare"}


def test_each_example_of_a_mixture_has_the_kinds_that_its_text_allows():
    news, summary = Example("", "", (5,), (8,), (5, 0)), Example("", "", (5,), (8,), (6, 0))
    text = Example("", "", (), (), (5, 6))
    labels, (of_news, of_summary, of_text) = kinds_of([news, summary, text], [[("who", (2,))], (), ()])
    assert labels[:4] == ("all", "value_first", "template", "new")  # nothing is copied, so there is no such kind
    assert (of_news["value_first"], of_news["template"], of_news["new"]) == ([0], [1], [])
    assert (of_summary["new"], of_summary["template"]) == ([0, 1], [])
    assert of_text["position 0-15"] == [0, 1] and of_summary["position 0-15"] == []


def test_what_has_no_tokens_has_no_kinds():
    labels, (kinds,) = kinds_of([Example("", "", (5,), (8,), ())])
    assert labels == ("all",) and kinds == {"all": []}
