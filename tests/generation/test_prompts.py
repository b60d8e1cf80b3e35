import json

import pytest

from gpt2_interp.data.examples import ExampleBuilder
from gpt2_interp.errors import InputError
from gpt2_interp.generation.prompts import PromptBuilder
from gpt2_interp.model.task_file import TASK_FILE, trained_task
from gpt2_interp.model.tokenizers import load_tokenizer
from tests.conftest import decoding

N = 64  # positions of the context
LONG = " ".join(f"word{i}" for i in range(60))
TRAINED = {"task": "summarization", "max_source_length": 12, "max_target_length": 9}


@pytest.fixture(scope="module")
def tokenizer(toy_base):
    return load_tokenizer(str(toy_base))


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_text_is_continued_as_it_is(tokenizer):
    text = " The boat, the "  # spaces belong to what is continued
    ids, room, note = PromptBuilder(tokenizer, N).build(text, decoding(max_new_tokens=10))
    assert (ids, room, note) == (ids_of(tokenizer, text), 10, None)
    assert tokenizer.decode(ids) == text


def test_nothing_begins_where_documents_begin(tokenizer):
    assert PromptBuilder(tokenizer, N).build("", decoding()) == ([tokenizer.eos_token_id], N - 1, None)


def test_a_long_text_loses_its_beginning(tokenizer):
    whole = ids_of(tokenizer, LONG)
    assert len(whole) > N
    ids, room, note = PromptBuilder(tokenizer, N).build(LONG, decoding(max_new_tokens=10))
    assert ids == whole[-(N - 10) :] and room == 10
    assert note == f"the text's beginning was cut: {len(whole)} tokens, of which {N - 10} are used"
    # Half the context is the prompt's, however many new tokens are wanted.
    ids, room, note = PromptBuilder(tokenizer, N).build(LONG, decoding(max_new_tokens=50))
    assert (len(ids), room) == (N // 2, N // 2) and "at most 32 new tokens, not 50, fit" in note
    ids, room, note = PromptBuilder(tokenizer, N).build(LONG, decoding())  # 100 by default: nothing was asked for
    assert (len(ids), room) == (N // 2, N // 2) and "new tokens" not in note


def test_a_short_text_leaves_the_context_to_the_new_tokens(tokenizer):
    n = len(ids_of(tokenizer, "A boat"))
    for settings, note in (
        (
            decoding(max_new_tokens=200),
            f"at most {N - n} new tokens, not 200, fit the context behind the prompt",
        ),
        (decoding(), None),
        (decoding(max_length=200), f"--max_length is cut to the context of {N} tokens"),
    ):
        assert PromptBuilder(tokenizer, N).build("A boat", settings)[1:] == (N - n, note)
    assert PromptBuilder(tokenizer, N).build("A boat", decoding(max_length=n + 3))[1:] == (3, None)
    with pytest.raises(InputError, match="--max_length"):
        PromptBuilder(tokenizer, N).build("A boat", decoding(max_length=n))


@pytest.mark.parametrize("task", ["summarization", "creative_writing"])
def test_a_prompt_is_that_of_training(tokenizer, task):
    trained = {**TRAINED, "task": task}
    rows = [{"id": "0", "source": source, "target": "Boats."} for source in ("  A boat sank.\n", LONG)]
    examples, _ = ExampleBuilder(tokenizer, task, 12, 9, N).build(rows)
    builder = PromptBuilder(tokenizer, N, task, trained)
    notes = []
    for row, example in zip(rows, examples, strict=True):
        ids, room, note = builder.build(row["source"], decoding(max_new_tokens=9))
        assert ids == list(example.prompt_ids) and room == 9
        notes.append(note)
    n = len(ids_of(tokenizer, LONG))
    assert notes == [None, f"the text's end was cut: {n} tokens, of which 12 are used"]


def test_the_context_cuts_a_source_before_its_template(tokenizer):
    ids, room, note = PromptBuilder(tokenizer, N, "summarization").build(LONG, decoding(max_new_tokens=40))
    template = ids_of(tokenizer, "\nTL;DR:")
    assert ids == [*ids_of(tokenizer, LONG)[: N // 2 - len(template)], *template]
    assert (room, len(ids)) == (N // 2, N // 2) and "end was cut" in note and "not 40" in note


def test_lengths_of_another_task_do_not_hold(tokenizer):
    settings = decoding(max_new_tokens=9)
    ids, _, _ = PromptBuilder(tokenizer, N, "creative_writing", TRAINED).build(LONG, settings)
    assert len(ids) == N - 9
    assert len(PromptBuilder(tokenizer, N, "summarization", TRAINED).build(LONG, settings)[0]) < 30


def test_an_empty_source_and_an_unknown_task_are_refused(tokenizer):
    for text in ("", " \n"):
        with pytest.raises(InputError, match="--task summarization"):
            PromptBuilder(tokenizer, N, "summarization").build(text, decoding())
    with pytest.raises(InputError, match="--task poetry.*text, summarization, creative_writing"):
        PromptBuilder(tokenizer, N, "poetry")


def test_what_a_model_was_trained_for(tmp_path):
    assert trained_task(tmp_path) is None
    path = tmp_path / TASK_FILE
    path.write_text(json.dumps(TRAINED))
    assert trained_task(tmp_path) == TRAINED
    for broken in (
        "{",
        "[]",
        "{}",
        json.dumps({**TRAINED, "task": "x"}),
        json.dumps({**TRAINED, "max_source_length": 0}),
    ):
        path.write_text(broken)
        with pytest.raises(InputError, match="task.json is damaged"):
            trained_task(tmp_path)
