"""Decode clips once: float32 mono waveforms, and the packed store that all trainings of a sweep read.

A store is a folder with ``store.json`` (the options that decide the samples) and numbered segments, each written under
a temporary name and renamed when complete. A segment never changes afterwards, so a killed ``pack`` loses only the
segment it was writing, and several processes may read, and even write, the store at the same time.

A clip is kept as int16 steps of its own peak: ``|stored - decoded| <= peak / 65000``, 96 dB below the peak and far
below the coding noise of an MP3.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from cltmlib.corpora import frame
from cltmlib.errors import InputError
from cltmlib.repeatable import pin_instruction_set

if TYPE_CHECKING:
    from datasets import Dataset

_FORMAT = 1  # raise it when the same options give other samples or another layout
_INT16_PEAK = 32767
_SEGMENT_BYTES = 512 * 2**20
_BATCH = 256  # clips decoded together; bounds the memory
_LOST_S = 0.1  # MP3 headers may count a frame or two more than there are; more than this is a clip cut off
_TRUNCATED_SHARE = 0.9  # a clip this much shorter than its corpus says has lost its end
_STALE_S = 24 * 3600  # unfinished segments older than this belong to no living process
_SAMPLES, _INDEX, _OPTIONS = "samples.int16", "index.parquet", "store.json"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _UnusableClipError(Exception):
    """Why one clip cannot be used; the message is the reason."""


def decode(path: str | os.PathLike, sample_rate_hz: int = 16000) -> np.ndarray:
    """Decode a clip (wav, flac, mp3, ogg) to a mono waveform.

    Args:
        path: the clip.
        sample_rate_hz: rate of the result; channels are averaged, then resampled with torchaudio.

    Returns:
        float32, shape (n_samples,).

    Raises:
        InputError: the clip is missing, empty, corrupt, cut off, not finite or digital silence.
    """
    try:
        return _decode(path, sample_rate_hz)
    except _UnusableClipError as error:
        raise InputError(f"Clip {path} cannot be used: {error}; replace it or remove it from the corpus.") from error


def _decode(path: str | os.PathLike, sample_rate_hz: int) -> np.ndarray:
    import soundfile

    if not os.path.isfile(path):
        raise _UnusableClipError("file missing")
    if not os.path.getsize(path):
        raise _UnusableClipError("file empty")
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            rate_hz, n_declared = file.samplerate, _declared_frames(file)
            samples = file.read(dtype="float32", always_2d=True)  # (sample, channel)
    except soundfile.LibsndfileError as error:
        if error.code == 2:  # the system refused (permission, too many open files): says nothing about the clip
            message = f"Clip {path} cannot be opened; check its permissions and the limit of open files."
            raise InputError(message) from error
        raise _UnusableClipError("corrupt or not audio") from error
    if not len(samples):
        raise _UnusableClipError("no samples")
    if len(samples) < n_declared - _LOST_S * rate_hz:
        raise _UnusableClipError(f"cut off: {len(samples)} of {n_declared} samples")
    if not np.isfinite(samples).all():
        raise _UnusableClipError("samples that are not finite")
    waveform = samples.mean(axis=1)
    if np.abs(waveform).max() < 2.0**-16:  # rounds to zero at 16 bits
        raise _UnusableClipError("digital silence")
    if rate_hz != sample_rate_hz:
        import torch
        import torchaudio

        waveform = torchaudio.functional.resample(torch.from_numpy(waveform), rate_hz, sample_rate_hz).numpy()
    return np.ascontiguousarray(waveform, dtype=np.float32)


def _declared_frames(file) -> int:
    """Frames that the header promises; libsndfile silently shortens a WAV whose data chunk is cut off."""
    if cut := re.search(r"data : (\d+) \(should be (\d+)\)", file.extra_info):
        declared, present = map(int, cut.groups())
        if present < declared < 2**31 - 2**16:  # streams write a size near 2**31 or 2**32: "unknown"
            return file.frames * declared // max(present, 1)
    return file.frames


def trim_silence(waveform: np.ndarray, sample_rate_hz: int, threshold_db: float) -> np.ndarray:
    """Cut the quiet start and end: frames of 20 ms more than ``threshold_db`` below the loudest frame.

    Example:
        >>> tone = np.ones(320, dtype=np.float32)
        >>> len(trim_silence(np.concatenate([0 * tone, tone, 0 * tone, tone, 0 * tone]), 16000, 40.0))
        960
    """
    n_frame = max(1, sample_rate_hz // 50)
    starts = np.arange(0, len(waveform), n_frame)
    energy = np.add.reduceat(np.square(waveform, dtype=np.float64), starts) / np.diff(np.append(starts, len(waveform)))
    loud = np.flatnonzero(energy >= energy.max() * 10 ** (-threshold_db / 10))
    return waveform[starts[loud[0]] : starts[loud[-1]] + n_frame]


@dataclass(frozen=True)
class PackOptions:
    """What decides the samples of a store, in the order in which it is applied.

    Attributes:
        sample_rate_hz: rate of the stored waveforms.
        trim_db: threshold of ``trim_silence``; None keeps the clip whole.
        min_seconds: shorter clips are skipped.
        max_seconds: only the first seconds of longer clips are kept; None keeps all.
    """

    sample_rate_hz: int = 16000
    trim_db: float | None = None
    min_seconds: float = 0.5
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.sample_rate_hz <= 0 or self.min_seconds < 0:
            raise InputError(f"Waveform options {self}: give a positive sample_rate_hz and min_seconds of 0 or more.")
        if self.max_seconds is not None and self.max_seconds < max(self.min_seconds, 1e-3):
            raise InputError(f"Waveform options {self}: max_seconds is below min_seconds; raise it.")

    @property
    def folder_name(self) -> str:
        """Readable name, one per set of options.

        Example:
            >>> PackOptions(max_seconds=4.0).folder_name
            '16000hz-from0.5s-to4.0s'
        """
        parts = [f"{self.sample_rate_hz}hz"]
        for prefix, value, unit in (
            ("trim", self.trim_db, "db"), ("from", self.min_seconds, "s"), ("to", self.max_seconds, "s")
        ):  # fmt: skip
            if value is not None:
                parts.append(f"{prefix}{float(value)!r}{unit}")
        return "-".join(parts)


class _Entry(NamedTuple):
    """A segment's index entry of one clip: where it came from and where its samples are; ``reason`` is "" if stored."""

    utterance_id: str
    path: str
    language: str
    size: int
    mtime_ns: int
    offset: int
    n_samples: int
    scale: float
    digest: str
    reason: str


