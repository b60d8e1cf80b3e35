#!/usr/bin/env bash
# Make the environment: .venv here, or the conda environment or venv that is active. Safe to run again: it does nothing then.
#   ./setup_environment.sh [REQUIREMENTS_FILE]      (default: requirements.txt; PYTHON=python3.12 chooses the interpreter)
set -euo pipefail
CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")"

requirements=${1:-requirements.txt}
environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-$PWD/.venv}}
python=$environment/bin/python
stamp() { echo "$environment/.gpt2_interp_$(basename "$1" .txt)"; }
state() { echo "$PWD $(cat requirements.txt "$1" pyproject.toml | cksum)"; }
fail() { echo "setup_environment.sh: $*" >&2; exit 1; }

# --- nothing to do? -----------------------------------------------------------------------------------------------
[ -f "$requirements" ] || fail "there is no file $requirements."
if [ -x "$python" ] && [ "$(cat "$(stamp "$requirements")" 2>/dev/null)" = "$(state "$requirements")" ]; then exit 0; fi

# --- an interpreter and room for the packages ------------------------------------------------------------------------
if [ -x "$python" ]; then base=$python; else base=${PYTHON:-python3}; fi
command -v "$base" >/dev/null || fail "no $base found: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3."
"$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$base" --version) at $(command -v "$base") is too old: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3."
free_mb=$(df -Pm . | awk 'NR == 2 {print $4}')
[ "$free_mb" -ge 4000 ] || fail "only $free_mb MB are free on this disk: the packages need about 4000 MB."
if [ ! -x "$python" ]; then
  echo "making $environment with $("$base" --version)"
  "$base" -m venv "$environment" || fail "could not make $environment (on Debian and Ubuntu: apt install python3-venv)."
fi

# --- packages ----------------------------------------------------------------------------------------------------
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing $requirements into $environment (minutes, the first time)"
if ! { "$python" -m pip install --disable-pip-version-check -q -r "$requirements" &&
       "$python" -m pip install --disable-pip-version-check -q --no-deps -e .; } >"$log" 2>&1; then
  grep -iE '^ *ERROR' "$log" | head -n 3 >&2 || true
  if grep -qiE 'No space left' "$log"; then fail "the disk is full: free some space and run this again."; fi
  if grep -qiE 'connection|resolve|from versions: none|Max retries|timed out' "$log"; then
    fail "pip could not get the packages: check the network or the package index (pip config list), then run this again."
  fi
  fail "pip could not install $requirements; the lines above say why."
fi

# --- does it work? -----------------------------------------------------------------------------------------------
echo "checking the imports"
MPLBACKEND=agg "$python" -W ignore - <<'P' || fail "a package can't be imported; delete $environment and run this again."
import importlib, sys
names = ("torch transformers accelerate datasets evaluate rouge_score peft captum umap matplotlib seaborn plotly "
         "imageio tensorboard tqdm gpt2_interp").split()
for name in names:
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.exit(f"{name}: {type(error).__name__}: {error}")
import torch
if torch.cuda.is_available():
    device = f"CUDA ({torch.cuda.get_device_name(0)})"
elif torch.backends.mps.is_available():
    device = "MPS"
else:
    device = f"CPU ({torch.get_num_threads()} threads)"
print(f"ready: torch {torch.__version__} on {device}")
P
for file in requirements.txt "$requirements"; do state "$file" >"$(stamp "$file")"; done  # every file includes requirements.txt
