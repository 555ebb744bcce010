"""N-gram language models over labels: from text, or from given probabilities."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cltmlib.errors import InputError
from cltmlib.unsupervised.bound import SUM_TOLERANCE
from cltmlib.unsupervised.exact import check_language_model


@dataclasses.dataclass(frozen=True)
class NGram:
    """``p(c_1^N) = p(c_1) p(c_2 | c_1) ... p(c_n | c_{n-m+1}^{n-1}) ...``, of any length N.

    Choice: no sentence end; a sequence's length is given, as in the paper's theorem. The start is modelled (the first
    tables), and it must be: a stationary start makes the language-model matrix rank 1.

    Attributes:
        tables: one per length of history, ``tables[k]`` of shape ``(K,) * (k + 1)``, its last axis the next label; the
            last table serves all later positions. float64.

    Raises:
        InputError: a table has the wrong shape, or a row that is no distribution.

    Example:
        >>> NGram(([0.6, 0.4], [[0.9, 0.1], [0.2, 0.8]])).matrix(2).round(2).tolist()
        [[0.6, 0.4], [0.62, 0.38]]
    """

    tables: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        try:
            tables = tuple(torch.as_tensor(np.asarray(table, dtype=float)) for table in self.tables)
        except (TypeError, ValueError):
            raise InputError(
                "A table of the language model is no array of numbers with rows of equal length."
            ) from None
        if not tables:
            raise InputError("A language model without tables: give p(c_1), and p(c_2 | c_1) for a bigram.")
        n_labels = tables[0].numel()
        for n_history, table in enumerate(tables):
            if tuple(table.shape) != (n_labels,) * (n_history + 1) or not n_labels:
                raise InputError(
                    f"Table {n_history} of the language model has shape {tuple(table.shape)}: with {n_labels} labels "
                    f"and {n_history} of history it must be {(n_labels,) * (n_history + 1)}."
                )
            if not torch.isfinite(table).all() or (table < 0).any():
                raise InputError(f"Table {n_history} of the language model has an entry that is no probability.")
            sums = table.sum(-1).reshape(-1)
            worst = int((sums - 1).abs().argmax())
            if abs(float(sums[worst]) - 1) > SUM_TOLERANCE:
                history = tuple(int(i) for i in np.unravel_index(worst, table.shape[:-1])) if n_history else ()
                raise InputError(
                    f"The language model sums to {float(sums[worst]):.10g} after the history {history}, not to one: "
                    "divide each row by its sum."
                )
        object.__setattr__(self, "tables", tables)

    @property
    def n_labels(self) -> int:
        """K."""
        return len(self.tables[0])

    @property
    def order(self) -> int:
        """m of the m-gram: 2 for a bigram."""
        return len(self.tables)

    def next_label(self, n_history: int) -> Tensor:
        """Table for a position with so many labels before it, (K,) * (min(n_history, m - 1) + 1)."""
        return self.tables[min(n_history, self.order - 1)]

    def matrix(self, n_positions: int) -> np.ndarray:
        """The language-model matrix P of Condition 2, ``P[n, c] = p_n(c)``, (N, K)."""
        _require_positive("n_positions", n_positions)
        rows, state = [], torch.ones((), dtype=torch.float64)  # p(the last min(n, m - 1) labels)
        for n in range(n_positions):
            state = state.unsqueeze(-1) * self.next_label(n)
            rows.append(state.reshape(-1, self.n_labels).sum(0))
            if state.dim() >= self.order:
                state = state.sum(0)
        return torch.stack(rows).numpy()

    def table(self, n_positions: int) -> np.ndarray:
        """All K**N sequences' probabilities, shape ``(K,) * N``, for exact enumeration."""
        _require_positive("n_positions", n_positions)
        whole = torch.ones((), dtype=torch.float64)
        for n in range(n_positions):
            conditional = self.next_label(n)
            older = whole.dim() + 1 - conditional.dim()
            whole = whole.unsqueeze(-1) * conditional.reshape((1,) * older + conditional.shape)
        return whole.numpy()

    def sample(self, n_sequences: int, n_positions: int, generator: np.random.Generator) -> np.ndarray:
        """Draw label sequences: int64, (n_sequences, N)."""
        sequences = np.empty((n_sequences, n_positions), dtype=np.int64)
        for n in range(n_positions):
            conditional = self.next_label(n).numpy()
            history = tuple(sequences[:, n + 1 - conditional.ndim + k] for k in range(conditional.ndim - 1))
            rows = conditional[history] if history else np.broadcast_to(conditional, (n_sequences, len(conditional)))
            sequences[:, n] = draw(rows, generator)
        return sequences

    def with_repetition(self, probability: float) -> "NGram":
        """Each label lasts: at every later position it is repeated with this probability, else the bigram goes on.

        For frames instead of segments: ``p(c' | c) = r [c' = c] + (1 - r) p_bigram(c' | c)``.

        Raises:
            InputError: the model is not a bigram, or the probability not in [0, 1).
        """
        if self.order != 2 or not 0 <= probability < 1:
            raise InputError(
                f"Repetition needs a bigram (this is of order {self.order}) and a probability from 0 to below 1, "
                f"not {probability}."
            )
        start, transition = self.tables
        lasting = torch.eye(self.n_labels, dtype=torch.float64)
        return NGram((start, probability * lasting + (1 - probability) * transition))


