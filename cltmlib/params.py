"""The parameters of the notebooks: one table that says what each is, and the checks that hold for it.

A notebook lists its parameters in one cell tagged ``parameters`` and then calls ``cfg = load(NAME, globals())``.
Papermill only warns about a parameter that the notebook does not have, and injects texts where lists were meant;
``load`` finds both, and stops with one sentence that names the key.
"""

import ast
import datetime
import difflib
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cltmlib import paths
from cltmlib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PROFILES = ("smoke", "mini", "paper")
LOCALE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its kind (a key of the words in ``wanted``) and its limits.

    ``auto`` allows the word "auto" besides.
    """

    kind: str
    meaning: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    null: bool = False
    auto: bool = False

    @property
    def wanted(self) -> str:
        """What the parameter accepts, in words, for messages and ``cltm list``."""
        words = {
            "text": "one of " + ", ".join(self.choices) if self.choices else "a text",
            "integer": "a whole number",
            "number": "a number",
            "language": 'a locale code such as "de"',
            "languages": f"a list of at least {'one locale code' if self.least == 1 else 'two locale codes'} such as "
            '["de", "ca"]',
            "seeds": "a list of different whole numbers such as [0, 1, 2]",
            "sizes": "a list of rising whole numbers such as [8, 16, 32], or []",
        }[self.kind]
        if self.least is not None and self.kind not in ("seeds", "sizes", "languages"):
            words += f" of at least {self.least:g}"
        if self.above is not None:
            words += f" above {self.above:g}"
        return words + (" or auto" if self.auto else "") + (" or null" if self.null else "")


TABLE: dict[str, Parameter] = {
    "corpus": Parameter(
        "text",
        "where the speech comes from; common_voice+librispeech: English from LibriSpeech, the rest from Common Voice",
        choices=("common_voice", "common_voice+librispeech", "fleurs", "librispeech", "synthetic"),
    ),
    "corpus_dir": Parameter(
        "text", "folder of the corpus (LANG/train.tsv, LANG/clips/; LibriSpeech/), or of both", null=True
    ),
    "languages": Parameter("languages", "Common Voice locale codes, in the order of the matrix"),
    "zero_shot_languages": Parameter("languages", "languages that are tested without having been trained"),
    "target_language": Parameter("language", "language of the translations"),
    "low_resource_language": Parameter("language", "the language that counts more; not among languages"),
    "speakers_per_language": Parameter("integer", "speakers of each language, synthetic corpus; even", least=6),
    "utterances_per_speaker": Parameter("integer", "utterances of each synthetic speaker", least=1),
    "corpus_seed": Parameter("integer", "seed of the synthetic corpus", least=0),
    "encoder": Parameter("text", "speech encoder: Hub name, local folder or built-in stand-in"),
    "encoder_revision": Parameter("text", "commit of the encoder on the Hub", null=True),
    "model": Parameter("text", "Whisper model: Hub name, local folder or built-in stand-in"),
    "model_revision": Parameter("text", "commit of the model on the Hub", null=True),
    "llm": Parameter("text", "Qwen2 language model: Hub name, local folder or built-in stand-in"),
    "llm_revision": Parameter("text", "commit of the language model on the Hub", null=True),
    "n_train_clips": Parameter(
        "integer", "training clips of each language; null: as many as the low-resource language has", least=1, null=True
    ),
    "n_dev_clips": Parameter(
        "integer", "clips of each language that choose the checkpoint; null: likewise", least=1, null=True
    ),
    "n_test_clips": Parameter("integer", "test clips of each language; null: likewise", least=1, null=True),
    "n_train_sentences": Parameter("integer", "sentences to train on; null: all", least=2, null=True),
    "n_test_sentences": Parameter(
        "integer", "sentences that all languages are tested on; null: all", least=2, null=True
    ),
    "n_samples": Parameter(
        "integer",
        "N: clips per gender (02) or clips (03) in D_i; auto: as 01_learning_curves found",
        least=1,
        auto=True,
    ),
    "gender_n_samples": Parameter("sizes", "clips per gender at which gender recognition is measured", least=1),
    "speaker_n_samples": Parameter("sizes", "clips at which speaker verification is measured", least=2),
    "samples_per_speaker": Parameter(
        "integer", "gender recognition, recognition: clips per speaker; null: as few as possible", least=1, null=True
    ),
    "speakers_per_sample": Parameter("number", "speaker verification: speakers in D_i over its clips", above=0),
    "max_test_samples": Parameter("integer", "test clips per gender (07: in all); null: all", least=1, null=True),
    "embedding_layers": Parameter("integer", "last hidden layers that an embedding averages", least=1),
    "trim_db": Parameter(
        "number", "leading and trailing silence so far below the peak is cut; null: kept", above=0, null=True
    ),
    "shared_languages": Parameter("languages", "languages that the same people speak; null: not compared", null=True),
    "min_seconds": Parameter("number", "shorter clips are left out", least=0.25),
    "max_seconds": Parameter("number", "longer clips are cut (06, 07: left out); null: never", above=0, null=True),
    "seeds": Parameter("seeds", "one replication of the whole matrix per seed", least=0),
    "device": Parameter("text", "where trainings run; auto: cuda if there is one", choices=("auto", "cpu", "cuda")),
    "precision": Parameter("text", "number format of the GPU's products", choices=("float32", "float16", "bfloat16")),
    "batch_size": Parameter("integer", "clips per step", least=1),
    "learning_rate": Parameter("number", "learning rate of AdamW: constant, in 04 and 05 the highest", above=0),
    "n_steps": Parameter("integer", "optimiser steps of each training (06: of exact training)", least=1),
    "warmup_steps": Parameter("integer", "steps over which the learning rate rises; then it falls to 0", least=0),
    "weight_decay": Parameter("number", "weight decay of AdamW", least=0),
    "n_checkpoints": Parameter(
        "integer", "how often dev is looked at to choose a checkpoint, in the second half", least=1
    ),
    "augmentation": Parameter(
        "text", "one augmented copy of each clip, or a new one in every epoch", choices=("copy", "on_the_fly")
    ),
    "linear_initial": Parameter("number", "linear progressive weight when it starts, half-way", least=1),
    "linear_final": Parameter("number", "linear progressive weight at the end", least=1),
    "ratio_alpha": Parameter("number", "loss ratio: least weight where it acts", least=1),
    "ratio_smoothing": Parameter("number", "loss ratio: share of the past in its moving average; below 1", least=0),
    "rehearsal_share": Parameter("number", "share of the high-resource clips that rehearsal replays", above=0),
    "ewc_strength": Parameter("number", "lambda of elastic weight consolidation", above=0),
    "gender_batch_size": Parameter("integer", "batch_size of gender recognition; null: the same", least=1, null=True),
    "gender_learning_rate": Parameter(
        "number", "learning_rate of gender recognition; null: the same", above=0, null=True
    ),
    "executor": Parameter("text", "who runs the trainings", choices=("local", "ray")),
    "n_workers": Parameter("integer", "trainings at a time; null: one per core, one on a GPU", least=1, null=True),
    "output_dir": Parameter("text", "where tables and figures go; relative to the repository"),
    # 07_asr_cltm
    "low_resource_languages": Parameter("languages", "languages that have N clips of their own, at most 2N", least=1),
    "high_resource_languages": Parameter(
        "languages", "languages compared at every size with the low-resource ones; the others at N alone", least=1
    ),
    "recognition_n_samples": Parameter(
        "sizes", "clips at which recognition is measured: N, 2N and more; N is that of the matrix", least=2
    ),
    "trained": Parameter("text", "what is trained: the head on a frozen encoder, or all", choices=("head", "all")),
    "epochs": Parameter("integer", "how often a training goes through its clips", least=1),
    "head_learning_rate": Parameter("number", "learning rate of the recogniser's head, constant", above=0),
    "ngram_order": Parameter(
        "integer", "order of the character n-gram of a second decoding; null: greedy only", least=1, null=True
    ),
    # 05_potsa_ablations
    "n_queries": Parameter("integer", "query tokens of the Q-Former", least=1),
    "n_blocks": Parameter("integer", "blocks of the Q-Former", least=2),
    "qformer_width": Parameter("integer", "width of the Q-Former; a multiple of qformer_heads", least=1),
    "qformer_heads": Parameter("integer", "attention heads of the Q-Former", least=1),
    "transcription_steps": Parameter("integer", "steps of stage 1: transcripts of the first language", least=0),
    "translation_steps": Parameter("integer", "steps of stage 1: translations of the first language", least=0),
    "stage_1_learning_rate": Parameter("number", "highest learning rate of AdamW in stage 1", above=0),
    "alpha": Parameter("number", "weight of the alignment", least=0),
    "epsilon": Parameter("number", "weight of the transport's entropy", above=0),
    "rho": Parameter("number", "layer schedule: weight of the newest reward; at most 1", above=0),
    "beta": Parameter("number", "layer schedule: weight of the bonus for layers seldom aligned", least=0),
    "tau": Parameter("number", "layer schedule: temperature", above=0),
    # 06_unsupervised_asr
    "language": Parameter("language", "Common Voice locale code of the one language"),
    "n_clips": Parameter("integer", "clips of the corpus at most; null: all", least=8, null=True),
    "feature_layer": Parameter("integer", "encoder layer whose features are clustered; null: MFCC", least=1, null=True),
    "n_units": Parameter("integer", "k-means units of the speech", least=2),
    "n_phones": Parameter("integer", "labels: the most frequent phones, and one for all others", least=2),
    "n_instances": Parameter("integer", "random models on which the bound is checked", least=10),
    "n_problems": Parameter("integer", "language models of each kind that are trained exactly", least=2),
    "n_starts": Parameter("integer", "random initialisations of each training", least=1),
    "n_iterations": Parameter("integer", "iterations of EM", least=1),
    "adversarial_steps": Parameter("integer", "steps of generator and discriminator each", least=1),
    "text_sizes": Parameter("sizes", "sentences of text in the simulation; the last for all else", least=1),
    "speech_sizes": Parameter("sizes", "utterances of speech in the simulation; the last for all else", least=1),
}

_CORPUS = ("corpus", "corpus_dir", "languages", "speakers_per_language", "utterances_per_speaker", "corpus_seed")
_ENCODER = ("encoder", "encoder_revision")
_CLIPS = ("max_test_samples", "min_seconds", "max_seconds")
_RUN = (
    "seeds", "device", "precision", "batch_size", "learning_rate", "executor", "n_workers", "output_dir",
)  # fmt: skip
_WHISPER = (
    "low_resource_language", "model", "model_revision", "n_train_clips", "n_dev_clips", "n_test_clips", "n_steps",
    "warmup_steps", "weight_decay", "n_checkpoints", "augmentation", "linear_initial", "linear_final", "ratio_alpha",
    "ratio_smoothing", "rehearsal_share", "ewc_strength",
)  # fmt: skip
_SPEECH_LLM = (
    "zero_shot_languages", "target_language", "model", "model_revision", "llm", "llm_revision", "n_train_sentences",
    "n_test_sentences", "n_queries", "n_blocks", "qformer_width", "qformer_heads", "transcription_steps",
    "translation_steps", "stage_1_learning_rate", "n_steps", "warmup_steps", "alpha", "epsilon", "rho",
    "beta", "tau",
)  # fmt: skip
_LEVELS = ("low_resource_languages", "high_resource_languages")
_SPEAKER = ("speakers_per_sample", "embedding_layers", "trim_db")

NOTEBOOKS: dict[str, tuple[str, ...]] = {
    "01_learning_curves": (
        *_CORPUS, *_ENCODER, "gender_n_samples", "speaker_n_samples", "samples_per_speaker", *_SPEAKER, *_CLIPS, *_RUN,
        "gender_batch_size", "gender_learning_rate",
    ),
    "02_gr_cltm": (*_CORPUS, *_ENCODER, "n_samples", "samples_per_speaker", *_CLIPS, *_RUN),
    "03_sv_cltm": (*_CORPUS, "shared_languages", *_ENCODER, "n_samples", *_SPEAKER, *_CLIPS, *_RUN),
    "04_whisper_weighted_ce": (*_CORPUS, *_WHISPER, *_RUN),
    "05_potsa_ablations": (*_CORPUS, *_SPEECH_LLM, *_RUN),
    "06_unsupervised_asr": (
        "n_instances", "n_problems", "n_starts", "n_steps", "n_iterations", "adversarial_steps", "text_sizes",
        "speech_sizes", "corpus", "corpus_dir", "language", "speakers_per_language", "utterances_per_speaker",
        "corpus_seed", "n_clips", *_ENCODER, "feature_layer", "n_units", "n_phones", "min_seconds", "max_seconds",
        "seeds", "device", "output_dir",
    ),
    "07_asr_cltm": (
        *_CORPUS, *_LEVELS, *_ENCODER, "recognition_n_samples",
        "samples_per_speaker", "trained", "epochs", "head_learning_rate", "ngram_order", *_CLIPS, *_RUN,
    ),
}  # fmt: skip

_COMPARED = (
    "01_learning_curves",
    "03_sv_cltm",
    "05_potsa_ablations",
    "06_unsupervised_asr",
    "07_asr_cltm",
)  # notebooks that mean nothing with a single seed


_FOLDERS = {  # corpora that are read from a folder of the user's: which, and an example
    "common_voice": ("of your Common Voice release", "cv-corpus-22.0"),
    "common_voice+librispeech": ("that holds your Common Voice release and LibriSpeech", "speech"),
    "librispeech": ("LibriSpeech", "LibriSpeech"),
}


class Params(Mapping):
    """Checked parameters of one notebook: read as ``cfg.n_samples``; nothing can be set.

    Example:
        >>> cfg = Params("02_gr_cltm", {"n_samples": 60, "seeds": (0, 1)})
        >>> cfg.n_samples, cfg["seeds"], len(cfg.hash)
        (60, (0, 1), 64)
    """

    __slots__ = ("_notebook", "_started", "_values")

    def __init__(self, notebook: str, values: Mapping[str, Any]):
        object.__setattr__(self, "_notebook", notebook)
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_started", _now())

    @property
    def notebook(self) -> str:
        """Name of the notebook that these parameters belong to."""
        return self._notebook

    @property
    def started(self) -> str:
        """When the parameters were loaded (UTC, ISO 8601): the start of the run."""
        return self._started

    @property
    def hash(self) -> str:
        """SHA-256 of the notebook's name and all values, in hexadecimal."""
        text = json.dumps([self._notebook, self.as_dict()], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Copy the values into a plain dict that JSON and YAML can write."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._values.items()}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"notebook {self._notebook} has no parameter {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"parameters are read only: change {name} in the parameters cell and load again")

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __reduce__(self):
        return Params, (self._notebook, self._values)

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self.as_dict().items())


