"""How much an utterance of the low-resource language counts, step by step (arXiv 2409.16954).

Every schedule has ``.weight(step, losses)``: the weight of the low-resource language at optimiser step ``step``
(counted from 0), given the mean losses of the low-resource utterances and of the others in the batch, None where it has
none. Other languages have weight 1.
"""

from dataclasses import dataclass, field
from typing import Protocol

from cltmlib.errors import InputError

Losses = tuple[float | None, float | None]


class Weight(Protocol):
    """A schedule of weights; see the module."""

    def weight(self, step: int, losses: Losses) -> float: ...


@dataclass(frozen=True)
class ConstantWeight:
    """The same weight throughout; 1 is plain cross-entropy."""

    value: float = 1.0

    def __post_init__(self) -> None:
        _check(self.value, "value")

    def weight(self, step: int, losses: Losses = (None, None)) -> float:
        return self.value


@dataclass(frozen=True)
class LinearProgressiveWeight:
    """Weight 1 up to and including step ``start``, then linear from ``initial`` to ``final`` at step ``n_steps``.

    As in the authors' code, whose defaults these are: the weight jumps from 1 to just above ``initial`` after
    ``start``. Beyond ``n_steps`` it stays.

    Example:
        >>> schedule = LinearProgressiveWeight()
        >>> [schedule.weight(step) for step in (0, 4000, 4001, 6000, 8000, 9000)]
        [1.0, 1.0, 2.00075, 3.5, 5.0, 5.0]
    """

    n_steps: int = 8000
    start: int = 4000
    initial: float = 2.0
    final: float = 5.0

    def __post_init__(self) -> None:
        _check(self.initial, "initial")
        _check(self.final, "final")
        if not 0 <= self.start < self.n_steps:
            raise InputError(
                f"start is {self.start}: weighting must start between step 0 and n_steps ({self.n_steps})."
            )

    def weight(self, step: int, losses: Losses = (None, None)) -> float:
        if step <= self.start:
            return 1.0
        progress = min(1.0, (step - self.start) / (self.n_steps - self.start))
        return self.initial + (self.final - self.initial) * progress

    @property
    def mean(self) -> float:
        """Mean weight over the steps 0 to ``n_steps - 1``: what a constant weight has to equal in amount."""
        return sum(self.weight(step) for step in range(self.n_steps)) / self.n_steps


@dataclass
class LossRatioWeight:
    """Weight by how much worse the model still is on the low-resource language: r = its mean loss / the others'.

    The weight is 1 where ``alpha * r < 1`` and ``max(alpha, r)`` elsewhere. A batch without one of the two groups
    leaves r as it was; before the first ratio the weight is 1.

    Attributes:
        alpha: least weight once weighting acts; 1.5 in the authors' code.
        smoothing: share of the past in an exponential moving average of r; 0 takes each batch by itself.

    Example:
        >>> [LossRatioWeight().weight(0, (low, 1.0)) for low in (0.5, 0.7, 1.4, 3.0)]
        [1.0, 1.5, 1.5, 3.0]
    """

    alpha: float = 1.5
    smoothing: float = 0.0
    _ratio: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        _check(self.alpha, "alpha")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing is {self.smoothing}: give a share of at least 0 and below 1.")

    def weight(self, step: int, losses: Losses) -> float:
        low, high = losses
        if low is not None and high:
            past = low / high if self._ratio is None else self._ratio
            self._ratio = self.smoothing * past + (1 - self.smoothing) * low / high
        if self._ratio is None or self.alpha * self._ratio < 1:
            return 1.0
        return max(self.alpha, self._ratio)


def _check(value: float, name: str) -> None:
    if not value >= 1:
        raise InputError(f"{name} is {value}: a weight of the low-resource language must be at least 1.")
