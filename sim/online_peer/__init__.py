"""PPO-Lagrangian and CPO by omnisafe, in an environment of its own (.tools/omnisafe), beside the offline methods.

They explore in the environment, with millions of steps and thousands of violations: what offline methods are to avoid.
"""
