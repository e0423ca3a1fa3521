"""The rows of a run, in a file: a stopped run goes on where it was, and no run needs more memory for more scans."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "worklist.sqlite"
SCHEMA = """
create table if not exists scan (
    source blob primary key, state text, run text, failed integer, score real, row text, slices text, findings text,
    picture blob);
create index if not exists by_score on scan (failed, score desc, source);
"""
NO_LIST = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""What SQLite says of a file that something else wrote; all other errors are the system's."""
ORDER = "order by failed, score desc, source"


class RunStore:
    """One row a file, in SQLite (a part of Python): each is on disk, whole, once :meth:`add` returns.

    Rows of another ``run`` (another model, other settings) are forgotten when it is opened.

    Args:
        folder: of the results; the file is ``worklist.sqlite`` there.
        run: digest of all that a row depends on besides its file.
    """

    def __init__(self, folder: str | Path, run: str) -> None:
        self.path = Path(folder) / NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.run = run
        with self._explained():
            self._base = self._opened()

    def _opened(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        base.executescript(SCHEMA)
        base.execute("delete from scan where run is not ?", (self.run,))
        return base

    def add(
        self,
        source: str,
        state: str,
        row: Mapping[str, Any],
        slices: Sequence[Mapping[str, Any]] = (),
        findings: Sequence[Mapping[str, Any]] = (),
        picture: bytes | None = None,
    ) -> None:
        """Keep what is known of a file, in the place of what was known before.

        Args:
            source: the file.
            state: tells whether it has changed since.
            row: its numbers, JSON types; ``status`` and ``image_score`` are among them.
            slices: those of its slices.
            findings: those of its findings.
            picture: thumbnail.
        """
        texts = [json.dumps(value) for value in (row, list(slices), list(findings))]
        failed = int(row["status"] != "scored")
        values = (_stored(source), state, self.run, failed, row.get("image_score"), *texts, picture)
        with self._explained():
            self._base.execute("insert or replace into scan values (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def states(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """File, state and row of all that were scored."""
        for source, state, row in self._base.execute("select source, state, row from scan where failed = 0"):
            yield source.decode("utf-8", "surrogateescape"), state, json.loads(row)

    def rows(self, pictures: bool = False) -> Iterator[dict[str, Any]]:
        """Rows by falling score, failed ones last, with ``slices``, ``findings`` and, if asked for, ``picture``."""
        columns = "row, slices, findings" + (", picture" if pictures else "")
        for row, slices, findings, *picture in self._base.execute(f"select {columns} from scan {ORDER}"):
            found = {"slices": json.loads(slices), "findings": json.loads(findings)}
            yield {"scan": json.loads(row)} | found | ({"picture": picture[0]} if pictures else {})

    def count(self, failed: bool) -> int:
        """How many files were scored, or failed."""
        return self._base.execute("select count(*) from scan where failed = ?", (int(failed),)).fetchone()[0]

    def scores(self) -> Iterator[float]:
        """Image scores, falling."""
        query = f"select score from scan where failed = 0 and score is not null {ORDER}"
        return (score for (score,) in self._base.execute(query))

    def score_range(self) -> tuple[float | None, float | None]:
        """Lowest and highest image score; None without any."""
        return self._base.execute("select min(score), max(score) from scan where failed = 0").fetchone()

    def forget(self, source: str | None = None) -> None:
        """Forget one file, or all."""
        if source is None:
            self._base.execute("delete from scan")
        else:
            self._base.execute("delete from scan where source = ?", (_stored(source),))

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what to do: of a file that is not a list, and of a disk that is full or may not be written."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in NO_LIST:
                raise ValueError(
                    f"{self.path}: damaged, or no list of this package ({error}); remove it, and all files are scored "
                    "again"
                ) from error
            raise OSError(f"cannot write {self.path} ({error}); free space or choose another folder") from error


def _stored(source: str) -> bytes:
    """A file's name as it is kept: SQLite's text has no room for the bytes of names that are not UTF-8."""
    return source.encode("utf-8", "surrogateescape")
