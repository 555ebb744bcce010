"""Reader of FLEURS (arXiv 2205.12446, CC BY 4.0): the Parquet files of the convert branch of ``google/fleurs``.

The main branch needs a loading script, which ``datasets`` 4 and later refuse. The convert branch holds
``CONFIG/{train,validation,test}/0000.parquet`` and so on (formerly ``CONFIG/fleurs-train-00000-of-00003.parquet``); the
column ``audio`` has the bytes of a 16 kHz WAV file. The bytes are written to clips once and never go through
``datasets.Audio``, which would need FFmpeg.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pandas as pd
from filelock import FileLock
from platformdirs import user_cache_path
from tqdm import tqdm

from cltmlib.corpora import from_rows
from cltmlib.corpora.languages import check_code
from cltmlib.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

REPOSITORY = "google/fleurs"
REVISION = "refs/convert/parquet"  # a branch that the Hub writes anew now and then; pin a commit hash for a paper
SAMPLE_RATE_HZ = 16_000
SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # ours -> the Hub's
_VERSION = 1  # raised when the same Parquet file would be unpacked to something else
_GENDER = {0: "male", 1: "female"}  # 2 is "other"
_COLUMNS = ("id", "num_samples", "audio", "raw_transcription", "gender")

_CONFIGS = (
    "af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq cmn_hans_cn cs_cz cy_gb da_dk "
    "de_de el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph fr_fr ga_ie gl_es gu_in ha_ng he_il hi_in hr_hr hu_hu "
    "hy_am id_id ig_ng is_is it_it ja_jp jv_id ka_ge kam_ke kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd "
    "lo_la lt_lt luo_ke lv_lv mi_nz mk_mk ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl nso_za ny_mw oc_fr "
    "om_et or_in pa_in pl_pl ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke ta_in te_in tg_tj "
    "th_th tr_tr uk_ua umb_ao ur_pk uz_uz vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za"
).split()
# Common Voice adds a region to some codes; "no" is any Norwegian, FLEURS has Bokmål.
_REGIONAL = {"cmn": "zh-CN", "ga": "ga-IE", "hy": "hy-AM", "ne": "ne-NP", "pa": "pa-IN", "sv": "sv-SE"}

CONFIG_OF_LANGUAGE: dict[str, str] = {
    _REGIONAL.get(base, base): config for config in _CONFIGS for base in [config.split("_")[0]]
} | {"nb-NO": "nb_no"}


def load(
    languages: Sequence[str],
    root: str | os.PathLike | None = None,
    revision: str = REVISION,
    splits: Sequence[str] = ("train", "dev", "test"),
    cache_dir: str | os.PathLike | None = None,
) -> "Dataset":
    """Read languages of FLEURS; ``sentence_id`` is shared by all recordings of a sentence in all languages.

    Choice: ``sentence`` is the raw transcription, with case and punctuation. ``speaker`` is null: FLEURS does not tell
    who speaks (train speakers are in no other split), so it serves no design that needs speakers to be disjoint.

    ``cltmlib.corpora.dropped(dataset)`` tells how many rows were left out: "no audio", "duplicate clip" (of the same
    name, also in an earlier split). Clips are not decoded here.

    Args:
        languages: Common Voice locale codes, as in ``CONFIG_OF_LANGUAGE``.
        root: folder laid out as on the Hub (``root/en_us/train/0000.parquet``); None downloads the files that are
            needed, one by one, into the cache of ``huggingface_hub``: 1 to 4 GB a language.
        revision: branch or commit to download; not read where ``root`` is given.
        splits: among train, dev, test.
        cache_dir: where clips are written; by default the user's cache folder. Each Parquet file becomes a folder,
            keyed by its contents and renamed into place when complete: an interrupted call leaves nothing.

    Returns:
        Utterances with ``cltmlib.corpora.COLUMNS``, in the order of the files; ``gender`` "other" is null.

    Raises:
        InputError: FLEURS or the folder lacks a language or split, a file is broken or missing, the disk is full, or
            the Hub cannot be reached.
    """
    languages, splits = _names(languages, "languages"), _names(splits, "splits")
    for split in splits:
        if split not in SPLITS:
            raise InputError(f"Split {split!r} is not one of {', '.join(SPLITS)}.")
    configs = {language: config_name(language) for language in languages}
    root = _download(configs.values(), splits, revision) if root is None else Path(root)
    cache = Path(cache_dir).expanduser() if cache_dir else user_cache_path("cltm") / "fleurs"
    # All files are found before the first is unpacked, which takes minutes.
    files = {(code, split): _files(root, configs[code], split, code) for code in languages for split in splits}
    tables, dropped = [], []
    for language in languages:
        parts = [
            _unpack(file, cache, f"{configs[language]}-{split}").assign(split=split)
            for split in splits
            for file in files[language, split]
        ]
        table, dropped_here = _utterances(pd.concat(parts, ignore_index=True), language)
        if table.empty:
            raise InputError(f"Language {language!r}: no row of {root / configs[language]} has audio; omit it.")
        tables.append(table)
        dropped += dropped_here
    return from_rows(pd.concat(tables, ignore_index=True), dropped)


def config_name(language: str) -> str:
    """Name of a language in FLEURS.

    Raises:
        InputError: FLEURS does not have it.

    Example:
        >>> config_name("zh-CN")
        'cmn_hans_cn'
    """
    if check_code(language) not in CONFIG_OF_LANGUAGE:
        base = language.split("-")[0]
        near = [code for code in CONFIG_OF_LANGUAGE if code.split("-")[0] == base]
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "; omit it."
        raise InputError(f"Language {language!r} is not among the 102 of FLEURS{hint}")
    return CONFIG_OF_LANGUAGE[language]


def _names(values: Sequence[str], what: str) -> list[str]:
    values = [values] if isinstance(values, str) else list(values)
    if not values or len(set(values)) < len(values):
        raise InputError(f"Parameter {what} is {values}: give at least one, and each once.")
    return values


def _download(configs: Sequence[str], splits: Sequence[str], revision: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [
        pattern
        for config in configs
        for split in splits
        for pattern in (f"{config}/{SPLITS[split]}/*.parquet", f"{config}/*-{SPLITS[split]}*.parquet")
    ]
    try:
        # One file at a time: the Hub answers many at once with HTTP 429.
        return Path(
            snapshot_download(
                REPOSITORY, repo_type="dataset", revision=revision, allow_patterns=patterns, max_workers=1
            )
        )
    except Exception as error:  # of the network, the Hub, its client or the disk: the way out is the same
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"FLEURS could not be downloaded from the Hub ({why}): connect, or give as root a folder with its Parquet "
            "files (root/en_us/train/0000.parquet)."
        ) from error


def _files(root: Path, config: str, split: str, language: str) -> list[Path]:
    """The Parquet files of one split, checked for gaps."""
    if not root.is_dir():
        raise InputError(f"Corpus folder {root} does not exist; give a folder laid out as {REPOSITORY} on the Hub.")
    folder, hub_split = root / config, SPLITS[split]
    if not folder.is_dir():
        found = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())) or "none"
        raise InputError(f"Language {language!r}: folder {folder} does not exist; there are {found}.")
    files = sorted(folder.glob(f"{hub_split}/*.parquet")) or sorted(folder.glob(f"*-{hub_split}*.parquet"))
    if not files:
        raise InputError(f"Language {language!r}: {folder} has no Parquet file of {hub_split}; leave {split!r} out.")
    numbers = [re.search(r"(\d+)(?:-of-(\d+))?$", file.stem) for file in files]
    n_files = max([len(files), *(int(m[2]) if m[2] else int(m[1]) + 1 for m in numbers if m)])
    if n_files > len(files):
        raise InputError(
            f"Language {language!r}: {len(files)} of {n_files} Parquet files of {hub_split} are in {folder}; get all."
        )
    return files


def _unpack(file: Path, cache: Path, name: str) -> pd.DataFrame:
    """Rows of one Parquet file, its clips written to a folder of ``cache`` if they are not there yet.

    Returns:
        Columns sentence_id, n_samples, sentence, gender and path; path is null where there is no audio.
    """
    folder = cache / f"{name}-{_digest(file)}"
    try:
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{folder.name}.lock"):  # another process may be unpacking the same file
                if not folder.exists():
                    _write_clips(file, folder)
    except OSError as error:
        raise InputError(
            f"Clips of {file} could not be written to {cache} ({error.strerror}): free some space or give another "
            "cache_dir."
        ) from error
    table = pd.read_parquet(folder / "rows.parquet")
    return table.assign(path=f"{folder.absolute()}{os.sep}" + table["clip"])


def _write_clips(file: Path, folder: Path) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        rows, written = [], set()
        for number, record in enumerate(tqdm(_records(file), desc=f"unpack {folder.name}", unit="clip", disable=None)):
            audio = record["audio"] or {}
            clip = PurePosixPath(audio.get("path") or f"{file.stem}-{number:05d}.wav").name
            if audio.get("bytes") and clip not in written:  # the first of a name stays; the second is counted later
                (partial / clip).write_bytes(audio["bytes"])
                written.add(clip)
            text, n_samples = record["raw_transcription"], record["num_samples"]
            has_audio = bool(audio.get("bytes"))
            rows.append((str(record["id"]), n_samples, text, record["gender"], clip if has_audio else None))
        table = pd.DataFrame(rows, columns=["sentence_id", "n_samples", "sentence", "gender", "clip"])
        table.astype({"clip": "str", "sentence": "str"}).to_parquet(partial / "rows.parquet", index=False)
        partial.chmod(0o755)  # mkdtemp gives 0o700; other users of a cluster share the cache
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _records(file: Path) -> Iterator[dict]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as content:
            for column in _COLUMNS:
                if column not in content.schema_arrow.names:
                    names = ", ".join(content.schema_arrow.names)
                    raise InputError(f"File {file} has no column {column!r}, but it is needed; it has {names}.")
            for batch in content.iter_batches(batch_size=32, columns=list(_COLUMNS)):  # clips of 1 MB each
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"File {file} is not a whole Parquet file; get it again.") from error


def _digest(file: Path) -> str:
    """Name for the contents of a Parquet file, by its size and its footer: sizes and ranges of every column chunk."""
    try:
        with open(file, "rb") as content:
            size = content.seek(0, os.SEEK_END)
            content.seek(max(0, size - 8))
            n_footer = int.from_bytes(content.read(4), "little")
            if content.read(4) != b"PAR1" or n_footer > size - 12:
                raise InputError(f"File {file} is not a whole Parquet file; get it again.")
            content.seek(size - 8 - n_footer)
            key = f"{_VERSION} {size} ".encode() + content.read(n_footer)
    except OSError as error:
        raise InputError(f"File {file} cannot be read ({error.strerror}); get it again.") from error
    return hashlib.blake2b(key, digest_size=6).hexdigest()


def _utterances(table: pd.DataFrame, language: str) -> tuple[pd.DataFrame, list[tuple[str, str, str, int]]]:
    table["utterance_id"] = f"{language}/" + table["clip"].str.replace(r"\.\w+$", "", regex=True)
    reason = pd.Series(None, index=table.index, dtype="object")
    reason[table["clip"].isna()] = "no audio"
    reason[reason.isna() & table["utterance_id"].duplicated()] = "duplicate clip"
    counts = pd.DataFrame({"split": table["split"], "reason": reason}).value_counts(sort=False)
    dropped = [(language, split, why, int(n)) for (split, why), n in counts.items()]
    table = table[reason.isna()]
    n_samples = pd.to_numeric(table["n_samples"]).astype("float64")
    columns = ["utterance_id", "path", "sentence", "sentence_id", "split"]
    return table[columns].assign(
        language=language,
        speaker=None,
        gender=table["gender"].map(_GENDER),
        duration_s=(n_samples / SAMPLE_RATE_HZ).where(n_samples > 0),
    ), dropped
