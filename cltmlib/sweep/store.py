"""What is finished: one SQLite file, one row and one transaction per finished training."""

import contextlib
import datetime
import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cltmlib.errors import InputError
from cltmlib.sweep.plan import Training

_VERSION = 1
_SCHEMA = """
CREATE TABLE trainings (
    key TEXT PRIMARY KEY, label TEXT NOT NULL, task TEXT NOT NULL, seed INTEGER NOT NULL, config TEXT NOT NULL,
    result TEXT NOT NULL, seconds REAL NOT NULL, started TEXT NOT NULL, finished TEXT NOT NULL
)
"""


class RunStore:
    """The finished trainings of a study; open it for writing with ``with RunStore(path) as store``.

    While it is open for writing a lock file beside it keeps other runs out; the operating system frees the lock when
    the process ends, however it ends. ``RunStore.read(path)`` looks without a lock.

    Choice: SQLite's rollback journal with ``synchronous=FULL``, not the faster write-ahead log, since the latter needs
    shared memory that network file systems do not give; a commit per training is nothing beside a training.

    Raises:
        InputError: the store is in use, damaged, not writable, or the disk is full. What is in it stays.
    """

    def __init__(self, path: str | os.PathLike):
        import filelock

        self.path = Path(path)
        lock = filelock.FileLock(f"{self.path}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise InputError(
                f"Another run is using the run store {self.path}: wait until it ends, or give this run its own "
                "output_dir."
            ) from None
        except OSError as error:
            raise self._explained(error) from None
        self._lock = lock
        try:
            with self._explaining():
                self._connection = sqlite3.connect(self.path, isolation_level=None)
                self._connection.execute("PRAGMA synchronous=FULL")
                self._check()
        except BaseException:
            self.close()
            raise

    @classmethod
    def read(cls, path: str | os.PathLike) -> "RunStore":
        """Open an existing store to look at it, also while a run is writing to it."""
        store = cls.__new__(cls)
        store.path, store._lock = Path(path), None
        if not store.path.is_file():
            raise InputError(f"There is no run store {store.path}: run the notebook that fills it first.")
        try:
            with store._explaining():
                # rw, for a read-only connection cannot roll back what a killed run left half written.
                mode = "rw" if os.access(store.path, os.W_OK) and os.access(store.path.parent, os.W_OK) else "ro"
                uri = f"{store.path.absolute().as_uri()}?mode={mode}"
                store._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
                store._connection.execute("PRAGMA query_only=ON")
                store._check(create=False)
        except BaseException:
            store.close()
            raise
        return store

    def add(self, training: Training, result: dict, seconds: float, started: str, finished: str | None = None) -> dict:
        """Keep a finished training; on return it is on the disk.

        Args:
            training: what was trained.
            result: plain JSON values; floats come back exactly.
            seconds: how long it took.
            started: when it started, ISO 8601.
            finished: when it ended, ISO 8601; by default now.

        Returns:
            The result as ``finished`` will give it back.
        """
        text = json.dumps(result)
        finished = finished or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        config = json.dumps(dict(training.config), sort_keys=True)
        row = (training.key, training.label, training.task, training.seed, config, text, seconds, started, finished)
        with self._explaining():
            self._connection.execute("INSERT INTO trainings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return json.loads(text)

    def finished(self, keys: Iterable[str]) -> dict[str, dict]:
        """Return the results of those of the keys that are finished, in the order of the keys."""
        found = {}
        with self._explaining():
            for key in keys:
                row = self._connection.execute("SELECT result FROM trainings WHERE key = ?", (key,)).fetchone()
                if row:
                    found[key] = json.loads(row[0])
        return found

    def durations(self, task: str | None = None) -> list[float]:
        """List how many seconds each finished training (of a task) took."""
        query, values = "SELECT seconds FROM trainings", ()
        if task is not None:
            query, values = query + " WHERE task = ?", (task,)
        with self._explaining():
            return [seconds for (seconds,) in self._connection.execute(query, values)]

    def __len__(self) -> int:
        with self._explaining():
            return self._connection.execute("SELECT count(*) FROM trainings").fetchone()[0]

    def close(self) -> None:
        """Close the file and let other runs use it."""
        if connection := self.__dict__.pop("_connection", None):
            connection.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> "RunStore":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _check(self, create: bool = True) -> None:
        """Refuse a file that is damaged or not ours before anything is trained; make the table in a new one."""
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == 0 and tables == 0 and create:
            self._connection.executescript(f"BEGIN; {_SCHEMA}; PRAGMA user_version={_VERSION}; COMMIT;")
        elif version == 0 and tables == 0:
            raise InputError(f"The run store {self.path} is empty: run the notebook that fills it first.")
        elif version != _VERSION:
            raise InputError(
                f"The file {self.path} is no run store of this version of the study: move it away or choose another "
                "output_dir."
            )

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> Exception:
        """Turn an error of SQLite or the file system into a sentence that says what to do."""
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        reason = " ".join(str(error).split())
        if primary == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return InputError(
                f"The disk is full, so nothing more can be written to the run store {self.path}: free some space and "
                "run again; the trainings finished so far are kept."
            )
        if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM) or isinstance(
            error, PermissionError | FileExistsError | NotADirectoryError | IsADirectoryError
        ):
            return InputError(
                f"The run store {self.path} cannot be written ({reason}): make its folder writable or choose another "
                "output_dir."
            )
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return InputError(f"Another program holds the run store {self.path} open: close it and run again.")
        if primary == sqlite3.SQLITE_IOERR or isinstance(error, OSError):
            return InputError(
                f"The run store {self.path} could not be read or written ({reason}): check the disk and run again; "
                "the trainings finished so far are kept."
            )
        if type(error) is sqlite3.DatabaseError:
            return InputError(
                f"The run store {self.path} is damaged ({reason}): move it away and run again to repeat its trainings, "
                "or rescue them with the sqlite3 command .recover."
            )
        return error
