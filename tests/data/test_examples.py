import pickle

import datasets
import numpy as np
import pytest

from gpt2_interp.data import examples, token_cache
from gpt2_interp.data.examples import IGNORED, TEMPLATES, ExampleBuilder, collate, token_counts
from gpt2_interp.errors import InputError
from gpt2_interp.model.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(toy_base):
    return load_tokenizer(str(toy_base))


def row(source, target, identity="a"):
    return {"id": identity, "cluster": "c", "source": source, "target": target}


def builder(tokenizer, task="summarization", source=40, target=10, positions=64, **blocks):
    return ExampleBuilder(tokenizer, task, source, target, positions, **blocks)


def test_prompt_is_masked_and_eos_is_learned(tokenizer):
    (example,), _ = builder(tokenizer).build([row("Boats lay in the street.", "Boats lay.")])
    assert tokenizer.decode(example.input_ids) == "Boats lay in the street.\nTL;DR: Boats lay.<|endoftext|>"
    assert example.labels == (IGNORED,) * len(example.prompt_ids) + example.target_ids
    assert example.target_ids[-1] == tokenizer.eos_token_id


def test_a_long_source_loses_its_end_and_the_target_nothing(tokenizer):
    target = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    (example,), report = builder(tokenizer).build([row("word " * 300, target)])
    assert tokenizer.decode(example.target_ids) == f" {target}<|endoftext|>"
    assert len(example.input_ids) <= 64
    assert tokenizer.decode(example.source_ids).startswith("word word")
    assert (report.cut_sources, report.long_targets, report.too_long_targets) == (1, 1, 0)
    # the template stays whole between them
    assert tokenizer.decode(example.template_ids) == TEMPLATES["summarization"]


def test_a_target_beyond_the_context_is_dropped_and_counted(tokenizer):
    examples, report = builder(tokenizer).build([row("short", "far too long " * 50), row("short", "fits", "b")])
    assert [example.id for example in examples] == ["b"]
    assert report.too_long_targets == 1 and "1 dropped" in str(report)


@pytest.mark.parametrize("n", range(40, 64))
def test_no_example_exceeds_the_context(tokenizer, n):
    target = tokenizer.decode(tokenizer("a " * 200)["input_ids"][:n])
    examples, _ = builder(tokenizer).build([row("word " * 100, target)])
    for example in examples:
        assert len(example.input_ids) <= 64 and len(example.source_ids) >= 1


def test_plain_text_is_all_target(tokenizer):
    (example,), _ = builder(tokenizer, "creative_writing").build([row("", "Boats lay in the street.")])
    assert example.prompt_ids == ()
    assert tokenizer.decode(example.target_ids) == "Boats lay in the street.<|endoftext|>"


def test_padding_is_masked_although_it_is_the_eos_token(tokenizer):
    examples, _ = builder(tokenizer).build([row("Boats lay in the street.", "Boats."), row("Mud.", "Mud.", "b")])
    batch = collate(examples, tokenizer.pad_token_id)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    for i, example in enumerate(examples):
        n = len(example.input_ids)
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (batch["input_ids"].shape[1] - n)
        assert batch["labels"][i, :n].tolist() == list(example.labels)
        assert (batch["labels"][i, n:] == IGNORED).all()


def test_a_prompt_leaves_room_for_what_is_generated(tokenizer):
    b = builder(tokenizer)
    for new_tokens in (1, 10, 30):
        assert len(b.prompt_ids("word " * 300, new_tokens)) + new_tokens <= 64
    (example,), _ = b.build([row("Boats lay in the street.", "Boats.")])
    assert b.prompt_ids("Boats lay in the street.", 10) == list(example.prompt_ids)


# --- many examples in flat arrays ---


def many_rows(n=25):
    return [row("word " * (i % 7), f"Boats {i}. " * (1 + i % 4), f"r{i}") | {"group": "ab"[i % 2]} for i in range(n)]


