#!/usr/bin/env bash
# A run on all hosts of a TPU VM or pod slice, through gcloud:
#
#   scripts/launch/tpu_vm.sh [--dry_run] NAME ZONE [GCLOUD_FLAGS] -- \
#       --config=configs/stage0_warmup.py:0.6b --workdir=gs://BUCKET/RUN
#
# All after `--` goes to scripts/train.py on every host; jax finds the hosts by itself. GCLOUD_FLAGS:
# --project=P, say. --dry_run prints the command instead. The same line resumes. Needs on every host
# a clone with its environment, and a --workdir that all of them see (docs/launch.md).
#
# Edit: the clone's folder on the hosts, and variables of the run.
set -euo pipefail

folder="nkjax"
environment=""
# Off by default; take the # away where it helps (docs/launch.md):
# environment="JAX_COMPILATION_CACHE_DIR=gs://BUCKET/compiled" # compile once, not at every resume

fails() {
    echo "tpu_vm.sh: $1; usage: tpu_vm.sh [--dry_run] NAME ZONE [GCLOUD_FLAGS] -- TRAIN_ARGUMENTS" >&2
    exit 2
}

dry_run=0
if [ "${1:-}" = --dry_run ]; then
    dry_run=1
    shift
fi
case "${1:--}:${2:--}" in -*:* | *:-*) fails "the first two arguments are NAME and ZONE" ;; esac
call=(gcloud compute tpus tpu-vm ssh "$1" "--zone=$2" --worker=all)
shift 2
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    call+=("$1")
    shift
done
[ $# -gt 1 ] || fails "no arguments for train.py after --"
shift

# The hosts' shell reads the line once more, so every argument is quoted for it.
call+=("--command=cd $folder && $environment exec bash scripts/launch/task.sh$(printf ' %q' "$@")")
if [ "$dry_run" = 1 ]; then
    printf '%q ' "${call[@]}"
    echo
    exit 0
fi
command -v gcloud >/dev/null || fails "gcloud is not installed"
exec "${call[@]}"
