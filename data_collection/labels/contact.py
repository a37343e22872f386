"""The paper's rule for the cost: from the first contact until the obstacle is at rest (FOSP, figure 9)."""

from __future__ import annotations

import numpy as np

from data_collection.conversion.recording_file import RecordingFile

WRENCH_TOPIC = "/franka/external_wrench"
CONTACT_FORCE = 3.0
"""[N] A force further than this from the episode's median is taken for a contact."""
NEW_PIXELS = 1
"""An obstacle that shows in this many pixels where none was seen before has moved."""
OBSTACLE_CHANNEL, OBSTACLE_EXCESS = 1, 25
"""Obstacles are stronger in green than in the other channels by this: `VirtualObstacles`, without its torch."""


def paper_cost(contact: np.ndarray, moving: np.ndarray, rest: int = 1) -> list[tuple[int, int]]:
    """Intervals [first, end) of steps that cost.

    contact, moving: (T,) bool, whether the arm touches an obstacle in a step, and whether an obstacle moves.
    rest: so many steps without contact and motion show that the obstacle is at rest; they do not cost.
    """
    intervals: list[tuple[int, int]] = []
    first, quiet = None, 0
    for step in range(len(contact)):
        if contact[step]:
            first = step if first is None else first
            quiet = 0
        elif first is not None:
            quiet = 0 if moving[step] else quiet + 1
            if quiet == rest:
                intervals.append((first, step - rest + 1))
                first = None
    if first is not None:
        intervals.append((first, len(contact)))
    return intervals


def obstacle_motion(images: np.ndarray) -> np.ndarray:
    """(T,) bool, in which steps an obstacle moved. images (T + 1, H, W, 3) uint8 of a camera that stands still.

    An obstacle that the arm uncovers again has been seen there before, so only motion onto new ground counts.
    """
    others = np.delete(images, OBSTACLE_CHANNEL, -1).max(-1).astype(np.int16)
    coloured = images[..., OBSTACLE_CHANNEL] - others > OBSTACLE_EXCESS
    seen = np.logical_or.accumulate(coloured, 0)
    # One pixel around the first picture: edges flicker.
    seen |= _grown(coloured[0])
    return (coloured[1:] & ~seen[:-1]).sum((1, 2)) >= NEW_PIXELS


def wrench_contacts(recording: RecordingFile, time_ns: np.ndarray, force: float = CONTACT_FORCE) -> np.ndarray | None:
    """(T,) bool, in which steps the measured external force says contact. time_ns (T + 1,) of the observations.

    None for an arm that measures none: a simulated one says zero all the time.
    """
    stamps, forces = [], []
    for message in recording.messages(WRENCH_TOPIC):
        stamps.append(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)
        forces.append((message.wrench.force.x, message.wrench.force.y, message.wrench.force.z))
    values = np.array(forces)
    if (values == values[0]).all():
        return None
    # The estimate has an offset that stays the same over an episode.
    strong = np.linalg.norm(values - np.median(values, 0), axis=1) > force
    step = np.searchsorted(time_ns, stamps, side="right") - 1
    inside = (step >= 0) & (step < len(time_ns) - 1)
    contact = np.zeros(len(time_ns) - 1, bool)
    contact[step[inside & strong]] = True
    return contact


class ContactWatch:
    """Tells the person who drives that a contact probably begins, from forces as they come.

    A force further than `force` [N] from the estimate's offset begins a contact, half of it ends one. The offset is
    followed between contacts, over about `memory` readings.
    """

    def __init__(self, force: float = CONTACT_FORCE, memory: int = 100) -> None:
        self._force, self._share = force, 1 / memory
        self._offset: np.ndarray | None = None
        self._touching = False

    def look(self, force: np.ndarray) -> float:
        """force (3,) [N]. Returns how strong a contact is that begins now [N], else 0."""
        if self._offset is None:
            self._offset = np.array(force, float)
        strength = float(np.linalg.norm(force - self._offset))
        begins = not self._touching and strength > self._force
        self._touching = begins or (self._touching and strength > self._force / 2)
        if not self._touching:
            self._offset += self._share * (force - self._offset)
        return strength if begins else 0.0


def _grown(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any([padded[y:y + height, x:x + width] for y in range(3) for x in range(3)], 0)
