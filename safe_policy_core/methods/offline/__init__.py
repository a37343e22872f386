"""Value-based and weighted-imitation baselines on DSRL data: one small file each, on shared parts.

With cost: BCQ-Lag, BEAR-Lag, CPQ, COptiDICE, FISOR. Without: TD3+BC, IQL, CQL. `learner` holds what all
share; where a method departs from its paper, its module's docstring says so.
"""