def test_a_table_is_a_sequence_of_examples(tokenizer):
    rows = many_rows()
    table, _ = builder(tokenizer).build(rows)
    one_by_one = [example for r in rows for example in builder(tokenizer).build([r])[0]]
    assert list(table) == one_by_one and len(table) == 25
    assert table[-1] == one_by_one[-1] and table[np.int64(3)] == one_by_one[3]
    assert list(table[20:3:-2]) == one_by_one[20:3:-2] and list(table[3:9][1:3]) == one_by_one[4:6]
    assert token_counts(table).tolist() == token_counts(one_by_one).tolist()
    assert token_counts(table[5:7]).tolist() == [len(example.input_ids) for example in one_by_one[5:7]]
    assert all(type(i) is int for i in table[8].input_ids) and table[8].group == "a"
    assert list(pickle.loads(pickle.dumps(table))) == one_by_one
    with pytest.raises(IndexError):
        table[25]
    assert not builder(tokenizer).build([])[0]
    assert list(builder(tokenizer).build(r for r in rows)[0]) == one_by_one


def test_rows_are_tokenized_as_transformers_does(tokenizer):
    texts = [
        "Boats",
        " Boats lay in the street.\n\nMud!",
        "",
        "caf\u00e9 \u2014 \U0001f6a3",
        "end<|endoftext|> of text",
    ]
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    tokenizer(texts, padding=True, truncation=True, max_length=3)
    assert builder(tokenizer)._batch_ids(texts) == expected


def test_chunks_do_not_show(tokenizer, monkeypatch):
    whole = builder(tokenizer).build(many_rows())
    monkeypatch.setattr(examples, "CHUNK_ROWS", 7)
    table, report = builder(tokenizer).build(iter_only(many_rows()))
    assert list(table) == list(whole[0]) and report == whole[1]


class iter_only(list):  # noqa: N801
    """Rows that are read in order, as those on disk should be."""

    def __getitem__(self, index):
        raise AssertionError("read in order")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(examples, "MANY_ROWS", 20)
    return tmp_path / "gpt2_interp" / "tokens"


def must_not_tokenize(*args):
    raise AssertionError("tokenized again")


def test_many_rows_are_tokenized_once(tokenizer, cache, monkeypatch):
    first = builder(tokenizer).build(many_rows(), "fingerprint")
    monkeypatch.setattr(ExampleBuilder, "_tokenize", must_not_tokenize)
    again = builder(tokenizer).build(many_rows(), "fingerprint")
    assert list(again[0]) == list(first[0]) and again[1] == first[1]
    for other in (
        lambda: builder(tokenizer).build(many_rows(), "other rows"),
        lambda: builder(tokenizer, source=41).build(many_rows(), "fingerprint"),
        lambda: builder(tokenizer, "creative_writing").build(many_rows(), "fingerprint"),
        lambda: builder(tokenizer, "creative_writing", block_size=16).build(many_rows(), "fingerprint"),
        lambda: builder(tokenizer).build(many_rows(19), "fingerprint"),  # few rows: not worth a file
        lambda: builder(tokenizer).build(many_rows()),
    ):
        with pytest.raises(AssertionError, match="tokenized again"):
            other()
    assert len(list(cache.iterdir())) == 1


def test_another_tokenizer_is_another_file(tokenizer, toy_base):
    other = load_tokenizer(str(toy_base))
    assert token_cache.key("f", tokenizer, {}) == token_cache.key("f", other, {})
    tokenizer(["a", "b b"], padding=True)  # sets padding in the tokenizer, not in what it would make of rows
    assert token_cache.key("f", tokenizer, {}) == token_cache.key("f", other, {})
    other.add_tokens(["Boats"])
    assert token_cache.key("f", tokenizer, {}) != token_cache.key("f", other, {})


