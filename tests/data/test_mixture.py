import json
import math
import random
from fractions import Fraction

import datasets
import pytest

from gpt2_interp.data import mixture
from gpt2_interp.data.mixture import SOURCES, USES, counts, mix, mixture_shares, pairs, texts
from gpt2_interp.errors import InputError

LONG = "Once there was a long sentence about nothing much, and it went on and on until it had enough letters in it."
WANTED = {"train": 21, "validation": 7, "test": 5, "probes": 3}


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "gpt2_interp" / "samples"


# --- what records say ------------------------------------------------------------------------------------------


def test_a_writing_prompt_loses_its_tags_and_its_tokenization():
    story = f"`` Do n't , '' he said ( twice ) . <newline> <newline>  It 's \n \n late ! {LONG}"
    text = SOURCES["writingprompts"].read({"prompt": "[ WP ] [ NSFW ] You 're `` him '' .", "story": story})
    assert text.source == text.cluster == 'You\'re "him".'
    assert text.target == f"\"Don't,\" he said (twice).\n\nIt's\n\nlate! {LONG}"
    for prompt in ("[ WP ]", "  "):
        assert SOURCES["writingprompts"].read({"prompt": prompt, "story": story}) is None
    assert SOURCES["writingprompts"].read({"prompt": "P", "story": "[ deleted ]"}) is None


def test_a_roc_story_is_one_text_however_it_is_stored():
    sentences = ["It was  my day.", *["Then something happened to me again."] * 4]
    stored = {"prompt": sentences[0], "continuation": " ".join(sentences[1:])}
    read = SOURCES["rocstories"].read
    assert read({"sentences": sentences}) == read(stored)
    assert read(stored).target.startswith("It was my day. Then") and read(stored).source == ""


def test_wikitext_loses_headings_stubs_and_marks():
    read = SOURCES["wikitext"].read
    assert read({"text": f' It @-@ self cost 1 @,@ 000 @.@ 5 dollars , as " they " said ; {LONG} \n'}).target == (
        f'It-self cost 1,000.5 dollars, as "they" said; {LONG}'
    )
    for left_out in ("", " = = Title of a section that is long enough = = " * 5, "Too short .", f"{LONG} <unk> ."):
        assert read({"text": left_out}) is None


def test_a_web_page_is_kept_whole():
    assert SOURCES["openwebtext"].read({"text": f"{LONG}\n\n{LONG}<|endoftext|>"}).target == f"{LONG}\n\n{LONG}"


@pytest.mark.parametrize(
    ("name", "file", "usable"),
    [
        ("writingprompts", "writingprompts/train.jsonl", 500),
        ("rocstories", "rocstories/validation.jsonl", 1871),
        ("wikitext", "wikitext/train.jsonl", 2024),
        ("openwebtext", "webtext/train.jsonl", 2697),
    ],
)
def test_real_records_are_clean(real_data, name, file, usable):
    found = list(texts(name, real_data / file, "paragraph"))
    assert len(found) == usable
    for text in found:
        assert len(text.target) >= 100 and bool(text.source) == (name == "writingprompts")
    if name != "openwebtext":
        everything = " ".join(text.source + " " + text.target for text in found)
        for mark in ("[ WP ]", "<newline>", "``", " n't", " @-@ ", "<unk>", " ,"):
            assert mark not in everything, mark


def test_a_bad_record_is_named(tmp_path):
    path = write(tmp_path / "w.jsonl", [{"prompt": "P", "story": LONG}, {"prompt": "P", "text": LONG}])
    with pytest.raises(
        InputError, match=r"line 2 has no column 'story': source writingprompts reads what prompt, story"
    ):
        list(texts("writingprompts", path, "paragraph"))
    path = write(tmp_path / "n.jsonl", [{"text": None}])
    with pytest.raises(InputError, match="line 1 is not usable"):
        list(texts("openwebtext", path, "paragraph"))


# --- how many --------------------------------------------------------------------------------------------------


def slow_counts(shares, total):
    """Rows given one by one, each to the source that is furthest below its share, once each has its whole part."""
    given = {name: math.floor(share * total) for name, share in shares.items()}
    missing = {name: share * total - given[name] for name, share in shares.items()}
    while sum(given.values()) < total:
        name = max(missing, key=missing.get)
        given[name] += 1
        missing[name] = Fraction(-1)
    return given


def test_counts_are_exact_and_fair():
    rng = random.Random(0)
    for _ in range(200):
        names = rng.sample(list(SOURCES), rng.randint(1, 4))
        shares = mixture_shares([f"{name}={rng.randint(1, 20) / 10}" for name in names])
        assert sum(shares.values()) == 1
        total = rng.randint(0, 500)
        found = counts(shares, total)
        assert found == slow_counts(shares, total) and sum(found.values()) == total
        assert all(abs(found[name] - share * total) < 1 for name, share in shares.items())
    assert counts(mixture_shares(["writingprompts=1", "wikitext=1", "openwebtext=1"]), 20000) == {
        "writingprompts": 6667, "wikitext": 6667, "openwebtext": 6666
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wiki=1"], "'wiki' is no source; the sources are writingprompts"),
        (["wikitext"], "write wikitext=VALUE"),
        (["wikitext=a"], "'a' is no weight for wikitext"),
        (["wikitext=nan"], "'nan' is no weight"),
        (["wikitext=0"], "must be above 0"),
        (["wikitext=-1"], "must be above 0"),
        (["wikitext=1", "wikitext=2"], "names wikitext twice"),
    ],
)
def test_bad_weights_get_a_sentence(words, message):
    with pytest.raises(InputError, match=f"--mixture.*{message}"):
        mixture_shares(words)
    assert pairs("--source_files", ["wikitext=a=b"]) == {"wikitext": "a=b"}


