"""Arrays of an HDF5 file from a stranger: only what lies in that file, no more than it can hold, and fast.

h5py's objects cost more than the data in an episode's small arrays, and HDF5 itself unpacks pictures at half the speed
of zlib, so both are passed by.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5s, h5z

from safe_policy_core.errors import DatasetError

MAX_FIELD_BYTES = 1 << 31
"""A field that claims more is refused before memory is taken for it."""
_MAX_DEFLATE = 1032
"""zlib never makes data smaller by more than this factor, so a field cannot hold more than its file lets it."""


@dataclass(frozen=True)
class StoredField:
    """A dataset that lies in its file. dtype: object for text of any length."""

    dataset: h5d.DatasetID
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, name: str, dataset: h5d.DatasetID) -> StoredField:
        """Raises `DatasetError` when the data are elsewhere, or claim more memory than the file can hold."""
        creation = dataset.get_create_plist()
        if creation.get_external_count() or creation.get_layout() == h5d.VIRTUAL:
            raise DatasetError(f"{name}: kept elsewhere, expected data in this file")
        field = cls(dataset, dataset.shape, dataset.dtype)
        size = math.prod(field.shape) * field.dtype.itemsize
        if size > min(MAX_FIELD_BYTES, _MAX_DEFLATE * dataset.get_storage_size()):
            raise DatasetError(f"{name}: claims {size} bytes, more than the file can hold")
        return field

    def read(self) -> np.ndarray:
        """All of it. Raises what h5py and zlib raise for damage."""
        values = np.empty(self.shape, self.dtype)
        if rows := self._rows_a_chunk():
            for start in range(0, len(values), rows):
                values[start:start + rows] = self._unpacked(start, rows)[:len(values) - start]
        elif values.size:
            # Named, the type in the file is not derived from that of the array, which takes longer than reading.
            self.dataset.read(h5s.ALL, h5s.ALL, values, self.dataset.get_type() if self.dtype.kind in "iuf" else None)
        return values

    def rows(self, rows: slice | list[int]) -> np.ndarray:
        """Some of it; a list of rows must grow. Only chunks that hold any of them are unpacked."""
        if not (size := self._rows_a_chunk()):
            return h5py.Dataset(self.dataset)[rows]
        wanted = np.arange(self.shape[0])[rows]
        values = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        for start in np.unique(wanted // size) * size:
            here = wanted // size * size == start
            values[here] = self._unpacked(int(start), size)[wanted[here] - start]
        return values

    def texts(self) -> list[str]:
        return [text.decode() for text in self.read()]

    def _rows_a_chunk(self) -> int:
        """Rows in each chunk where zlib packed numbers in chunks of whole rows; 0 when they are kept in another way."""
        if self.dtype.kind not in "iuf" or len(self.shape) < 2:
            return 0
        creation = self.dataset.get_create_plist()
        if creation.get_layout() != h5d.CHUNKED or creation.get_nfilters() != 1 \
                or creation.get_filter(0)[0] != h5z.FILTER_DEFLATE:
            return 0
        rows, *rest = creation.get_chunk()
        # A chunk that nobody wrote is not in the file.
        whole = tuple(rest) == self.shape[1:] and self.dataset.get_num_chunks() == -(-self.shape[0] // rows)
        return rows if whole else 0

    def _unpacked(self, start: int, rows: int) -> np.ndarray:
        """The chunk of `rows` rows from row `start`; its last rows may lie beyond the field's."""
        rest = self.shape[1:]
        not_packed, data = self.dataset.read_direct_chunk((start, *itertools.repeat(0, len(rest))))
        if not not_packed:
            data = zlib.decompressobj().decompress(data, rows * math.prod(rest) * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(rows, *rest)


def stored_fields(file: h5py.File) -> dict[str, StoredField]:
    """Every dataset under its full name. Raises `DatasetError` as `StoredField.of`, and for links to other files."""
    return dict(_walk(h5g.open(file.id, b"/"), ""))


def stored_field(file: h5py.File, name: str) -> StoredField:
    """One dataset by its full name. Raises `KeyError` when there is none, and `DatasetError` as `stored_fields`."""
    *groups, last = name.encode().split(b"/")
    group = h5g.open(file.id, b"/")
    for part in groups:
        group = _opened(group, part, name)
    dataset = _opened(group, last, name)
    if not isinstance(dataset, h5d.DatasetID):
        raise KeyError(name)
    return StoredField.of(name, dataset)


def _walk(group: h5g.GroupID, prefix: str) -> Iterator[tuple[str, StoredField]]:
    if prefix.count("/") > 2:
        raise DatasetError(f"{prefix}: groups within groups, expected fields as observation/image")
    for raw in group:
        name = prefix + raw.decode()
        item = _opened(group, raw, name)
        if isinstance(item, h5g.GroupID):
            yield from _walk(item, f"{name}/")
        elif isinstance(item, h5d.DatasetID):
            yield name, StoredField.of(name, item)


def _opened(group: h5g.GroupID, raw: bytes, name: str) -> h5g.GroupID | h5d.DatasetID:
    if not isinstance(group, h5g.GroupID) or not group.links.exists(raw):
        raise KeyError(name)
    if group.links.get_info(raw).type != h5l.TYPE_HARD:
        raise DatasetError(f"{name}: a link, expected data in this file")
    return h5o.open(group, raw)