def load(notebook: str, given: Mapping[str, Any]) -> Params:
    """Check the parameters of a notebook and freeze them.

    Args:
        notebook: a key of ``NOTEBOOKS``.
        given: the notebook's ``globals()`` after its parameters cell, or a plain mapping.

    Raises:
        InputError: a parameter is unknown, missing, of the wrong type or out of range, or two do not fit together.

    Example:
        >>> load("02_gr_cltm", {"seedz": [0]})
        Traceback (most recent call last):
        cltmlib.errors.InputError: Unknown parameter 'seedz' of notebook 02_gr_cltm: did you mean 'seeds'? \
Correct or remove it and start again.
    """
    params = resolve(notebook, given)
    values = dict(params)
    if (values.get("corpus") == "fleurs") != (notebook == "05_potsa_ablations") and values.get("corpus") != "synthetic":
        raise InputError(
            f"Parameter 'corpus' of notebook {notebook} is {values['corpus']!r}: only FLEURS and the synthetic corpus "
            "have the parallel sentences that 05 needs, and FLEURS lacks the speakers that the others need."
        )
    if values.get("corpus") in _FOLDERS and values.get("corpus_dir") is None:
        folder, example = _FOLDERS[values["corpus"]]
        raise InputError(
            f"Parameter 'corpus_dir' is null: name the folder {folder}, for example with "
            f"-p corpus_dir {example} on the command line."
        )
    if values.get("corpus") == "librispeech" and values.get("language") != "en":
        raise InputError(
            "Parameter 'corpus' is 'librispeech', which is English alone: take common_voice+librispeech for more "
            "languages, or language en in notebook 06."
        )
    if values.get("corpus") == "synthetic" and values.get("corpus_dir") is not None:
        raise InputError(
            f"Parameter 'corpus_dir' is {values['corpus_dir']!r} but 'corpus' is 'synthetic': "
            "set corpus to common_voice, or corpus_dir to null."
        )
    if notebook == "05_potsa_ablations":
        _check_speech_llm(values)
    if notebook == "07_asr_cltm":
        _check_resource_levels(values)
    if notebook == "01_learning_curves" and not (values["gender_n_samples"] or values["speaker_n_samples"]):
        raise InputError("Parameters 'gender_n_samples' and 'speaker_n_samples' are both empty: give sizes for a task.")
    if notebook in _COMPARED and len(values["seeds"]) < 2:
        raise InputError(
            f"Parameter 'seeds' of notebook {notebook} needs two or more: its standard errors are over seeds."
        )
    if values.get("low_resource_language") in values.get("languages", ()):
        raise InputError(
            f"Parameter 'low_resource_language' is {values['low_resource_language']!r}, which is also among "
            "'languages': name it in one of the two."
        )
    if values.get("warmup_steps", 0) >= values.get("n_steps", math.inf):
        raise InputError(
            f"Parameter 'warmup_steps' ({values['warmup_steps']}) must be below 'n_steps' ({values['n_steps']})."
        )
    if 2 * values.get("n_checkpoints", 0) > values.get("n_steps", math.inf):
        raise InputError(
            f"Parameter 'n_checkpoints' ({values['n_checkpoints']}) must be at most half of 'n_steps' "
            f"({values['n_steps']}): checkpoints are looked at in the second half of the steps."
        )
    if values.get("ratio_smoothing", 0) >= 1 or values.get("rehearsal_share", 0) > 1:
        raise InputError(
            f"Parameters 'ratio_smoothing' ({values['ratio_smoothing']:g}, must be below 1) and 'rehearsal_share' "
            f"({values['rehearsal_share']:g}, at most 1) are shares."
        )
    if notebook == "06_unsupervised_asr" and not (values["text_sizes"] and values["speech_sizes"]):
        raise InputError("Parameters 'text_sizes' and 'speech_sizes' must each hold at least one size.")
    shortest, longest = values.get("min_seconds"), values.get("max_seconds")
    if shortest is not None and longest is not None and shortest >= longest:
        raise InputError(f"Parameter 'min_seconds' ({shortest:g}) must be below 'max_seconds' ({longest:g}).")
    return params


