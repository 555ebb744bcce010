"""Language centroids in an embedding space and the transfer between languages (arXiv:2603.08231, Section 4.3)."""

import math
import warnings
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import pandas as pd

from cltmlib.cltm.diagnostics import defined_languages
from cltmlib.errors import InputError

# Table 2 of the paper. It does not say which number of "1.35 / 1.46" is which direction; by the published matrix the
# first is CLTM[a, b], a <- b. (There the last number, ckb <- gl, is -1.02, not -1.13.)
_TABLE_2 = pd.DataFrame(
    [
        ("ru", "be", 1.37, 1.35, 1.46),
        ("kmr", "ckb", 1.53, 1.22, 0.91),
        ("de", "pt", 2.06, -2.02, -0.32),
        ("gl", "ckb", 2.39, -1.09, -1.13),
    ],
    columns=["language_a", "language_b", "paper_distance", "paper_a_from_b", "paper_b_from_a"],
)

# Up to 7 languages have at most 5040 orders: all are tried, and the p-value is exact.
_MAX_EXACT = 7

# Correlations and distances that are equal on paper differ by floating-point dust.
_DUST = 1e-12

# Fewer embeddings have no neighbourhoods to speak of: at the largest perplexity allowed, fewer than 3 neighbours.
_MIN_TSNE = 10

# How many permutations are held at once: 1000 of 44 languages need 8 MB per table.
_CHUNK = 1000


class DistanceTransferCorrelation(NamedTuple):
    """How the distance of two languages goes with the transfer between them."""

    spearman: float
    """Rank correlation over pairs; negative: less transfer between distant languages. NaN where undefined."""
    spearman_p: float
    """Its two-sided p-value by the Mantel test."""
    pearson: float
    """Linear correlation over pairs."""
    pearson_p: float
    """Its two-sided p-value by the Mantel test."""
    n_pairs: int
    """Unordered pairs of languages."""
    n_left_out: int
    """Languages left out because their row is undefined."""
    n_permutations: int
    """Permutations of the languages behind the p-values: all of them, with the identity, or random ones."""
    exact: bool
    """Whether they are all of them."""


def centroid_distances(embeddings: np.ndarray, languages: Sequence[str]) -> pd.DataFrame:
    """Euclidean distances between the language centroids of an embedding space.

    Paper, Section 4.3, ``d_cent``: the distance between the mean embeddings of two languages.

    Choice: the embeddings are taken as they are. Section 3.3 normalises them to length one, but centroids of such
    vectors are at most 2 apart and Table 2 has 2.06 and 2.39, so its space or scale was another: compare the order of
    the pairs, not the distances.

    Sampling noise lengthens distances: with m embeddings of a language its centroid is off by their spread over
    ``sqrt(m)``, so take equally many of each language.

    Args:
        embeddings: one row per utterance, float, shape (n, dim).
        languages: language of each row, n codes; at least two different ones.

    Returns:
        Distances in the unit of the embeddings; rows and columns = languages in order of first appearance;
        symmetric, with a diagonal of 0.

    Raises:
        InputError: lengths differ, an embedding is not finite or has no language, or there is a single language.

    Example:
        >>> centroid_distances([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]], ["de", "de", "tr"]).loc["de"].to_dict()
        {'de': 0.0, 'tr': 3.0}
    """
    embeddings, languages = _embedding_array(embeddings), list(languages)
    if len(embeddings) != len(languages):
        raise InputError(f"There are {len(embeddings)} embeddings but {len(languages)} languages: give one for each.")
    codes, names = pd.factorize(np.array(languages, dtype=object))
    if (codes < 0).any():
        raise InputError(f"Embedding {int((codes < 0).argmax())} has no language: give the code of each.")
    if len(names) < 2:
        raise InputError(
            f"Centroid distances need at least two languages, not {len(names)} ({', '.join(names)}): embed another one."
        )
    centroids = np.stack([embeddings[codes == code].mean(axis=0) for code in range(len(names))])  # (language, dim)
    distances = np.linalg.norm(centroids[:, None] - centroids[None, :], axis=2)
    return pd.DataFrame(distances, index=pd.Index(names, name="language"), columns=pd.Index(names, name="language"))


