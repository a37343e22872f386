from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from safe_policy_core.errors import UserError
from safe_policy_core.interfaces import Spec, Specs
from sim.online_peer import command
from sim.online_peer.command import Peer
from sim.online_peer.policy import PeerPolicy

SPECS = Specs({"vector": Spec("observation/vector", (3,))}, Spec("action", (2,), low=-1.0, high=1.0))


def weights(path: Path) -> tuple[torch.nn.Sequential, dict[str, np.ndarray]]:
    """A random actor of omnisafe's form, and its file."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    tensors = {"mean": np.array([1.0, 0.0, -1.0], np.float32), "deviation": np.array([2.0, 0.5, 1.0], np.float32)}
    for index, layer in enumerate((net[0], net[2])):
        tensors |= {f"weight{index}": layer.weight.detach().numpy(), f"bias{index}": layer.bias.detach().numpy()}
    save_file(tensors, path)
    return net, tensors


def test_policy_computes_what_the_trained_network_does(tmp_path: Path) -> None:
    net, tensors = weights(tmp_path / "actor.safetensors")
    policy = PeerPolicy(tmp_path / "actor.safetensors", SPECS)
    policy.reset(0)
    for vector in (np.array([0.3, -0.2, 0.9], np.float32), np.array([90.0, 0.0, 0.0], np.float32)):
        normalised = torch.as_tensor((vector - tensors["mean"]) / tensors["deviation"]).clamp(-5, 5)
        expected = net(normalised).clamp(-1, 1).detach().numpy()
        np.testing.assert_allclose(policy.act({"vector": vector}).action, expected, atol=1e-6)


def test_wrong_files_and_wrong_use_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights(tmp_path / "actor.safetensors")
    other = Specs({"vector": Spec("observation/vector", (5,))}, SPECS.action)
    with pytest.raises(UserError, match="3 observed numbers and 2 actions, the environment has 5 and 2"):
        PeerPolicy(tmp_path / "actor.safetensors", other)
    (tmp_path / "torn").write_bytes(b"abc")
    with pytest.raises(UserError, match="torn: cannot be read"):
        PeerPolicy(tmp_path / "torn", SPECS)
    save_file({"weight0": np.zeros((1, 1))}, tmp_path / "less")
    with pytest.raises(UserError, match="mean: missing"):
        PeerPolicy(tmp_path / "less", SPECS)
    with pytest.raises(UserError, match="steps: expected at least one epoch"):
        Peer("cpo", "SafetyPointGoal1-v0", tmp_path, steps=10).run()
    monkeypatch.setattr(command, "PYTHON", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"sim/online_peer/setup\.sh"):
        Peer("cpo", "SafetyPointGoal1-v0", tmp_path / "run").run()
