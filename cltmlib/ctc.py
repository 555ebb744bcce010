"""Decoding of CTC outputs: the best path, and prefix beam search with an n-gram of characters.

Graves et al., "Connectionist Temporal Classification", ICML 2006; prefix search as in Hannun et al., arXiv:1408.2873.
Symbol 0 is the blank; symbol k is ``vocabulary[k - 1]``.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import numpy as np

BEAM_WIDTH = 8
LEAST_PROBABILITY = 1e-3  # of a symbol in a frame that the search with an n-gram follows
LM_WEIGHT, SYMBOL_BONUS = 0.5, 1.0  # Choice: from dev clips of the synthetic corpus, the same for all languages


def greedy(log_probs: np.ndarray) -> list[int]:
    """The symbols of the likeliest path, repeats merged and blanks removed.

    Args:
        log_probs: (frame, symbol).

    Example:
        >>> greedy(np.log([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.2, 0.8]]))
        [1, 1]
    """
    path = log_probs.argmax(-1)
    starts = np.flatnonzero(np.diff(path, prepend=-1))
    return [int(symbol) for symbol in path[starts] if symbol]


def beam_search(
    log_probs: np.ndarray,
    width: int = BEAM_WIDTH,
    least: float = 0.0,
    score: Callable[[tuple[int, ...], int], float] | None = None,
) -> list[int]:
    """The likeliest sequence of symbols: the probabilities of all its paths count together.

    It is exact where ``width`` is at least the number of sequences that the frames allow and ``least`` is 0.

    Args:
        log_probs: (frame, symbol).
        width: how many sequences are kept after each frame.
        least: symbols of a smaller probability in a frame are not followed there; the likeliest always is.
        score: added to the log-probability for each symbol put behind a sequence; such as that of an `NGram`.

    Example:
        >>> frames = np.log([[0.6, 0.4], [0.6, 0.4]])  # best path: nothing, 0.36; but 1 has three paths, 0.64
        >>> greedy(frames), beam_search(frames)
        ([], [1])
    """
    beams = {(): (0.0, -math.inf, 0.0)}  # sequence -> log-probability ending in blank, in its symbol; added score
    for frame in log_probs:
        follow = np.flatnonzero((frame >= math.log(least)) if least else (frame > -math.inf)).tolist()
        follow = follow or [int(frame.argmax())]
        ends: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf, 0.0])
        for sequence, (blank, own, added) in beams.items():
            both = _log_sum(blank, own)
            for symbol in follow:
                p = float(frame[symbol])
                if symbol == 0:
                    _join(ends, sequence, 0, both + p, added)
                    continue
                repeats = bool(sequence) and sequence[-1] == symbol
                if repeats:
                    _join(ends, sequence, 1, own + p, added)
                more = added + score(sequence, symbol) if score else 0.0
                _join(ends, (*sequence, symbol), 1, (blank if repeats else both) + p, more)
        best = sorted(ends.items(), key=lambda item: -(_log_sum(*item[1][:2]) + item[1][2]))
        beams = {sequence: tuple(values) for sequence, values in best[:width]}
    return list(next(iter(beams)))


def _join(ends: dict, sequence: tuple[int, ...], kind: int, log_probability: float, added: float) -> None:
    entry = ends[sequence]
    entry[kind] = _log_sum(entry[kind], log_probability)
    entry[2] = added


def _log_sum(a: float, b: float) -> float:
    """log(exp a + exp b); numpy's is ten times slower on single numbers."""
    low, high = (a, b) if a < b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


class NGram:
    """Character n-gram with Witten-Bell smoothing, down to the uniform distribution.

    ``p(c | h) = (count(h c) + t(h) p(c | h')) / (count(h) + t(h))``, where t(h) is how many different symbols followed
    h and h' is h without its first symbol (Witten and Bell, IEEE Trans. Inf. Theory 37(4), 1991).

    Args:
        texts: sequences of symbols from 1 to ``n_symbols``.
        order: symbols in an n-gram, at least 1.
        n_symbols: how many there are.

    Example:
        >>> model = NGram([[1, 2], [1, 2]], order=2, n_symbols=2)
        >>> round(math.exp(model.log_probability((1,), 2)), 3)  # (2 + 1 * p(2)) / (2 + 1), p(2) = (2 + 2/2) / (4 + 2)
        0.833
    """

    def __init__(self, texts: Iterable[Iterable[int]], order: int, n_symbols: int):
        self.order, self.n_symbols = order, n_symbols
        self.counts: dict[tuple[int, ...], Counter] = defaultdict(Counter)
        for text in texts:
            symbols = tuple(text)
            for end, symbol in enumerate(symbols):
                for n in range(min(order, end + 1)):
                    self.counts[symbols[end - n : end]][symbol] += 1
        self._known: dict[tuple[tuple[int, ...], int], float] = {}

    def log_probability(self, sequence: tuple[int, ...], symbol: int) -> float:
        """Log-probability of ``symbol`` after ``sequence``."""
        history = sequence[max(0, len(sequence) - self.order + 1) :]
        if (history, symbol) not in self._known:
            p = 1 / self.n_symbols
            for start in range(len(history), -1, -1):
                followers = self.counts.get(history[start:])
                if followers:
                    p = (followers[symbol] + len(followers) * p) / (followers.total() + len(followers))
            self._known[history, symbol] = math.log(p)
        return self._known[history, symbol]

    def score(self, sequence: tuple[int, ...], symbol: int) -> float:
        """What `beam_search` adds for a symbol."""
        return LM_WEIGHT * self.log_probability(sequence, symbol) + SYMBOL_BONUS
