import pytest

from gpt2_interp.examples import IGNORED, TEMPLATES, ExampleBuilder, collate
from gpt2_interp.models import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(toy_base):
    return load_tokenizer(str(toy_base))


def row(source, target, identity="a"):
    return {"id": identity, "cluster": "c", "source": source, "target": target}


def builder(tokenizer, task="summarization", source=40, target=10, positions=64):
    return ExampleBuilder(tokenizer, task, source, target, positions)


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
