"""Seals, and which checkpoints are trusted, kept and chosen."""

import json
import random

import pytest
from transformers import TrainerState

from gpt2_interp.training.checkpoints import (
    MANIFEST,
    all_checkpoints,
    best_intact_step,
    newest_intact,
    remove_leftovers,
    remove_newer,
    rotate,
    seal,
    step_of,
    verify,
)


def make(folder, step, interruption=False, sealed=True):
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "sub").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "sub/more.bin"):
        (checkpoint / name).write_bytes(f"{name} {step}".encode() * 50)
    if sealed:
        seal(checkpoint, interruption=interruption)
    return checkpoint


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def flip(path, bit=0):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << bit
    path.write_bytes(data)


def delete(path):
    path.unlink()


DAMAGES = (truncate, empty, flip, delete)
FILES = ("model.safetensors", "optimizer.pt", "sub/more.bin", MANIFEST)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_every_damage_to_every_file_is_seen_and_named(tmp_path, damage, name):
    checkpoint = make(tmp_path, 5)
    assert verify(checkpoint) is None
    damage(checkpoint / name)
    assert name in verify(checkpoint)


def test_every_flipped_byte_of_the_manifest_is_seen(tmp_path):
    checkpoint = make(tmp_path, 5)
    data = (checkpoint / MANIFEST).read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        (checkpoint / MANIFEST).write_bytes(damaged)
        assert verify(checkpoint) == f"{MANIFEST} is damaged", position


def test_a_seal_tells_its_step_and_kind_and_ignores_what_came_later(tmp_path):
    checkpoint = make(tmp_path, 12, interruption=True)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    assert (manifest["step"], manifest["interruption"]) == (12, True)
    assert set(manifest["files"]) == set(FILES) - {MANIFEST}
    (checkpoint / "notes.txt").write_text("mine")
    assert verify(checkpoint) is None


def test_the_newest_intact_one_is_found_and_newer_ones_are_named(tmp_path):
    for step in (5, 10, 100):  # as numbers, not as words
        make(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    make(tmp_path, 200, sealed=False)
    flip(tmp_path / "checkpoint-100" / "optimizer.pt")
    said = []
    assert newest_intact(tmp_path, said.append) == tmp_path / "checkpoint-10"
    assert len(said) == 2
    assert "checkpoint-200" in said[0] and "not sealed" in said[0]
    assert "checkpoint-100" in said[1] and "optimizer.pt" in said[1]
    remove_newer(tmp_path, tmp_path / "checkpoint-10", said.append)
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [5, 10]
    remove_newer(tmp_path, None, said.append)
    assert newest_intact(tmp_path, said.append) is None and not all_checkpoints(tmp_path)


def test_older_ones_are_not_read_once_an_intact_one_is_found(tmp_path, monkeypatch):
    make(tmp_path, 1), make(tmp_path, 2)
    asked = []
    monkeypatch.setattr("gpt2_interp.training.checkpoints.verify", lambda path: asked.append(step_of(path)))
    newest_intact(tmp_path)
    assert asked == [2]


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    for step in (1, 2, 3, 4, 5):
        make(tmp_path, step)
    rotate(tmp_path, 2, best_step=2)
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [2, 4, 5]


def test_interruptions_and_unsealed_ones_go_once_a_newer_one_is_sealed(tmp_path):
    make(tmp_path, 3), make(tmp_path, 4, interruption=True), make(tmp_path, 5, sealed=False)
    make(tmp_path, 5 + 1, interruption=True)
    rotate(tmp_path, None, best_step=3)
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [3, 6]
    make(tmp_path, 9)
    rotate(tmp_path, 1, best_step=3)
    assert [step_of(path) for path in all_checkpoints(tmp_path)] == [3, 9]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 2, None])
def test_rotation_never_deletes_the_best_or_the_newest(tmp_path, limit, seed):
    rng = random.Random(seed)
    best, best_loss = None, 9.0
    for step in range(1, 13):
        interruption = rng.random() < 0.3
        if not interruption and (loss := rng.random()) < best_loss:
            best, best_loss = step, loss
        make(tmp_path, step, interruption)
        rotate(tmp_path, limit, best)
        left = [step_of(path) for path in all_checkpoints(tmp_path)]
        assert step in left and (best is None or best in left)
        assert limit is None or len(left) <= limit + 2


def state_of(losses, last):
    lines = [{"step": step, "eval_loss": loss} for step, loss in losses.items()] + [{"step": 2, "loss": 0.0}]
    best = min(losses, key=losses.get)
    return TrainerState(log_history=lines, global_step=last, best_global_step=best)


def test_the_best_intact_checkpoint_is_chosen_and_the_damaged_better_ones_are_named(tmp_path):
    for step in (3, 6, 9):
        make(tmp_path, step)
    state = state_of({3: 2.0, 6: 1.0, 9: 1.5, 12: 3.0}, last=14)
    said = []
    assert best_intact_step(tmp_path, state, "eval_loss", False, said.append) == 6 and not said
    assert best_intact_step(tmp_path, state, "eval_loss", True, said.append) == 3 and not said  # 12 was rotated away
    flip(tmp_path / "checkpoint-6" / "model.safetensors")
    assert best_intact_step(tmp_path, state, "eval_loss", False, said.append) == 9
    assert len(said) == 1 and "checkpoint-6" in said[0] and "model.safetensors" in said[0]
    for step in (3, 9):
        empty(tmp_path / f"checkpoint-{step}" / "model.safetensors")
    assert best_intact_step(tmp_path, state, "eval_loss", False, said.append) == 14  # the weights in memory
    last = state_of({3: 2.0, 6: float("nan"), 14: 1.0}, last=14)
    assert best_intact_step(tmp_path / "none", last, "eval_loss", False, said.append) == 14


def test_temporary_files_of_a_killed_write_are_removed(tmp_path):
    for name in ("a/.step_00000003.json.77.tmp", "a/b/.manifest.json.1.tmp", "a/kept.tmp", "a/kept.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers([tmp_path / "a", tmp_path / "none"])
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["kept.json", "kept.tmp"]
