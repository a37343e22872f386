"""Run by lerobot_check.sh in LeRobot's own environment: loads an export with LeRobot's own reader and compares.

    lerobot_check.py DATASET EXPECTED.npz...    one .npz an episode, as `safe-policy convert --to npz` writes them
"""

import sys
from pathlib import Path

import numpy as np
import torch

# torchvision from the package index is built for CUDA; beside a CPU torch its C++ operators do not load, and it
# then fails on their names. LeRobot's reader uses none of them.
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

FEATURES = {"action": "action/executed", "policy_action": "action/policy", "human_action": "action/human",
            "next.reward": "reward", "next.cost": "cost", "next.terminated": "terminated",
            "next.truncated": "truncated", "intervention": "intervention", "time_ns": "time_ns",
            "observation.state": "observation/pose"}
VIDEO_TOLERANCE = 8.0
"""Mean difference of grey levels that H.264 may make."""


def main(root: Path, expected_files: list[Path]) -> int:
    dataset = LeRobotDataset("local/export", root=root, video_backend="pyav")
    assert dataset.num_episodes == len(expected_files), (dataset.num_episodes, len(expected_files))
    index = 0
    for number, path in enumerate(expected_files):
        expected = np.load(path, allow_pickle=False)
        for step in range(len(expected["reward"])):
            frame = dataset[index]
            index += 1
            assert int(frame["episode_index"]) == number and int(frame["frame_index"]) == step
            for feature, name in FEATURES.items():
                np.testing.assert_array_equal(frame[feature].numpy().reshape(-1), expected[name][step].reshape(-1))
            assert frame["filter_reason"] == str(expected["filter_reason"][step])
            image = frame["observation.images.image"].numpy().transpose(1, 2, 0) * 255
            difference = float(np.abs(image - expected["observation/image"][step]).mean())
            assert difference < (VIDEO_TOLERANCE if dataset.meta.video_keys else 0.01), difference
    assert index == len(dataset)
    assert set(dataset.meta.stats) >= {"action", "observation.state", "observation.images.image", "next.cost"}
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4, shuffle=True)))
    print(f"LeRobot read {dataset.num_episodes} episodes, {len(dataset)} frames, task {frame['task']!r}, "
          f"{'video' if dataset.meta.video_keys else 'images'}; a batch has {tuple(batch['action'].shape)} actions")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
