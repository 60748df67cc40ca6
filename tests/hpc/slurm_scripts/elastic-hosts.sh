#!/bin/bash
# Nodes of the job that answer, with the ranks that each takes.
set -euo pipefail
sinfo --noheader --responding --Node --nodes="$SLURM_JOB_NODELIST" --format=%N | sort -u | sed 's/$/:4/'
