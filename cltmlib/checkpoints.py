"""Find a pretrained model by name: a stand-in of this library, a local folder, or a repository on the Hub."""

import contextlib
import hashlib
import pickle
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import extract_commit_hash

from cltmlib.errors import InputError
from cltmlib.repeatable import pin_instruction_set

STAND_INS = Path(__file__).parent / "models"  # small pretrained models kept with the library
RANDOM_PREFIX = "random:"


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' advice and progress bars out of notebooks; errors still come as exceptions."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@dataclass(frozen=True)
class Checkpoint:
    """Where a model is and what identifies it.

    Attributes:
        name: as it was asked for, without the folders of this machine.
        where: what ``from_pretrained`` takes, with ``options``.
        options: keyword arguments for ``from_pretrained``.
        config: its configuration.
        feature_extractor: says sampling rate and how audio is prepared; None for models of text.
        fingerprint: identifies configuration and weights; part of every training's key.
        revision: commit of a Hub repository, resolved; None for a folder.
        random_init: only the architecture is wanted; weights are drawn anew for every training.
    """

    name: str
    where: str
    options: dict
    config: object
    feature_extractor: object
    fingerprint: str
    revision: str | None
    random_init: bool

    def weights(
        self, model_class: type[PreTrainedModel], may_lack: Collection[str] = (), dtype: torch.dtype = torch.float32
    ) -> PreTrainedModel:
        """Load all weights or none: transformers fills what a checkpoint lacks with random numbers.

        Raises:
            InputError: weights are missing or unreadable.
        """
        try:
            with quiet_transformers():
                model, report = model_class.from_pretrained(
                    self.where, dtype=dtype, output_loading_info=True, **self.options
                )
        except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"Model {self.name!r} has a configuration but no readable weights: {reason}") from error
        missing = set(report["missing_keys"]) - set(may_lack)
        if missing:
            raise InputError(
                f"Model {self.name!r} lacks {len(missing)} of its weights, such as {min(missing)}; download it "
                f"again, or name a complete {model_class.__name__}."
            )
        return model


def find(name: str, revision: str | None, model_type: str, hears: bool = True) -> Checkpoint:
    """Find a model by the name of a stand-in, a local folder or a Hub repository.

    Args:
        name: ``"mini-hubert"``, a folder with ``config.json``, or e.g. ``"utter-project/mHuBERT-147"``; with the prefix
            ``random:`` the architecture alone is meant.
        revision: commit of a Hub repository.
        model_type: of transformers, such as ``"hubert"``.
        hears: its feature extractor settings are needed; False for models of text.

    Raises:
        InputError: it is not there, of another type, or lacks feature extractor settings.
    """
    pin_instruction_set()
    random_init, asked = name.startswith(RANDOM_PREFIX), name
    name = name.removeprefix(RANDOM_PREFIX)
    source = STAND_INS / name if (STAND_INS / name).is_dir() else Path(name).expanduser()
    local = source.is_dir()
    where = str(source) if local else name
    stand_ins = ", ".join(sorted(path.name for path in STAND_INS.glob("*")))
    nowhere = InputError(
        f"Model {asked!r} cannot be loaded: it is neither a stand-in ({stand_ins}), nor a folder with config.json"
        f"{' and preprocessor_config.json' * hears}, nor a model on the Hub that is cached or reachable from here."
    )
    if not local and "/" not in name:  # a Hub name has an owner; asking for one without would only wait for the network
        raise nowhere
    try:
        if not local:  # fixed here, so that every process of a sweep loads the weights that the keys name
            revision = extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
        options = {} if local else {"revision": revision}
        config = AutoConfig.from_pretrained(where, **options)
        feature_extractor = AutoFeatureExtractor.from_pretrained(where, **options) if hears else None
    except (OSError, ValueError) as error:
        raise nowhere from error
    if config.model_type != model_type:
        raise InputError(f"Model {name!r} is a {config.model_type!r} model; this study needs a {model_type!r} one.")
    prefix = RANDOM_PREFIX if random_init else ""
    return Checkpoint(
        name=prefix + (source.name if local else name),
        where=where,
        options=options,
        config=config,
        feature_extractor=feature_extractor,
        fingerprint=prefix + (folder_digest(source) if local else f"{name}@{revision}"),
        revision=None if local else revision,
        random_init=random_init,
    )


def folder_digest(folder: Path) -> str:
    """Digest of what decides the model's output: settings, tokens and weights, not the folder's name or its notes."""
    digest = hashlib.sha256()
    settings = (
        "config generation_config preprocessor_config tokenizer tokenizer_config vocab added_tokens special_tokens_map"
    ).split()
    for path in sorted(folder.glob("*")):
        names_settings = path.suffix == ".json" and path.stem in settings
        if names_settings or path.name == "merges.txt" or path.suffix in (".safetensors", ".bin"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"
