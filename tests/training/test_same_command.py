"""The same command gives the same run, whatever else the machine does meanwhile."""

import multiprocessing
import time
from contextlib import contextmanager

import pytest

from tests.runs import FORKS, Run, differences, outcome

CHOSEN = ("--per_device_train_batch_size", "--gradient_accumulation_steps")  # without them the run chooses both


def burn(started) -> None:
    """Keep a core and half a gigabyte busy until killed."""
    held = bytearray(5 * 10**8)
    held[::4096] = b"1" * len(held[::4096])
    started.release()
    while True:
        sum(range(10**5))


@contextmanager
def load(count: int):
    """`count` other processes at work inside this context."""
    started = multiprocessing.get_context("forkserver").Semaphore(0)
    others = [FORKS.Process(target=burn, args=(started,), daemon=True) for _ in range(count)]
    try:
        for process in others:
            process.start()
        for _ in others:
            started.acquire()
        yield
    finally:
        for process in others:
            process.kill()
            process.join()


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_idle_or_under_load_the_bytes_are_the_same(toy_base, tmp_path, tuning):
    runs = [Run(tmp_path / name, toy_base, flags=[f"--tuning={tuning}", "--precision=auto"]) for name in ("a", "b")]
    for run in runs:
        run.flags = [flag for flag in run.flags if not flag.startswith(CHOSEN)]
    seconds = []
    for run, count in zip(runs, (0, 6), strict=True):
        with load(count):
            start = time.monotonic()
            assert run.finish(run.start(), timeout=600) == 0, run.output
            seconds.append(time.monotonic() - start)
    print(f"{seconds[0]:.1f} s idle, {seconds[1]:.1f} s under load")  # pytest -s shows that there was a load
    assert differences(*(outcome(run.paths) for run in runs)) == []