@pytest.mark.parametrize("damage", ["emptied", "truncated", "one bit", "other counts"])
def test_a_damaged_file_is_ignored_and_written_anew(tokenizer, cache, damage):
    table, _ = builder(tokenizer).build(many_rows(), "fingerprint")
    (path,) = cache.iterdir()
    whole = bytearray(path.read_bytes())
    damaged = whole.copy()
    if damage == "one bit":
        damaged[-5] ^= 1
    elif damage == "other counts":
        damaged = damaged.replace(b'rows\\": 25', b'rows\\": 26')
        assert damaged != whole
    path.write_bytes({"emptied": b"", "truncated": whole[:-9]}.get(damage, damaged))
    again, report = builder(tokenizer).build(many_rows(), "fingerprint")
    assert list(again) == list(table) and report.rows == 25
    assert token_cache.read(path.stem)[3]["rows"] == 25


def test_a_cache_that_cannot_be_written_is_said(tokenizer, cache, capsys):
    cache.parent.parent.joinpath("gpt2_interp").write_text("a file in its place")
    table, _ = builder(tokenizer).build(many_rows(), "fingerprint")
    assert len(table) == 25 and "can't be kept" in capsys.readouterr().out


# --- blocks ---


@pytest.mark.parametrize("size", [8, 9, 10, 16, 64])
@pytest.mark.parametrize("n_words", [1, 6, 7, 8, 9, 15, 16, 17, 40])
def test_blocks_hold_every_token_once_and_eos_only_at_the_end(tokenizer, size, n_words):
    text = "word " * n_words
    blocks, report = builder(tokenizer, "creative_writing", block_size=size).build([row("", text)])
    ids = [*tokenizer(text.strip())["input_ids"], tokenizer.eos_token_id]
    assert [i for block in blocks for i in block.input_ids] == ids
    assert [tokenizer.eos_token_id in block.input_ids for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert all(2 <= len(block.input_ids) <= size for block in blocks)
    assert len(blocks) == -(-len(ids) // size) and report.blocks == (len(blocks) if len(blocks) > 1 else 0)
    assert {block.cluster for block in blocks} == {"c"} and len({block.id for block in blocks}) == len(blocks)


def test_only_the_first_block_of_each_text_of_a_mixture(tokenizer):
    rows = [row("", "word " * 30, "long"), row("", "word", "short")]
    b = builder(tokenizer, "creative_writing", block_size=16, first_block_only=True)
    (long, short), report = b.build(rows)
    assert len(long.target_ids) == 16 and tokenizer.eos_token_id not in long.target_ids and long.id == "long"
    assert short.target_ids[-1] == tokenizer.eos_token_id
    assert (report.cut_targets, report.blocks) == (1, 0) and "without end-of-text" in str(report)


def test_a_story_longer_than_its_block_keeps_prompt_and_beginning(tokenizer):
    b = builder(tokenizer, "creative_writing", source=40, block_size=32)
    (long, short), report = b.build([row("Write of boats.", "Boats lay. " * 20), row("Write of boats.", "Boats.", "b")])
    assert len(long.input_ids) == 32 and tokenizer.eos_token_id not in long.input_ids
    assert tokenizer.decode(long.input_ids).startswith("Write of boats.\n\n Boats lay. Boats lay.")
    assert short.target_ids[-1] == tokenizer.eos_token_id
    assert report.remarks() == {"cut_targets": 1}
    (example,), report = b.build([row("word " * 40, "Boats lay. " * 20)])  # a prompt takes half the block at most
    assert len(example.prompt_ids) == 16 and len(example.target_ids) == 16 and report.cut_sources == 1
    assert b.prompt_ids("word " * 40, 10) == list(example.prompt_ids)


def test_a_block_beyond_the_context_is_refused(tokenizer):
    with pytest.raises(InputError, match="--block_size 65 exceeds the model's context of 64"):
        builder(tokenizer, "creative_writing", block_size=65)
