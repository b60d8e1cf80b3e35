import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from gpt2_interp.training.event_files import AT_THE_BEGINNING, AT_THE_END, KEPT, PATTERN, _records, cut_event_files


@pytest.fixture
def logs(tmp_path):
    """A run's event files as several writers leave them: losses of steps 1 to 6, texts at 3 and 6, ROUGE, hparams."""
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("args", "all of them")
        for step in range(1, 7):
            writer.add_scalar("train/loss", 1 / step, step)
    for step in (3, 6):
        with SummaryWriter(str(tmp_path)) as writer:
            writer.add_text("samples/a", f"text {step}", step)
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("rouge/rouge1", 5.0, 0)
        writer.add_hparams({"lr": 1.0}, {"score": 2.0})
    return tmp_path


def scalars(folder, tag="train/loss"):
    events = EventAccumulator(str(folder)).Reload()
    return [(e.step, e.value) for e in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []


def tags(folder):
    return {
        tag for tags in EventAccumulator(str(folder)).Reload().Tags().values() if isinstance(tags, list) for tag in tags
    }


def test_what_came_later_and_what_comes_again_is_cut(logs):
    before = scalars(logs)
    cut_event_files(logs, 3)
    assert scalars(logs) == before[:3]
    assert tags(logs) == {"train/loss", "samples/a/text_summary", "args/text_summary"}
    assert [path.name for path in logs.rglob(PATTERN)] == [KEPT]
    cut_event_files(logs, 3, AT_THE_END + AT_THE_BEGINNING)
    assert tags(logs) == {"train/loss", "samples/a/text_summary"}


def test_records_are_copied_as_they_are(logs):
    originals = {record for path in logs.glob(PATTERN) for record in _records(path)}
    cut_event_files(logs, 3)
    kept = list(_records(logs / KEPT))
    assert set(kept) < originals and len(kept) == len(set(kept))


def test_a_resumed_writer_goes_on_where_it_was_cut(logs):
    before = scalars(logs)
    cut_event_files(logs, 4)
    with SummaryWriter(str(logs)) as writer:
        for step in (5, 6):
            writer.add_scalar("train/loss", 1 / step, step)
    assert scalars(logs) == before
    cut_event_files(logs, 6)  # and once more
    assert scalars(logs) == before


def test_a_record_that_a_kill_cut_off_is_dropped(logs):
    path = max((p for p in logs.glob(PATTERN)), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:-3])
    cut_event_files(logs, 6)
    assert [step for step, _ in scalars(logs)] == [1, 2, 3, 4, 5]


def test_killed_between_the_new_file_and_the_removal_of_the_old_ones(logs, tmp_path_factory):
    copies = tmp_path_factory.mktemp("copies")
    for path in logs.glob(PATTERN):
        shutil.copy(path, copies)
    cut_event_files(logs, 5)
    expected = scalars(logs)
    for path in copies.iterdir():
        shutil.copy(path, logs)
    cut_event_files(logs, 5)
    assert scalars(logs) == expected and len(expected) == 5


def test_a_run_that_starts_from_the_beginning_keeps_nothing(logs):
    (logs / "notes.txt").write_text("mine")
    cut_event_files(logs, -1)
    assert not list(logs.rglob(PATTERN)) and (logs / "notes.txt").exists()
    cut_event_files(logs / "none", 3)
