#!/usr/bin/env bash
#SBATCH --job-name=dgsct
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
# One process per node with all its GPUs; jax reads the rest from Slurm. A job that is requeued goes on where it was.
# sbatch launch/slurm.sh configs/ave.py runs/ave --config.data.dir=DIR ...
set -euo pipefail
config=${1:?sbatch launch/slurm.sh CONFIG WORKDIR [flags]}
workdir=${2:?sbatch launch/slurm.sh CONFIG WORKDIR [flags]}
shift 2
cd "${SLURM_SUBMIT_DIR:-.}"
srun --kill-on-bad-exit=1 python -m dgsct_jax.main --multihost --config="$config" --workdir="$workdir" "$@"
