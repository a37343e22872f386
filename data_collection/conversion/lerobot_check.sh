#!/usr/bin/env bash
# Loads our LeRobot exports with the real `lerobot` package, in an environment of its own (.tools/lerobot).
#   data_collection/conversion/lerobot_check.sh EPISODE.h5...
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.tools/lerobot/bin/python
if [[ ! -x $python ]] || ! $python -c 'import lerobot' 2>/dev/null; then
  uv venv -q --clear --seed --python 3.11 .tools/lerobot
  # pip, because it finds the CPU build of torch; lerobot without its dependencies, which are for robots and training
  # and would bring CUDA.
  $python -m pip install -q --disable-pip-version-check "torch==2.13.0" 2> >(grep -v 'is ignored: it is neither' >&2)
  uv pip install -q --python $python --no-deps "lerobot==0.4.4" "torchvision==0.25.0" accelerate psutil safetensors
  uv pip install -q --python $python "numpy>=2,<2.4" "datasets>=4,<5" "huggingface-hub>=0.34.2,<0.36" "av>=15,<16" \
    "draccus==0.10.0" "packaging<26" einops pillow jsonlines deepdiff termcolor imageio setuptools
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv/bin/safe-policy convert "$@" --to npz --out "$folder/npz" >/dev/null
.venv/bin/safe-policy convert "$@" --to lerobot --out "$folder/images" >/dev/null
.venv/bin/safe-policy convert "$@" --to lerobot --video --out "$folder/video" >/dev/null
export HF_HUB_OFFLINE=1 HF_DATASETS_CACHE=$folder/cache HF_HOME=$folder/home
for kind in images video; do
  $python data_collection/conversion/lerobot_check.py "$folder/$kind" "$folder"/npz/*.npz
done