def distance_and_transfer(distances: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Put the distance of each pair of languages beside its transfer in both directions.

    Args:
        distances: as from ``centroid_distances``.
        values: CLTM of the same languages, in any order; rows = targets, columns = donors.

    Returns:
        One row per unordered pair, in the order of ``values``; columns language_a, language_b, distance,
        transfer_a_from_b (CLTM[a, b]), transfer_b_from_a (CLTM[b, a]), transfer_mean. A transfer into a language
        without a positive self-gain is NaN, and so is the mean.

    Raises:
        InputError: the languages differ, a distance is not finite, or the distances are not symmetric.

    Example:
        >>> distances = pd.DataFrame([[0.0, 3.0], [3.0, 0.0]], index=["de", "nl"], columns=["de", "nl"])
        >>> values = pd.DataFrame([[1.0, 0.5], [-0.25, 1.0]], index=["de", "nl"], columns=["de", "nl"])
        >>> distance_and_transfer(distances, values).to_numpy().tolist()
        [['de', 'nl', 3.0, 0.5, -0.25, 0.125]]
    """
    return _pair_table(distances, values, *np.triu_indices(len(values), k=1))


def table_2(distances: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Paper, Table 2: distance and transfer of two pairs with positive and two with negative transfer.

    With all of its languages these are the paper's pairs, and the paper's numbers stand beside ours. Without, they
    are the two pairs with the highest and the two with the lowest mean transfer (both directions defined): chosen by
    what they show, they illustrate, and ``distance_transfer_correlation`` over all pairs is the evidence.

    Args:
        distances: as from ``centroid_distances``.
        values: CLTM of the same languages.

    Returns:
        At most four rows, in the paper's order or the highest transfer first; the columns of ``distance_and_transfer``
        and, for the paper's pairs, paper_distance, paper_a_from_b, paper_b_from_a.

    Raises:
        InputError: as ``distance_and_transfer``.

    Example:
        >>> distances = pd.DataFrame([[0.0, 3.0], [3.0, 0.0]], index=["de", "nl"], columns=["de", "nl"])
        >>> values = pd.DataFrame([[1.0, 0.5], [-0.25, 1.0]], index=["de", "nl"], columns=["de", "nl"])
        >>> table_2(distances, values)["transfer_mean"].tolist()
        [0.125]
    """
    pairs = distance_and_transfer(distances, values)
    ours = [values.index.get_indexer(_TABLE_2[column]) for column in ("language_a", "language_b")]
    if np.min(ours) >= 0:  # -1 marks a language that we lack
        return _pair_table(distances, values, *ours).merge(_TABLE_2, on=["language_a", "language_b"])
    pairs = pairs.dropna().sort_values("transfer_mean", ascending=False, kind="stable", ignore_index=True)
    return pairs if len(pairs) <= 4 else pairs.iloc[[0, 1, -2, -1]].reset_index(drop=True)


def distance_transfer_correlation(
    distances: pd.DataFrame, values: pd.DataFrame, n_permutations: int = 9999, seed: int = 0
) -> DistanceTransferCorrelation:
    """Correlate centroid distance with transfer over all pairs of languages, with a Mantel test.

    The paper's Section 4.3 suggests from four pairs that distant languages transfer worse; this asks all pairs.

    Choice: one point per unordered pair, the mean transfer of its two directions. A distance is the same both ways
    and cannot explain a difference between them; both directions as two points would count each distance twice.

    Choice: pairs that share a language are not independent (a language that is far from all, or helped by all, moves
    n - 1 of them), so the test permutes the languages of one table and not the pairs (Mantel, 1967). Up to 7 languages
    all orders are tried, which gives the exact p-value; with more, random ones and ``(b + 1) / (m + 1)``. The test
    takes the languages as exchangeable, but relatives are close and help each other: a small p-value does not
    tell the embedding space from the family tree as the cause.

    Args:
        distances: as from ``centroid_distances``.
        values: CLTM of the same languages; those with an undefined row are left out, with a warning that names them.
        n_permutations: random permutations where there are too many languages to try all, at least 1.
        seed: seed of the permutations.

    Returns:
        Correlations and p-values; NaN, with a warning that says why, for fewer than three languages or where all
        distances or all transfers are equal.

    Raises:
        InputError: as ``distance_and_transfer``; no permutation.

    Example:
        >>> positions = np.array([0.0, 1.0, 3.0, 7.0])
        >>> distances = pd.DataFrame(np.abs(positions[:, None] - positions), list("abcd"), list("abcd"))
        >>> found = distance_transfer_correlation(distances, 1 - distances / 4)
        >>> f"{found.spearman:.2f} over {found.n_pairs} pairs, p = {found.spearman_p:.3f}"
        '-1.00 over 6 pairs, p = 0.042'
    """
    if n_permutations < 1:
        raise InputError(f"The Mantel test needs n_permutations >= 1, not {n_permutations}.")
    kept = defined_languages(values)
    pairs = distance_and_transfer(distances, values).dropna()
    left_out = [language for language in values.index if language not in kept]
    if left_out:
        warnings.warn(
            f"The correlation leaves out languages without a positive self-gain: {', '.join(left_out)}.", stacklevel=2
        )
    exact = len(kept) <= _MAX_EXACT
    counts = (len(pairs), len(left_out), math.factorial(len(kept)) if exact else n_permutations, exact)
    distance, transfer = pairs["distance"], pairs["transfer_mean"]
    reason = _why_undefined(len(kept), distance, transfer)
    if reason:
        warnings.warn(f"Distance and transfer have no correlation: {reason}.", stacklevel=2)
        return DistanceTransferCorrelation(np.nan, np.nan, np.nan, np.nan, *counts)
    orders = _orders(len(kept), n_permutations, seed)
    spearman = _mantel(distance.rank().to_numpy(), transfer.rank().to_numpy(), orders, exact)
    pearson = _mantel(distance.to_numpy(), transfer.to_numpy(), orders, exact)
    return DistanceTransferCorrelation(*spearman, *pearson, *counts)


def project(embeddings: np.ndarray, seed: int = 0, perplexity: float = 30.0) -> pd.DataFrame:
    """Project embeddings to the plane for a picture: t-SNE started from PCA.

    t-SNE keeps neighbours together; distances between clusters and their sizes in the picture mean nothing, so
    the numbers are those of ``centroid_distances``.

    Choice: the perplexity is at most a third of the neighbours that an embedding has; fewer than 10 embeddings have
    too few for t-SNE and are projected by PCA.

    Args:
        embeddings: float, shape (n, dim); n at least 3, dim at least 2.
        seed: seed of scikit-learn; on one machine the same input gives the same picture.
        perplexity: effective number of neighbours of an embedding, positive.

    Returns:
        Columns x, y, without unit, one row per embedding; ``attrs["settings"]`` says in words how it was made, for
        the caption.

    Raises:
        InputError: an embedding is not finite, there are too few or they are all the same.

    Example:
        >>> project([[0.0, 0.0], [3.0, 0.0], [6.0, 0.0]])["x"].abs().tolist()
        [3.0, 0.0, 3.0]
    """
    from sklearn.decomposition import PCA  # slow to import, and only pictures need them
    from sklearn.manifold import TSNE

    embeddings = _embedding_array(embeddings)
    n, dim = embeddings.shape
    if n < 3 or dim < 2:
        raise InputError(f"A projection needs 3 or more embeddings of 2 or more dimensions, not {n} of {dim}.")
    if not perplexity > 0:
        raise InputError(f"The perplexity is a number of neighbours and must be positive, not {perplexity}.")
    if (embeddings == embeddings[0]).all():
        raise InputError(f"All {n} embeddings are the same vector, so there is no picture: check the encoder.")
    if n < _MIN_TSNE:
        pca = PCA(2, svd_solver="full")
        plane = pca.fit_transform(embeddings)
        settings = f"PCA of {n} embeddings; the plane holds {pca.explained_variance_ratio_.sum():.0%} of the variance"
    else:
        perplexity = min(perplexity, (n - 1) / 3)
        plane = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(embeddings)
        settings = f"t-SNE of {n} embeddings, perplexity {perplexity:.3g}, started from PCA, seed {seed}"
    table = pd.DataFrame(plane, columns=["x", "y"])
    table.attrs = {"settings": settings}
    return table


def _embedding_array(embeddings: np.ndarray) -> np.ndarray:
    """The embeddings as floats, shape (n, dim), all finite."""
    embeddings = np.asarray(embeddings, dtype=float)
    if embeddings.ndim != 2:
        raise InputError(f"Embeddings have the shape (n, dim), not {embeddings.shape}: give one row per utterance.")
    wrong = ~np.isfinite(embeddings).all(axis=1)
    if wrong.any():
        raise InputError(
            f"Embedding {int(wrong.argmax())} is not finite ({wrong.sum()} in all): check its audio and the encoder."
        )
    return embeddings


def _pair_table(distances: pd.DataFrame, values: pd.DataFrame, a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """The table of ``distance_and_transfer`` for pairs given by their positions in ``values``."""
    defined_languages(values)  # refuses a table that is no transfer matrix
    distance, transfer = _matched(distances, list(values.index)), values.to_numpy(dtype=float)
    return pd.DataFrame(
        {
            "language_a": values.index[a],
            "language_b": values.index[b],
            "distance": distance[a, b],
            "transfer_a_from_b": transfer[a, b],
            "transfer_b_from_a": transfer[b, a],
            "transfer_mean": (transfer[a, b] + transfer[b, a]) / 2,
        }
    )


def _matched(distances: pd.DataFrame, languages: list[str]) -> np.ndarray:
    """Check the distances and return them in the order of these languages, shape (language, language)."""
    if list(distances.index) != list(distances.columns) or not distances.index.is_unique:
        raise InputError("Distances need the same languages, each once, in the same order as rows and columns.")
    for language in languages:
        if language not in distances.index:
            raise InputError(f"Language {language!r} has transfers but no centroid distance: embed its speech too.")
    for language in distances.index:
        if language not in languages:
            raise InputError(f"Language {language!r} has centroid distances but no transfer: leave its embeddings out.")
    matrix = distances.loc[languages, languages].to_numpy(dtype=float)
    if not np.isfinite(matrix).all():
        language = languages[int(np.argwhere(~np.isfinite(matrix))[0, 0])]
        raise InputError(f"A distance of language {language!r} is not a finite number: compute the distances again.")
    if np.diagonal(matrix).any() or not np.allclose(matrix, matrix.T, rtol=1e-9, atol=0):
        raise InputError("Distances are symmetric with a diagonal of 0: give the table of centroid_distances.")
    return matrix


def _why_undefined(n_languages: int, distance: pd.Series, transfer: pd.Series) -> str | None:
    if n_languages < 3:
        return f"it needs three languages with a positive self-gain, and there are {n_languages}"
    for name, numbers in (("distances", distance), ("transfers", transfer)):
        if np.ptp(numbers) <= _DUST * numbers.abs().max():
            return f"all {name} between the {n_languages} languages are equal"
    return None


def _orders(n_languages: int, n_permutations: int, seed: int) -> np.ndarray:
    """Permutations of the languages, shape (permutation, language): all of them if they are few, else random ones."""
    if n_languages <= _MAX_EXACT:
        return np.array(list(permutations(range(n_languages))))
    rows = np.tile(np.arange(n_languages), (n_permutations, 1))
    return np.random.default_rng(seed).permuted(rows, axis=1)


def _mantel(distance: np.ndarray, transfer: np.ndarray, orders: np.ndarray, exact: bool) -> tuple[float, float]:
    """Pearson correlation over pairs, and its two-sided p-value when the languages of the distances are permuted.

    distance, transfer: shape (pair,), pairs in the order of ``np.triu_indices``.
    """
    a, b = np.triu_indices(orders.shape[1], k=1)
    # A permutation keeps mean and norm over pairs, so they are taken out once and a correlation is an inner product.
    distance, transfer = ((x - x.mean()) / np.linalg.norm(x - x.mean()) for x in (distance, transfer))
    square = np.zeros((orders.shape[1], orders.shape[1]))
    square[a, b] = square[b, a] = distance
    observed = float(np.clip(distance @ transfer, -1, 1))
    as_large = 0
    for start in range(0, len(orders), _CHUNK):
        order = orders[start : start + _CHUNK]
        permuted = square[order[:, a], order[:, b]] @ transfer  # (permutation,)
        as_large += int(np.count_nonzero(np.abs(permuted) >= abs(observed) - _DUST))
    return observed, as_large / len(orders) if exact else (as_large + 1) / (len(orders) + 1)
