#!/usr/bin/env bash
#SBATCH --job-name=dgsct
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
# One process a node with all its GPUs: sbatch launch/slurm.sh configs/ave.py runs/ave --config.data.dir=DIR ...
# One a GPU: sbatch --ntasks-per-node=8 --cpus-per-task=4 launch/slurm.sh configs/ave.py runs/ave ...
# jax reads the rest from Slurm. A job that is requeued goes on where it was.
set -euo pipefail
config=${1:?sbatch launch/slurm.sh CONFIG WORKDIR [flags]}
workdir=${2:?sbatch launch/slurm.sh CONFIG WORKDIR [flags]}
shift 2
cd "${SLURM_SUBMIT_DIR:-.}"
# Of a Slurm task jax takes the GPU of its number on the node alone; with one task a node that would be one of all.
if [[ ${SLURM_NTASKS_PER_NODE:-1} == 1 && ${SLURM_GPUS_ON_NODE:-0} -gt 0 ]]; then
  JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
  export JAX_LOCAL_DEVICE_IDS
fi
srun --kill-on-bad-exit=1 python -m dgsct_jax.main --multihost --config="$config" --workdir="$workdir" "$@"
