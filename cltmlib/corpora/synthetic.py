"""The embedded corpus: speech made on the user's machine by eSpeak NG from parallel CLDR sentences.

Nothing is downloaded. Every language has the same number of speakers, half of them female, and the k-th speaker of
every language reads the same sentences. Speakers are split 60/10/30 into train, dev and test; sentences are split too,
so test speakers read sentences that no training speaker reads.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_path
from tqdm import tqdm

from cltmlib.corpora import from_rows, sentences
from cltmlib.errors import InputError

VERSION = 2  # raised whenever the same parameters would give other audio
SAMPLE_RATE_HZ = 16_000


def load(
    languages: Sequence[str],
    speakers_per_language: int = 40,
    utterances_per_speaker: int = 8,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
    shared_speakers: bool = False,
    templates: Sequence[str] = sentences.TEMPLATES,
):
    """Make (once) and load the synthetic corpus.

    Args:
        languages: locale codes that `sentences.VOICES` speaks.
        speakers_per_language: an even number of at least 6; half of them female.
        utterances_per_speaker: clips per speaker, each 1 to 7 seconds.
        seed: of speakers, sentences and channels; the same seed gives the same audio.
        shared_speakers: the same people, all in the test split, speak every language; otherwise nobody speaks two.
        cache_dir: where clips are kept; by default the user's cache folder. Each language is a folder of its own, keyed
            by all that decides its audio and renamed into place when complete: an interrupted call leaves nothing.
        templates: what kind of sentences are read: `sentences.TEMPLATES`, or the narrow domain `sentences.COUNTS`.

    Returns:
        A `datasets.Dataset` of utterance rows (columns of `cltmlib.corpora`).

    Raises:
        InputError: an unknown language, an odd or too small number of speakers, a full disk, or eSpeak NG failed.
    """
    for language in languages:
        sentences.voice(language)
    if speakers_per_language < 6 or speakers_per_language % 2:
        raise InputError(f"speakers_per_language must be an even number of at least 6, not {speakers_per_language}.")
    if not templates or set(templates) - {*sentences.TEMPLATES, *sentences.COUNTS}:
        raise InputError(
            f"templates is {templates!r}: give some of {', '.join(sentences.TEMPLATES + sentences.COUNTS)}."
        )
    if utterances_per_speaker < 1:
        raise InputError(f"utterances_per_speaker must be at least 1, not {utterances_per_speaker}.")
    root = Path(cache_dir).expanduser() if cache_dir else user_cache_path("cltm") / "synthetic"
    sizes = (speakers_per_language, utterances_per_speaker)
    jobs = [_job(language, *sizes, seed, shared_speakers, tuple(templates)) for language in languages]
    folders = [root / f"{job['language']}-{_job_key(job)}" for job in jobs]
    missing = [(job, folder) for job, folder in zip(jobs, folders, strict=True) if not folder.exists()]
    if missing:
        _make(missing)
    return from_rows([row for job, folder in zip(jobs, folders, strict=True) for row in _rows(job, folder)], dropped=[])


def split_of_pair(pair: int, n_pairs: int) -> str:
    """Split of the ``pair``-th female and male speaker: about 60 % train, 10 % dev (none below 4 pairs), 30 % test."""
    n_test = max(1, round(0.3 * n_pairs))
    n_dev = max(1, round(0.1 * n_pairs)) if n_pairs >= 4 else 0
    n_train = n_pairs - n_test - n_dev
    return "train" if pair < n_train else "dev" if pair < n_train + n_dev else "test"


def _job(
    language: str, n_speakers: int, n_utterances: int, seed: int, shared_speakers: bool, templates: tuple[str, ...]
) -> dict:
    """Everything the speaking process needs; drawn here so that it depends on the parameters alone."""
    speakers = []
    for index in range(n_speakers):
        gender = ("female", "male")[index % 2]
        split = "test" if shared_speakers else split_of_pair(index // 2, n_speakers // 2)
        # No language in this seed: the k-th speaker of every language reads the same sentences.
        rng = np.random.default_rng([seed, index])
        person = f"{gender[0]}{index // 2:03d}"
        name = person if shared_speakers else f"{language}-{person}"
        here = [seed, index, zlib.crc32(language.encode())]
        plans = [sentences.draw_plan(rng, split, templates) for _ in range(n_utterances)]
        speakers.append(
            {
                "name": name,
                "gender": gender,
                "split": split,
                "voice_seed": [seed, index, 0, 2] if shared_speakers else here,  # not the stream of the plans
                "seed": [*here, 1],  # rooms and moods are of the clip, also where the voice is shared
                "utterances": [
                    {"file": f"{language}-{person}-{k:03d}.flac", "plan": list(plan)} for k, plan in enumerate(plans)
                ],
            }
        )
    # A prefix of their own, so that a waveform store can hold all kinds of clips.
    kinds = () if templates == sentences.TEMPLATES else templates
    prefix = "".join(f"{kind}-" for kind in ("shared",) * shared_speakers + kinds)
    return {"version": VERSION, "language": language, "seed": seed, "prefix": prefix, "speakers": speakers}


def _job_key(job: dict) -> str:
    return hashlib.blake2b(json.dumps(job, sort_keys=True).encode(), digest_size=6).hexdigest()


def _make(missing: list[tuple[dict, Path]]) -> None:
    n_clips = sum(len(speaker["utterances"]) for job, _ in missing for speaker in job["speakers"])
    with tqdm(total=n_clips, desc="speaking the synthetic corpus", unit="clip", disable=None) as progress:
        with ThreadPoolExecutor(
            max_workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        ) as pool:
            for future in [pool.submit(_speak, job, folder, progress.update) for job, folder in missing]:
                future.result()


def _speak(job: dict, folder: Path, update) -> None:
    """Speak one language into ``folder``, atomically; another process making the same one is waited for."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if folder.exists():
                return
            partial = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".partial", dir=folder.parent))
            try:
                _run_worker(job, partial, update)
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"The synthetic corpus of {job['language']!r} could not be written to {folder.parent}: {error.strerror}; "
            "free some space or give another cache_dir."
        ) from error


