#!/usr/bin/env bash
# A Cloud TPU slice, all its hosts at once:
#   launch/tpu.sh NAME ZONE configs/avqa.py /mnt/runs/avqa --config.data.dir=/mnt/data ...
# NAME is a TPU VM that is running; gcloud must be logged in. The code is copied, then installed on every host.
set -euo pipefail
usage='launch/tpu.sh NAME ZONE CONFIG WORKDIR [flags]'
name=${1:?$usage} zone=${2:?$usage} config=${3:?$usage} workdir=${4:?$usage}
shift 4
cd "$(dirname "$0")/.."
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz -o "$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name:dgsct.tar.gz" --zone="$zone" --worker=all
printf -v flags ' %q' --config="$config" --workdir="$workdir" "$@"
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  set -e
  mkdir -p dgsct && tar -xzf dgsct.tar.gz -C dgsct && cd dgsct
  python3 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]'
  .venv/bin/python -m dgsct_jax.main --multihost$flags"
