#!/usr/bin/env bash
# omnisafe in an environment of its own, .tools/omnisafe, over the packages of .venv. Nothing of the project depends on it.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=$(command -v uv || echo .tools/bin/uv)
folder=.tools/omnisafe
[[ -x $folder/bin/python ]] || "$uv" venv -q --python 3.11 "$folder"
# Without dependencies: omnisafe pins a pandas without wheels, and torch and the simulators come from .venv.
# Later ones of wandb need more packages; tensorboard and protobuf are the last that fit to it.
"$uv" pip install -q --python "$folder/bin/python" --no-deps omnisafe==0.5.0 typer rich shellingham click seaborn pandas \
  pytz python-dateutil six 'moviepy<2' decorator proglog imageio imageio-ffmpeg gdown beautifulsoup4 soupsieve requests \
  'wandb<0.18' sentry-sdk gitpython platformdirs docker-pycreds setproctitle xxhash 'tensorboard<2.20' 'protobuf<6'
.venv/bin/python -c 'import site; print(site.getsitepackages()[0])' \
  > "$("$folder/bin/python" -c 'import site; print(site.getsitepackages()[0])')/zz_project.pth"
