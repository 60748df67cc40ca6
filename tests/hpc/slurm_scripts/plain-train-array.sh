#!/bin/bash
#SBATCH --job-name=quick-and-1-more-train
#SBATCH --array=0-1
#SBATCH --output=slurm/array/%a/train-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=1
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue

# Trains autoencoders, then mappers, on 4 ranks of srun.
# Written by motorsweep submit.
set -euo pipefail
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
export MOTORSWEEP_BACKEND=auto MOTORSWEEP_INTERFACE=''

python=/usr/bin/python3
studies=(
    /home/ada/quick.toml
    '/home/ada/my studies/paper.toml'
)
study=${studies[$SLURM_ARRAY_TASK_ID]}
cd -- /home/ada

# SLURM sends USR1 before the walltime. The command is told, keeps what it has and ends; the job is then queued again,
# and the same command goes on. A command that does not end in time is ended: what it has finished is kept.
patience=90 requeues=10
met= command=
trap 'met=yes; tell' USR1

queue_again() {
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$requeues" ]; then
        echo "motorsweep: the walltime came once more, after $requeues requeues; motorsweep submit goes on" >&2
    else
        echo "motorsweep: the walltime is near; the job is queued again and goes on" >&2
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit 75
}

run() {
    local code=0 left=$patience
    if [ -n "$met" ]; then queue_again; fi
    "$@" &
    command=$!
    wait "$command" || code=$?
    while [ -n "$met" ] && kill -0 "$command" 2>/dev/null; do  # a signal ends `wait` before the command has ended
        if [ "$left" = 0 ]; then queue_again; fi
        left=$((left - 1))
        sleep 1
    done
    if [ -n "$met" ]; then
        code=0
        wait "$command" || code=$?
    fi
    command=
    if [ "$code" = 75 ] || { [ -n "$met" ] && [ "$code" != 0 ]; }; then queue_again; fi
    return "$code"
}

tell() {
    if [ -n "$command" ]; then kill -USR1 "$command" || true; fi
}

ranks=(srun --mpi=none --kill-on-bad-exit=1 --ntasks=4 --ntasks-per-node=4 --cpus-per-task=1)

run "${ranks[@]}" "$python" -m motorsweep.jobs.cli encode "$study" --allow-failed
run "${ranks[@]}" "$python" -m motorsweep.jobs.cli train "$study" --allow-failed
