"""Time Sinkhorn against a loop over POT, forward and backward: ``python tests/benchmark_sinkhorn.py``.

Both get the same tokens (64 pairs of 80 x 80, width 64, float32), the same cosine cost with gradient to the tokens, the
same uniform masses and epsilon. POT runs its log-domain solver with the torch backend, differentiating through its
iterations, until the L2 error of one marginal is below the L1 tolerance that ours reaches on both: it is asked for no
more than ours. In float32 POT would stop at rounding errors above the tolerance and run on, so it gets float64 costs,
as ours makes inside. Each is timed on the same data, the best of a few runs.
"""

import time
import warnings

import torch

from cltmlib.potsa.transport import cosine_cost, sinkhorn

TOLERANCE = 1e-9
MAX_ITERATIONS = 1000


def tokens(kind, n_pairs=64, n_tokens=80, dim=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    source, target = torch.randn(2, n_pairs, n_tokens, dim, generator=generator)
    target = target if kind == "unrelated" else source + 0.5 * target
    return source.requires_grad_(), target


def ours(source, target, epsilon):
    distance, _ = sinkhorn(cosine_cost(source, target), epsilon, max_iterations=MAX_ITERATIONS, tolerance=TOLERANCE)
    return distance


def loop_over_pot(source, target, epsilon):
    """The same distance, problem by problem: <P, C> + epsilon KL(P | uniform)."""
    import ot

    distances = []
    for cost in cosine_cost(source, target).double():
        a, b = (torch.full((size,), 1 / size, dtype=cost.dtype) for size in cost.shape)
        plan = ot.sinkhorn(
            a, b, cost, epsilon, method="sinkhorn_log", numItermax=MAX_ITERATIONS, stopThr=TOLERANCE, warn=False
        )
        entropy = torch.special.xlogy(plan, plan / (a[:, None] * b)).sum()
        distances.append((plan * cost).sum() + epsilon * entropy)
    return torch.stack(distances)


def seconds(solver, source, target, epsilon, n_runs):
    best = float("inf")
    for _ in range(n_runs):
        source.grad = None
        start = time.perf_counter()
        distance = solver(source, target, epsilon)
        distance.sum().backward()
        best = min(best, time.perf_counter() - start)
    return best, distance.detach(), source.grad


def compare(kind, epsilon, n_runs=(5, 2)):
    """Seconds of ours and of POT, the largest relative difference of distances and of gradients."""
    source, target = tokens(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours_s, distance, gradient = seconds(ours, source, target, epsilon, n_runs[0])
        pot_s, pot_distance, pot_gradient = seconds(loop_over_pot, source, target, epsilon, n_runs[1])
    of_distance = ((distance - pot_distance).abs() / pot_distance.abs()).max().item()
    of_gradient = ((gradient - pot_gradient).abs().max() / pot_gradient.abs().max()).item()
    return ours_s, pot_s, of_distance, of_gradient


if __name__ == "__main__":
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for kind in ("unrelated", "parallel"):
        for epsilon in (1.0, 0.1, 0.03):
            ours_s, pot_s, of_distance, of_gradient = compare(kind, epsilon, n_runs=(5, 1 if kind == "parallel" else 2))
            print(
                f"{kind:9} epsilon {epsilon:4}: ours {ours_s:6.3f} s, POT {pot_s:7.3f} s, ratio {pot_s / ours_s:5.1f}; "
                f"relative difference of distances {of_distance:.1e}, of gradients {of_gradient:.1e}",
                flush=True,
            )
