"""One embedding space for all languages of a verification study, and people who speak several of them.

The trainings of the transfer matrix see one or two languages each. Comparing all languages' centroids, or the same
person in two languages, takes models that embed all of them: one trained on the D_i of all languages together, and, to
see what a model does that knows only one of the languages, those trained on a single D_i.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cltmlib.cltm.mismatch import score_trials
from cltmlib.corpora import GENDERS
from cltmlib.errors import InputError
from cltmlib.subsets import Prepared
from cltmlib.subsets.pool import of_one_class, shuffled
from cltmlib.subsets.trials import check_trials
from cltmlib.sweep.plan import Training, plan_training
from cltmlib.tasks import speaker

ALL = "all languages"  # the model trained on every D_i
SHARED = "shared"  # the test set of people who speak several languages
MOST_EMBEDDINGS = 100  # of a gender of a language that a training keeps: 44 languages of mHuBERT-147 take 18 MB a seed
MOST_PEOPLE, MOST_CLIPS = 25, 8  # people of a gender, and clips of a person in a language, in the shared test set


class Space(NamedTuple):
    """Test clips of all languages in one embedding space.

    Attributes:
        embeddings: (clip, dim).
        utterances: rows of the clips, in the same order.
    """

    embeddings: np.ndarray
    utterances: pd.DataFrame


def people(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of people who speak several languages, cut to what trials across languages need.

    Args:
        table: utterances of such people, from `cltmlib.corpora.shared_speakers`; may be empty.

    Returns:
        Up to 25 people of each gender with up to 8 clips in each language. Rows without gender are left out.

    Raises:
        InputError: those left do not allow trials across languages.
    """
    if table.empty:
        return table
    table = of_one_class(table, GENDERS, "gender")
    chosen = []
    for gender in GENDERS:
        names = table.loc[table["gender"] == gender, "speaker"].unique()
        for name in shuffled(names, 0, gender)[:MOST_PEOPLE]:
            for _, ids in table[table["speaker"] == name].groupby("language")["utterance_id"]:
                chosen += shuffled(ids, 0)[:MOST_CLIPS]
    table = table[table["utterance_id"].isin(chosen)]
    try:
        check_trials(table.to_dict("records"), " and ".join(sorted(table["language"].unique())), across=True)
    except InputError as error:
        raise InputError(f"{error} Set shared_languages to others, or to null.") from error
    return table


def plan(
    data: Prepared, shared: Iterable[str], seeds: Sequence[int], config: Callable[[tuple[str, ...]], dict]
) -> dict[tuple[str, int], Training]:
    """The trainings to add to a matrix: (model, seed) -> training that keeps its embeddings.

    Choice: the models of a single language are trained again, though the matrix has the same training: that one is not
    asked to embed the shared clips, and asking it would make its key differ from the learning curve's.

    Args:
        data: from `cltmlib.subsets.prepare`.
        shared: utterance ids of people who speak several languages; those that were not decoded are left out.
        seeds: the replications.
        config: of a training, from its utterance ids.
    """
    usable = [u for u in shared if u in data.utterances.index]
    several = {SHARED: usable} if usable else {}
    known = set(data.utterances.loc[usable, "language"])

    def keeping(ids: tuple[str, ...]) -> dict:
        return {**config(ids), "keep_embeddings": {**dict.fromkeys(data.tests, MOST_EMBEDDINGS), SHARED: None}}

    trainings = {}
    for seed in seeds:
        first = {language: parts.first for language, parts in data.subsets[seed].items()}
        union = [u for ids in first.values() for u in ids]
        label = f"{ALL} seed {seed}"
        trainings[ALL, seed] = plan_training("speaker", union, {**data.tests, **several}, seed, keeping, label)
        for language in first:
            if language in known:
                label = f"{language} for {SHARED} seed {seed}"
                model = f"{language} alone"
                trainings[model, seed] = plan_training("speaker", first[language], several, seed, keeping, label)
    return trainings


def spaces(trainings: Mapping[tuple[str, int], Training], results: Mapping[str, Mapping], data: Prepared):
    """Seed -> `Space` of the model trained on all languages."""
    return {
        seed: _space([results[training.key][language] for language in data.tests], data)
        for (model, seed), training in trainings.items()
        if model == ALL
    }


def shared_trials(
    trainings: Mapping[tuple[str, int], Training], results: Mapping[str, Mapping], data: Prepared
) -> pd.DataFrame:
    """Scored trials of the people who speak several languages, for every model and seed.

    Returns:
        Columns of `cltmlib.cltm.score_trials`, model and seed; no rows where nobody speaks several languages.
    """
    parts = [pd.DataFrame(columns=["condition", "same_speaker", "score", "speaker", "other", "model", "seed"])]
    for (model, seed), training in trainings.items():
        if SHARED in training.test:
            space = _space([results[training.key][SHARED]], data)
            trials = score_trials(space.embeddings, space.utterances.to_dict("records"))
            parts.append(trials.assign(model=model, seed=seed))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _space(kept: Sequence[Mapping], data: Prepared) -> Space:
    stored = [speaker.embeddings(result) for result in kept]
    ids = [u for names, _ in stored for u in names]
    return Space(np.concatenate([vectors for _, vectors in stored]), data.utterances.loc[ids])