def _check_speech_llm(values: Mapping[str, Any]) -> None:
    every = [*values["languages"], *values["zero_shot_languages"], values["target_language"]]
    if repeated := [language for k, language in enumerate(every) if language in every[:k]]:
        raise InputError(
            f"Language {repeated[0]!r} is named twice among 'languages', 'zero_shot_languages' and 'target_language': "
            "name it in one of them."
        )
    if values["qformer_width"] % values["qformer_heads"]:
        raise InputError(
            f"Parameter 'qformer_width' ({values['qformer_width']}) must be a multiple of 'qformer_heads' "
            f"({values['qformer_heads']})."
        )
    if values["batch_size"] % 2:
        raise InputError(f"Parameter 'batch_size' is {values['batch_size']}: batches hold pairs, so make it even.")
    if values["rho"] > 1:
        raise InputError(f"Parameter 'rho' is {values['rho']}: it must be above 0 and at most 1.")


def _check_resource_levels(values: Mapping[str, Any]) -> None:
    low, high, sizes = (values[name] for name in (*_LEVELS, "recognition_n_samples"))
    for name, codes in zip(_LEVELS, (low, high), strict=True):
        if strange := [language for language in codes if language not in values["languages"]]:
            raise InputError(f"Parameter {name!r} holds {strange[0]!r}, which is not among 'languages': add it there.")
    if both := sorted(set(low) & set(high)):
        raise InputError(f"Language {both[0]!r} is both low- and high-resource: name it in one of the two lists.")
    if not sizes or 2 * sizes[0] not in sizes:
        raise InputError(f"Parameter 'recognition_n_samples' is {list(sizes)}: it must begin with N and hold 2N.")


