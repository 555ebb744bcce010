"""Word and character error rates: one text normalisation for every system, counts by jiwer, bootstrap intervals."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cltmlib.errors import InputError

NORMALISER = "NFKC, lower case, no punctuation or symbols"  # stands beside a score that it decided

# Written without spaces between words, so that a "word" would be a sentence; the part of the code before the hyphen.
_UNSPACED = frozenset("bo ja km lo my nan th yue zh".split())
_APOSTROPHES = "'’‘‛´`′＇ʼʻ՚"
# Punctuation that stands between words with no space beside it: slashes, bar, ellipsis, danda, Ethiopic and Tibetan.
_SEPARATORS = "/\\⁄|…।॥፡።፣፤፥፦፧፨་"
_RESAMPLED_VALUES = 2**22  # at a time; bounds the memory of a bootstrap


class _Replacements(dict):
    """For ``str.translate``: what stands for each character, found when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in _APOSTROPHES:
            kept = "'"
        elif category[0] == "Z" or category in ("Cc", "Pc", "Pd") or character in _SEPARATORS:
            kept = " "
        elif category[0] in "LN" or category in ("Mn", "Mc"):
            invisible = re.search("VARIATION SELECTOR|GRAPHEME JOINER", unicodedata.name(character, ""))
            kept = "" if invisible else character
        else:
            kept = ""
        self[code] = kept
        return kept


_REPLACEMENTS = _Replacements()


def normalise_text(text: str) -> str:
    """Reduce a transcript to what a speech recogniser is judged by; the same rules for every language and system.

    - Unicode NFKC (full-width letters, ligatures, composed accents), then lower case. ``İ`` and ``I`` both become
      ``i``, in Turkish too, since nothing else depends on the language.
    - Letters, digits and combining marks stay: vowel signs and tones are part of Indic and Thai words.
    - An apostrophe stays inside a word (``l'aigua``, ``c'h``), with all its look-alikes as ``'``, and goes elsewhere.
    - Hyphens, dashes, underscores, slashes, ellipses, dandas and Ethiopic separators become spaces.
    - All other punctuation and symbols go and leave no space. Choice: they are inside words more often than between
      two without a space (``col·legi``, Armenian ``՞`` over a vowel, ``U.S.``, ``1,000``).
    - Invisible characters go (soft hyphen, zero-width space and joiners, direction marks, variation selectors).
    - Runs of white space become one space; none at the ends.

    Normalising twice changes nothing more.

    Raises:
        InputError: ``text`` is not a string.

    Example:
        >>> normalise_text("«L’aigua», va dir-li\u00a0el COL·LEGI…")
        "l'aigua va dir li el collegi"
    """
    if not isinstance(text, str):
        raise InputError(f"Transcript {text!r} is not a text; leave the utterance out or give an empty string.")
    text = re.sub(r"\.{2,}", " ", text).translate(_REPLACEMENTS)  # before NFKC, which writes ™ as TM and ´ as a space
    text = unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i").translate(_REPLACEMENTS)
    text = re.sub(r"(?<![^\s'])'|'(?![^\s'])", "", text)  # apostrophes at the edge of a word
    return " ".join(unicodedata.normalize("NFC", text).split())


def error_unit(language: str) -> str:
    """``"character"`` for languages written without spaces between words, else ``"word"``.

    Args:
        language: Common Voice or Whisper code.

    Example:
        >>> error_unit("zh-CN"), error_unit("gl")
        ('character', 'word')
    """
    return "character" if language.split("-")[0] in _UNSPACED else "word"


def errors(references: Sequence[str], hypotheses: Sequence[str], unit: str = "word") -> pd.DataFrame:
    """Count the errors of every utterance, after ``normalise_text`` of both texts.

    Args:
        references: what was said, one text per utterance.
        hypotheses: what was recognised, in the same order.
        unit: "word", or "character" (code points without spaces), see ``error_unit``.

    Returns:
        One row per utterance, in order: ``n_errors``, the substitutions, deletions and insertions of the alignment
        with the fewest; ``n_reference``, the units of the reference. Where the reference is empty, ``n_reference`` is 0
        and every unit of the hypothesis is an insertion.

    Raises:
        InputError: the lengths differ, a single text in place of a sequence, a text that is none, an unknown unit.

    Example:
        >>> errors(["One, two!", "three"], ["one to", ""]).to_numpy().tolist()
        [[1, 2], [1, 1]]
    """
    import jiwer

    if unit not in ("word", "character"):
        raise InputError(f'Unit {unit!r} of an error rate is unknown: give "word" or "character".')
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise InputError("References and hypotheses are sequences of texts, one per utterance: put a single one in [].")
    if len(references) != len(hypotheses):
        raise InputError(
            f"There are {len(references)} references but {len(hypotheses)} hypotheses: give one of each per utterance."
        )
    spoken, recognised = _units(references, unit), _units(hypotheses, unit)
    n_reference = np.array([len(units) for units in spoken], dtype=np.int64)
    n_errors = np.array([len(units) for units in recognised], dtype=np.int64)  # right where the reference is empty
    rows = np.flatnonzero(n_reference)  # some versions of jiwer refuse an empty reference
    if len(rows):
        aligned = jiwer.process_words(
            [" ".join(spoken[row]) for row in rows], [" ".join(recognised[row]) for row in rows]
        )
        for row, chunks in zip(rows, aligned.alignments, strict=True):
            n_errors[row] = sum(
                max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
                for chunk in chunks
                if chunk.type != "equal"
            )
    return pd.DataFrame({"n_errors": n_errors, "n_reference": n_reference})


