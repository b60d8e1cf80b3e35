#!/usr/bin/env bash
# The whole experiment: set-up -> fine-tune -> latent space -> figures and report.
#
#   ./run_experiment.sh                                      the quickstart: 5 to 10 minutes on 2 CPU cores, no network needed
#   ./run_experiment.sh quickstart_lora --learning_rate 1e-3    any preset of configs/, any training flag over it
#   ./run_experiment.sh path/to/my.yaml --run_name mine         a preset of your own
#   ./run_experiment.sh quickstart --resume                     go on with a run that was interrupted
#
# Files are looked for, and outputs written, in the folder you are in; or say --root FOLDER.
# All flags: python gpt2_summarization.py --help. Watch it: tensorboard --logdir logs
set -euo pipefail
here=$(CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for word in "$@"; do case $word in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$here/run_experiment.sh"; echo "Presets:"; ls "$here"/configs/*.yaml | sed 's/.*\//  /;s/\.yaml//'; exit 0;; esac; done

case ${1:--} in -*) set -- quickstart "$@";; esac

# On a CPU, glibc would hand every step's tensors back to the kernel and fault them in again: let it keep them.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-33554432} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-4294967296}
# Threads that wait by spinning starve each other as soon as anything else runs on their cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

echo "== 1/4 environment";            "$here/setup_environment.sh"
python=${VIRTUAL_ENV:-${CONDA_PREFIX:-$here/.venv}}/bin/python
# The names under which training keeps the run; a mistake in them stops the script here.
names=$(PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" "$python" -m gpt2_interp.cli.presets "$@")
{ IFS= read -r run; IFS= read -r root; } <<< "$names"
echo "== 2/4 fine-tuning, with snapshots on the way";  "$python" "$here/gpt2_summarization.py" "$@"
echo "== 3/4 latent space";           "$python" "$here/analyze_latent_space.py" --run_name "$run" --root "$root"
echo "== 4/4 figures and report";     "$python" "$here/visualize_metrics.py" --run_name "$run" --root "$root"

echo
echo "report:      $root/visualizations/$run/interpretability_report.html"
echo "all runs:    $root/visualizations/interpretability_report.html"
echo "scores:      $root/model_outputs/$run/metrics.json"
echo "TensorBoard: $python -m tensorboard.main --logdir $root/logs"
