"""What takes part in the SafeReach experiments: methods, FOSP's ablations (5.3), and mixes and sizes of the data."""

from __future__ import annotations

from dataclasses import dataclass, replace

PAPER_DATA = (("mixed", 200),)


@dataclass(frozen=True)
class Contestant:
    """A method with its settings and its data.

    data: (behaviour of `safe-policy collect`, episodes) parts. steps: offline gradient steps.
    finetunes: whether it learns online; behaviour cloning does not.
    """

    name: str
    method: str
    preset: str = "tabletop"
    settings: tuple[str, ...] = ()
    data: tuple[tuple[str, int], ...] = PAPER_DATA
    steps: int = 4000
    finetunes: bool = True


_FOSP = Contestant("fosp", "fosp")
_ACTORS = replace(_FOSP, name="fosp_no_table_map", settings=("table_map.cells=0",))
"""The paper's FOSP: with the map its actors hardly steer, and what they are made of could not be told."""
_CLONING = Contestant("bc_safe", "bc", "small", steps=1500, finetunes=False)


def _without(module: str, setting: str) -> Contestant:
    return replace(_ACTORS, name=f"fosp_no_{module}", settings=(*_ACTORS.settings, setting))


def _mix(safe: int, unsafe: int, total: int = 200) -> tuple[tuple[str, int], ...]:
    """`total` trajectories that all reach, safe to unsafe as given."""
    count = round(total * safe / (safe + unsafe))
    return tuple((behavior, number) for behavior, number in (("safe_reach", count), ("contact_reach", total - count))
                 if number)


_ALL = (
    _FOSP,
    # The paper's penalty; with the preset's it fled from all obstacles, and from the target.
    Contestant("safe_dreamer", "safe_dreamer", settings=("initial_penalty=1e-6",)),
    Contestant("safe_dreamer_large_penalty", "safe_dreamer"),
    Contestant("safe_dreamer_planning", "safe_dreamer", "planning"),
    Contestant("dreamer", "dreamer"),
    Contestant("recovery_rl", "recovery_rl"),
    replace(_CLONING, name="bc_all", preset="all"),
    _CLONING,
    # What this implementation adds to the paper; then, without its map, the four modules of 5.3.
    _ACTORS,
    _without("in_sample", "in_sample=false"),
    _without("expansion", "expansion=false"),
    _without("reachability", "reachability=false"),
    _without("lagrangian", "augmented_lagrangian=false"),
    replace(_FOSP, name="fosp_no_virtual_obstacles", settings=("virtual_obstacles.copies=0",)),
    # Figure 6: safe to unsafe trajectories, and the size of the paper's mix.
    *(replace(_FOSP, name=f"fosp_mix_{safe}_{unsafe}", data=_mix(safe, unsafe))
      for safe, unsafe in ((1, 0), (3, 1), (1, 1), (1, 3), (0, 1))),
    *(replace(_FOSP, name=f"fosp_size_{size}", data=(("mixed", size),)) for size in (50, 100, 400)),
)
CONTESTANTS = {contestant.name: contestant for contestant in _ALL}
MODULES = tuple(name for name in CONTESTANTS if name.startswith("fosp_no_"))
MIXES = tuple(name for name in CONTESTANTS if name.startswith("fosp_mix_"))
SIZES = tuple(name for name in CONTESTANTS if name.startswith("fosp_size_"))
