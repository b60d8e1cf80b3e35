from dataclasses import fields

from transformers import TrainingArguments

from gpt2_interp.cli.hugging_face_flags import training_arguments


def test_the_source_file_says_what_the_class_has():
    assert list(training_arguments()) == [one.name for one in fields(TrainingArguments) if one.init]
