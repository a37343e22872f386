"""What FOSP's paper (Cao et al. 2024) reports for Safety-Gymnasium, to stand beside our own numbers."""

from __future__ import annotations

TABLE_1 = {
    "PointGoal1": {"fosp": (18.7, 21.5, 1.4, 0.2), "recovery_rl": (5.4, 12.6, 1.8, 0.8),
                   "dreamer": (17.4, 25.8, 82.3, 85.1), "safe_dreamer": (12.7, 19.2, 1.5, 0.02)},
    "PointButton1": {"fosp": (14.7, 18.1, 9.5, 2.1), "recovery_rl": (5.4, 6.3, 10.3, 2.8),
                     "dreamer": (15.1, 20.8, 167.7, 157.9), "safe_dreamer": (8.9, 10.7, 10.2, 4.5)},
    "PointPush1": {"fosp": (4.0, 13.2, 18.1, 0.1), "recovery_rl": (0.4, 3.8, 24.8, 0.5),
                   "dreamer": (2.3, 14.6, 30.9, 26.3), "safe_dreamer": (1.3, 10.3, 17.8, 0.12)},
    "PointGoal2": {"fosp": (8.1, 13.5, 7.5, 0.23), "recovery_rl": (0.5, 2.7, 53.2, 0.3),
                   "dreamer": (9.5, 18.9, 367.1, 290.2), "safe_dreamer": (3.6, 12.7, 8.6, 0.3)},
    "CarGoal2": {"fosp": (10.1, 14.5, 1.6, 0.07), "recovery_rl": (4.6, 8.9, 0.6, 0.13),
                 "dreamer": (16.7, 24.1, 231.0, 287.9), "safe_dreamer": (6.9, 9.8, 0.7, 0.09)},
}
"""Task -> method -> (reward offline, reward online, cost offline, cost online); 1M offline and 0.5M online steps."""

TABLE_2 = {
    "PointGoal1": {"SafeDreamer (planning)": (20.1, 0.6), "CPO": (22.3, 45.0), "PPO-Lagrangian": (19.5, 29.0)},
    "PointButton1": {"SafeDreamer (planning)": (12.4, 5.5), "CPO": (17.1, 76.0), "PPO-Lagrangian": (5.3, 25.0)},
    "PointPush1": {"SafeDreamer (planning)": (8.1, 0.7), "CPO": (3.7, 35.0), "PPO-Lagrangian": (2.9, 26.0)},
    "PointGoal2": {"SafeDreamer (planning)": (13.0, 1.7), "CPO": (13.8, 51.0), "PPO-Lagrangian": (1.8, 30.0)},
    "CarGoal2": {"SafeDreamer (planning)": (11.2, 0.34), "CPO": (15.5, 52.0), "PPO-Lagrangian": (7.8, 28.0)},
}
"""Task -> method that learns online alone -> (reward, cost); 0.5M steps of SafeDreamer, 10M of the others."""

_STEPS = (0, 20_000, 50_000, 100_000, 300_000, 500_000)
_TABLE_5 = {
    "PointGoal1": ((18.723, 1.451), (18.692, 3.4), (19.581, 2.719), (20.063, 0.328), (19.649, 0.268), (21.517, 0.2)),
    "PointButton1": ((14.65, 9.622), (13.415, 8.639), (13.569, 6.664), (15.306, 4.866), (17.861, 4.256),
                     (18.102, 2.188)),
    "PointPush1": ((4.092, 18.117), (7.253, 1.232), (7.916, 1.497), (9.148, 1.089), (10.373, 0.507), (13.281, 0.157)),
    "PointGoal2": ((8.1, 7.556), (10.31, 1.486), (10.157, 0.427), (12.446, 0.18), (13.034, 0.214), (13.556, 0.234)),
    "CarGoal2": ((10.146, 1.618), (9.063, 1.063), (9.816, 0.385), (10.275, 0.394), (12.378, 0.18), (14.512, 0.071)),
}
TABLE_5 = {task: dict(zip(_STEPS, numbers, strict=True)) for task, numbers in _TABLE_5.items()}
"""Task -> steps of fine-tuning -> (reward, cost) of FOSP."""
DIRECT_ONLINE = {
    "PointGoal1": ((14.749, 2.66), (18.586, 1.08)), "PointButton1": ((10.57, 6.88), (12.81, 2.76)),
    "PointPush1": ((1.397, 2.49), (4.181, 2.05)), "PointGoal2": ((9.471, 4.779), (10.717, 3.089)),
    "CarGoal2": ((8.749, 2.12), (10.144, 1.21))}
"""Table 5: task -> (reward, cost) of FOSP without offline training after 500k and 1M steps."""
