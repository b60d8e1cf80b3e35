import subprocess
import sys

import pytest

from gpt2_interp.errors import InputError
from gpt2_interp.generation.settings import METHODS, SETTINGS, DecodingSettings

# A value in range, and two out of it, of every setting but the method.
VALUES = {
    "num_beams": (3, [1, 0, 2000]),
    "early_stopping": (True, [1, "yes"]),
    "length_penalty": (-0.5, [11, float("nan")]),
    "no_repeat_ngram": (2, [-1, 1.5]),
    "repetition_penalty": (1.2, [0, float("inf")]),
    "temperature": (0.7, [0, -1, "hot"]),
    "top_k": (5, [0, 2.5]),
    "top_p": (0.5, [0, 1.01]),
    "max_length": (30, [1, True]),
    "max_new_tokens": (10, [0, 3.5]),
    "max_seconds": (0.5, [0, -2]),
    "num_sequences": (2, [0, 1001]),
    "seed": (7, [-1, 2**33]),
}
RANDOM = {"sampling", "top_k", "top_p"}
EFFECT = {  # written down here a second time, on purpose
    "num_beams": {"beam"}, "early_stopping": {"beam"}, "length_penalty": {"beam"},
    "temperature": RANDOM, "seed": RANDOM, "top_k": {"top_k", "top_p"}, "top_p": {"top_k", "top_p"},
    "num_sequences": {"beam"} | RANDOM,
}  # fmt: skip


def test_the_tables_name_every_setting():
    names = set(DecodingSettings.__dataclass_fields__)
    assert names == set(SETTINGS) == {"decoding", *VALUES}
    assert all(
        "\n" not in text and len(text) > 20 and "%" not in text for text in (one.help for one in SETTINGS.values())
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", VALUES)
def test_a_setting_has_an_effect_or_is_refused_by_name(method, name):
    settings = DecodingSettings(method, **{name: VALUES[name][0]})
    if method in EFFECT.get(name, METHODS):
        assert getattr(settings.resolve(), name) == VALUES[name][0]
    else:
        with pytest.raises(InputError, match=f"--{name}.*--decoding"):
            settings.resolve()


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, (_, wrongs) in VALUES.items() for wrong in wrongs])
def test_values_out_of_range_are_refused_by_name(name, wrong):
    method = next(iter(EFFECT.get(name, METHODS)))
    with pytest.raises(InputError, match=f"^--{name} "):
        DecodingSettings(method, **{name: wrong}).resolve()


def test_contradictions():
    with pytest.raises(InputError, match="--max_length.*--max_new_tokens"):
        DecodingSettings(max_length=20, max_new_tokens=10).resolve()
    with pytest.raises(InputError, match="--num_sequences 5 exceeds --num_beams 4"):
        DecodingSettings("beam", num_sequences=5).resolve()
    DecodingSettings("beam", num_sequences=5, num_beams=5).resolve()
    with pytest.raises(InputError, match="--temperature 0 .*--decoding greedy"):
        DecodingSettings("sampling", temperature=0).resolve()
    with pytest.raises(InputError, match="--num_beams 1 .*--decoding greedy"):
        DecodingSettings("beam", num_beams=1).resolve()
    with pytest.raises(InputError, match="--top_k has no effect with --decoding sampling: use --decoding top_k,"):
        DecodingSettings("sampling", top_k=5).resolve()
    with pytest.raises(InputError, match="--decoding nucleus"):
        DecodingSettings("nucleus").resolve()
    DecodingSettings(num_sequences=1).resolve()  # what greedy search has anyway


