"""Where speech comes from: every corpus is a ``datasets.Dataset`` of utterances with the same columns."""

import importlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from cltmlib import paths
from cltmlib.corpora.languages import LANGUAGES
from cltmlib.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, Features

COLUMNS = (
    "utterance_id",  # unique over languages, e.g. "de/common_voice_de_123"
    "path",
    "language",  # Common Voice locale code
    "speaker",
    "gender",  # "female", "male" or null
    "sentence",
    "sentence_id",  # equal for parallel sentences
    "split",
    "duration_s",
)
GENDERS = ("female", "male")

# name -> module and function
_LOADERS = {
    "common_voice": ("common_voice", "load"),
    "common_voice+librispeech": ("librispeech", "load_beside_common_voice"),
    "fleurs": ("fleurs", "load"),
    "librispeech": ("librispeech", "load"),
    "synthetic": ("synthetic", "load"),
}


def load_corpus(name: str, **options) -> "Dataset":
    """Load a corpus by name: ``load`` of the module of that name, with ``options`` as its arguments.

    "common_voice+librispeech" is ``librispeech.load_beside_common_voice``.

    Raises:
        InputError: there is no such corpus, or it does not take these options.
    """
    if name not in _LOADERS:
        raise InputError(f"Corpus {name!r} is not known; there are {', '.join(map(repr, _LOADERS))}.")
    module, function = _LOADERS[name]
    load = getattr(importlib.import_module(f"cltmlib.corpora.{module}"), function)
    try:
        inspect.signature(load).bind(**options)
    except TypeError as error:
        options = ", ".join(inspect.signature(load).parameters)
        raise InputError(f"Corpus {name!r}: {error}; it takes {options}.") from error
    return load(**options)


def from_params(
    params: Mapping, templates: Sequence[str] | None = None, required: Sequence[str] | None = None
) -> "Dataset":
    """Load the corpus that a notebook's parameters name (``corpus``, ``corpus_dir``, ``languages``, ...).

    Args:
        params: ``low_resource_language``, ``zero_shot_languages`` and ``target_language`` are loaded after the others.
        templates: kinds of sentences of the synthetic corpus; None for all.
        required: metadata without which a row of Common Voice or LibriSpeech is left out; None for speaker and gender
            (LibriSpeech alone: nothing is left out).
    """
    languages = list(params["languages"])
    languages += params.get("zero_shot_languages", ())
    languages += [params[name] for name in ("low_resource_language", "target_language") if name in params]
    if params["corpus"] == "synthetic":
        return load_corpus(
            "synthetic",
            languages=languages,
            speakers_per_language=params["speakers_per_language"],
            utterances_per_speaker=params["utterances_per_speaker"],
            seed=params["corpus_seed"],
            **({} if templates is None else {"templates": templates}),
        )
    options = {} if required is None else {"required": required}
    return load_corpus(params["corpus"], root=paths.corpus_folder(params["corpus_dir"]), languages=languages, **options)


