"""Aggregate diagnostics of a Cross-Lingual Transfer Matrix (arXiv:2603.08231, Section 2.1, Eq. (3) to (5))."""

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from cltmlib.errors import InputError


def diagnostics(values: pd.DataFrame, families: Mapping[str, str]) -> pd.Series:
    """Summarise a CLTM ``C`` of n languages in seven numbers.

    - ``rms = ||C||_F / n`` (Section 4.4)
    - ``rfd_1 = ||C - 1||_F / n``, Eq. (3): 0 for a language-agnostic task
    - ``asym_rel = ||C - C^T||_F / ||C||_F``, Eq. (4): 0 for a symmetric matrix
    - ``prop_pos``: share of the ordered pairs i != j with C[i, j] > 0
    - ``reciprocity_pos``: share of all unordered pairs with C[i, j] > 0 and C[j, i] > 0, so at most ``prop_pos``
    - ``cos_rows``: mean cosine of rows i != j, diagonal cells included, Eq. (5)
    - ``intra_family_pos``: positive off-diagonal mass inside families over all positive off-diagonal mass

    The paper gives the last three "complementary statistics" in words; the formulas are those of its released code.

    Choice: a language without a positive self-gain has a NaN row and no place in a norm or a cosine; it is left out
    as target and as donor, with a warning that names it, so that all seven numbers describe one square matrix.
    ``attrs["n_languages"]`` of the result says how many languages are used, ``attrs["left_out"]`` lists the others.

    Args:
        values: CLTM; rows = targets, columns = donors, the same languages in the same order.
        families: family of each language.

    Returns:
        Series with index rms, rfd_1, asym_rel, prop_pos, reciprocity_pos, cos_rows, intra_family_pos. All are NaN
        for fewer than two languages; ``intra_family_pos`` is NaN where no off-diagonal cell is positive.

    Raises:
        InputError: rows and columns differ, a single cell is NaN or infinite, or a language has no family.

    Example:
        >>> values = pd.DataFrame([[1.0, 0.5], [-0.5, 1.0]], index=["de", "nl"], columns=["de", "nl"])
        >>> diagnostics(values, {"de": "Germanic", "nl": "Germanic"}).round(3).to_dict()
        ... # doctest: +NORMALIZE_WHITESPACE
        {'rms': 0.791, 'rfd_1': 0.791, 'asym_rel': 0.894, 'prop_pos': 0.5, 'reciprocity_pos': 0.0,
         'cos_rows': 0.0, 'intra_family_pos': 1.0}
    """
    kept = defined_languages(values)
    for language in values.index:
        if language not in families:
            raise InputError(f"Language {language!r} has no family: add it to the family table.")
    left_out = [language for language in values.index if language not in kept]
    if left_out:
        warnings.warn(
            f"Diagnostics leave out, as targets and donors, languages without a positive self-gain: "
            f"{', '.join(left_out)}.",
            stacklevel=2,
        )

    matrix = values.loc[kept, kept].to_numpy(dtype=float)
    n = len(kept)
    result = {
        "rms": np.nan, "rfd_1": np.nan, "asym_rel": np.nan, "prop_pos": np.nan,
        "reciprocity_pos": np.nan, "cos_rows": np.nan, "intra_family_pos": np.nan,
    }  # fmt: skip
    if n >= 2:
        off_diagonal = ~np.eye(n, dtype=bool)
        family = np.array([families[language] for language in kept])
        positive = (matrix > 0) & off_diagonal
        mass = np.where(positive, matrix, 0.0)
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        rows = np.divide(matrix, norms, out=np.full_like(matrix, np.nan), where=norms > 0)
        norm = np.linalg.norm(matrix)
        result["rms"] = norm / n
        result["rfd_1"] = np.linalg.norm(matrix - 1) / n
        result["asym_rel"] = np.linalg.norm(matrix - matrix.T) / norm if norm > 0 else np.nan
        result["prop_pos"] = positive.sum() / (n * (n - 1))
        result["reciprocity_pos"] = (positive & positive.T).sum() / (n * (n - 1))
        result["cos_rows"] = (rows @ rows.T)[off_diagonal].mean()
        if mass.sum() > 0:
            result["intra_family_pos"] = mass[family[:, None] == family[None, :]].sum() / mass.sum()
    series = pd.Series(result, dtype=float)
    series.attrs = {"n_languages": n, "left_out": left_out}
    return series


def defined_languages(values: pd.DataFrame) -> list[str]:
    """Languages of a CLTM whose row is defined, in order; the others have a row of NaN.

    Raises:
        InputError: rows and columns differ, or a row is partly NaN or infinite.
    """
    if list(values.index) != list(values.columns) or not values.index.is_unique:
        raise InputError(
            "A transfer matrix needs the same languages, each once, in the same order as rows and columns."
        )
    undefined = values.isna().all(axis=1).to_numpy()
    wrong = ~np.isfinite(values.to_numpy(dtype=float)) & ~undefined[:, None]
    if wrong.any():
        target, donor = np.argwhere(wrong)[0]
        raise InputError(
            f"Cell (target {values.index[target]!r}, donor {values.columns[donor]!r}) of the transfer matrix is not "
            "a finite number, though its row is defined: compute the matrix again from a complete table."
        )
    return [language for language, out in zip(values.index, undefined, strict=True) if not out]
