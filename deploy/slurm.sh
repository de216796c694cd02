#!/bin/sh
# Slurm, without Ray: requests out in shards, an array of jobs that answers them, answers in.  On the login node:
#
#   rotary-batch index ~/src/app --model ~/models/mixtral-int4
#   cd "$SCRATCH"
#   rotary-batch export ~/src/app --requests requests.jsonl --shards 8
#   ls requests*.jsonl > shards
#   sbatch --wait --array=1-$(wc -l < shards) /path/to/deploy/slurm.sh
#   rotary-batch import answers-*.jsonl
#
# Files and folders are asked once what they tell of is answered: repeat the last four lines until `export` writes nothing.
# A job that is preempted or runs into its limit is queued again and goes on where it stopped.
#SBATCH --job-name=rotary-batch
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=120G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -eu
shard=$(sed -n "${SLURM_ARRAY_TASK_ID}p" shards)
status=0
srun rotary-batch generate "$shard" --output "answers-$SLURM_ARRAY_TASK_ID.jsonl" --model ~/models/mixtral-int4 \
  --device cuda || status=$?
# 75: stopped before all was answered.
if [ "$status" -eq 75 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
