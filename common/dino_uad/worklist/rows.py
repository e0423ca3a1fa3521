"""The rows of a run, in a file: a stopped run goes on where it was, and no run needs more memory for more scans."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "worklist.sqlite"
SCHEMA = """
create table if not exists scan (
    source blob primary key, state text, run text, failed integer, score real, row text, slices text, findings text,
    picture blob);
create index if not exists by_score on scan (failed, score desc, source);
create table if not exists claim (name blob primary key, owner text);
"""
NO_LIST = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""SQLite's error codes for a file that is no list of ours; others are errors of the system."""
ORDER = "order by failed, score desc, source"
STATUS = {"scored": 0, "failed": 1, "passed over": 2}
"""Number by which rows are ordered; rows of one number by falling score."""
SAVED = ("anomaly_map", "label_map", "findings_seg", "findings_sr")
"""Entries of a row that are names of files in the output folder."""
SAME_NAME = """
select source from scan where run = :run and json_extract(row, '$.file') in
    (select json_extract(row, '$.file') from scan where run = :run group by 1 having count(*) > 1)
"""


class RunStore:
    """One row a file, in SQLite (a part of Python): each is on disk, whole, once :meth:`add` returns.

    Rows of another ``run`` (another model, other settings) are not shown, and stay until their file has a new one: they
    tell whose the maps are that lie in the folder. No file is made, and none changed, before the first row is added or
    name claimed.

    Args:
        folder: of the results; the file is ``worklist.sqlite`` there.
        run: digest of all that a row depends on besides its file.

    Attributes:
        remark: what to add to the notes of a file's row when it is read; nothing where it is empty.
    """

    def __init__(self, folder: str | Path, run: str) -> None:
        self.path = Path(folder) / NAME
        self.run = run
        self.remark: Callable[[str], str] = lambda source: ""
        self._on_disk = self.path.exists()
        with self._explained():
            self._base = _opened(self.path if self._on_disk else ":memory:")

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
        place = STATUS[row["status"]]
        values = (_stored(source), state, self.run, place, row.get("image_score"), *texts, picture)
        with self._explained():
            self._put_on_disk()
            self._base.execute("insert or replace into scan values (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def claim(self, name: str, owner: str) -> str:
        """Whose the name of a result is: its first claimant's, whichever of several runs into the folder that is."""
        with self._explained():
            self._put_on_disk()
            self._base.execute("insert or ignore into claim values (?, ?)", (_stored(name), owner))
        ((found,),) = self._found("select owner from claim where name = ?", (_stored(name),))
        return found

    def states(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """File, state and row of all that were scored."""
        query = "select source, state, row from scan where failed = 0 and run = ?"
        for source, state, row in self._found(query, (self.run,)):
            yield _named(source), state, self._read(row)

    def saved(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """File and row of all that any run has a row of."""
        for source, row in self._found("select source, row from scan"):
            yield _named(source), self._read(row)

    def rows(self, pictures: bool = False) -> Iterator[dict[str, Any]]:
        """Rows by falling score, then failed ones and those passed over, with ``slices``, ``findings`` and, if asked
        for, ``picture``. Files that share a name are called by their whole paths."""
        columns = "source, row, slices, findings" + (", picture" if pictures else "")
        shared = {source for (source,) in self._found(SAME_NAME, {"run": self.run})}
        query = f"select {columns} from scan where run = ? {ORDER}"
        for source, row, slices, findings, *picture in self._found(query, (self.run,)):
            scan = self._read(row) | ({"file": _named(source)} if source in shared else {})
            if remark := self.remark(_named(source)):
                scan["notes"] = [*scan.get("notes", []), remark]
            found = {"slices": self._read(slices), "findings": self._read(findings)}
            yield {"scan": scan} | found | ({"picture": picture[0]} if pictures else {})

    def sources(self, status: str) -> Iterator[str]:
        """Files that were scored, failed, or were passed over."""
        query = "select source from scan where failed = ? and run = ?"
        return (_named(source) for (source,) in self._found(query, (STATUS[status], self.run)))

    def forget(self, source: str) -> None:
        """Remove the row of a file."""
        with self._explained():
            self._base.execute("delete from scan where source = ?", (_stored(source),))

    def count(self, status: str) -> int:
        """How many files were scored, failed, or passed over."""
        query = "select count(*) from scan where failed = ? and run = ?"
        ((count,),) = self._found(query, (STATUS[status], self.run))
        return count

    def scores(self) -> Iterator[float]:
        """Image scores, falling."""
        query = f"select score from scan where failed = 0 and run = ? and score is not null {ORDER}"
        return (score for (score,) in self._found(query, (self.run,)))

    def score_range(self) -> tuple[float | None, float | None]:
        """Lowest and highest image score; None without any."""
        query = "select min(score), max(score) from scan where failed = 0 and run = ?"
        (ends,) = self._found(query, (self.run,))
        return ends

    def set_aside(self) -> None:
        """Treat all rows as another run's."""
        with self._explained():
            self._base.execute("update scan set run = ''")

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def _put_on_disk(self) -> None:
        if not self._on_disk:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base, self._on_disk = _opened(self.path), True

    def _found(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows that a query finds, as they are read from the disk."""
        with self._explained():
            yield from self._base.execute(query, values)

    def _read(self, text: str) -> Any:
        with self._explained():
            return json.loads(text)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what to do: of a file that is not a list, and of a disk that is full or may not be written."""
        try:
            yield
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            # Python's own errors, of bytes that are no text, have no code.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in NO_LIST:
                raise ValueError(
                    f"{self.path}: damaged, or no list of this package ({error}); remove it, and all files are scored "
                    "again"
                ) from error
            if self._on_disk and not self.path.exists():
                raise OSError(
                    f"cannot write {self.path}: it, or its folder, was removed or moved while the run went on; keep "
                    "the folder until the run has ended, and run again"
                ) from error
            raise OSError(f"cannot write {self.path} ({error}); free space or choose another folder") from error


def _opened(path: str | Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, isolation_level=None, timeout=60)
    base.executescript(SCHEMA)
    return base


def _stored(source: str) -> bytes:
    """A file's name as it is kept: SQLite's text has no room for the bytes of names that are not UTF-8."""
    return source.encode("utf-8", "surrogateescape")


def _named(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")