def resolve(notebook: str, given: Mapping[str, Any]) -> Params:
    """Check names, types and ranges like ``load``, but not whether the values fit together."""
    try:
        names = NOTEBOOKS[notebook]
    except KeyError:
        raise InputError(f"Unknown notebook {notebook!r}: known are {', '.join(NOTEBOOKS)}.") from None
    for name in _candidates(given):
        if name not in names:
            close = difflib.get_close_matches(name.lower(), names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(names)}."
            raise InputError(
                f"Unknown parameter {name!r} of notebook {notebook}: {hint} Correct or remove it and start again."
            )
    for name in names:
        if name not in given:
            raise InputError(
                f"Parameter {name!r} of notebook {notebook} is missing: give it {TABLE[name].wanted} "
                f"({TABLE[name].meaning})."
            )
    return Params(notebook, {name: _coerce(name, given[name]) for name in names})


def read_profile(profile: str, notebook: str) -> dict[str, Any]:
    """Read ``params/<profile>/<notebook>.yaml``."""
    import yaml

    path = paths.root() / "params" / profile / f"{notebook}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(folder.name for folder in path.parent.parent.glob("*") if folder.is_dir())
        raise InputError(
            f"There is no params/{profile}/{notebook}.yaml: choose one of the profiles {', '.join(known)}, or add it."
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"params/{profile}/{notebook}.yaml is not valid YAML: {_one_line(error)}.") from None
    if not isinstance(values, dict):
        raise InputError(f"params/{profile}/{notebook}.yaml must hold lines of the form 'name: value'.")
    return values


