"""Rows that arrive a few at a time and are kept to the end."""

from __future__ import annotations

from torch import Tensor

PIECE = 64 << 20
"""Bytes of a piece: more than the GNU library takes from its heap, so that a piece goes back when it is freed."""


class GrowingRows:
    """Keeps appended rows in a few large pieces of memory.

    A list of small tensors would do, but among the large ones that each batch makes and drops they leave holes in the
    heap: a fit of DINO-AD on 20 000 images took ten times the memory of what it kept.
    """

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []
        self._used = 0  # rows of the last piece
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, rows: Tensor) -> None:
        """Add rows ``[n,...]``, all of one shape, dtype and device."""
        self._count += len(rows)
        while len(rows):
            if not self._pieces or self._used == len(self._pieces[-1]):
                self._pieces.append(rows.new_empty(max(1, PIECE // max(1, rows[0].nbytes)), *rows.shape[1:]))
                self._used = 0
            room = self._pieces[-1][self._used : self._used + len(rows)]
            room.copy_(rows[: len(room)])
            self._used += len(room)
            rows = rows[len(room) :]

    def take(self) -> Tensor:
        """All rows, ``[N,...]``, which are no longer kept here; each piece is freed once copied."""
        if not self._pieces:
            raise ValueError("no row was appended; expected at least one")
        result, stop = self._pieces[0].new_empty(self._count, *self._pieces[0].shape[1:]), self._count
        while self._pieces:
            piece = self._pieces.pop()[: self._used]
            result[stop - len(piece) : stop] = piece
            stop -= len(piece)
            self._used = len(self._pieces[-1]) if self._pieces else 0
        self._count = 0
        return result
