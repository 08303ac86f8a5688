#!/usr/bin/env bash
# All GPUs of this machine: launch/gpu.sh configs/ave.py runs/ave --config.data.dir=DIR ...
# Install first: pip install -e '.[cuda12]' or '.[cuda13]'.
set -euo pipefail
config=${1:?launch/gpu.sh CONFIG WORKDIR [flags]}
workdir=${2:?launch/gpu.sh CONFIG WORKDIR [flags]}
shift 2
cd "$(dirname "$0")/.."
exec python -m dgsct_jax.main --config="$config" --workdir="$workdir" "$@"
