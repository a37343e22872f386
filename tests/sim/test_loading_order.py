"""What must be loaded before MuJoCo's EGL is."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_triton_is_loaded_before_egl(tmp_path: Path) -> None:
    """A module in its place says what was there before it: the real one comes with CUDA builds of torch alone."""
    (tmp_path / "triton.py").write_text("import sys\nprint('mujoco' in sys.modules, 'OpenGL' in sys.modules)\n")
    environment = os.environ | {"MUJOCO_GL": "egl", "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run([sys.executable, "-c", "import sim.safe_reach.camera, sys; print('OpenGL' in sys.modules)"],
                           env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False", "True"]
