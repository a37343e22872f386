#!/usr/bin/env bash
# Renews the lock file. torch leads it, alone: setup installs it first and with pip, because its
# build for this machine (CPU or CUDA) is pip's to choose, and its CUDA packages must not be locked in.
set -euo pipefail
cd "$(dirname "$0")"
uv=$(command -v uv || echo ../.tools/bin/uv)
{
  echo "torch==2.13.0"
  "$uv" pip compile -q --python-version 3.11 --no-annotate --no-header --override overrides.txt requirements.in
} > requirements.lock.new
mv requirements.lock.new requirements.lock