def estimate_ngram(sequences: Sequence[Sequence[int]], n_labels: int, order: int = 2, smoothing: float = 0.1) -> NGram:
    """Estimate an n-gram language model from text: relative frequencies with ``smoothing`` added to every count.

    The first ``order - 1`` positions have tables of their own, so that the start of a sentence stays visible.

    Args:
        sequences: label sequences, each at least one label, values ``0 .. n_labels - 1``.
        n_labels: K.
        order: m; 2 is a bigram.
        smoothing: pseudo-count of every label after every history; 0 leaves unseen ones impossible.

    Raises:
        InputError: no text, an empty sequence, an unseen label, or a history that never occurs without smoothing.

    Example:
        >>> estimate_ngram([[0, 1], [0, 0]], 2, smoothing=0.5).tables[1][0].tolist()
        [0.5, 0.5]
    """
    _require_positive("order", order)
    _require_positive("n_labels", n_labels)
    if not smoothing >= 0:
        raise InputError(f"smoothing is {smoothing}: it must be at least 0.")
    if not len(sequences):
        raise InputError("There is no text to estimate a language model from: give at least one sequence.")
    tables = [np.zeros((n_labels,) * (n_history + 1)) for n_history in range(order)]
    for k, sequence in enumerate(sequences):
        labels = check_symbols(sequence, n_labels, f"Text sequence {k}", "label")
        for n_history in range(min(order - 1, len(labels))):
            tables[n_history][tuple(labels[: n_history + 1])] += 1
        windows = [labels[order - 1 - k : len(labels) - k] for k in reversed(range(order))]
        if len(labels) >= order:
            np.add.at(tables[-1], tuple(windows), 1)
    for n_history, table in enumerate(tables):
        table += smoothing
        sums = table.sum(-1, keepdims=True)
        if not sums.all():
            history = tuple(int(i) for i in np.argwhere(sums[..., 0] == 0)[0]) if n_history else ()
            raise InputError(f"No text goes on after the history {history}: give smoothing above 0, or more text.")
        table /= sums
    return NGram(tuple(tables))


def from_table(language_model: np.ndarray) -> NGram:
    """The full-history n-gram (order N) that has exactly this table of label sequences, shape ``(K,) * N``."""
    table = check_language_model(language_model)
    tables = []
    for n in range(1, table.ndim + 1):
        joint = table.sum(axis=tuple(range(n, table.ndim)))
        before = joint.sum(-1, keepdims=True)
        even = np.full_like(joint, 1 / table.shape[0])  # after a history that never occurs anything may follow
        tables.append(np.divide(joint, before, out=even, where=before > 0))
    return NGram(tuple(tables))


def check_symbols(sequence: Sequence[int], n_symbols: int, where: str, what: str = "symbol") -> np.ndarray:
    """A sequence as int64, if it is not empty and all its symbols are known.

    Raises:
        InputError: naming the sequence and the symbol.
    """
    values = np.asarray(sequence)
    if not values.size:
        raise InputError(f"{where} is empty: leave it out.")
    if values.dtype.kind not in "iu":
        raise InputError(f"{where} holds {values.dtype}: {what}s are whole numbers from 0.")
    unseen = (values < 0) | (values >= n_symbols)
    if unseen.any():
        raise InputError(
            f"{where} holds the unseen {what} {int(values[unseen].flat[0])}: there are {n_symbols}, "
            f"0 to {n_symbols - 1}; map it to one of them or give the model more."
        )
    return values.astype(np.int64)


def draw(probabilities: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One index per row of probabilities: (n, K) -> int64, (n,)."""
    cumulative = probabilities.cumsum(-1)
    return (generator.random((len(cumulative), 1)) * cumulative[:, -1:] >= cumulative).sum(-1)


def all_sequences(n_symbols: int, n_positions: int) -> np.ndarray:
    """All sequences in the order of a flattened table, int64, (n_symbols**N, N)."""
    return np.array(list(itertools.product(range(n_symbols), repeat=n_positions)), dtype=np.int64)


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} is {value}: it must be at least 1.")
