"""Which layer is aligned at each step (arXiv 2511.09232, Section 2.3)."""

import math

import numpy as np

from cltmlib.errors import InputError


class LayerScheduler:
    """Draw the layer to align, more often those after whose activation the task loss fell.

    Paper: Eq. (5) averages the rewards of a layer, Eq. (6) adds a bonus for layers seldom chosen, Eq. (7) draws by a
    softmax. The paper leaves these to us:

    Choice: the reward of an activation is the task loss at the previous activation of the same layer less the loss at
    this one. A first activation has no reward and leaves Q at 0.
    Choice: every layer is tried once before any is drawn by Eq. (7), in an order that the generator shuffles, for the
    loss falls fastest at the start.
    Choice: t is the number of activations so far and n that of the layer, both counted with the last one.
    Choice: ``per_step`` divides the reward by the steps between the two activations. Without it, as in the paper, a
    layer is also paid for what the others brought about since, and the more the longer it waited. Where all layers move
    one loss, as in training, that hides the best one (simulated in docs/notes.md).

    Rewards, beta and tau are in the unit of the loss: where it falls by 0.01 a step, beta 0.5 and tau 1 draw evenly.

    Args:
        n_layers: number of candidates; they are 0 to n_layers - 1.
        rho: weight of the newest reward, in (0, 1].
        beta: weight of the bonus, 0 or more.
        tau: temperature of the softmax, positive.
        generator: draws the order of the first activations and the layers.
        per_step: see above.

    Attributes:
        values: Q of each layer, shape (n_layers,).
        counts: activations of each layer, shape (n_layers,).

    Example:
        >>> scheduler = LayerScheduler(2, rho=0.5, beta=0.0, tau=1.0, generator=np.random.default_rng(0))
        >>> for layer, loss in [(0, 3.0), (1, 3.0), (0, 1.0)]:
        ...     scheduler.update(layer, loss)
        >>> scheduler.values.tolist(), scheduler.probabilities().round(3).tolist()
        ([1.0, 0.0], [0.731, 0.269])
    """

    def __init__(
        self,
        n_layers: int,
        rho: float = 0.1,
        beta: float = 0.5,
        tau: float = 1.0,
        generator: np.random.Generator | None = None,
        per_step: bool = False,
    ):
        if n_layers < 1 or not 0 < rho <= 1 or not beta >= 0 or not tau > 0:
            raise InputError(
                f"Layer schedule with n_layers={n_layers}, rho={rho}, beta={beta}, tau={tau}: "
                "give at least 1 layer, rho in (0, 1], beta of 0 or more and tau above 0."
            )
        self.rho, self.beta, self.tau, self.per_step = rho, beta, tau, per_step
        self.generator = np.random.default_rng(0) if generator is None else generator
        self.values = np.zeros(n_layers)
        self.counts = np.zeros(n_layers, dtype=int)
        self._first_order = self.generator.permutation(n_layers)
        self._last_loss = np.full(n_layers, np.nan)
        self._last_step = np.zeros(n_layers, dtype=int)

    def utilities(self) -> np.ndarray:
        """Eq. (6): ``Q + beta * sqrt(log t / max(1, n))``, shape (n_layers,)."""
        n_steps = max(1, int(self.counts.sum()))
        return self.values + self.beta * np.sqrt(math.log(n_steps) / np.maximum(1, self.counts))

    def probabilities(self) -> np.ndarray:
        """Eq. (7): softmax of the utilities over tau, shape (n_layers,)."""
        scaled = self.utilities() / self.tau
        weights = np.exp(scaled - scaled.max())
        return weights / weights.sum()

    def sample(self) -> int:
        """The layer to align at the next step; the caller reports its loss to ``update``."""
        untried = [int(layer) for layer in self._first_order if not self.counts[layer]]
        return untried[0] if untried else int(self.generator.choice(len(self.counts), p=self.probabilities()))

    def update(self, layer: int, loss: float) -> None:
        """Tell the task loss at the step at which ``layer`` was aligned: Eq. (5), ``Q = (1 - rho) Q + rho r``.

        Raises:
            InputError: there is no such layer, or the loss is not finite.
        """
        if not 0 <= layer < len(self.counts) or not math.isfinite(loss):
            raise InputError(f"Layer {layer} of {len(self.counts)} with loss {loss}: give a layer and a finite loss.")
        step = int(self.counts.sum()) + 1
        if self.counts[layer]:
            reward = self._last_loss[layer] - loss
            if self.per_step:
                reward /= step - self._last_step[layer]
            self.values[layer] += self.rho * (reward - self.values[layer])
        self.counts[layer] += 1
        self._last_loss[layer], self._last_step[layer] = loss, step
