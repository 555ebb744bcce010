"""How alike the languages' representations are: retrieval of parallel utterances, overlap of token distributions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cltmlib.errors import InputError


class RecallAt1(NamedTuple):
    """Shares of utterances whose nearest neighbour on the other side says the same sentence."""

    source_to_target: float
    target_to_source: float
    mean: float


def recall_at_1(
    source: np.ndarray,
    target: np.ndarray,
    source_ids: Sequence[str] | None = None,
    target_ids: Sequence[str] | None = None,
) -> RecallAt1:
    """Share of utterances whose nearest utterance of the other language is parallel, in both directions.

    Choice: arXiv 2511.09232 does not define its Recall@1. Here the vector of an utterance is what the caller pools from
    its tokens (their mean), nearest is by cosine, and the candidates are all utterances of the other side. Where k
    candidates are equally near and r of them are parallel, the utterance counts r / k, so vectors that are all the same
    score chance and not the order of the rows.

    Args:
        source: one vector per utterance, float, shape (n, dim).
        target: the other language, shape (m, dim).
        source_ids: sentence of each source utterance; several recordings of a sentence are all right answers. None:
            the i-th row of one side is parallel to the i-th of the other, and n = m.
        target_ids: sentence of each target utterance.

    Returns:
        Shares in [0, 1]. Chance is about 1 / m (source to target) with one recording of each sentence.

    Raises:
        InputError: a vector is 0 or not finite, numbers do not fit, or an utterance has no parallel one.

    Example:
        >>> recall_at_1(np.eye(3), np.eye(3)[[0, 2, 1]]).mean
        0.3333333333333333
    """
    if source_ids is None and target_ids is None and len(source) == len(target):
        source_ids = target_ids = range(len(source))
    if source_ids is None or target_ids is None or (len(source), len(target)) != (len(source_ids), len(target_ids)):
        raise InputError("Recall@1 needs a sentence id for each utterance of both sides, or equally many rows.")
    similarity = _unit(source, "Source") @ _unit(target, "Target").T  # (n, m)
    ids = pd.factorize(np.array([*map(str, source_ids), *map(str, target_ids)], dtype=object))[0]
    parallel = ids[: len(source), None] == ids[None, len(source) :]
    one_way, other_way = _hit_share(similarity, parallel, "source"), _hit_share(similarity.T, parallel.T, "target")
    return RecallAt1(one_way, other_way, (one_way + other_way) / 2)


def jensen_shannon_divergence(
    tokens: np.ndarray, languages: Sequence[str], n_clusters: int = 64, seed: int = 0
) -> pd.DataFrame:
    """Divergence between the languages' distributions over a shared codebook of tokens.

    Choice: arXiv 2511.09232 reports 1 - JSD without a definition. Here the tokens of all languages are clustered by
    k-means, each language weighing the same, and the divergence of two languages is that of their histograms over the
    clusters, ``JSD = H((p + q) / 2) - (H(p) + H(q)) / 2`` in bits: 0 for equal histograms, 1 for disjoint ones.

    Histograms of few tokens differ by chance: with N tokens each of one distribution, JSD is near
    ``(n_clusters - 1) / (4 N ln 2)``. Compare values from equally many tokens, and only with the same ``n_clusters``.

    Args:
        tokens: tokens of utterances of all languages, float, shape (n, dim).
        languages: language of each token.
        n_clusters: size of the codebook.
        seed: of k-means.

    Returns:
        Rows and columns = languages in order of first appearance; in [0, 1], symmetric, 0 on the diagonal. The study
        reports ``1 - JSD``.

    Raises:
        InputError: numbers do not fit, a token is not finite, or there are fewer tokens than clusters.

    Example:
        >>> tokens = np.array([[0.0], [0.0], [9.0], [9.0]])
        >>> jensen_shannon_divergence(tokens, ["de", "de", "nl", "nl"], n_clusters=2).loc["de", "nl"].item()
        1.0
    """
    from sklearn.cluster import KMeans  # slow to import

    tokens = np.asarray(tokens, dtype=float)
    if tokens.ndim != 2 or len(tokens) != len(languages) or not 1 <= n_clusters <= len(tokens):
        raise InputError(
            f"Tokens of shape {tokens.shape} with {len(languages)} languages and {n_clusters} clusters: give (n, dim), "
            "a language for each, and not more clusters than tokens."
        )
    if not np.isfinite(tokens).all():
        raise InputError(f"Token {int((~np.isfinite(tokens).all(1)).argmax())} is not finite: check its audio.")
    codes, names = pd.factorize(np.array(languages, dtype=object))
    weights = 1 / np.bincount(codes)[codes]
    cluster = KMeans(n_clusters, n_init=1, random_state=seed).fit_predict(tokens, sample_weight=weights)
    histograms = np.zeros((len(names), n_clusters))
    np.add.at(histograms, (codes, cluster), weights)  # (language, cluster), rows sum to 1
    mixed = (histograms[:, None] + histograms[None, :]) / 2
    entropy = _entropy_bits(histograms)
    divergence = np.clip(_entropy_bits(mixed) - (entropy[:, None] + entropy[None, :]) / 2, 0, 1)  # rounding
    index = pd.Index(names, name="language")
    return pd.DataFrame(divergence, index=index, columns=index)


def _unit(vectors: np.ndarray, side: str) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=float)
    norms = np.linalg.norm(vectors, axis=1)
    wrong = ~(np.isfinite(norms) & (norms > 0))
    if wrong.any():
        raise InputError(f"{side} vector {int(wrong.argmax())} is 0 or not finite: check its audio and the encoder.")
    return vectors / norms[:, None]


def _hit_share(similarity: np.ndarray, parallel: np.ndarray, side: str) -> float:
    alone = ~parallel.any(axis=1)
    if not len(alone) or alone.any():
        which = f"utterance {int(alone.argmax())} has" if len(alone) else "no utterance is there, and none has"
        raise InputError(f"Recall@1: {side} {which} no parallel one on the other side; leave it out.")
    nearest = similarity >= similarity.max(axis=1, keepdims=True) - 1e-12  # equal up to rounding
    return float(((nearest & parallel).sum(axis=1) / nearest.sum(axis=1)).mean())


def _entropy_bits(distribution: np.ndarray) -> np.ndarray:
    return -(distribution * np.log2(distribution, out=np.zeros_like(distribution), where=distribution > 0)).sum(axis=-1)
