#!/usr/bin/env bash
# A run on SLURM, one process per GPU. From the clone, after scripts/setup.sh made its environment:
#
#   sbatch scripts/launch/slurm.sh -- --config=configs/stage0_warmup.py:0.6b --workdir=RUN
#
# All after `--` goes to scripts/train.py. Two minutes before its time is up, and when it is
# preempted, the run saves; the job then goes back into the queue and resumes. `scancel` ends it.
#
# Edit: nodes, GPUs of a node (twice), and what your cluster asks for (partition, account, memory).
#SBATCH --job-name=nkjax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=nkjax-%j.log
set -euo pipefail

# Off by default; take the # away where it helps (docs/launch.md):
# export NCCL_IB_DISABLE=1                                  # InfiniBand that hangs or drops
# export JAX_COMPILATION_CACHE_DIR="$HOME/.cache/nkjax"     # compile once, not at every resume
# set -- "$@" --config.threads=4                            # nodes with few cores for each GPU

fails() {
    echo "slurm.sh: $1" >&2
    exit 2
}

[ "${1:-}" = -- ] && [ $# -gt 1 ] ||
    fails "no arguments for train.py; sbatch scripts/launch/slurm.sh -- --config=... --workdir=..."
shift
cd "${SLURM_SUBMIT_DIR:-.}" # SLURM runs a copy of this file from elsewhere
[ -f scripts/train.py ] || fails "$PWD holds no scripts/train.py; call sbatch in the clone"

# jax gives task n the n-th GPU of its node, so each task has to see all of them. srun does not take
# over --cpus-per-task from sbatch.
code=0
srun --gpu-bind=none --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    bash scripts/launch/task.sh "$@" || code=$?

if [ "$code" = 75 ]; then
    echo "slurm.sh: stopped before the end; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