def _units(texts: Iterable[str], unit: str) -> list[list[str]]:
    texts = map(normalise_text, texts)
    return [text.split() if unit == "word" else list(text.replace(" ", "")) for text in texts]


def error_rate(counts: pd.DataFrame) -> float:
    """Errors of all utterances over units of all references; above 1 where there are many insertions.

    Args:
        counts: from ``errors``; concatenate tables to pool them.

    Raises:
        InputError: no utterance, or no reference has anything left after normalisation.

    Example:
        >>> error_rate(errors(["one two", ""], ["one", "three"]))
        1.0
    """
    n_reference = counts["n_reference"].sum()
    if not len(counts):
        raise InputError("There are no utterances, so no error rate: check the language and the split.")
    if not n_reference:
        raise InputError(
            f"The references of all {len(counts)} utterances are empty after normalisation: no error rate."
        )
    return float(counts["n_errors"].sum() / n_reference)


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval."""

    estimate: float
    lower: float
    upper: float


def bootstrap_interval(
    counts: pd.DataFrame,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence | None = None,
) -> Interval:
    """Percentile bootstrap of ``error_rate``, over utterances (Bisani and Ney, ICASSP 2004).

    Args:
        counts: from ``errors``.
        n_resamples: resampled test sets; enough for one beyond each end of the interval.
        level: confidence level, in (0, 1).
        seed: of the resampling.
        groups: one label per utterance, such as its speaker; whole groups are resampled. Utterances of one speaker are
            alike, so an interval over utterances is too narrow for other speakers; with few groups (under about 20)
            this one is still somewhat narrow.

    Returns:
        The error rate of ``counts`` and the ends of its interval.

    Raises:
        InputError: as ``error_rate``; fewer than two utterances or groups; references so rarely non-empty that a
            resample has none; labels missing or not one per utterance; an unsuitable level or n_resamples.
    """
    table = counts[["n_errors", "n_reference"]].to_numpy()
    rate = error_rate(counts)
    n_errors, n_reference = _resampled_sums(table, n_resamples, level, seed, groups).T
    if not n_reference.all():
        n_empty = np.count_nonzero(n_reference == 0)
        raise InputError(f"{n_empty} of {n_resamples} resamples have only empty references: too few for an interval.")
    return Interval(rate, *_percentiles(n_errors / n_reference, level))


def paired_bootstrap(
    counts_a: pd.DataFrame,
    counts_b: pd.DataFrame,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence | None = None,
) -> Interval:
    """Percentile bootstrap of the relative change of the error rate from system a to b, on the same resamples.

    Args:
        counts_a, counts_b: from ``errors`` with the same references in the same order.
        n_resamples, level, seed, groups: as for ``bootstrap_interval``.

    Returns:
        ``rate(b) / rate(a) - 1`` with the ends of its interval: -0.1 is a tenth fewer errors. Where a makes no errors
        it is inf, or 0 if b makes none either.

    Raises:
        InputError: as ``bootstrap_interval``; the two were counted on different references.

    Example:
        >>> a, b = (errors(["one two"] * 9, [text] * 9) for text in ("one", "one two"))
        >>> paired_bootstrap(a, b)
        Interval(estimate=-1.0, lower=-1.0, upper=-1.0)
    """
    if not np.array_equal(counts_a["n_reference"], counts_b["n_reference"]):
        raise InputError("The two systems were counted on different references: give the same utterances in one order.")
    error_rate(counts_a)  # refuses what has no rate
    table = np.stack([counts_a["n_errors"], counts_b["n_errors"]], axis=1)
    sums = _resampled_sums(table, n_resamples, level, seed, groups)
    estimate = _relative_change(table.sum(axis=0, keepdims=True))[0]
    return Interval(float(estimate), *_percentiles(_relative_change(sums), level))


def _relative_change(sums: np.ndarray) -> np.ndarray:
    """Change from the first to the second column: both have the same reference, so errors stand for rates."""
    a, b = sums.T.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((a == 0) & (b == 0), 0.0, b / a - 1)


def _resampled_sums(
    table: np.ndarray, n_resamples: int, level: float, seed: int, groups: Sequence | None
) -> np.ndarray:  # (n_resamples, column)
    """Column sums of the rows, or of whole groups of rows, drawn with replacement."""
    if not 0 < level < 1 or n_resamples * (1 - level) / 2 < 1:
        raise InputError(
            f"A bootstrap of {n_resamples} resamples has no {level} interval: 1000 do for a level of 0.95."
        )
    if groups is not None:
        codes, _ = pd.factorize(np.asarray(groups, dtype=object))
        if len(codes) != len(table) or (codes < 0).any():
            raise InputError(f"The bootstrap needs a group for each of the {len(table)} utterances, none missing.")
        of_groups = np.zeros((codes.max() + 1, table.shape[1]), dtype=table.dtype)
        np.add.at(of_groups, codes, table)
        table = of_groups
    n = len(table)
    if n < 2:
        raise InputError(f"A bootstrap needs at least 2 {'utterances' if groups is None else 'groups'}, not {n}.")
    rng = np.random.default_rng(seed)
    n_at_once = max(1, _RESAMPLED_VALUES // n)
    starts = range(0, n_resamples, n_at_once)
    draws = (rng.integers(n, size=(min(n_at_once, n_resamples - start), n)) for start in starts)
    return np.concatenate([table[rows].sum(axis=1) for rows in draws])


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    # Without interpolation, which is undefined beside an infinite change.
    lower, upper = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(lower), float(upper)
