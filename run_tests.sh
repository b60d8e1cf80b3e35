#!/usr/bin/env bash
# Set-up and every check that CI runs: linter, types, spelling, the rules of who may import whom, then all tests (slow ones too).
#   ./run_tests.sh              everything
#   ./run_tests.sh -m 'not slow' tests/data/test_examples.py    flags and paths go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup_environment.sh requirements-dev.txt
python=${VIRTUAL_ENV:-${CONDA_PREFIX:-$PWD/.venv}}/bin/python

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$(dirname "$python")/codespell"
"$(dirname "$python")/lint-imports" --no-cache >/dev/null || "$(dirname "$python")/lint-imports" --no-cache
# One process a core, one thread a process: threads of several processes on the same cores wait for each other.
cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 MPLBACKEND=Agg
exec "$python" -m pytest -n "$cores" --dist worksteal --durations 10 "$@"
