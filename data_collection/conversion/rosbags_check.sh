#!/usr/bin/env bash
# Reads a bag that another program wrote: the package `rosbags`, in an environment of its own (.tools/rosbags), in the
# layouts of `ros2 bag record` (MCAP, and SQLite as up to Humble) with a realsense-ros camera. `ros2 bag` itself has no wheels.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.tools/rosbags/bin/python
if ! $python -c 'import rosbags, PIL' 2>/dev/null; then
  uv venv -q --clear --python 3.11 .tools/rosbags
  uv pip install -q --python $python "rosbags==0.11.9" pillow
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for kind in "mcap raw" "mcap compressed" "sqlite3 raw" "sqlite3 compressed"; do
  bag=$folder/${kind/ /_}
  # shellcheck disable=SC2086  # two words
  $python data_collection/conversion/rosbags_check.py "$bag" $kind
  .venv/bin/safe-policy convert "$bag" --image-size 48 64 --out "$folder" >/dev/null
  .venv/bin/python - "$bag-0000.h5" "$kind" <<'PYTHON'
import sys
import numpy as np
from safe_policy_core.data.episode_file import read_episode
episode = read_episode(sys.argv[1])
np.testing.assert_array_equal(episode.observations["image"][:, 0, 0, 0], np.arange(21) * 3)
np.testing.assert_allclose(episode.observations["pose"][:, 0], 0.4 + 0.01 * np.arange(21), atol=1e-6)
print(f"a bag of rosbags ({sys.argv[2]}): {len(episode)} steps, every picture and pose as written")
PYTHON
done
