"""How alike an encoder represents two languages before any training, and whether transfer goes with it."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cltmlib.cltm.geometry import centroid_distances, distance_and_transfer
from cltmlib.errors import InputError

LEAST_PARALLEL = 4  # sentences: the unbiased estimator divides by n - 3


class CorrelationInterval(NamedTuple):
    """A rank correlation over pairs of languages, with an interval that takes languages as the sample."""

    spearman: float
    lower: float
    upper: float
    n_pairs: int
    n_languages: int


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Centred kernel alignment with linear kernels of two representations of the same n sentences, debiased.

    ``CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` with ``K = x x^T``, ``L = y y^T`` (Kornblith et al., ICML 2019,
    arXiv:1905.00414, Section 3) and the unbiased estimator of HSIC (Song et al., JMLR 13, 2012, Eq. 5). The biased one
    is near 1 for anything where there are fewer sentences than dimensions.

    Args:
        x: (n, dim), row k of sentence k; n at least 4.
        y: (n, another dim), the same sentences.

    Returns:
        1 for representations that differ by rotation, scale and shift alone; about 0 for unrelated ones, sometimes
        below. NaN where one of them does not vary.

    Raises:
        InputError: the numbers of rows differ or are below 4.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(20, 3))
        >>> round(linear_cka(x, 2 * x[:, ::-1] + 5), 6)
        1.0
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) != len(y) or len(x) < LEAST_PARALLEL:
        raise InputError(f"CKA needs the same {LEAST_PARALLEL} sentences or more twice, not {len(x)} and {len(y)}.")
    kernels = [(z - z.mean(0)) @ (z - z.mean(0)).T for z in (x, y)]
    for kernel in kernels:
        np.fill_diagonal(kernel, 0.0)
    scale = _hsic(kernels[0], kernels[0]) * _hsic(kernels[1], kernels[1])
    return float(_hsic(*kernels) / np.sqrt(scale)) if scale > 0 else float("nan")


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Unbiased estimate of HSIC times n (n - 3), which cancels in CKA; of kernels whose diagonal is set to 0."""
    n = len(k)
    together = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
    return float((k * m).sum() + together)


def cka_matrix(embeddings: np.ndarray, languages: Sequence[str], sentence_ids: Sequence[str]) -> pd.DataFrame:
    """`linear_cka` of every two languages over the sentences that both have; rows and columns = languages.

    Where a language has several clips of a sentence, their mean counts. NaN for fewer than 4 common sentences; 1 on
    the diagonal.

    Args:
        embeddings: (clip, dim).
        languages: language of each clip.
        sentence_ids: equal for parallel sentences, one per clip.
    """
    table = pd.DataFrame(np.asarray(embeddings, dtype=float)).groupby([list(languages), list(sentence_ids)]).mean()
    of = {language: table.loc[language] for language in dict.fromkeys(languages)}
    names = pd.Index(list(of), name="language")
    result = np.eye(len(names))
    for a, b in itertools.combinations(range(len(names)), 2):
        first, second = of[names[a]], of[names[b]]
        common = first.index.intersection(second.index)
        enough = len(common) >= LEAST_PARALLEL
        result[a, b] = result[b, a] = linear_cka(first.loc[common], second.loc[common]) if enough else np.nan
    return pd.DataFrame(result, index=names, columns=names)


def correlation_interval(distances: pd.DataFrame, values: pd.DataFrame, level: float = 0.95) -> CorrelationInterval:
    """Spearman's correlation of distance with mean transfer over pairs, and its interval by a jackknife over languages.

    Pairs that share a language are not independent, so whole languages are left out one at a time; the interval is
    ``tanh(z +- t s)`` with Fisher's z, s the jackknife standard error over n languages and t with n - 1 degrees of
    freedom. Choice: z of a correlation of +-1 is that of +-0.99; no interval where all replicates agree to the last
    digit, for such a spread says nothing of other languages.

    Args:
        distances: symmetric, rows = columns = languages.
        values: CLTM of the same languages; those with an undefined row are left out.
        level: confidence level.

    Returns:
        NaN for fewer than four languages or where nothing varies; NaN ends where there is no interval.
    """
    from scipy.stats import t

    kept = [i for i in values.index if np.isfinite(values.loc[i]).all() and np.isfinite(distances.loc[i]).all()]
    distances, values = (table.loc[kept, kept] for table in (distances, values))
    n, n_pairs = len(kept), len(kept) * (len(kept) - 1) // 2
    estimate = _spearman(distances, values)
    if n < 4 or np.isnan(estimate):
        return CorrelationInterval(estimate, np.nan, np.nan, n_pairs, n)
    others = [[i for i in kept if i != out] for out in kept]
    z = np.array([_fisher(_spearman(distances.loc[rest, rest], values.loc[rest, rest])) for rest in others])
    spread = np.sqrt((n - 1) / n * ((z - z.mean()) ** 2).sum())
    half = t.ppf((1 + level) / 2, n - 1) * spread if spread > 1e-12 else np.nan
    ends = np.tanh([_fisher(estimate) - half, _fisher(estimate) + half])
    return CorrelationInterval(estimate, float(ends[0]), float(ends[1]), n_pairs, n)


def _spearman(distances: pd.DataFrame, values: pd.DataFrame) -> float:
    if len(values) < 3:
        return float("nan")
    pairs = distance_and_transfer(distances, values)
    ranks = pairs[["distance", "transfer_mean"]].rank()
    return float(ranks.corr().iloc[0, 1]) if (ranks.std() > 0).all() else float("nan")


def _fisher(correlation: float) -> float:
    return float(np.arctanh(np.clip(correlation, -0.99, 0.99)))


def layer_similarity(
    layers: np.ndarray, languages: Sequence[str], sentence_ids: Sequence[str], values: pd.DataFrame
) -> pd.DataFrame:
    """How two similarities of languages in each layer go with the transfer between them.

    Args:
        layers: (clip, layer, dim), of the encoder before it is trained.
        languages: language of each clip.
        sentence_ids: equal for parallel sentences.
        values: CLTM of the languages.

    Returns:
        Index (similarity, layer); columns of `CorrelationInterval`. The similarities are ``centroid``, minus the
        distance of the centroids, and ``cka``; a positive correlation says that similar languages transfer more.
    """
    rows = {}
    for layer in range(layers.shape[1]):
        aligned = cka_matrix(layers[:, layer], languages, sentence_ids)
        distances = {"centroid": centroid_distances(layers[:, layer], languages), "cka": 1 - aligned}
        for name, table in distances.items():
            found = correlation_interval(table.loc[values.index, values.index], values)
            ends = {"spearman": -found.spearman, "lower": -found.upper, "upper": -found.lower}
            rows[name, layer] = {**found._asdict(), **ends}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis(["similarity", "layer"]).sort_index()
