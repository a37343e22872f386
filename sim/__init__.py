"""Simulators behind `safe_policy_core.interfaces.RobotEnv`: SafeReach (FR3 in MuJoCo) and Safety-Gymnasium."""
