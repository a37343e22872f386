#!/usr/bin/env bash
# Everything from a bare Debian or Ubuntu to a runnable checkout. Idempotent; seconds when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
ros=${ROS:-wheels}
apt_install() {
  local sudo=""; [[ $(id -u) == 0 ]] || sudo=sudo
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
# An environment that an interrupted setup left half made is made anew.
has_pip() { .venv/bin/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; false; }; }
say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }

# 1. Debian packages: OpenGL without a screen, USB and HID for the devices, a compiler for the ROS messages.
packages=(libegl1 libgl1 libgl1-mesa-dri libosmesa6 libusb-1.0-0 libhidapi-hidraw0)
command -v g++ >/dev/null || packages+=(g++)
missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
if ! command -v uv >/dev/null && [[ ! -x .tools/bin/uv ]] && ! python3 -m pip --version >/dev/null 2>&1; then
  missing+=(python3-pip)
fi
if ((${#missing[@]})); then
  say "Debian packages: ${missing[*]}"
  apt_install "${missing[@]}"
fi

# 2. uv
uv=$(command -v uv || true)
if [[ -z $uv ]]; then
  uv=$PWD/.tools/bin/uv
  if [[ ! -x $uv ]]; then
    say "uv into .tools"
    python3 -m pip install -q --disable-pip-version-check --target .tools uv 2>/dev/null
  fi
fi

# 3. Python packages. The stamp holds a hash of what they were made from.
want=$({ cat requirements/requirements.lock setup.cfg pyproject.toml; echo "$ros ${TORCH_ARGS:-}"; } | sha256sum | cut -d' ' -f1)
if [[ $(cat .venv/.setup-stamp 2>/dev/null) != "$want" ]]; then
  if [[ $ros == system ]]; then
    [[ -n ${ROS_DISTRO:-} ]] || { echo "make setup ROS=system: source your ROS 2 installation first (ROS_DISTRO is not set)" >&2; exit 2; }
    say "environment on the system's Python, for ROS 2 $ROS_DISTRO"
    has_pip || "$uv" venv -q --seed --system-site-packages --python /usr/bin/python3 .venv
  else
    say "environment with Python 3.11"
    has_pip || "$uv" venv -q --seed --python 3.11 .venv
  fi
  if [[ ! -f $(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h ]]; then
    say "Python headers"
    apt_install python3-dev
  fi
  torch=$(grep '^torch==' requirements/requirements.lock)
  .venv/bin/python -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '${torch#torch==}')" 2>/dev/null || {
    say "$torch"
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install -q --disable-pip-version-check ${TORCH_ARGS:-} "$torch" 2> >(grep -v 'is ignored: it is neither' >&2)
  }
  say "packages of requirements.lock"
  if [[ $ros == system ]]; then
    grep -vE '^(ros-kilted-|torch==)' requirements/requirements.lock > .venv/requirements.txt
  else
    grep -v '^torch==' requirements/requirements.lock > .venv/requirements.txt
  fi
  VIRTUAL_ENV=$PWD/.venv "$uv" pip install -q --no-deps -r .venv/requirements.txt
  VIRTUAL_ENV=$PWD/.venv "$uv" pip install -q --no-deps --no-build-isolation -e .
  echo "$want" > .venv/.setup-stamp
fi

# 4. The ROS workspace.
.venv/bin/python robot_bringup/build_workspace.py
say "ready"