def write_run_json(path: str | os.PathLike, params: Params, **extra: Any) -> None:
    """Write what a later reader needs to judge or repeat a run.

    Besides ``extra`` (data and model revisions, the device that was used, ...) the file holds the parameters and
    their hash, the code's commit and whether it was changed, package versions, seeds, start and end. Absolute paths
    are shortened, so that nothing of the machine is left in it.
    """
    values = params.as_dict()
    for name in ("corpus_dir", "encoder", "model", "llm", "output_dir"):
        if values.get(name) is not None and os.path.isabs(os.path.expanduser(values[name])):
            values[name] = paths.without_machine(values[name])
    record = {
        "notebook": params.notebook,
        "params": values,
        "params_hash": params.hash,
        "seeds": values.get("seeds"),
        "device": values.get("device"),
        "code": _code_version(),
        "versions": package_versions(),
        "start": params.started,
        "end": _now(),
    }
    record.update({key: paths.without_machine(v) if isinstance(v, Path) else v for key, v in extra.items()})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def write_results(
    folder: str | os.PathLike, params: Params, tables: Mapping[str, "pd.DataFrame"], **extra: Any
) -> None:
    """Write a notebook's tables as ``<name>.csv`` into ``folder``, then its ``run.json`` (see `write_run_json`).

    Raises:
        InputError: the folder cannot be written or the disk is full; files already there stay whole.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            temporary = folder / f"{name}.csv.part"
            table.to_csv(temporary)
            os.replace(temporary, folder / f"{name}.csv")
        write_run_json(folder / "run.json", params, **extra)
    except OSError as error:
        raise InputError(
            f"The results cannot be written to {folder} ({error.strerror}): free some space or choose another "
            "output_dir, and run again; finished trainings are kept."
        ) from error


def _candidates(given: Mapping[str, Any]) -> list[str]:
    """List the names in ``given`` that somebody meant as parameters.

    In a notebook these are the names assigned in cells that hold nothing but assignments of literals (the parameters
    cell and the one papermill injects), so that variables of later cells do no harm when the first is run again.
    In any other mapping every name counts whose value is plain data.
    """
    if "get_ipython" in given and isinstance(given.get("In"), list):
        return [name for cell in given["In"] for name in _literal_assignments(cell) if name in given]
    plain = (str, int, float, bool, type(None), list, tuple, dict, set)
    return [name for name, value in given.items() if not name.startswith("_") and isinstance(value, plain)]


def _literal_assignments(source: str) -> list[str]:
    """Return the names a cell assigns, if it does nothing but ``name = literal``; else nothing.

    Example:
        >>> _literal_assignments("# Parameters\\nseeds = [0, 1]\\nrate = -1.5"), _literal_assignments("x = f(1)")
        (['seeds', 'rate'], [])
    """
    names = []
    try:
        for line in ast.parse(source).body:
            if isinstance(line, ast.Assign):
                targets, value = line.targets, line.value
            elif isinstance(line, ast.AnnAssign) and line.value is not None:
                targets, value = [line.target], line.value
            else:
                return []
            ast.literal_eval(value)
            names += [target.id for target in targets]
    except (SyntaxError, ValueError, AttributeError):
        return []
    return [name for name in names if not name.startswith("_")]


def _coerce(name: str, value: Any) -> Any:
    """Bring one value into the type of its parameter where only one reading is possible."""
    parameter = TABLE[name]
    if parameter.null and (value is None or value in ("", "null", "None", "~")):
        return None
    if parameter.kind == "language":
        return _language(name, value)
    if parameter.kind == "languages":
        return _languages(name, value)
    if parameter.kind == "seeds":
        return _seeds(name, value)
    if parameter.kind == "sizes":
        return _sizes(name, value)
    if parameter.auto and value == "auto":
        return value
    if parameter.kind == "text":
        if isinstance(value, int) and not isinstance(value, bool) and not parameter.choices:
            value = str(value)  # papermill -p reads a folder called 2024 as a number
        if not isinstance(value, str) or not value.strip():
            raise _wrong(name, value)
        if parameter.choices and value not in parameter.choices:
            close = difflib.get_close_matches(value, parameter.choices, n=1)
            raise _wrong(name, value, f"did you mean {close[0]!r}?" if close else "")
        return value
    value = _number(name, value, whole=parameter.kind == "integer")
    too_small = parameter.least is not None and value < parameter.least
    if too_small or (parameter.above is not None and value <= parameter.above):
        raise _wrong(name, value)
    return value


def _number(name: str, value: Any, whole: bool) -> int | float:
    """Read a number; text such as ``1e-4`` (which YAML 1.1 takes for a text) is read as one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _wrong(name, value)
    try:
        number = int(value) if whole and isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        raise _wrong(name, value) from None
    if not math.isfinite(number) or (whole and number != int(number)):
        raise _wrong(name, value)
    return int(value) if whole else number