# --- the split -------------------------------------------------------------------------------------------------


def made_up(tmp_path):
    """Files of two sources: few prompts with many stories each, and texts that come up to three times."""
    stories = [{"prompt": f"[ WP ] Prompt {i // 6}", "story": f"Story {i}. {LONG}"} for i in range(150)]
    pages = [{"text": f"Page {i // 3}. {LONG}"} for i in range(150)]
    return {
        "writingprompts": str(write(tmp_path / "stories.jsonl", stories)),
        "openwebtext": str(write(tmp_path / "pages.jsonl", pages)),
    }


def test_uses_are_disjoint_by_cluster_and_exact(tmp_path):
    files, shares = made_up(tmp_path), mixture_shares(["writingprompts=0.6", "openwebtext=0.4"])
    mixture = mix(shares, files, WANTED, seed=3)
    for use, total in WANTED.items():
        rows = mixture.rows[use]
        assert len(rows) == total
        assert {name: sum(row["group"] == name for row in rows) for name in shares} == counts(shares, total)
        assert mixture.counts[use] == counts(shares, total)
    rows = [(use, row) for use in USES for row in mixture.rows[use]]
    for what in ("cluster", "target", "id"):
        sides = {}
        for use, row in rows:
            sides.setdefault(row[what], set()).add(use)
        assert all(len(uses) == 1 for uses in sides.values()), what
    prompts = [{row["source"] for row in mixture.rows[use] if row["source"]} for use in USES]
    assert sum(map(len, prompts)) == len(set.union(*prompts))
    assert len({row["target"] for _, row in rows}) == len(rows)
    assert mix(shares, files, WANTED, seed=3) == mixture
    assert mix(shares, files, WANTED, seed=4).rows["train"] != mixture.rows["train"]


def test_sources_take_turns_in_a_mixture(tmp_path):
    rows = mix(mixture_shares(["writingprompts=1", "openwebtext=1"]), made_up(tmp_path), WANTED, seed=0).rows["train"]
    assert {row["group"] for row in rows[:8]} == {"writingprompts", "openwebtext"}


def test_too_few_rows_stop_the_run(tmp_path):
    with pytest.raises(InputError) as error:
        mix(mixture_shares(["openwebtext=1"]), made_up(tmp_path), WANTED | {"train": 40}, seed=0)
    message = str(error.value)
    assert all(w in message for w in ("openwebtext", "only 50 usable rows of the 55", "--source_files")), message
    assert "\n" not in message


# --- streaming -------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, cache):
    """A Hub with one stream of 150 pages; each call of load_dataset is noted in `hub.calls`."""

    class Hub:
        def __init__(self):
            self.calls, self.pages, self.fails_at = [], 150, None

        def records(self):
            for i in range(self.pages):
                if i == self.fails_at:
                    raise ConnectionError("the line was cut\nin two")
                yield {"text": "Menu" if i % 10 == 0 else f"Page {i}. {LONG}"}

        def load_dataset(self, *args, **kwargs):
            self.calls.append((args, kwargs))
            return datasets.IterableDataset.from_generator(self.records)

    hub = Hub()
    monkeypatch.setattr(datasets, "load_dataset", hub.load_dataset)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return hub


def sample(count=20, seed=0):
    return mixture.sample("openwebtext", count, seed)


def test_a_source_is_streamed_once(hub, cache):
    path = sample()
    (args, options), source = hub.calls[0], SOURCES["openwebtext"]
    assert args == (source.hub_id, source.config)
    assert options == {"split": "train", "revision": source.revision, "streaming": True}
    lines = path.read_text().splitlines()
    assert len(lines) == 20 and all("Page" in line for line in lines)
    assert path.parent == cache and [p.name for p in cache.iterdir()] == [path.name]
    assert sample() == path and len(hub.calls) == 1
    assert sample(seed=1).read_text() != path.read_text()  # shuffled
    path.write_text("".join(line + "\n" for line in lines[:-1]))  # damaged: streamed again
    assert sample().read_text().splitlines() == lines


def test_a_streamed_mixture_records_where_it_is_from(hub):
    mixture = mix(mixture_shares(["openwebtext=1"]), {}, {use: 2 for use in USES}, seed=0)
    assert mixture.samples["openwebtext"]["from"] == SOURCES["openwebtext"].address
    assert len(mixture.samples["openwebtext"]["sha256"]) == 64
    again = mix(mixture_shares(["openwebtext=1"]), {}, {use: 2 for use in USES}, seed=0)
    assert again == mixture and len(hub.calls) == 1


def test_a_stream_that_fails_or_ends_early_leaves_no_sample(hub, cache, monkeypatch):
    hub.fails_at = 30  # the buffer is being filled
    with pytest.raises(
        InputError, match=r"openwebtext .*failed after 0 of 20 rows \(ConnectionError: the line was cut\)"
    ):
        sample()
    hub.fails_at, hub.pages = None, 20
    with pytest.raises(InputError, match="gives only 18 usable rows of the 20"):
        sample()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="can't be reached: give a local file with --source_files openwebtext=FILE"):
        sample()
    assert not cache.exists()
