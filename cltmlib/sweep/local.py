"""Run trainings in processes of this machine."""

import contextlib
import datetime
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cltmlib.errors import InputError
from cltmlib.sweep.plan import Training


class Outcome(NamedTuple):
    """A finished training: what it gave and how long it took."""

    training: Training
    result: dict
    seconds: float
    started: str


def outcomes(trainings: Sequence[Training], train: Callable[[Training], dict], n_workers: int) -> Iterator[Outcome]:
    """Train everything and hand out each result as it is finished, in any order.

    Every training computes on one thread, in this process (``n_workers=1``) or in one of several that are started
    afresh, so that its numbers depend neither on the number of workers nor on what ran before it. The workers end with
    this process, however it ends.
    """
    if n_workers == 1:
        with _one_thread():
            for training in trainings:
                yield timed(train, training)
    else:
        yield from _in_processes(trainings, train, n_workers)


def usable_cores() -> int:
    """Count the cores this process may use (fewer than the machine's inside a container or a batch job)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def timed(train: Callable[[Training], dict], training: Training) -> Outcome:
    """Train and note the time."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    clock = time.perf_counter()
    result = train(training)
    return Outcome(training, result, time.perf_counter() - clock, started)


def _in_processes(trainings: Sequence[Training], train: Callable, n_workers: int) -> Iterator[Outcome]:
    # spawn, not fork: a forked child of a process that used threads (torch, Jupyter) can hang.
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(trainings))
    workers: dict[multiprocessing.connection.Connection, multiprocessing.Process] = {}
    busy: dict[multiprocessing.connection.Connection, Training] = {}
    try:
        for _ in range(min(n_workers, len(trainings))):
            here, there = context.Pipe()
            worker = context.Process(target=_work, args=(there, train), daemon=True)
            workers[here] = worker
            worker.start()
            there.close()
        for here in workers:
            _hand_out(here, waiting, busy)
        while busy:
            for here in multiprocessing.connection.wait(list(busy)):
                training = busy.pop(here)
                try:
                    answer = here.recv()
                except (EOFError, OSError):
                    raise _worker_died(workers[here], training) from None
                if isinstance(answer, BaseException):
                    raise answer
                if waiting:
                    _hand_out(here, waiting, busy)
                yield Outcome(training, *answer)
    finally:
        for here, worker in workers.items():
            here.close()
            if worker.pid is not None:
                worker.kill()  # its results are here already; what is unfinished has nothing worth keeping
        for worker in workers.values():
            if worker.pid is not None:
                worker.join()


def _hand_out(here: multiprocessing.connection.Connection, waiting: list[Training], busy: dict) -> None:
    busy[here] = waiting.pop()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # found again, with its exit code, by recv
        here.send(busy[here])


def _worker_died(worker: multiprocessing.Process, training: Training) -> InputError:
    worker.join(10)
    if worker.exitcode == -9:
        cause = "was stopped by the operating system, most likely for lack of memory: set a smaller n_workers"
    else:
        cause = f"ended with exit code {worker.exitcode} (its own message is above): mend the cause"
    return InputError(
        f"The process training {training.label or training.key[:12]!r} {cause} and run again; "
        "the trainings finished so far are kept."
    )


def _work(connection: multiprocessing.connection.Connection, train: Callable) -> None:
    """Body of a worker: train what comes in until nothing more comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _one_thread(), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            training = connection.recv()
            try:
                answer = timed(train, training)[1:]
            except Exception as error:
                answer = _portable(error)
            connection.send(answer)


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)  # at once: a training in the middle of a long product does not look at signals


def _portable(error: Exception) -> Exception:
    """Make an exception survive the way to the driver; one of ours stays, any other carries its traceback along."""
    import traceback

    if isinstance(error, InputError):
        return InputError(str(error))
    return RuntimeError("A training failed in a worker:\n" + "".join(traceback.format_exception(error)))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: sums split over threads differ in their last digits."""
    with contextlib.ExitStack() as stack:
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # for libraries not loaded yet
            stack.callback(_set_environment, variable, os.environ.get(variable))
            os.environ[variable] = "1"
        if "numpy" in sys.modules and importlib.util.find_spec("threadpoolctl"):
            import threadpoolctl

            stack.enter_context(threadpoolctl.threadpool_limits(1))
        if torch := sys.modules.get("torch"):
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield


def _set_environment(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value