def _items(name: str, value: Any) -> list:
    """Read a list; papermill's ``-p`` hands one over as text: ``[no, de]``, ``["no", "de"]`` or ``no,de``."""
    if isinstance(value, str):
        import yaml

        text = value.strip()
        try:
            value = yaml.load(text if text.startswith("[") else f"[{text}]", Loader=yaml.BaseLoader)
        except yaml.YAMLError:
            raise _wrong(name, value) from None
    if not isinstance(value, Sequence):
        raise _wrong(name, value)
    return list(value)


def _language(name: str, language: Any) -> str:
    if isinstance(language, bool):
        raise InputError(
            f"Parameter {name!r} holds {language}: YAML reads a bare no as false and yes as true, "
            'so write the code in quotes ("no" for Norwegian).'
        )
    if not isinstance(language, str) or not LOCALE.fullmatch(language):
        raise InputError(
            f"Parameter {name!r} holds {language!r}, which is no locale code of Common Voice "
            'such as "de", "zh-CN" or "hy-AM".'
        )
    return language


def _languages(name: str, value: Any) -> tuple[str, ...]:
    languages = [_language(name, language) for language in _items(name, value)]
    _refuse_repeats(name, languages)
    least = TABLE[name].least or 2
    if len(languages) < least:
        one = "one language" if least == 1 else "two languages"
        raise InputError(f"Parameter {name!r} is {languages}: give at least {one}.")
    return tuple(languages)