def _run_worker(job: dict, folder: Path, update) -> None:
    (folder / "job.json").write_text(json.dumps({**job, "folder": str(folder)}))
    errors = folder / "errors.txt"
    with errors.open("w") as stderr:
        worker = subprocess.Popen(
            [sys.executable, "-m", "cltmlib.corpora.espeak", str(folder / "job.json")],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        )
        with (folder / "clips.jsonl").open("w", encoding="utf-8") as clips:
            for line in worker.stdout:
                clips.write(line)
                update(1)
    if worker.wait() != 0:
        last = (errors.read_text().strip().splitlines() or ["no message"])[-1]
        raise InputError(f"eSpeak NG failed on {job['language']!r} (exit code {worker.returncode}): {last}")
    errors.unlink()
    (folder / "job.json").unlink()


def _rows(job: dict, folder: Path):
    clips = {clip["file"]: clip for clip in map(json.loads, (folder / "clips.jsonl").read_text("utf-8").splitlines())}
    for speaker in job["speakers"]:
        for utterance in speaker["utterances"]:
            clip = clips[utterance["file"]]
            yield {
                "utterance_id": f"{job['language']}/{job['prefix']}{Path(utterance['file']).stem}",
                "path": str(folder / utterance["file"]),
                "language": job["language"],
                "speaker": speaker["name"],
                "gender": speaker["gender"],
                "sentence": clip["sentence"],
                "sentence_id": sentences.plan_id(tuple(utterance["plan"])),
                "split": speaker["split"],
                "duration_s": clip["n_samples"] / SAMPLE_RATE_HZ,
            }