def test_defaults_fill_what_has_an_effect():
    common = {"no_repeat_ngram": 0, "repetition_penalty": 1.0, "max_new_tokens": 100, "num_sequences": 1}
    drawn = {**common, "temperature": 1.0, "seed": 42}
    assert {method: DecodingSettings(method).resolve().record() for method in METHODS} == {
        "greedy": {"decoding": "greedy", **common},
        "beam": {"decoding": "beam", **common, "num_beams": 4, "early_stopping": False, "length_penalty": 1.0},
        "sampling": {"decoding": "sampling", **drawn},
        "top_k": {"decoding": "top_k", **drawn, "top_k": 50},
        "top_p": {"decoding": "top_p", **drawn, "top_p": 0.9},
    }
    both = DecodingSettings("top_p", top_k=50).resolve()
    assert (both.top_k, both.top_p) == (50, 0.9)
    assert DecodingSettings(max_length=50).resolve().max_new_tokens is None
    for method in METHODS:
        decoding = DecodingSettings(method).resolve()
        assert DecodingSettings(**decoding.record()).resolve() == decoding  # a record says all


def test_a_setting_without_effect_changes_nothing():
    drawn, greedy = DecodingSettings("sampling").resolve(), DecodingSettings().resolve()
    assert (drawn.num_beams, drawn.top_k, drawn.top_p) == (1, None, None)
    assert (greedy.num_beams, greedy.temperature, greedy.seed) == (1, 1, None)


def test_help_ends_with_the_default():
    words = {name: setting.help_with_default() for name, setting in SETTINGS.items()}
    assert words["seed"].endswith(" (42).") and words["early_stopping"].endswith(" (false).")
    assert words["top_p"].endswith(" (0.9 with --decoding top_p).") and words["max_new_tokens"].endswith(" (100).")
    assert words["max_seconds"].endswith("shares them.")


def test_settings_are_changed_by_word():
    settings = DecodingSettings("top_p", seed=3)
    assert settings.changed("temperature", "0.8").temperature == 0.8
    assert settings.changed("--top-k", " 40 ").top_k == 40
    assert settings.changed("seed", "default") == settings.changed("seed", "none") == DecodingSettings("top_p")
    assert DecodingSettings("beam").changed("early_stopping", "True").early_stopping is True
    assert DecodingSettings("beam").changed("early_stopping", "off").early_stopping is False
    assert settings.changed("max_length", "60").changed("max_new_tokens", "20").given() == {
        "decoding": "top_p", "seed": 3, "max_new_tokens": 20,
    }  # fmt: skip
    # Another method takes along what has an effect there.
    mixed = DecodingSettings("top_p", top_p=0.8, temperature=0.9, max_new_tokens=7)
    assert mixed.changed("decoding", "sampling") == DecodingSettings("sampling", temperature=0.9, max_new_tokens=7)
    assert mixed.changed("decoding", "greedy") == DecodingSettings(max_new_tokens=7)
    assert mixed.changed("decoding", "none") == DecodingSettings(max_new_tokens=7)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("temprature", "1", "did you mean temperature"),
        ("xyz", "1", "there are decoding, num_beams"),
        ("temperature", "warm", "--temperature 'warm'"),
        ("temperature", "0", "--decoding greedy"),
        ("top_k", "1.5", "--top_k '1.5'.*whole number"),
        ("num_beams", "3", "--num_beams has no effect"),
        ("early_stopping", "maybe", "--early_stopping maybe"),
        ("decoding", "best", "--decoding best"),
        ("top_p", "nan", "--top_p nan"),
    ],
)
def test_what_can_not_be_changed_is_said(name, text, message):
    with pytest.raises(InputError, match=message):
        DecodingSettings("top_k").changed(name, text).resolve()


def test_room_is_what_was_asked_for_or_what_the_context_leaves():
    assert DecodingSettings().resolve().room(20, 1024) == 100
    assert DecodingSettings().resolve().room(1000, 1024) == 24
    assert DecodingSettings(max_new_tokens=5).resolve().room(1000, 1024) == 5
    assert DecodingSettings(max_length=50).resolve().room(20, 1024) == 30
    assert DecodingSettings(max_length=5000).resolve().room(20, 1024) == 1004
    with pytest.raises(InputError, match="50 tokens.*--max_length 50"):
        DecodingSettings(max_length=50).resolve().room(50, 1024)
    with pytest.raises(InputError, match="1024 tokens"):
        DecodingSettings().resolve().room(1024, 1024)


def test_mistakes_are_answered_without_the_libraries():
    code = "import sys, gpt2_interp.generation.settings; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
