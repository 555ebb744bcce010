"""Entropic optimal transport between two sequences of tokens (arXiv 2511.09232, Section 2.2).

Sinkhorn's iteration alone is slow at a small epsilon, where the plan is nearly a matching: with 80 unrelated tokens on
each side and epsilon 0.01, marginals are still off by 1e-4 after 3000 steps. So blocks of Sinkhorn steps alternate with
Newton steps on the same dual problem, each kept only where it lowers the error.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from cltmlib.errors import InputError

# One block: Sinkhorn steps (fewer if they get there), then Newton steps, each as dear as ten of those. Timed on 64
# problems of 80 x 80, unrelated and parallel tokens, epsilon 0.01 to 1: 10 and 3 are half as fast where 20 steps do,
# 30 are up to twice as slow where it is hard, and one Newton step instead of three by a fifth.
_SINKHORN_STEPS = 20
_NEWTON_STEPS = 3


class _Problem(NamedTuple):
    """Transport problems of one size: all float64, padded rows and columns have mass 0 and cost inf."""

    cost: Tensor  # (batch, n, m), in units of epsilon
    source: Tensor  # mass of each source token, (batch, n)
    target: Tensor  # (batch, m)
    source_pad: Tensor  # 1 at padded tokens, else 0: keeps 0 / 0 out of divisions by marginals, (batch, n)
    target_pad: Tensor  # (batch, m)

    def select(self, rows: Tensor) -> "_Problem":
        return self if len(rows) == len(self.cost) else _Problem(*(tensor[rows] for tensor in self))

    def plan(self, f: Tensor, g: Tensor) -> Tensor:
        """``P[i, j] = exp(f[i] + g[j] - cost[i, j])``, (batch, n, m)."""
        return (g[:, None] - self.cost).add_(f[:, :, None]).exp_()  # one large temporary instead of three

    def error(self, plan: Tensor) -> Tensor:
        """Absolute error of both marginals, summed: (batch,)."""
        return (plan.sum(2) - self.source).abs().sum(1) + (plan.sum(1) - self.target).abs().sum(1)


def cosine_cost(source: Tensor, target: Tensor) -> Tensor:
    """Cosine distance ``1 - cos(u_i, v_j)`` between the tokens of each pair.

    Args:
        source: float, shape (pair, n, dim).
        target: float, shape (pair, m, dim).

    Returns:
        Costs in [0, 2], at least float32, shape (pair, n, m). A vector of length 0 is at distance 1 from all.

    Example:
        >>> cosine_cost(torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-3.0, 0.0]]])).tolist()
        [[[0.0, 1.0, 2.0]]]
    """
    source, target = (torch.nn.functional.normalize(_wide(tokens), dim=2) for tokens in (source, target))
    with torch.autocast(source.device.type, enabled=False):  # bfloat16 products are off by more than a small epsilon
        return 1 - source @ target.mT


def squared_euclidean_cost(source: Tensor, target: Tensor) -> Tensor:
    """Squared distance between the tokens of each pair, averaged over dimensions: ``|u_i - v_j|^2 / dim``.

    Choice: the average, not the sum, so that epsilon and the weight alpha mean the same at every width. Tokens that
    come out of a LayerNorm have unit variance, which puts unrelated ones at a distance of 2.

    Args:
        source: float, shape (pair, n, dim).
        target: float, shape (pair, m, dim).

    Returns:
        Costs, at least float32, shape (pair, n, m); equal tokens may be a rounding error below 0.

    Example:
        >>> squared_euclidean_cost(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[1.0, 1.0], [3.0, 1.0]]])).tolist()
        [[[0.0, 2.0]]]
    """
    source, target = _wide(source), _wide(target)
    with torch.autocast(source.device.type, enabled=False):
        inner = source @ target.mT
    return (source.square().sum(2)[:, :, None] + target.square().sum(2)[:, None] - 2 * inner) / source.shape[2]


def sinkhorn(
    cost: Tensor,
    epsilon: float,
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    max_iterations: int = 1000,
    tolerance: float = 1e-9,
) -> tuple[Tensor, Tensor]:
    """Transport each source sequence to its target sequence, uniform masses over valid tokens.

    Paper, Eq. (3): the plan minimises ``<Z, C> + epsilon * sum Z log Z`` over plans with these marginals.

    Choice: the distance is that minimum plus ``epsilon * (log n + log m)`` for n and m valid tokens, that is
    ``<Z, C> + epsilon * KL(Z | uniform)``: Eq. (3) itself is negative for parallel sequences and depends on their
    lengths. The constant changes no plan and no gradient.

    The distance is differentiable once with respect to the cost; its gradient is the plan (envelope theorem), so the
    backward pass keeps one plan, however many iterations were made. The plan carries no gradient; ``(plan * cost)``
    summed is the transport cost without the entropy. All is computed in float64 in the log domain.

    Args:
        cost: finite at valid pairs of tokens, shape (batch, n, m).
        epsilon: weight of the entropy, in the unit of the cost, positive.
        source_mask: True at valid tokens, shape (batch, n); None: all are.
        target_mask: the same, shape (batch, m).
        max_iterations: Sinkhorn and Newton steps, together.
        tolerance: largest ``|Z 1 - a| + |Z' 1 - b|`` (sums of absolute values), before the plan is rounded to the type
            of the cost; float64 allows about 1e-14.

    Returns:
        Distances, shape (batch,), and plans, shape (batch, n, m), 0 at padding; both of the type of the cost. A warning
        tells of problems that are above the tolerance after ``max_iterations``; ``marginal_error`` tells which.

    Raises:
        InputError: a cost is not finite, a side has no valid token, a shape does not fit, or epsilon is not positive.

    Example:
        >>> distance, plan = sinkhorn(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), epsilon=0.1)
        >>> plan.mul(2).round(decimals=4).tolist(), round(distance.item(), 4)
        ([[[1.0, 0.0], [0.0, 1.0]]], 0.0693)
    """
    if not epsilon > 0:
        raise InputError(f"Parameter epsilon is {epsilon}: give a positive number.")
    problem = _problem(cost.detach(), epsilon, source_mask, target_mask)
    f, g, plan, error = _solve(problem, max_iterations, tolerance)
    if (error > tolerance).any():
        warnings.warn(
            f"Sinkhorn did not converge for {int((error > tolerance).sum())} of {len(error)} problems: after "
            f"{max_iterations} iterations the marginals are off by up to {error.max().item():.1e}, more than the "
            f"tolerance of {tolerance:.1e}; raise max_iterations or epsilon.",
            stacklevel=2,
        )
    # The value of the dual: its error is of second order in that of f and g.
    distance = epsilon * (1 - plan.sum((1, 2)))
    for potential, mass, pad in ((f, problem.source, problem.source_pad), (g, problem.target, problem.target_pad)):
        distance = distance + epsilon * (mass * (potential - (mass + pad).log())).sum(1)
    plan = plan.to(cost.dtype)
    return _Envelope.apply(cost, distance.to(cost.dtype), plan), plan


def marginal_error(plan: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None) -> Tensor:
    """Sum of the absolute errors of both marginals of each plan, as ``tolerance`` of ``sinkhorn`` bounds it: (batch,).

    Example:
        >>> marginal_error(torch.tensor([[[0.5, 0.0], [0.25, 0.25]]])).tolist()
        [0.5]
    """
    return _problem(torch.zeros_like(plan), 1.0, source_mask, target_mask).error(plan.double())


class _Envelope(torch.autograd.Function):
    """The distance as a function of the cost: at the optimum, the derivative is the plan."""

    @staticmethod
    def forward(ctx, cost: Tensor, distance: Tensor, plan: Tensor) -> Tensor:
        ctx.save_for_backward(plan)
        return distance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (plan,) = ctx.saved_tensors
        return gradient[:, None, None] * plan, None, None


def _wide(tokens: Tensor) -> Tensor:
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32))


def _problem(cost: Tensor, epsilon: float, source_mask: Tensor | None, target_mask: Tensor | None) -> _Problem:
    if cost.ndim != 3:
        raise InputError(f"The cost has the shape (batch, n, m), not {tuple(cost.shape)}.")
    masks = []
    for side, mask, size in (("source", source_mask, cost.shape[1]), ("target", target_mask, cost.shape[2])):
        if mask is None:
            mask = torch.ones(len(cost), size, dtype=torch.bool, device=cost.device)
        if mask.shape != (len(cost), size):
            raise InputError(f"The {side}_mask has the shape {tuple(mask.shape)}, not {(len(cost), size)} as the cost.")
        mask = mask.bool()
        if not mask.any(1).all():
            raise InputError(f"Pair {int((~mask.any(1)).int().argmax())} has no valid {side} token: leave it out.")
        masks.append(mask)
    padded = (~masks[0])[:, :, None] | (~masks[1])[:, None]
    wrong = ~cost.isfinite() & ~padded
    if wrong.any():
        pair = int(wrong.flatten(1).any(1).int().argmax())
        raise InputError(f"A cost of pair {pair} is not a finite number: check its features.")
    masses = [mask.double() / mask.sum(1, keepdim=True) for mask in masks]
    scaled = (cost.double() / epsilon).masked_fill_(padded, float("inf"))
    return _Problem(scaled, *masses, *((~mask).double() for mask in masks))


def _solve(problem: _Problem, max_iterations: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Potentials ``f`` (batch, n) and ``g`` (batch, m), in units of epsilon, their plan and its error (batch,)."""
    f, g, plan = torch.zeros_like(problem.source), torch.zeros_like(problem.target), torch.zeros_like(problem.cost)
    error = torch.full_like(f[:, 0], float("inf"))
    n_done = 0
    while n_done < max_iterations:
        rows = (error > tolerance).nonzero()[:, 0]  # finished problems cost nothing more
        if not len(rows):
            break
        part = problem.select(rows)
        n_steps = min(_SINKHORN_STEPS, max_iterations - n_done)
        state = _sinkhorn_steps(part, g[rows], n_steps, tolerance / 2)
        error_part = part.error(state[2])
        n_done += n_steps
        for _ in range(min(_NEWTON_STEPS, max_iterations - n_done)):
            if (error_part <= tolerance).all():
                break
            new_state = _newton_step(part, *state, error_part)
            new_error = part.error(new_state[2])
            better = new_error < error_part  # False where the step is not finite
            state = [
                torch.where(better.view(-1, *[1] * (old.ndim - 1)), new, old)
                for old, new in zip(state, new_state, strict=True)
            ]
            error_part = torch.where(better, new_error, error_part)
            n_done += 1
        for whole, new in zip((f, g, plan, error), (*state, error_part), strict=True):
            whole[rows] = new
    return f, g, plan, error


