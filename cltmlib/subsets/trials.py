"""Trials of speaker verification: pairs of test clips, of one speaker or of two."""

import itertools
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cltmlib.corpora import GENDERS
from cltmlib.errors import InputError

MAX_TARGETS_PER_SPEAKER = 200  # authors' code


def draw_trials(rows: Sequence[Mapping], language: str, seed: int = 0, across: bool = False) -> pd.DataFrame:
    """Trials of speaker verification over some clips, the same for the same clips and seed.

    Per gender: at most 200 pairs of clips of each speaker (targets), and as many pairs of clips of two speakers of that
    gender (non-targets), no pair twice in either order. Where there are not so many different non-target pairs, as many
    targets are left out: the two are always equally many.

    Choice: as in the authors' code, a non-target trial draws two speakers, then a clip of each, so that a speaker with
    many clips does not dominate.

    Args:
        rows: speaker, gender and (for ``across``) language of the clips, in the order of their embeddings.
        language: for messages.
        seed: of the draw.
        across: only pairs of clips in two different languages, of speakers who speak several.

    Returns:
        Columns ``enrol`` and ``test`` (row numbers, enrol < test), ``same_speaker`` (bool) and ``gender``.

    Raises:
        InputError: see `check_trials`.
    """
    check_trials(rows, language, across)
    tables = []
    for number, gender in enumerate(GENDERS):
        generator = np.random.default_rng([seed, number, zlib.crc32(language.encode())])
        by_speaker = _rows_by_speaker(rows, gender)
        targets = []
        for clips in by_speaker.values():
            pairs = _allowed(np.array(list(itertools.combinations(clips, 2)), dtype=int).reshape(-1, 2), rows, across)
            if len(pairs) > MAX_TARGETS_PER_SPEAKER:
                pairs = pairs[generator.choice(len(pairs), MAX_TARGETS_PER_SPEAKER, replace=False)]
            targets.append(pairs)
        targets = np.concatenate(targets)
        others = _non_targets(list(by_speaker.values()), rows, len(targets), across, generator)
        if len(others) < len(targets):
            targets = targets[np.sort(generator.choice(len(targets), len(others), replace=False))]
        for pairs, same in ((targets, True), (others, False)):
            tables.append(pd.DataFrame(pairs, columns=["enrol", "test"]).assign(same_speaker=same, gender=gender))
    return pd.concat(tables, ignore_index=True)


def check_trials(rows: Sequence[Mapping], language: str, across: bool = False) -> None:
    """Raise unless both genders have two speakers and somebody has two clips (``across``: in two languages).

    Raises:
        InputError: naming the language and what it lacks.
    """
    what = "speaks two of the languages" if across else "has two clips"
    for gender in GENDERS:
        by_speaker = _rows_by_speaker(rows, gender)
        several = [
            len({rows[k]["language"] for k in clips}) > 1 if across else len(clips) > 1 for clips in by_speaker.values()
        ]
        if len(by_speaker) < 2 or not any(several):
            lack = f"{len(by_speaker)} {gender} speaker{'s'[: len(by_speaker) != 1]}"
            if by_speaker and not any(several):
                lack += f", none of whom {what}"
            raise InputError(
                f"Language {language!r} has {lack} to test on: verification trials need two speakers of each gender, "
                f"one of whom {what}; leave this language out."
            )


def _rows_by_speaker(rows: Sequence[Mapping], gender: str) -> dict[str, list[int]]:
    by_speaker: dict[str, list[int]] = {}
    for k, row in enumerate(rows):
        if row["gender"] == gender:
            by_speaker.setdefault(row["speaker"], []).append(k)
    return dict(sorted(by_speaker.items()))


def _allowed(pairs: np.ndarray, rows: Sequence[Mapping], across: bool) -> np.ndarray:
    if not across:
        return pairs
    return pairs[[rows[a]["language"] != rows[b]["language"] for a, b in pairs]]


def _non_targets(speakers: list[list[int]], rows, n: int, across: bool, generator: np.random.Generator) -> np.ndarray:
    """Up to ``n`` different pairs of clips of two speakers, (pair, 2), the lower row number first."""
    available = (sum(map(len, speakers)) ** 2 - sum(len(clips) ** 2 for clips in speakers)) // 2
    if available <= 4 * n or across:  # few: list them all, for drawing until enough are found may never end
        pairs = [(a, b) for one, two in itertools.combinations(speakers, 2) for a, b in itertools.product(one, two)]
        pairs = _allowed(np.sort(np.array(pairs, dtype=int).reshape(-1, 2)), rows, across)
        return pairs[np.sort(generator.choice(len(pairs), min(n, len(pairs)), replace=False))]
    n_clips = np.array([len(clips) for clips in speakers])
    first = np.cumsum(n_clips) - n_clips  # where each speaker begins in the list of all clips
    clips = np.concatenate([np.array(clips) for clips in speakers])
    pairs = np.empty((0, 2), dtype=int)
    while len(pairs) < n:
        chosen = generator.integers([len(speakers), len(speakers) - 1], size=(n, 2))
        chosen[:, 1] += chosen[:, 1] >= chosen[:, 0]  # another speaker, all equally likely
        drawn = clips[first[chosen] + generator.integers(n_clips[chosen])]
        pairs = np.concatenate([pairs, np.sort(drawn, axis=1)])
        pairs = pairs[np.sort(np.unique(pairs, axis=0, return_index=True)[1])]
    return pairs[:n]