def shared_speakers(params: Mapping) -> pd.DataFrame:
    """Utterances of the people who speak several of ``shared_languages``; an empty table where there are none.

    The synthetic corpus makes a quarter of ``speakers_per_language`` such people, with up to 8 utterances in each
    language. They are in no other corpus.
    """
    if params["shared_languages"] is None:
        return pd.DataFrame(columns=list(COLUMNS))
    if params["corpus"] == "synthetic":
        corpus = load_corpus(
            "synthetic",
            languages=params["shared_languages"],
            speakers_per_language=max(6, params["speakers_per_language"] // 8 * 2),
            utterances_per_speaker=min(8, params["utterances_per_speaker"]),
            seed=params["corpus_seed"],
            shared_speakers=True,
        )
    else:
        corpus = from_params({**params, "languages": params["shared_languages"]})
    table = frame(corpus)
    n_languages = table.groupby("speaker")["language"].nunique()
    return table[table["speaker"].isin(n_languages.index[n_languages > 1])]


def without_speakers(dataset: "Dataset", speakers: Iterable[str]) -> "Dataset":
    """The corpus without these speakers' utterances; what the loader dropped stays on record."""
    keep = ~frame(dataset, ["speaker"])["speaker"].isin(set(speakers))
    return dataset if keep.all() else dataset.select(keep.to_numpy().nonzero()[0])


def utterance_features() -> "Features":
    """Types of the utterance columns: strings, and float64 seconds."""
    from datasets import Features, Value

    return Features({column: Value("float64" if column == "duration_s" else "string") for column in COLUMNS})


def from_rows(
    rows: pd.DataFrame | Iterable[Mapping], dropped: Iterable[tuple[str, str, str, int]] | pd.DataFrame = ()
) -> "Dataset":
    """Make a corpus from utterance rows.

    Args:
        rows: mappings or a table with exactly the columns ``COLUMNS``.
        dropped: what was left out, as (language, split, reason, n); read back by ``dropped``.

    Raises:
        ValueError: a column is missing or foreign, an ``utterance_id`` is missing or occurs twice, or a gender is
            neither in ``GENDERS`` nor null.

    Example:
        >>> row = dict.fromkeys(COLUMNS) | {"utterance_id": "de/1", "gender": "female"}
        >>> from_rows([row])["gender"][0]
        'female'
    """
    from datasets import Dataset, DatasetInfo

    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if not len(table.columns):
        table = pd.DataFrame(columns=list(COLUMNS))
    if set(table.columns) != set(COLUMNS):
        raise ValueError(f"columns are {sorted(table.columns)}, not {sorted(COLUMNS)}")
    if table["utterance_id"].isna().any() or table["utterance_id"].duplicated().any():
        raise ValueError("an utterance_id is missing or occurs twice")
    if unknown := set(table["gender"].dropna()) - set(GENDERS):
        raise ValueError(f"genders {sorted(unknown)} are not in {GENDERS}")
    if isinstance(dropped, pd.DataFrame):
        dropped = dropped[["language", "split", "reason", "n"]].itertuples(index=False)
    report = [[language, split, reason, int(n)] for language, split, reason, n in dropped if n]
    features = utterance_features()
    info = DatasetInfo(description=json.dumps({"dropped": report}), features=features)
    return Dataset.from_pandas(table[list(COLUMNS)], features=features, info=info, preserve_index=False)


def frame(dataset: "Dataset | pd.DataFrame", columns: Iterable[str] = COLUMNS) -> pd.DataFrame:
    """The named columns of a dataset, or of a table, whose index stays."""
    columns = list(columns)
    return dataset[columns] if isinstance(dataset, pd.DataFrame) else dataset.select_columns(columns).to_pandas()


def dropped(dataset: "Dataset") -> pd.DataFrame:
    """What the loader left out and why, with columns language, split, reason, n.

    The report travels in ``dataset.info.description``, which ``filter``, ``select`` and ``concatenate_datasets`` keep.
    """
    rows = []
    for part in (dataset.info.description or "").split("\n\n"):  # concatenate_datasets joins with a blank line
        if part.startswith("{"):
            rows += json.loads(part).get("dropped", [])
    return pd.DataFrame(rows, columns=["language", "split", "reason", "n"]).astype({"n": "int64"})


def describe(dataset: "Dataset", per_split: bool = False) -> pd.DataFrame:
    """Corpus table: what there is of each language, in total or per split.

    Returns:
        One row per language (or language and split) with columns name, family, n_utterances, n_female, n_male,
        n_speakers, n_female_speakers, n_male_speakers, hours. Clips of unknown duration add nothing to ``hours``;
        it is NaN where no duration is known.
    """
    table = frame(dataset, ["language", "split", "speaker", "gender", "duration_s"])
    keys = ["language", "split"] if per_split else ["language"]
    groups = table.groupby(keys, sort=False)
    result = pd.DataFrame({"n_utterances": groups.size()})
    by_gender = {gender: table[table["gender"] == gender].groupby(keys) for gender in GENDERS}
    for gender, group in by_gender.items():
        result[f"n_{gender}"] = group.size()
    result["n_speakers"] = groups["speaker"].nunique()
    for gender, group in by_gender.items():
        result[f"n_{gender}_speakers"] = group["speaker"].nunique()
    result = result.fillna(0).astype("int64")
    result["hours"] = groups["duration_s"].sum(min_count=1) / 3600
    known = [LANGUAGES.get(code) for code in result.index.get_level_values("language")]
    result.insert(0, "name", [entry.name if entry else "" for entry in known])
    result.insert(1, "family", [entry.family if entry else "" for entry in known])
    return result