def _sinkhorn_steps(problem: _Problem, g: Tensor, n_steps: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Potentials and plan after up to ``n_steps`` updates of both potentials, starting from ``g``.

    The first update takes logarithms of sums of exponentials. After it every row and column of the plan has entries
    near its mass, so a few updates more are plain scalings of rows and columns, an order of magnitude cheaper, and no
    factor leaves the range of float64 (each grows by at most the number of tokens a step).
    """
    source_pad, target_pad = problem.source_pad.bool(), problem.target_pad.bool()
    f = (problem.source + problem.source_pad).log() - torch.logsumexp(g[:, None] - problem.cost, 2)
    f = f.masked_fill(source_pad, 0)
    g = (problem.target + problem.target_pad).log() - torch.logsumexp(f[:, :, None] - problem.cost, 1)
    g = g.masked_fill(target_pad, 0)
    plan = problem.plan(f, g)
    rows, columns = torch.ones_like(f), torch.ones_like(g)
    for _ in range(n_steps - 1):
        row_sum = torch.linalg.vecdot(plan, columns[:, None])  # of the plan, but for the factor of the row
        if ((rows * row_sum - problem.source).abs().sum(1) <= tolerance).all():
            break  # the sums over columns are right since the last step
        rows = problem.source / (row_sum + problem.source_pad)
        columns = problem.target / (torch.bmm(rows[:, None], plan)[:, 0] + problem.target_pad)
    f = f + (rows + problem.source_pad).log().masked_fill_(source_pad, 0)
    g = g + (columns + problem.target_pad).log().masked_fill_(target_pad, 0)
    return f, g, plan.mul_(rows[:, :, None]).mul_(columns[:, None])


def _newton_step(problem: _Problem, f: Tensor, g: Tensor, plan: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Potentials and plan one step closer to the marginals, from ``[diag(r) P; P' diag(c)] (df, dg) = (a - r, b - c)``.

    ``f`` is eliminated. Where a plan falls apart into weakly linked groups the system is nearly singular and its steps
    are far too long; the error times ``diag(c)`` bounds them and vanishes fast enough for quadratic convergence.
    ``b b'`` fixes the constant by which f and g may differ.
    """
    row_sum, column_sum = plan.sum(2) + problem.source_pad, plan.sum(1)
    source_gap, target_gap = problem.source - plan.sum(2), problem.target - column_sum
    diagonal = column_sum * (1 + error[:, None]) + problem.target_pad
    system = torch.diag_embed(diagonal) - plan.mT @ (plan / row_sum[:, :, None])
    system = system + problem.target[:, :, None] * problem.target[:, None]
    right = target_gap[:, :, None] - plan.mT @ (source_gap / row_sum)[:, :, None]
    factor, _ = torch.linalg.cholesky_ex(system)  # a failed factor gives a step that is not taken
    step_g = torch.cholesky_solve(right, factor)
    f = f + (source_gap - (plan @ step_g)[:, :, 0]) / row_sum
    g = g + step_g[:, :, 0]
    return f, g, problem.plan(f, g)
