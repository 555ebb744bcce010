"""Run trainings on a Ray cluster; Ray is an optional extra."""

from collections.abc import Callable, Iterator, Sequence

from cltmlib.errors import InputError
from cltmlib.sweep.local import Outcome, _one_thread, timed
from cltmlib.sweep.plan import Training


def outcomes(
    trainings: Sequence[Training], train: Callable[[Training], dict], n_workers: int | None, device: str = "cpu"
) -> Iterator[Outcome]:
    """Train everything on the cluster and hand out each result as it is finished, in any order.

    A running cluster is found as Ray finds it (``RAY_ADDRESS``, ``ray start``); without one Ray uses this machine.
    Each training takes one core, and one GPU unless ``device`` is ``cpu``; files that ``train`` reads must be at the
    same path on every node.

    Raises:
        InputError: Ray is not installed, or a worker was lost.
    """
    try:
        import ray
    except ImportError:
        raise InputError("The executor 'ray' needs Ray: install it with pip install 'cltmlib[ray]'.") from None

    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, configure_logging=False)
    running: dict = {}
    try:
        remote = ray.remote(num_cpus=1, num_gpus=0 if device == "cpu" else 1, max_retries=0)(_train_on_one_thread)
        shared = ray.put(train)  # sent once to each node, not with each training
        waiting = list(reversed(trainings))
        at_once = n_workers or max(1, int(ray.cluster_resources().get("CPU" if device == "cpu" else "GPU", 1)))
        while waiting or running:
            while waiting and len(running) < at_once:
                training = waiting.pop()
                running[remote.remote(shared, training)] = training
            (done,), _ = ray.wait(list(running), num_returns=1)
            training = running.pop(done)
            try:
                answer = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"Ray lost the training {training.label or training.key[:12]!r} ({type(error).__name__}), most "
                    "likely for lack of memory: set a smaller n_workers and run again; the trainings finished so far "
                    "are kept."
                ) from None
            yield Outcome(training, *answer)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if ours:
            ray.shutdown()


def _train_on_one_thread(train: Callable[[Training], dict], training: Training) -> tuple:
    with _one_thread():
        return timed(train, training)[1:]
