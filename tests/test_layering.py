"""The import arrows of the design: ros2_ws -> {data_collection, sim} -> safe_policy_core."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = {"safe_policy_core", "sim", "data_collection", "robot_bringup", "safe_policy_ros", "safe_policy_interfaces"}
ALLOWED = {
    "safe_policy_core": {"safe_policy_core"},
    "sim": {"safe_policy_core", "sim"},
    "data_collection": {"safe_policy_core", "data_collection"},
    "robot_bringup": {"robot_bringup"},
}
FORBIDDEN_IN_CORE = {"rclpy", "mujoco", "franky", "franky_sim", "safety_gymnasium", "gymnasium", "pyrealsense2",
                     "pyspacemouse", "cv2", "scipy", "matplotlib", "mcap", "yaml"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        crossed = (imports(path) & PROJECT) - ALLOWED[package]
        assert not crossed, f"{path.relative_to(ROOT)} imports {sorted(crossed)}"


def test_core_stays_pure() -> None:
    for path in sorted((ROOT / "safe_policy_core").rglob("*.py")):
        assert not imports(path) & FORBIDDEN_IN_CORE, path


def test_gate_needs_no_torch() -> None:
    for path in sorted((ROOT / "safe_policy_core" / "safety").rglob("*.py")):
        assert "torch" not in imports(path), path


def test_no_clock_in_the_methods() -> None:
    """Time is an argument in the core; only the command line may look at a clock for progress."""
    for path in sorted((ROOT / "safe_policy_core").rglob("*.py")):
        if path.name not in ("commands.py", "cli.py", "benchmark.py"):
            assert "time" not in imports(path), path


def test_nothing_is_unpickled() -> None:
    """A pickle runs what its writer wants: no module reads one, by itself or through NumPy, torch or YAML."""
    for package in (*ALLOWED, "ros2_ws/src"):
        for path in sorted((ROOT / package).rglob("*.py")):
            assert not imports(path) & {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}, path
            for node in ast.walk(ast.parse(path.read_text(), str(path))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    where = f"{path.relative_to(ROOT)}:{node.lineno}: {called}"
                    assert keywords.get("allow_pickle", "False") == "False", where
                    assert called != "torch.load" or keywords.get("weights_only") == "True", where
                    assert called not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"), where
