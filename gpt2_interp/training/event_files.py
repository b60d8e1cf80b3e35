"""TensorBoard's files of a run that is resumed: what came after its checkpoint is taken out of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from gpt2_interp.files import write_atomically

PATTERN = "*tfevents*"
KEPT = "events.out.tfevents.0000000000.kept"  # sorts before the files that writers make

# Tags whose records are written once a run, whatever their step: at its end, and when training begins.
AT_THE_END = ("rouge/", "hparams/", "_hparams_/")
AT_THE_BEGINNING = ("args/", "model_config/")


def cut_event_files(folder: Path, last_step: int, dropped_tags: tuple[str, ...] = AT_THE_END) -> None:
    """Rewrite all event files of `folder` into one with the records up to optimizer step `last_step`, in their order.

    dropped_tags: beginnings of tags whose records go whatever their step, because they will be written again. The
    records that stay are copied as they are. A kill on the way leaves nothing lost, and nothing twice after the next
    call. Files in folders below are removed: only what is written at the end of a run (hparams) is there.
    """
    if not folder.is_dir():
        return
    files = [path for path in folder.rglob(PATTERN) if path.is_file()]
    kept: dict[bytes, float] = {}  # record -> time; a killed call may have left a record in two files
    for path in files:
        for record in _records(path) if path.parent == folder else ():
            event = Event.FromString(record)
            if event.step <= last_step and not _has_tag(event, dropped_tags):
                kept.setdefault(record, event.wall_time)
    if last_step >= 0:
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for record in sorted(kept, key=kept.get):
            writer.write(record)
        write_atomically(folder / KEPT, buffer.getvalue())
    for path in files:
        if path != folder / KEPT or last_step < 0:
            path.unlink(missing_ok=True)


def _records(path: Path) -> Iterator[bytes]:
    """Raw records up to the end or to one that a kill cut off."""
    return RawEventFileLoader(str(path)).Load()


def _has_tag(event: Event, beginnings: tuple[str, ...]) -> bool:
    return any(value.tag.startswith(beginnings) for value in event.summary.value)
