"""QPT: the Q-learning penalised transformer for safe offline reinforcement learning."""
