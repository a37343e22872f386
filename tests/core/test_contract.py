import pytest

from tests.contract import RobotEnvContract
from tests.core.point_env import PointEnv


class TestPointEnv(RobotEnvContract):
    """The tests' own environment keeps to the interface, so what they show holds for the real ones."""

    @pytest.fixture
    def env(self) -> PointEnv:
        return PointEnv()
