"""Lighter meshes for rendering: the arm's pictures have 300,000 triangles, more than a software renderer wants."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

CELL = 0.003
"""Vertices within one cell of this size [m] become one. A pixel of the 480-row picture is 0.7 mm on the table."""
_SMALL = 1000
"""Meshes with fewer faces stay as they are."""


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of a Wavefront file of triangles."""
    lines = path.read_text().splitlines()
    vertices = " ".join(line[2:] for line in lines if line.startswith("v ")).split()
    corners = " ".join(line[2:] for line in lines if line.startswith("f ")).split()
    faces = np.array([corner.partition("/")[0] for corner in corners], int).reshape(-1, 3) - 1
    return np.array(vertices, float).reshape(-1, 3), faces


def cluster(vertices: np.ndarray, faces: np.ndarray, cell: float = CELL) -> tuple[np.ndarray, np.ndarray]:
    """Vertex clustering (Rossignac and Borrel 1993): one vertex per grid cell, faces that collapse go."""
    keys = np.floor(vertices / cell).astype(int)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.ravel()
    merged = np.stack([np.bincount(group, vertices[:, k]) for k in range(3)], 1) / np.bincount(group)[:, None]
    corners = group[faces]
    corners = corners[(corners != np.roll(corners, 1, axis=1)).all(1)]
    _, first = np.unique(np.sort(corners, axis=1), axis=0, return_index=True)
    return merged, corners[np.sort(first)]


def lighten(asset: ET.Element, directory: Path) -> None:
    """Replaces the visual meshes of an MJCF `asset` section by clustered ones, written in place."""
    for mesh in asset.findall("mesh"):
        file = mesh.get("file", "")
        if not file.endswith(".obj"):
            continue
        vertices, faces = read_obj(directory / file)
        if len(faces) < _SMALL:
            continue
        vertices, faces = cluster(vertices, faces)
        del mesh.attrib["file"]
        mesh.set("vertex", " ".join(f"{x:.6g}" for x in vertices.ravel()))
        mesh.set("face", " ".join(map(str, faces.ravel())))
