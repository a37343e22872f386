"""Simulators behind `safe_policy_core.interfaces.RobotEnv`: SafeReach (FR3 in MuJoCo) and Safety-Gymnasium.

Triton, which CUDA builds of torch bring, is loaded before MuJoCo's EGL: PyOpenGL makes the symbols of Mesa's LLVM
global, and Triton's own LLVM, loaded after them when the first optimiser is made, takes them and crashes.
"""

import contextlib
import importlib

with contextlib.suppress(ImportError):
    importlib.import_module("triton")