class WaveformStore:
    """Waveforms by utterance id, read from a folder that ``pack`` wrote.

    Pickling carries the folder name only; a worker process opens the memory maps when it first needs them.
    """

    def __init__(self, directory: Path, options: PackOptions):
        self.directory = directory
        self.options = options
        self._entries: dict[str, tuple[str, _Entry]] | None = None  # utterance id -> segment, entry
        self._maps: dict[str, np.ndarray] = {}

    @classmethod
    def open(cls, directory: str | os.PathLike) -> "WaveformStore":
        """Open a store, or the only store inside ``directory``.

        Raises:
            InputError: there is no store, more than one, or one of another format.
        """
        directory = Path(directory)
        if not (directory / _OPTIONS).is_file():
            inside = sorted(path.parent for path in directory.glob(f"*/{_OPTIONS}"))
            if len(inside) != 1:
                raise InputError(f"Folder {directory} holds {len(inside)} waveform stores; give the folder of one.")
            directory = inside[0]
        content = json.loads((directory / _OPTIONS).read_text())
        if content.pop("format") != _FORMAT:
            raise InputError(f"Waveform store {directory} is of another version; delete it and run again.")
        return cls(directory.absolute(), PackOptions(**content))

    def __getstate__(self) -> tuple[Path, PackOptions]:
        return self.directory, self.options

    def __setstate__(self, state: tuple[Path, PackOptions]) -> None:
        self.__init__(*state)

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._index and not self._index[utterance_id][1].reason

    def __len__(self) -> int:
        """Number of waveforms; skipped clips do not count."""
        return sum(not entry.reason for _, entry in self._index.values())

    @property
    def sample_rate_hz(self) -> int:
        return self.options.sample_rate_hz

    @property
    def skipped(self) -> pd.DataFrame:
        """Clips that are not stored, with columns utterance_id, path, language, reason."""
        entries = [entry for _, entry in self._index.values() if entry.reason]
        return pd.DataFrame(entries, columns=_Entry._fields)[["utterance_id", "path", "language", "reason"]]

    def waveform(self, utterance_id: str) -> np.ndarray:
        """Samples of one utterance: float32, shape (n_samples,), at ``sample_rate_hz``.

        Raises:
            InputError: the utterance is not stored; the message has the reason.
        """
        segment, entry = self._stored(utterance_id)
        if segment not in self._maps:
            self._maps[segment] = np.memmap(self.directory / segment / _SAMPLES, dtype="<i2", mode="r")
        steps = self._maps[segment][entry.offset : entry.offset + entry.n_samples]
        return steps.astype(np.float32) * np.float32(entry.scale)

    def duration_s(self, utterance_ids: Sequence[str]) -> np.ndarray:
        """Seconds of each utterance as stored, shape (n,)."""
        return np.array([self._stored(name)[1].n_samples for name in utterance_ids], dtype=float) / self.sample_rate_hz

    def digest(self, utterance_ids: Sequence[str]) -> str:
        """Fingerprint of the samples of these utterances in this order: changes when any sample would."""
        digests = [self._stored(name)[1].digest for name in utterance_ids]
        return hashlib.blake2b("".join([str(self.sample_rate_hz), *digests]).encode(), digest_size=16).hexdigest()

    @property
    def _index(self) -> dict[str, tuple[str, _Entry]]:
        if self._entries is None:
            self._entries = {}
            for path in sorted(self.directory.glob("[0-9]*")):  # the newest entry of a clip is the valid one
                table = pd.read_parquet(path / _INDEX, columns=list(_Entry._fields))
                for entry in map(_Entry._make, table.itertuples(index=False, name=None)):
                    self._entries[entry.utterance_id] = (path.name, entry)
        return self._entries

    def _stored(self, utterance_id: str) -> tuple[str, _Entry]:
        if utterance_id in self:
            return self._index[utterance_id]
        known = utterance_id in self._index
        why = f"was skipped ({self._index[utterance_id][1].reason}) in" if known else "is not in"
        raise InputError(f"Utterance {utterance_id!r} {why} waveform store {self.directory}; pack it or leave it out.")


