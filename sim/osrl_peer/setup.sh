#!/usr/bin/env bash
# The reference implementation (OSRL) in an environment of its own, .tools/osrl. Nothing of the project depends on it.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=$(command -v uv || echo .tools/bin/uv)
python=.tools/osrl/bin/python
[[ -x $python ]] || "$uv" venv -q --seed --python 3.11 .tools/osrl
# The same torch as the project's own, so that times compare; pip, because uv does not look at local wheels.
# shellcheck disable=SC2046
"$python" -m pip install -q --disable-pip-version-check $(grep '^torch==' requirements/requirements.lock) \
  'numpy<2' 'setuptools<81' h5py 'gymnasium<0.30' tqdm pyyaml scipy prettytable matplotlib pandas einops tensorboard wandb OApackage
# Without their dependencies: these pin simulators and loggers that a comparison does not use.
"$python" -m pip install -q --disable-pip-version-check --no-deps osrl-lib fast-safe-rl
