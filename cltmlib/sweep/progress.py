"""Tell whoever is watching how many trainings are done and how long the rest will take."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path


class Progress:
    """A bar on standard error and, for ``cltm run``, a small file named by the environment's ``CLTM_PROGRESS``.

    The bar shows only where somebody can see it move: in a terminal or an interactive notebook, not in one that
    papermill or nbval executes.
    """

    def __init__(self, n_done: int, n_total: int, show: bool = True):
        from tqdm import tqdm

        self._n_before, self._n_done, self._n_total = n_done, n_done, n_total
        self._clock = time.monotonic()
        self._bar = tqdm(
            desc="trainings",
            initial=n_done,
            total=n_total,
            disable=not (show and _somebody_watches()),
            file=sys.stderr,
            bar_format="{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed} so far, {remaining} left",
        )
        self._tell()

    def step(self) -> None:
        """One more training is done."""
        self._n_done += 1
        self._bar.update()
        self._tell()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def _tell(self) -> None:
        path = os.environ.get("CLTM_PROGRESS")
        if not path:
            return
        new = self._n_done - self._n_before
        left = (time.monotonic() - self._clock) / new * (self._n_total - self._n_done) if new else None
        temporary = Path(f"{path}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a progress report is not worth a training
            temporary.write_text(json.dumps({"done": self._n_done, "total": self._n_total, "seconds_left": left}))
            os.replace(temporary, path)


def _somebody_watches() -> bool:
    if "CLTM_PROGRESS" in os.environ:
        return False
    kernel = None
    if "IPython" in sys.modules:
        shell = sys.modules["IPython"].get_ipython()
        kernel = getattr(shell, "kernel", None)
    if kernel is not None:  # a person's front end can be asked for input; papermill and nbval cannot
        return bool(getattr(kernel, "_allow_stdin", False))
    return sys.stderr.isatty()
