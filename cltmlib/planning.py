"""What a notebook would take before it starts: trainings, hours, disk. Nothing is loaded or trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cltmlib import paths
from cltmlib.errors import InputError
from cltmlib.params import Params

# Seconds for one clip of about 5 s, (training step, evaluation): what an estimate goes by before anything was measured.
# CPU: HubertModel of base size on one core of 2024, measured. GPU: batches of one clip in float16, a guess from the
# number of kernels that have to be launched. The stand-in is hundreds of times smaller.
SECONDS_PER_CLIP = {"cpu core": (3.0, 0.8), "GPU": (0.05, 0.015), "stand-in": (0.03, 0.01)}
# The same for fine-tuning whisper-small, whose clips are all padded to 30 s, and for transcribing 30 tokens with it.
# CPU: a step and a transcription of random weights of its shape, measured on one busy core; GPU: a guess.
WHISPER_SECONDS_PER_CLIP = {"cpu core": (17.0, 7.6), "GPU": (0.03, 0.03), "stand-in": (0.02, 0.01)}
# Of `cltmlib.weighted_ce`, which loads torch; a test compares them.
WHISPER_SYSTEMS, FISHER_CLIPS = 11, 20
# Recognition with a frozen encoder, whose features are computed once as far as they are kept: a step is the head's
# alone. The stand-in is measured, the others are guesses.
HEAD_SECONDS_PER_CLIP = {"cpu core": (0.05, 0.8), "GPU": (0.02, 0.015), "stand-in": (0.0045, 0.01)}
# The search with an n-gram, of a clip that is evaluated: on one core, whatever the encoder runs on. Measured with 250
# frames and 120 symbols: 0.22 s where the outputs are peaked, 1.4 to 1.9 s where they are diffuse; taken between. The
# stand-in's clips are shorter and have fewer symbols.
NGRAM_SECONDS_PER_CLIP = {"cpu core": 1.0, "GPU": 1.0, "stand-in": 0.02}
# The same for the speech LLM over cached encoder outputs, guesses but for the stand-in; and how many of the systems of
# `cltmlib.potsa` there are and are compensated. A test compares them.
SPEECH_LLM_SECONDS_PER_CLIP = {"cpu core": (60.0, 60.0), "GPU": (0.1, 0.3), "stand-in": (0.003, 0.002)}
POTSA_SYSTEMS, POTSA_COMPENSATED = 12, 10
TEST_CLIPS = 1000  # per language, where the whole test set is used: Common Voice has from 100 to 16 000
SECONDS_OF_A_CLIP = 5.0  # mean of Common Voice


@dataclass(frozen=True)
class Work:
    """Amount of work of a notebook: trainings, clips trained on and evaluated in all of them, clips to decode."""

    tasks: tuple[str, ...]
    n_trainings: int
    n_trained: int
    n_evaluated: int
    n_decoded: int
    text: str
    seconds_per_clip: Mapping[str, tuple[float, float]] = field(default_factory=lambda: SECONDS_PER_CLIP)
    seconds: float | None = None  # of one CPU core, where it is not counted in clips


def estimate(params: Params) -> tuple[tuple[str, ...], str]:
    """Trainings, those in the store, time and disk of a notebook as texts, and a note on where they come from."""
    from cltmlib.sweep.local import usable_cores

    try:
        work = _WORK[params.notebook](params)
    except InputError as error:  # n_samples is auto and not chosen yet
        return ("-", "-", "-", "-"), str(error)
    if work.seconds is not None:
        disk = "~" + _size(work.n_decoded * SECONDS_OF_A_CLIP * 16000 * 2)
        return (str(work.n_trainings), "-", "~" + duration(work.seconds), disk), f"{work.text}. One CPU core."
    measured = _durations(paths.store_file(params.output_dir), work.tasks)
    cores = usable_cores()
    workers = params.n_workers or (cores if params.device == "cpu" else 1)

    def seconds(kind: str) -> float:
        step, evaluation = work.seconds_per_clip[kind]
        return work.n_trained * step + work.n_evaluated * evaluation

    if measured:
        mean = sum(measured) / len(measured)
        total = work.n_trainings * mean / workers
        basis = f"from {mean:.2g} s a training, measured on {len(measured)} of the task, {workers} at a time"
    elif (params.get("encoder") or params["model"]).removeprefix("random:").startswith("mini-"):
        total = seconds("stand-in") / workers
        basis = f"an estimate from {work.seconds_per_clip['stand-in'][0]:g} s a clip, {workers} at a time"
    else:
        on_cpu = seconds("cpu core") / (params.n_workers or cores)
        total = on_cpu if params.device == "cpu" else seconds("GPU") / (params.n_workers or 1)
        basis = (
            f"an estimate for one GPU ({work.seconds_per_clip['GPU'][0]:g} s a training clip); {duration(on_cpu)} on "
            f"{cores} CPU cores"
            if params.device != "cpu"
            else f"an estimate from {work.seconds_per_clip['cpu core'][0]:g} s a training clip on each of {cores} cores"
        )
    clip_seconds = min(SECONDS_OF_A_CLIP, params.get("max_seconds") or SECONDS_OF_A_CLIP)
    disk = work.n_decoded * clip_seconds * 16000 * 2 + work.n_trainings * 2000
    row = (str(work.n_trainings), str(len(measured)), "~" + duration(total), "~" + _size(disk))
    all_tested = not (params.get("max_test_samples") or params.get("n_test_clips"))
    tests = f", taking {TEST_CLIPS} test clips a language" if all_tested else ""
    note = (
        f"{work.text}. Time: {basis}{tests}. Disk: decoded clips of {clip_seconds:g} s, int16, at most (draws of "
        "different seeds overlap)."
    )
    return row, note


def _of_matrix(params: Params, task: str) -> Work:
    """A transfer matrix: ``seeds * (n + n + n(n-1)/2)`` trainings; verification adds those of `common_space.plan`."""
    from cltmlib.cltm import chosen_n_samples

    n_samples = chosen_n_samples(params, task)
    n, n_seeds = len(params.languages), len(params.seeds)
    n_pairs = n * (n - 1) // 2
    n_clips = n_samples * (2 if task == "gender" else 1)  # of a D_i: N of each gender, or N in all
    text = f"{n_seeds} seeds x ({n} D_i + {n} D_i+D'_i + {n_pairs} pairs), {n_clips} clips in D_i"
    n_trainings = n_seeds * (2 * n + n_pairs)
    n_trained = n_seeds * n_clips * (n + 2 * n + 2 * n_pairs)
    n_evaluated = n_seeds * (2 * n + 2 * n_pairs) * _n_test(params)
    n_decoded = n * (n_seeds * 2 * n_clips + _n_test(params))
    if task == "speaker":  # one space for all languages; embeddings of the training clips for their mean
        shared = set(params.shared_languages or ())  # as if somebody spoke them all, with a test set in each
        n_alone, n_shared = len(shared & set(params.languages)), len(shared) * _n_test(params)
        n_trainings += n_seeds * (1 + n_alone)
        n_trained += n_seeds * (n + n_alone) * n_clips
        n_evaluated += n_seeds * (n * _n_test(params) + (1 + n_alone) * n_shared) + n_trained
        n_decoded += n_shared
        text += f" + {n_seeds} of all languages"
        if n_alone:
            text += f" + {n_seeds} x {n_alone} D_i for people who speak several"
    return Work((task,), n_trainings, n_trained, n_evaluated, n_decoded, text)


def _of_curves(params: Params) -> Work:
    """Learning curves: one training per seed, language and size."""
    n, n_seeds = len(params.languages), len(params.seeds)
    sizes = {"gender": [2 * size for size in params.gender_n_samples], "speaker": list(params.speaker_n_samples)}
    sizes = {task: of for task, of in sizes.items() if of}
    n_sizes = sum(map(len, sizes.values()))
    n_trained = n * n_seeds * sum(map(sum, sizes.values()))
    return Work(
        tasks=tuple(sizes),
        n_trainings=n * n_seeds * n_sizes,
        n_trained=n_trained,
        n_evaluated=n * n_seeds * n_sizes * _n_test(params) + n * n_seeds * sum(sizes.get("speaker", [])),
        n_decoded=n * sum(n_seeds * max(of) + _n_test(params) for of in sizes.values()),
        text=f"{n_seeds} seeds x {n} languages x {n_sizes} sizes",
    )


def _of_whisper(params: Params) -> Work:
    """Fine-tuning of Whisper: the original model, and each system with each seed."""
    n = len(params.languages) + 1
    n_trainings = WHISPER_SYSTEMS * len(params.seeds)
    n_test, n_dev = n * (params.n_test_clips or TEST_CLIPS), n * (params.n_dev_clips or TEST_CLIPS)
    n_fisher = len(params.seeds) * FISHER_CLIPS * len(params.languages)
    n_train = params.n_train_clips or 5000  # Galician has some thousands
    return Work(
        tasks=("weighted_ce",),
        n_trainings=n_trainings + 1,
        n_trained=n_trainings * params.n_steps * params.batch_size + n_fisher,
        n_evaluated=n_test + n_trainings * (n_test + params.n_checkpoints * n_dev),
        n_decoded=n * n_train * len(params.seeds) + n_test + n_dev,
        text=(
            f"the original model and {WHISPER_SYSTEMS} systems x {len(params.seeds)} seeds, {params.n_steps} steps of "
            f"{params.batch_size} clips"
        ),
        seconds_per_clip=WHISPER_SECONDS_PER_CLIP,
    )


def _of_speech_llm(params: Params) -> Work:
    """Speech LLM: every system with each seed, and per seed two models of stage 1; all clips are encoded once."""
    n_seeds, n_trained, n_zero_shot = len(params.seeds), len(params.languages), len(params.zero_shot_languages)
    n_clips = (  # per language; FLEURS has about 2,600 training clips and 650 for test of each
        round(0.9 * params.speakers_per_language * params.utterances_per_speaker)
        if params.corpus == "synthetic"
        else 3250
    )
    n_test = params.n_test_sentences or round(0.3 * n_clips)
    second_stage = params.n_steps * POTSA_SYSTEMS * params.batch_size
    first_stage = 2 * (params.transcription_steps + params.translation_steps) * params.batch_size
    tested = POTSA_SYSTEMS * (n_trained + n_zero_shot) + POTSA_COMPENSATED * n_zero_shot
    return Work(
        tasks=("potsa",),
        n_trainings=n_seeds * POTSA_SYSTEMS,
        n_trained=n_seeds * (first_stage + second_stage),
        n_evaluated=n_seeds * tested * n_test,
        n_decoded=(n_trained + n_zero_shot) * n_clips,
        text=(
            f"{POTSA_SYSTEMS} systems x {n_seeds} seeds, {params.n_steps} steps of {params.batch_size} clips each; "
            "encoder outputs besides: Whisper large-v3's take 128 kB a second of speech"
        ),
        seconds_per_clip=SPEECH_LLM_SECONDS_PER_CLIP,
    )


def _n_test(params: Params) -> int:
    return 2 * params.max_test_samples if params.max_test_samples else TEST_CLIPS


def _of_unsupervised(params: Params) -> Work:
    """Small models by the thousand; seconds are those of one core of 2024, measured at the sizes of ``mini``."""
    n_seeds, sizes = len(params.seeds), [*params.text_sizes, *params.speech_sizes]
    n_trainings = 6 * params.n_problems * params.n_starts + n_seeds * (7 * params.n_starts + len(sizes) + 8)
    n_clips = params.n_clips or (
        params.speakers_per_language * params.utterances_per_speaker if params.corpus == "synthetic" else TEST_CLIPS
    )
    seconds = (
        0.003 * params.n_instances
        + 2e-4 * params.n_problems * params.n_starts * params.n_steps
        + 1e-5 * n_seeds * params.speech_sizes[-1] * params.n_iterations * (4 + params.n_starts / 2)
        + 0.005 * n_seeds * params.n_starts * params.adversarial_steps
        + 2e-4 * n_seeds * n_clips * params.n_iterations
        + 0.05 * n_clips
    )
    text = f"{params.n_instances} random models; {n_trainings} unsupervised trainings of small tables; {n_clips} clips"
    return Work((), n_trainings, 0, 0, n_clips, text, seconds=seconds)


def _of_recognition(params: Params) -> Work:
    """The matrix at N, larger sets of high-resource languages alone and beside low-resource ones, the other mode."""
    n, n_seeds, sizes = len(params.languages), len(params.seeds), params.recognition_n_samples
    n_low, n_high, n_pairs = len(params.low_resource_languages), len(params.high_resource_languages), n * (n - 1) // 2
    smallest, larger, largest = sizes[0], sizes[1:], [size for size in sizes if size > 2 * sizes[0]]
    n_beside = n_low * n_high * len(larger)
    n_alone = 2 * n + n_high * len(largest) + n_low  # n_low: once more in the other mode
    clips = smallest * (3 * n + 2 * n_pairs + n_low) + n_high * sum(largest)
    clips += n_low * n_high * sum(smallest + size for size in larger)
    n_test = params.max_test_samples or TEST_CLIPS
    seconds = HEAD_SECONDS_PER_CLIP if params.trained == "head" else SECONDS_PER_CLIP
    text = (
        f"{n_seeds} seeds x ({n} D_i + {n} D_i+D'_i + {n_pairs} pairs, {smallest} clips in D_i + "
        f"{n_high * len(largest) + n_beside} with more clips + {n_low} in the other mode), {params.epochs} epochs"
    )
    if params.ngram_order:
        seconds = {kind: (step, test + NGRAM_SECONDS_PER_CLIP[kind]) for kind, (step, test) in seconds.items()}
        text += "; search with an n-gram, 0.2 to 1.9 s a test clip on one core (none with ngram_order null)"
    return Work(
        tasks=("recognition",),
        n_trainings=n_seeds * (n_alone + n_pairs + n_beside),
        n_trained=n_seeds * clips * params.epochs,
        n_evaluated=n_seeds * (n_alone + 2 * n_pairs + 2 * n_beside) * n_test,
        n_decoded=n_seeds * (2 * n * smallest + n_high * (sizes[-1] - 2 * smallest)) + 2 * n * n_test,
        text=text,
        seconds_per_clip=seconds,
    )


_WORK = {
    "01_learning_curves": _of_curves,
    "02_gr_cltm": lambda params: _of_matrix(params, "gender"),
    "03_sv_cltm": lambda params: _of_matrix(params, "speaker"),
    "04_whisper_weighted_ce": _of_whisper,
    "05_potsa_ablations": _of_speech_llm,
    "06_unsupervised_asr": _of_unsupervised,
    "07_asr_cltm": _of_recognition,
}


def _durations(store: Path, tasks: tuple[str, ...]) -> list[float]:
    """Seconds of the trainings of these tasks that the store holds."""
    from cltmlib.sweep.store import RunStore

    if not store.is_file():
        return []
    try:
        with RunStore.read(store) as open_store:
            return [seconds for task in tasks for seconds in open_store.durations(task)]
    except InputError:
        return []


def duration(seconds: float) -> str:
    """Say a time in the unit a person would use.

    Example:
        >>> [duration(s) for s in (0.4, 59, 150, 5400, 1e6)]
        ['1 s', '59 s', '2 min 30 s', '1.5 h', '11.6 days']
    """
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{max(1, round(n_bytes / 1e6))} MB"
