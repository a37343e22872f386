"""The reference implementation of the baselines, OSRL, on the same files and in the same environments.

    sim/osrl_peer/setup.sh                                       # once: .tools/osrl, an environment of its own
    python -m sim.osrl_peer FILE.hdf5 --task SafetyPointGoal1-v0 # trains, evaluates, prints a table
    python -m sim.osrl_peer FILE.hdf5 --timing                   # milliseconds a training step, ours beside theirs

OSRL's own code trains and acts, in a process of that environment (`worker`); the environment it acts in is
this project's, over the worker's pipes, so that episodes and scores are those of the project's own experiments.
"""