def pack(
    rows: "Dataset | pd.DataFrame",
    directory: str | os.PathLike,
    sample_rate_hz: int = 16000,
    min_seconds: float = 0.5,
    max_seconds: float | None = None,
    trim_db: float | None = None,
    n_workers: int | None = None,
    progress: bool | None = None,
) -> WaveformStore:
    """Decode the clips that the store does not have yet, and open it.

    Clips that are broken, silent, too short, or under nine tenths of the row's ``duration_s`` are recorded as skipped,
    with the reason, and not stored. A clip whose file has changed since (path, size or time) is decoded again.

    Args:
        rows: utterances; columns utterance_id, path, language and, if there is one, duration_s are read.
        directory: holds one store per set of options, in sub-folders named after them.
        sample_rate_hz, min_seconds, max_seconds, trim_db: see ``PackOptions``.
        n_workers: decoding threads; None for one per core.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        InputError: the disk is full or the folder cannot be written; finished segments stay and are used next time.
    """
    pin_instruction_set()  # decoding may resample, which is torch's first computation here
    options = PackOptions(sample_rate_hz, trim_db, min_seconds, max_seconds)
    store_directory = Path(directory).absolute() / options.folder_name
    with _disk_errors(store_directory):
        store_directory.mkdir(parents=True, exist_ok=True)
        _write_options(store_directory, options)
        _remove_stale(store_directory)
    store = WaveformStore.open(store_directory)
    clips = _missing_clips(rows, store)
    bar = tqdm(total=len(clips), desc="decode", unit="clip", disable=None if progress is None else not progress)
    with bar, ThreadPoolExecutor(n_workers or os.cpu_count()) as pool:  # soundfile and torch release the GIL
        batches = (clips[start : start + _BATCH] for start in range(0, len(clips), _BATCH))
        decoded = (pair for batch in batches for pair in zip(batch, pool.map(_steps_of(options), batch), strict=True))
        while _write_segment(store_directory, decoded, bar):
            pass
    return WaveformStore.open(store_directory)


def _missing_clips(rows: "Dataset | pd.DataFrame", store: WaveformStore) -> list[dict]:
    """Rows to decode, with the size and time that identify each file; files that the store has seen are left out."""
    columns = ["utterance_id", "path", "language"]
    names = getattr(rows, "column_names", getattr(rows, "columns", ()))
    table = frame(rows, [*columns, "duration_s"] if "duration_s" in names else columns)
    seen = {name: (entry.path, entry.size, entry.mtime_ns) for name, (_, entry) in store._index.items()}
    clips = []
    for row in table.drop_duplicates("utterance_id").to_dict("records"):
        row["path"] = os.path.abspath(row["path"])
        try:
            status = os.stat(row["path"])
            row["size"], row["mtime_ns"] = status.st_size, status.st_mtime_ns
        except OSError:
            row["size"], row["mtime_ns"] = -1, -1
        if seen.get(row["utterance_id"]) != (row["path"], row["size"], row["mtime_ns"]):
            clips.append(row)
    return clips