def _seeds(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str) and not value.strip().startswith("[") and "," not in value:
        raise _wrong(name, value)  # "3" could mean three seeds or the seed 3
    seeds = [_number(name, seed, whole=True) for seed in _items(name, value)]
    if not seeds or min(seeds) < 0:
        raise _wrong(name, value)
    _refuse_repeats(name, seeds)
    return tuple(seeds)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]  # papermill -p reads a single size as a number
    sizes = [] if value == "" else [_number(name, size, whole=True) for size in _items(name, value)]
    if sizes != sorted(set(sizes)) or any(size < TABLE[name].least for size in sizes):
        raise _wrong(name, value)
    return tuple(sizes)


def _refuse_repeats(name: str, items: list) -> None:
    repeated = [str(item) for i, item in enumerate(items) if item in items[:i]]
    if repeated:
        raise InputError(f"Parameter {name!r} holds {', '.join(repeated)} more than once: keep each only once.")


def _wrong(name: str, value: Any, hint: str = "") -> InputError:
    return InputError(f"Parameter {name!r} is {value!r}: it must be {TABLE[name].wanted}{'; ' + hint if hint else '.'}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _code_version() -> dict[str, Any]:
    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=paths.root(), capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired, InputError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "--verify", "HEAD"), "dirty": None if status is None else bool(status)}


def package_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide results."""
    from importlib import metadata

    versions: dict[str, str | None] = {"python": sys.version.split()[0]}
    for (
        package
    ) in "cltmlib torch torchaudio transformers datasets soundfile numpy scipy pandas scikit-learn sacrebleu".split():
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions
