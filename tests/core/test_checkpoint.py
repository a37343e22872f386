import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from safe_policy_core.checkpoint import (
    MANIFEST,
    WEIGHTS,
    Manifest,
    annotate_checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_into,
    read_manifest,
    save_checkpoint,
)
from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Specs
from tests.core.point_env import SPECS


def manifest(**changes: object) -> Manifest:
    return {"method": "bc", "config": {"units": 3}, "specs": SPECS.to_json(), "step": 7, "seed": 1,  # type: ignore[return-value,typeddict-item]
            **changes}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"model.weight": torch.randn(4, 3, generator=generator), "model.bias": torch.zeros(4),
            "optimiser.step": torch.tensor(3.0), "generator": generator.get_state()}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    digest = save_checkpoint(tmp_path / "c", tensors(), manifest(extra={"kind": "learner"}))
    loaded, content = load_checkpoint(tmp_path / "c", method="bc", specs=SPECS)
    assert loaded.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype
    assert content["sha256"] == digest
    assert (content["step"], content["seed"], content["extra"]) == (7, 1, {"kind": "learner"})
    assert not Specs.from_json(content["specs"]).difference(SPECS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [MANIFEST, WEIGHTS]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(0, 4), max_size=3), kind=st.sampled_from([torch.float32, torch.float16, torch.int64,
                                                                            torch.bool, torch.uint8]))
def test_every_shape_and_type_survives(tmp_path: Path, shape: list[int], kind: torch.dtype) -> None:
    tensor = torch.randint(0, 2, shape).to(kind)
    view = tensor.transpose(0, -1) if tensor.dim() > 1 else tensor
    save_checkpoint(tmp_path / "c", {"a": tensor, "same memory": view}, manifest())
    loaded, _ = load_checkpoint(tmp_path / "c")
    assert loaded["a"].dtype == kind
    assert torch.equal(loaded["a"], tensor)
    assert torch.equal(loaded["same memory"], view)


def test_saving_again_replaces_the_whole(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", tensors(), manifest())
    (tmp_path / "c" / "stray").write_text("of the old one")
    save_checkpoint(tmp_path / "c", {"only": torch.ones(1)}, manifest(step=8))
    loaded, content = load_checkpoint(tmp_path / "c")
    assert list(loaded) == ["only"]
    assert content["step"] == 8
    assert not (tmp_path / "c" / "stray").exists()


def test_a_crash_between_the_renames_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "c", tensors(), manifest(step=1))
    renames = []
    original = os.rename

    def crash_at_second(*arguments: Path) -> None:
        renames.append(arguments)
        if len(renames) == 2:
            raise OSError("power cut")
        original(*arguments)

    monkeypatch.setattr(os, "rename", crash_at_second)
    with pytest.raises(CheckpointError, match="power cut"):
        save_checkpoint(tmp_path / "c", tensors(), manifest(step=2))
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "c")[1]["step"] == 1
    save_checkpoint(tmp_path / "c", tensors(), manifest(step=3))
    assert load_checkpoint(tmp_path / "c")[1]["step"] == 3


def test_a_run_folder_stands_for_its_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run" / "checkpoint", tensors(), manifest())
    assert find_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoint"
    assert load_checkpoint(tmp_path / "run")[1]["step"] == 7


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.bias: weights are not finite"):
        save_checkpoint(tmp_path / "c", tensors() | {"model.bias": torch.tensor([1.0, float("nan")])}, manifest())
    assert not list(tmp_path.iterdir())


def test_annotating_merges(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", tensors(), manifest(extra={"kind": "learner"}))
    annotate_checkpoint(tmp_path / "c", data_hash="abc", extra={"offline": {"step": 3}})
    content = load_checkpoint(tmp_path / "c")[1]
    assert content["data_hash"] == "abc"
    assert content["extra"] == {"kind": "learner", "offline": {"step": 3}}
    with pytest.raises(CheckpointError, match="colour"):
        annotate_checkpoint(tmp_path / "c", colour="red")


def edit(**changes: object):
    def change(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_text()) | changes
        (folder / MANIFEST).write_text(json.dumps({k: v for k, v in content.items() if v is not ...}, default=str))

    return change


def remove(field: str):
    def change(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_text())
        del content[field]
        (folder / MANIFEST).write_text(json.dumps(content))

    return change


DAMAGE = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
    "truncated weights": (lambda folder: os.truncate(folder / WEIGHTS, 50), "sha256"),
    "other weights": (lambda folder: save_file({"a": torch.ones(1)}, folder / WEIGHTS), "sha256"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), MANIFEST),
    "torn manifest": (lambda folder: (folder / MANIFEST).write_text('{"method": "bc", '), MANIFEST),
    "manifest of another kind": (lambda folder: (folder / MANIFEST).write_text("[]"), "object"),
    "no method": (remove("method"), "method: missing"),
    "no specs": (remove("specs"), "specs: missing"),
    "step of another type": (edit(step="seven"), "step: expected int"),
    "unexpected field": (edit(colour="red"), "colour: unexpected"),
    "malformed specs": (edit(specs={"action": 1}), "specs: malformed"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path / "c", tensors(), manifest())
    apply, message = DAMAGE[damage]
    apply(tmp_path / "c")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path / "c", specs=SPECS)
    assert str(tmp_path / "c") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_in_the_weights_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", tensors(), manifest())
    path = tmp_path / "c" / WEIGHTS
    content = path.read_bytes()
    for place in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="sha256"):
            load_checkpoint(tmp_path / "c")


def test_another_method_or_other_specs_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", tensors(), manifest())
    with pytest.raises(CheckpointError, match="method: expected 'fosp', the checkpoint is of 'bc'"):
        load_checkpoint(tmp_path / "c", method="fosp")
    faster = dataclasses.replace(SPECS, scales={"max_translation_step": 0.5})
    with pytest.raises(CheckpointError, match=r"max_translation_step: 0\.5 against 0\.2"):
        load_checkpoint(tmp_path / "c", specs=faster)
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        read_manifest(tmp_path / "nowhere")


def test_loading_into_a_module_is_strict() -> None:
    module = torch.nn.Linear(3, 4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    good = {f"m.{name}": torch.ones_like(value) for name, value in before.items()}
    other = {"else.weight": torch.zeros(1)}
    cases = {
        r"m\.bias: missing": {"m.weight": good["m.weight"]},
        r"m\.more: unexpected": good | {"m.more": torch.ones(1)},
        r"m\.bias: expected \(4,\).*\(5,\)": good | {"m.bias": torch.ones(5)},
        r"m\.bias: .*float32.*float64": good | {"m.bias": torch.ones(4, dtype=torch.float64)},
    }
    for message, given_tensors in cases.items():
        with pytest.raises(CheckpointError, match=message):
            load_into(module, given_tensors | other, "m.")
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name])
    load_into(module, good | other, "m.")
    assert torch.equal(module.weight, torch.ones(4, 3))
