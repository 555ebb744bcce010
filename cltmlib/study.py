"""Run, plan and list the notebooks of the study; the console command ``cltm`` is a thin face of this module."""

import contextlib
import datetime
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cltmlib import params as parameters
from cltmlib import paths
from cltmlib.errors import InputError
from cltmlib.params import Params
from cltmlib.paths import root
from cltmlib.planning import duration

__all__ = ["NotebookFailed", "configure", "describe", "notebooks", "overview", "plan", "root", "run"]


class NotebookFailed(InputError):
    """A notebook stopped with an error; the message says which and where to look."""


def notebooks(names: Sequence[str] = ()) -> list[Path]:
    """List the notebooks in reading order, or those whose name begins with one of ``names`` (``02``, ``02_gr``)."""
    every = sorted((root() / "notebooks").glob("*.ipynb"))
    if not every:
        raise InputError(f"There are no notebooks in {root() / 'notebooks'}: check out the whole repository.")
    for name in names:
        if not any(path.stem.startswith(name) for path in every):
            raise InputError(
                f"There is no notebook {name!r}: choose from {', '.join(path.stem for path in every)} "
                "(the number is enough)."
            )
    return [path for path in every if not names or path.stem.startswith(tuple(names))]


def configure(profile: str, notebook: str, overrides: Mapping[str, Any] | None = None) -> Params:
    """Read a notebook's parameters from its profile, lay the overrides over them and check all."""
    return parameters.load(notebook, _given(profile, notebook, overrides))


def run(profile: str, names: Sequence[str] = (), overrides: Mapping[str, Any] | None = None) -> None:
    """Execute notebooks with the parameters of a profile, one after the other.

    All parameters are checked before the first kernel starts. The result of each is ``executed.ipynb`` in its
    ``output_dir``, or ``failed.ipynb`` up to the cell that failed. A notebook that is run again is cheap: the trainings
    are in the run store.

    Raises:
        InputError: a parameter, profile or notebook is wrong; nothing was started.
        NotebookFailed: a notebook stopped.
    """
    jobs = [(path, configure(profile, path.stem, overrides)) for path in notebooks(names)]
    _quieten()
    with _bar(jobs) as bar:
        for path, params in jobs:
            started = time.monotonic()
            bar.say(f"{path.stem} ({profile}) started")
            _run_one(path, params, bar)
            where = paths.without_machine(paths.output_folder(params.output_dir))
            bar.say(f"{path.stem} ({profile}) finished in {duration(time.monotonic() - started)}: {where}/")


def plan(profile: str, names: Sequence[str] = (), overrides: Mapping[str, Any] | None = None) -> str:
    """Tabulate the trainings, hours and disk that notebooks would take; nothing is loaded or trained."""
    import textwrap

    from cltmlib.planning import estimate

    rows, notes = [("notebook", "trainings", "stored of the task", "time of all", "disk")], []
    for path in notebooks(names):
        params = parameters.resolve(path.stem, _given(profile, path.stem, overrides))
        row, note = estimate(params)
        rows.append((path.stem, *row))
        notes.append(textwrap.fill(f"{path.stem}: {note}", 79, subsequent_indent="  "))
    return "\n".join([_table(rows, right=True), "", *notes])


def overview() -> str:
    """Tabulate which notebooks are finished in which profile, and how many trainings each profile has stored."""
    profiles = sorted({*parameters.PROFILES, *(p.name for p in (root() / "params").glob("*") if p.is_dir())})
    profiles.sort(key=lambda p: parameters.PROFILES.index(p) if p in parameters.PROFILES else len(profiles))
    rows = [("notebook", *profiles)]
    for path in notebooks():
        rows.append((path.stem, *(_state(profile, path.stem) for profile in profiles)))
    counts = [_n_stored(root() / "outputs" / profile / "runs.sqlite") for profile in profiles]
    rows.append(("trainings in the store", *("-" if n is None else str(n) for n in counts)))
    return _table(rows)


def describe(names: Sequence[str]) -> str:
    """Tell the parameters of notebooks: name, what it means, what it accepts."""
    import textwrap

    lines = []
    for path in notebooks(names):
        lines.append(f"{path.stem} takes")
        for name in parameters.NOTEBOOKS.get(path.stem, ()):
            entry = parameters.TABLE[name]
            text = f"{entry.meaning} ({entry.wanted})"
            lines += textwrap.wrap(text, 79, initial_indent=f"  {name:<24}", subsequent_indent=" " * 26)
    return "\n".join(lines)


def _given(profile: str, notebook: str, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**parameters.read_profile(profile, notebook), **(overrides or {})}


# Running ---------------------------------------------------------------------------------------------------------