def _steps_of(options: PackOptions) -> Callable[[dict], tuple[np.ndarray, float] | str]:
    """Function of a row that gives (int16 steps, scale), or the reason why the clip is skipped."""

    def steps(row: dict) -> tuple[np.ndarray, float] | str:
        try:
            waveform = _decode(row["path"], options.sample_rate_hz)
        except _UnusableClipError as reason:
            return str(reason)
        seconds = len(waveform) / options.sample_rate_hz
        if seconds < _TRUNCATED_SHARE * (row.get("duration_s") or 0.0):  # false where duration_s is NaN
            return f"cut off: {seconds:.2f} s of {row['duration_s']:.2f} s"
        if options.trim_db is not None:
            waveform = trim_silence(waveform, options.sample_rate_hz, options.trim_db)
        seconds = len(waveform) / options.sample_rate_hz
        if seconds < options.min_seconds:
            return f"too short: {seconds:.2f} s, under {options.min_seconds} s"
        if options.max_seconds is not None:
            waveform = waveform[: round(options.max_seconds * options.sample_rate_hz)]
        peak = np.abs(waveform).max()
        if peak < 2.0**-16:
            return "digital silence in the part that is kept"
        scale = np.float32(peak / _INT16_PEAK)
        return np.clip(np.rint(waveform / scale), -_INT16_PEAK, _INT16_PEAK).astype("<i2"), float(scale)

    return steps


def _write_segment(directory: Path, decoded: Iterator[tuple[dict, tuple[np.ndarray, float] | str]], bar: tqdm) -> bool:
    """Write one segment from the stream of decoded clips; False when the stream was already at its end."""
    entries = []
    n_written = 0
    temporary = None
    try:
        for row, result in decoded:
            with _disk_errors(directory):
                if temporary is None:
                    temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=directory))
                    samples = open(temporary / _SAMPLES, "wb")
                n_samples, scale, digest, reason = 0, 0.0, "", result
                if not isinstance(result, str):
                    steps, scale = result
                    n_samples, reason, content = len(steps), "", steps.tobytes()
                    digest = hashlib.blake2b(np.float32(scale).tobytes() + content, digest_size=16).hexdigest()
                    samples.write(content)
            source = (row[key] for key in ("utterance_id", "path", "language", "size", "mtime_ns"))
            entries.append(_Entry(*source, n_written, n_samples, scale, digest, reason))
            n_written += n_samples
            bar.update()
            if 2 * n_written >= _SEGMENT_BYTES:
                break
        if temporary is None:
            return False
        with _disk_errors(directory):
            samples.flush()
            os.fsync(samples.fileno())
            samples.close()
            with open(temporary / _INDEX, "wb") as index:
                pd.DataFrame(entries, columns=_Entry._fields).to_parquet(index, index=False)
                index.flush()
                os.fsync(index.fileno())
            _publish(temporary, directory)
        return True
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                samples.close()
            shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, directory: Path) -> None:
    """Rename a complete segment to the next free number; another process may take that number first."""
    temporary.chmod(0o755)  # mkdtemp gives 0o700; other users of a cluster share the store
    while True:
        numbers = [int(path.name) for path in directory.glob("[0-9]*")]
        try:
            temporary.rename(directory / f"{max(numbers, default=0) + 1:06d}")
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _write_options(directory: Path, options: PackOptions) -> None:
    if not (directory / _OPTIONS).exists():
        temporary = directory / f"tmp-{os.getpid()}-{_OPTIONS}"
        temporary.write_text(json.dumps({"format": _FORMAT} | asdict(options)))
        temporary.replace(directory / _OPTIONS)


def _remove_stale(directory: Path) -> None:
    for path in directory.glob("tmp-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            message = f"The disk is full: make room for waveform store {directory} and run again; what is packed stays."
        else:
            message = f"Waveform store {directory} cannot be written ({error.strerror}); choose another folder."
        raise InputError(message) from error
