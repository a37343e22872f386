"""Arms behind one protocol: `franky` (libfranka: a real FR3 or the FCI simulator), `ros2_control` (a Cartesian
impedance controller such as CRISP's on franka_ros2) and `fake` (kinematic)."""