def _run_one(path: Path, params: Params, bar: "_Bar") -> None:
    """Execute one notebook under a temporary name, then give it the name it deserves."""
    import filelock
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    folder = paths.output_folder(params.output_dir)
    running, executed, failed = (folder / f"{name}.ipynb" for name in ("running", "executed", "failed"))
    lock = filelock.FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise NotebookFailed(
            f"{path.stem} is already running into {paths.without_machine(folder)}: wait until it ends, or give this "
            "run its own folder with -p output_dir DIR."
        ) from None
    except OSError as error:
        raise NotebookFailed(
            f"The folder {folder} cannot be written ({error.strerror}): choose another with -p output_dir DIR."
        ) from None
    with contextlib.ExitStack() as at_the_end:
        at_the_end.callback(lock.release)
        try:
            _execute(path, running, params, bar)
        except PapermillExecutionError as error:
            os.replace(running, failed)
            where = f"\n(The notebook up to there: {paths.without_machine(failed)})"
            if error.ename == InputError.__name__:
                raise NotebookFailed(error.evalue + where) from None
            reason = f"{error.ename}: {error.evalue}".strip().splitlines()[0][:300]
            raise NotebookFailed(f"{path.stem} failed in cell [{error.exec_count}] with {reason}{where}") from None
        except DeadKernelError:
            os.replace(running, failed)
            raise NotebookFailed(
                f"The kernel of {path.stem} was stopped by the operating system, most likely for lack of memory: set "
                "smaller values (n_workers, batch_size) and run again; the trainings finished so far are kept."
            ) from None
        except OSError as error:
            raise NotebookFailed(
                f"{path.stem} could not be executed ({error}): mend the cause and run again; the trainings finished so "
                "far are kept."
            ) from None
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                os.replace(running, failed)
            raise
        os.replace(running, executed)
        failed.unlink(missing_ok=True)


def _execute(path: Path, output: Path, params: Params, bar: "_Bar") -> None:
    """Hand a notebook to papermill, with a kernel of the Python that runs this and with our progress bar."""
    import papermill
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from papermill.engines import NBClientEngine, papermill_engines

    class KernelOfThisPython(AsyncKernelManager):
        """Whatever kernels are registered on the machine, whether or not the environment is activated."""

        @property
        def kernel_spec(self) -> KernelSpec:
            spec = get_kernel_dict()
            return KernelSpec(**{**spec, "argv": [sys.executable, *spec["argv"][1:], "--log-level=ERROR"]})

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, managed, kernel_name, **options):
            managed.pbar = bar.of(path.stem)
            super().execute_managed_notebook(
                managed, kernel_name, kernel_manager_class=KernelOfThisPython, shutdown_kernel="immediate", **options
            )

    papermill_engines.register("cltm", Engine)
    papermill.execute_notebook(
        path,
        output,
        parameters=params.as_dict(),
        engine_name="cltm",
        kernel_name="python3",
        language="python",
        progress_bar=False,
    )


def _quieten() -> None:
    """Keep the notes of Jupyter's machinery off the terminal; errors still come as exceptions."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    for name in ("papermill", "nbclient", "traitlets", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _bar(jobs: Sequence[tuple[Path, Params]]) -> Iterator["_Bar"]:
    """Show one bar over the cells of all notebooks while they run."""
    import nbformat

    n_cells = sum(len(nbformat.read(path, as_version=4).cells) + 1 for path, _ in jobs)  # papermill adds one
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder, "progress.json")
        before = os.environ.get("CLTM_PROGRESS")
        os.environ["CLTM_PROGRESS"] = str(progress)  # inherited by the kernel, written by the sweep
        bar = _Bar(n_cells, progress)
        try:
            yield bar
        finally:
            bar.end()
            os.environ.pop("CLTM_PROGRESS")
            if before is not None:
                os.environ["CLTM_PROGRESS"] = before


class _Bar:
    """The bar of ``run``: cells done, and the trainings of the sweep that is running; silent outside a terminal."""

    def __init__(self, n_cells: int, progress: Path):
        from tqdm import tqdm

        self._progress = progress
        self._tqdm = tqdm(
            total=n_cells,
            disable=None,
            dynamic_ncols=True,
            leave=False,
            bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} cells, {elapsed}{postfix}",
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def of(self, notebook: str) -> "_Bar":
        """Name the notebook that is running; papermill then drives the bar by the methods below."""
        self._progress.unlink(missing_ok=True)
        self._tqdm.set_description_str(notebook)
        return self

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._tqdm.clear()
        print(line, flush=True)

    def end(self) -> None:
        """Take the bar off the terminal."""
        self._ended.set()
        self._thread.join()
        self._tqdm.close()

    def update(self, n_cells: int = 1) -> None:
        """Papermill: so many cells are done."""
        self._tqdm.update(n_cells)

    def refresh(self) -> None:
        """Papermill: the notebook is done."""

    def close(self) -> None:
        """Papermill: the notebook is done; the bar goes on with the next."""

    def set_description(self, *_: Any) -> None:
        """Papermill: a cell named itself; the notebook's name says enough."""

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            text = ""
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(self._progress.read_text())
                if told["done"] < told["total"]:
                    text = f"trainings {told['done']}/{told['total']}"
                    if told["seconds_left"] is not None:
                        text += f", {duration(told['seconds_left'])} left"
            self._tqdm.set_postfix_str(text)


# Overview --------------------------------------------------------------------------------------------------------


def _n_stored(store: Path) -> int | None:
    from cltmlib.sweep.store import RunStore

    if not store.is_file():
        return None
    try:
        with RunStore.read(store) as open_store:
            return len(open_store)
    except InputError:
        return None


def _state(profile: str, notebook: str) -> str:
    if not (root() / "params" / profile / f"{notebook}.yaml").is_file():
        return "no params"
    folder = root() / "outputs" / profile / notebook
    if (folder / "failed.ipynb").is_file():
        return "unfinished"
    if (folder / "executed.ipynb").is_file():
        finished = datetime.datetime.fromtimestamp((folder / "executed.ipynb").stat().st_mtime)
        return f"finished {finished:%Y-%m-%d}"
    return "-"


def _table(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """Lay rows out in columns; the first row is the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) if right else cell.ljust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
