#!/bin/bash
# An array job: every element does its share, with no coordinator and nothing in common but the two folders.
#
#   SOURCES=/data/videos OUT=/data/depth sbatch deploy/slurm.sh
#   sbatch --dependency=afterany:JOBID --wrap "depthstream join /data/depth"    # puts long videos together
#
# Elements that end early, or are sent again, go on where they were. Take more elements than machines if these differ:
# an element is as slow as its machine. The work has SHARDS shares, of which element I does share I: for some of them,
#
#   SHARDS=8 SOURCES=/data/videos OUT=/data/depth sbatch --array=3,5 deploy/slurm.sh
#SBATCH --job-name=depthstream
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -eu
: "${SOURCES:?the folder, glob or list of the videos}" "${OUT:?the folder of the results, which all elements share}"
if [ -z "${SHARDS:-}" ]; then # an array from 1 without gaps has as many
  if [ "$SLURM_ARRAY_TASK_MIN" != 1 ] || [ "$SLURM_ARRAY_TASK_COUNT" != "$SLURM_ARRAY_TASK_MAX" ]; then
    echo "SHARDS: say how many shares the work has: this array does only some of them" >&2
    exit 2
  fi
  SHARDS=$SLURM_ARRAY_TASK_COUNT
fi
# An element outside 1..SHARDS is refused. SIGTERM, a minute before the end, ends the work in order.
exec depthstream batch "$SOURCES" -o "$OUT" -m "${MODEL:-starter}" --quiet --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" "$@"
