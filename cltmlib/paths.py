"""Where things lie. Every other module takes paths as arguments or asks here."""

import functools
import os
from pathlib import Path

from cltmlib.errors import InputError


def root() -> Path:
    """Find the repository: the nearest folder with ``pyproject.toml`` and ``notebooks/``.

    Looked for upwards from the working folder first, then from this package, so that a notebook, a console
    command started elsewhere and a test with a throw-away repository all find theirs.
    """
    return _root_from(Path.cwd())


@functools.lru_cache(maxsize=8)
def _root_from(start: Path) -> Path:
    for folder in (start, *start.parents, *Path(__file__).resolve().parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise InputError(
        f"No repository of the study was found in {start} or above it; "
        "change into your clone (the folder with notebooks/ and params/) and try again."
    )


def output_folder(output_dir: str | os.PathLike) -> Path:
    """Turn the parameter ``output_dir`` into a folder; a relative one counts from the repository."""
    return root() / Path(output_dir).expanduser()


def corpus_folder(corpus_dir: str | os.PathLike | None) -> Path | None:
    """Turn the parameter ``corpus_dir`` into an absolute folder; a relative one counts from the working folder."""
    return None if corpus_dir is None else Path(corpus_dir).expanduser().absolute()


def store_file(output_dir: str | os.PathLike) -> Path:
    """Name the run store that belongs to an ``output_dir``.

    The notebooks of a profile share ``outputs/<profile>/runs.sqlite``; an ``output_dir`` outside ``outputs/``
    holds its own.
    """
    folder = Path(os.path.normpath(output_folder(output_dir)))
    shared = root() / "outputs" in folder.parent.parents
    return (folder.parent if shared else folder) / "runs.sqlite"


def without_machine(path: str | os.PathLike) -> str:
    """Write a path for a file that others will read: relative to the repository, else only its last part."""
    path = Path(path).expanduser()
    if not path.is_absolute():
        return path.as_posix()
    try:
        return path.relative_to(root()).as_posix()
    except ValueError:
        return f".../{path.name}"
