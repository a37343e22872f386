import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")

from sim.safe_reach.environment import SafeReachEnv


@pytest.fixture(scope="session")
def safe_reach() -> Iterator[SafeReachEnv]:
    """One environment for all tests that only start episodes in it: compiling the model takes a second."""
    env = SafeReachEnv("original")
    yield env
    env.close()
