"""From symbols to speech: k-means units, a phone language model from text alone, and phone error rates.

Speech is cut into text, training and test parts by sentence, so that the language model never sees a sentence that is
heard. Two versions of the same task: ``units`` (runs of k-means units, nothing else is known) and ``segments`` (one
unit for each phone, between boundaries that a supervised alignment gives, so that label and symbol sequences are of
equal length, as in the theorem).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from cltmlib import audio, corpora, paths
from cltmlib.errors import InputError
from cltmlib.unsupervised import phones as phonetics
from cltmlib.unsupervised import training
from cltmlib.unsupervised.bound import conditioning
from cltmlib.unsupervised.loss import label_posteriors
from cltmlib.unsupervised.ngram import NGram, draw, estimate_ngram

_SHARES = {"text": 0.5, "train": 0.375, "test": 0.125}  # of the sentences
_LEAST_CLIPS = 8
N_ALIGNMENTS = 6  # rounds of supervised Viterbi training
N_SUBSET = 60  # clips that the search over starts uses
MFCC = "mfcc"


@dataclass(frozen=True)
class Clips:
    """Clips with features and phones, and the text part of the corpus.

    Attributes:
        features: of each clip, normalised over its frames, float32 (frame, dim).
        phones: of each clip's sentence, labels of the alphabet.
        part: "train" or "test" of each clip.
        text: phone labels of the text part's sentences.
        alphabet: what the labels mean.
    """

    features: list[np.ndarray]
    phones: list[list[int]]
    part: np.ndarray
    text: list[list[int]]
    alphabet: list[str]

    def of(self, part: str) -> np.ndarray:
        """Numbers of the clips of a part."""
        return np.flatnonzero(self.part == part)


def load_clips(params: Mapping) -> tuple[pd.DataFrame, list[np.ndarray], pd.DataFrame]:
    """Decode the clips of one language that a notebook's parameters name.

    A clip is taken whole or not at all, since its sentence is: clips longer than ``max_seconds`` are left out. Of more
    than ``n_clips``, so many are drawn.

    Args:
        params: corpus, corpus_dir, language, the corpus' sizes and seed, n_clips, min_seconds, max_seconds, output_dir.

    Returns:
        Utterance rows; their waveforms, float32 at 16 kHz; and the clips that were left out, with the reason, in the
        columns of `WaveformStore.skipped`.

    Raises:
        InputError: the corpus cannot be read, or no clip is left.
    """
    corpus = corpora.from_params({**params, "languages": (params["language"],)})
    table = corpora.frame(corpus)
    table = table[table["sentence"].fillna("").str.strip() != ""]
    if table.empty:
        raise InputError(f"No clip of language {params['language']!r} has a sentence: give a corpus with transcripts.")
    if params["n_clips"] is not None and len(table) > params["n_clips"]:
        table = table.sample(params["n_clips"], random_state=params["corpus_seed"]).sort_index()
    folder = paths.store_file(params["output_dir"]).parent / "waveforms"
    store = audio.pack(table, folder, min_seconds=params["min_seconds"])
    skipped = store.skipped[store.skipped["utterance_id"].isin(table["utterance_id"])]  # the store may hold other runs'
    table = table[[name in store for name in table["utterance_id"]]]
    if params["max_seconds"] is not None:
        too_long = np.asarray(store.duration_s(table["utterance_id"])) > params["max_seconds"]
        reason = f"longer than max_seconds ({params['max_seconds']:g} s)"
        longer = table.loc[too_long, ["utterance_id", "path", "language"]].assign(reason=reason)
        table, skipped = table[~too_long], pd.concat([skipped, longer], ignore_index=True)
    if table.empty:
        raise InputError(
            f"No clip of language {params['language']!r} is usable between min_seconds {params['min_seconds']} and "
            f"max_seconds {params['max_seconds']}: widen them or give another corpus."
        )
    table = table.reset_index(drop=True)
    return table, [store.waveform(name) for name in table["utterance_id"]], skipped


def split_sentences(sentences: Sequence[str], seed: int) -> np.ndarray:
    """Assign every clip to "text", "train" or "test", equal sentences together; (n_clips,).

    Raises:
        InputError: there are too few different sentences.
    """
    unique = np.array(sorted(set(sentences)))
    if len(unique) < _LEAST_CLIPS:
        raise InputError(f"The corpus has {len(unique)} different sentences: it takes {_LEAST_CLIPS} or more.")
    order = np.random.default_rng(seed).permutation(len(unique))
    edges = np.cumsum([round(share * len(unique)) for share in list(_SHARES.values())[:-1]])
    part_of = {}
    for part, members in zip(_SHARES, np.split(order, edges), strict=True):
        part_of.update(dict.fromkeys(unique[members], part))
    return np.array([part_of[sentence] for sentence in sentences])


def extract_features(
    waveforms: Sequence[np.ndarray], encoder, layer: int | None, device: str = "cpu"
) -> list[np.ndarray]:
    """Frame features of each clip, zero mean and unit variance over its frames: float32 (frame, dim).

    Args:
        waveforms: float32 at 16 kHz.
        encoder: from `cltmlib.encoders.load_encoder`; not used for MFCC.
        layer: hidden layer of the encoder, 1 the first; None for MFCC with differences.
        device: for the encoder: "cpu", "cuda" or "auto".

    Raises:
        InputError: the encoder has fewer layers, a clip is too short for it, or there is no such device.
    """
    if layer is None:
        from cltmlib.pretrain.hubert import mfcc_features

        extract: Callable[[np.ndarray], np.ndarray] = mfcc_features
    else:
        from cltmlib.encoders import collate, encode
        from cltmlib.finetune import resolve_device

        device = resolve_device(device)
        n_layers = encoder.model.config.num_hidden_layers
        if layer > n_layers:
            raise InputError(f"Parameter 'feature_layer' is {layer}, but {encoder.name} has {n_layers} layers.")
        model = encoder.fresh_model().eval().to(device)

        def extract(waveform: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                batch = collate([waveform], encoder.feature_extractor).to(device)
                return encode(model, batch, output_hidden_states=True)[0].hidden_states[layer][0].cpu().numpy()

    found = (extract(waveform) for waveform in waveforms)
    return [((f - f.mean(0)) / (f.std(0) + 1e-5)).astype(np.float32) for f in found]


def prepare_clips(
    sentences: Sequence[str], phones: Sequence[Sequence[str]], features: Sequence[np.ndarray], n_phones: int, seed: int
) -> Clips:
    """Split a corpus by sentence and label its phones.

    The alphabet is the text part's: its most frequent phones, and one label for all others. Clips without phones are
    left out.

    Args:
        sentences: of each clip.
        phones: of each clip's sentence, from `phones_of`.
        features: from `extract_features`.
        n_phones: labels of the alphabet at most.
        seed: of the split.

    Raises:
        InputError: a part has no usable clip.
    """
    part = split_sentences(sentences, seed)
    text_phones = {sentence: phones[k] for k, sentence in enumerate(sentences) if part[k] == "text"}
    known = phonetics.alphabet(list(text_phones.values()), n_phones)
    labels = [phonetics.to_labels(sentence, known) for sentence in phones]
    heard = [k for k in range(len(part)) if part[k] != "text" and labels[k]]
    for name in ("train", "test"):
        if not any(part[k] == name for k in heard):
            raise InputError(f"The {name} part of the speech has no clip with phones: give more clips.")
    return Clips(
        features=[features[k] for k in heard],
        phones=[labels[k] for k in heard],
        part=part[heard],
        text=[found for found in (phonetics.to_labels(p, known) for p in text_phones.values()) if found],
        alphabet=known,
    )


def cluster(points: np.ndarray, n_units: int, seed: int, what: str = "frames"):
    """K-means (scikit-learn, mini-batches) of points (n, dim); ``.predict`` gives units ``0 .. n_units - 1``.

    Raises:
        InputError: there are fewer points than units; ``what`` says what they are.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(points) < n_units:
        raise InputError(f"Parameter 'n_units' is {n_units}, but there are only {len(points)} {what} to cluster.")
    return MiniBatchKMeans(n_units, batch_size=2048, n_init=3, max_iter=50, random_state=seed).fit(points)


def run_lengths(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Units without repetitions, and where each run starts.

    Example:
        >>> run_lengths(np.array([4, 4, 7, 7, 7, 4]))
        (array([4, 7, 4]), array([0, 2, 5]))
    """
    starts = np.flatnonzero(np.concatenate([[True], units[1:] != units[:-1]]))
    return units[starts], starts


def align(units: np.ndarray, phones: Sequence[int], log_emission: np.ndarray) -> np.ndarray:
    """The best monotone alignment: which phone each unit belongs to, every phone at least one unit (Viterbi).

    Args:
        units: (T,), at least as many as phones.
        phones: labels, in order.
        log_emission: (K, V).

    Returns:
        Position in ``phones`` of each unit, rising by 0 or 1, int64 (T,).
    """
    scores = log_emission[np.asarray(phones)][:, units].T  # (T, M)
    n_units, n_phones = scores.shape
    if n_units < n_phones:
        raise ValueError(f"{n_units} units for {n_phones} phones: there is no alignment")
    best, advanced = np.full(n_phones, -np.inf), np.zeros((n_units, n_phones), dtype=bool)
    best[0] = scores[0, 0]
    for t in range(1, n_units):
        before = np.concatenate([[-np.inf], best[:-1]])
        advanced[t] = before > best
        best = np.maximum(before, best) + scores[t]
    path = np.empty(n_units, dtype=np.int64)
    at = n_phones - 1
    for t in reversed(range(n_units)):
        path[t] = at
        at -= advanced[t, at]
    return path


def train_supervised(
    units: Sequence[np.ndarray],
    phones: Sequence[Sequence[int]],
    n_labels: int,
    n_symbols: int,
    n_rounds: int = N_ALIGNMENTS,
) -> torch.Tensor:
    """q(unit | phone) from transcribed speech: Viterbi training from even segmentations, (K, V)."""
    labels = [np.asarray(p)[np.arange(len(u)) * len(p) // len(u)] for u, p in zip(units, phones, strict=True)]
    emission = _counted(units, labels, n_labels, n_symbols)
    for _ in range(n_rounds):
        labels = [_labels_of(u, p, emission) for u, p in zip(units, phones, strict=True)]
        emission = _counted(units, labels, n_labels, n_symbols)
    return emission


def phone_error_rate(references: Sequence[Sequence[int]], hypotheses: Sequence[Sequence[int]]) -> float:
    """Substitutions, insertions and deletions over phones of the references; above 1 with many insertions (jiwer).

    Example:
        >>> phone_error_rate([[1, 2, 3, 4]], [[1, 3, 4]])
        0.25
    """
    import jiwer

    texts = ([" ".join(f"p{label}" for label in labels) for labels in part] for part in (references, hypotheses))
    return float(jiwer.wer(*texts))


def recognise_speech(
    clips: Clips, n_units: int, n_iterations: int, n_starts: int, seed: int
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Train on the speech of ``clips`` with and without transcripts, and measure phone error rates on its test part.

    Methods: ``supervised`` (topline), ``EM from supervised`` (does training leave the right table?), ``EM best`` (flat
    and random starts, best by loss), ``EM flat``, ``no speech`` (language model alone), ``chance`` (phones drawn from
    the language model, as many as the reference has). Control, on as many symbols drawn anew from the supervised
    table given the aligned labels, so that Condition 1 holds exactly: ``supervised, redrawn`` (there the true table)
    and ``EM from supervised, redrawn`` (what the finite sample alone does).

    The units task trains and tests on all clips, as nothing but speech and text is known. Clips with fewer units than
    phones have no alignment; the supervised table, the segments task and the controls are without them.

    Args:
        clips: from `prepare_clips`.
        n_units: k-means units.
        n_iterations: of EM.
        n_starts: random starts, besides the flat one.
        seed: of k-means, starts and controls.

    Returns:
        One row per task (``units``, ``segments``) and method: phone_error_rate; loss on the training speech and
        held_out_loss on the test speech, nats per clip. And facts about the run: clips, phones, repetition, sigma_min,
        rank, dependence.

    Raises:
        InputError: there are fewer frames or segments than units, or no clip of a part can be aligned.
    """
    n_labels = len(clips.alphabet)
    text_model = estimate_ngram(clips.text, n_labels, order=2, smoothing=0.1)
    train, test = ([int(k) for k in clips.of(part)] for part in ("train", "test"))
    kmeans = cluster(np.concatenate([clips.features[k] for k in train]), n_units, seed)
    runs = [run_lengths(kmeans.predict(features)) for features in clips.features]
    units = {k: runs[k][0] for k in [*train, *test]}
    long_enough = [[k for k in part if len(units[k]) >= len(clips.phones[k])] for part in (train, test)]
    if not all(long_enough):
        raise InputError("Hardly any clip has as many units as phones: raise 'n_units' or choose other features.")
    aligned_train, aligned_test = long_enough
    repetition = 1 - np.mean([len(p) for p in clips.text]) / np.mean([len(units[k]) for k in train])
    lasting = text_model.with_repetition(float(np.clip(repetition, 0, 0.95)))
    aligned = train_supervised(
        [units[k] for k in aligned_train], [clips.phones[k] for k in aligned_train], n_labels, n_units
    )
    labels = {k: _labels_of(units[k], clips.phones[k], aligned) for k in [*aligned_train, *aligned_test]}
    of_units = _Task(units, labels, train, test, lasting, aligned, collapse=True)

    means = _segments(clips, runs, [*aligned_train, *aligned_test], aligned)
    kmeans = cluster(np.concatenate([means[k] for k in aligned_train]), n_units, seed, "segments")
    segments = {k: kmeans.predict(means[k]) for k in means}
    phones = {k: np.asarray(clips.phones[k]) for k in means}
    counted = _counted([segments[k] for k in aligned_train], [phones[k] for k in aligned_train], n_labels, n_units)
    of_segments = _Task(segments, phones, aligned_train, aligned_test, text_model, counted, collapse=False)

    tables = {
        name: _compare(task, clips, text_model, n_iterations, n_starts, seed)
        for name, task in (("units", of_units), ("segments", of_segments))
    }
    rank = conditioning(text_model.matrix(max(len(p) for p in clips.text)))
    n_frames = {k: np.diff(np.append(runs[k][1], len(clips.features[k]))) for k in aligned_train}
    frames = [(np.repeat(units[k], n_frames[k]), np.repeat(labels[k], n_frames[k])) for k in aligned_train]
    facts = {
        "n_train": len(train), "n_test": len(test),
        "n_unaligned": len(train) + len(test) - len(aligned_train) - len(aligned_test), "n_text": len(clips.text),
        "n_labels": n_labels, "repetition": float(repetition), "rank": rank.rank, "sigma_min": rank.sigma_min,
        "dependence_units": dependence([(units[k], labels[k]) for k in aligned_train], seed),
        "dependence_units_floor": collapse_dependence(frames, n_labels, n_units, seed),
        "dependence_segments": dependence([(segments[k], phones[k]) for k in aligned_train], seed),
    }  # fmt: skip
    return pd.concat(tables, names=["task"]).reset_index("task"), facts


def dependence(pairs: Sequence[tuple[np.ndarray, np.ndarray]], seed: int) -> float:
    """How far Condition 1 fails: ``I(x_n; x_{n-1} | c_n, c_{n-1})`` in nats, less the same after a shuffle.

    Given their labels, neighbouring symbols are independent under Condition 1. The shuffle of ``x_n`` among positions
    with the same two labels leaves what finite counts alone give.

    Args:
        pairs: symbols and labels of each clip.
        seed: of the shuffle.
    """
    contexts = np.concatenate([np.stack([c[:-1], c[1:], x[:-1]], 1) for x, c in pairs])
    following = np.concatenate([x[1:] for x, _ in pairs])
    group = np.unique(contexts[:, :2], axis=0, return_inverse=True)[1].ravel()
    shuffled = following.copy()
    generator = np.random.default_rng(seed)
    order = np.argsort(group, kind="stable")
    shuffled[order] = following[np.lexsort((generator.random(len(group)), group))]
    real, chance = (_conditional_information(group, contexts[:, 2], x) for x in (following, shuffled))
    return real - chance


def collapse_dependence(
    frames: Sequence[tuple[np.ndarray, np.ndarray]], n_labels: int, n_units: int, seed: int
) -> float:
    """`dependence` of runs that comes from collapsing repetitions alone, in nats: the floor of the units task.

    Each frame's unit is drawn anew given the frame's label, independently of all others, and runs are formed again.
    Frames then keep Condition 1; runs do not, since a unit never follows itself.

    Args:
        frames: units and labels of each clip's frames.
        n_labels, n_units: K and V.
        seed: of the draws and of `dependence`'s shuffle.
    """
    units, labels = zip(*frames, strict=True)
    emission = _counted(units, labels, n_labels, n_units).numpy()
    generator = np.random.default_rng([seed, 1])
    pairs = []
    for of_clip in labels:
        runs, starts = run_lengths(draw(emission[of_clip], generator))
        pairs.append((runs, of_clip[starts]))
    return dependence(pairs, seed)


def _conditional_information(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """I(first; second | group) from counts, nats."""

    def entropy(*columns: np.ndarray) -> float:
        counts = np.unique(np.stack(columns, 1), axis=0, return_counts=True)[1] / len(group)
        return float(-(counts * np.log(counts)).sum())

    return entropy(group, first) + entropy(group, second) - entropy(group, first, second) - entropy(group)


def _labels_of(units: np.ndarray, phones: Sequence[int], emission: torch.Tensor) -> np.ndarray:
    return np.asarray(phones)[align(units, phones, emission.log().numpy())]


def _counted(
    symbols: Sequence[np.ndarray], labels: Sequence[np.ndarray], n_labels: int, n_symbols: int
) -> torch.Tensor:
    """q(symbol | label) of paired sequences, (K, V)."""
    x, c = (torch.from_numpy(np.concatenate(part).astype(np.int64)) for part in (symbols, labels))
    return training.supervised_emission(x, c, n_labels, n_symbols)


def _segments(clips: Clips, runs: list, numbers: Sequence[int], emission: torch.Tensor) -> dict[int, np.ndarray]:
    """Mean feature of each phone between the boundaries of the alignment: (n_phones, dim) of each clip."""
    logs = emission.log().numpy()
    found = {}
    for k in numbers:
        units, starts = runs[k]
        path = align(units, clips.phones[k], logs)
        first = starts[np.searchsorted(path, np.arange(len(clips.phones[k])))]
        n_frames = np.diff(np.append(first, len(clips.features[k])))
        found[k] = np.add.reduceat(clips.features[k], first, axis=0) / n_frames[:, None]
    return found


@dataclass(frozen=True)
class _Task:
    """Symbols to be recognised, and what the supervised methods know besides.

    Attributes:
        symbols: int64 (N,) of each clip, by its number.
        labels: the label of each symbol, (N,), of the clips that have an alignment.
        train, test: numbers of the clips.
        language_model: over the labels of symbols.
        supervised: q(x | c) counted with labels, (K, V).
        collapse: whether several symbols in a row may make one phone.
    """

    symbols: Mapping[int, np.ndarray]
    labels: Mapping[int, np.ndarray]
    train: list[int]
    test: list[int]
    language_model: NGram
    supervised: torch.Tensor
    collapse: bool

    def of(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded symbols of clips and their mask, (clip, N) each."""
        return _padded([self.symbols[k] for k in numbers])

    def redrawn(self, generator: np.random.Generator) -> "_Task":
        """The same labels, spoken anew by the supervised table: Condition 1 holds, and the table is the truth."""
        table = self.supervised.numpy()
        symbols = {k: draw(table[labels], generator) for k, labels in self.labels.items()}
        train, test = ([k for k in part if k in symbols] for part in (self.train, self.test))
        return replace(self, symbols=symbols, train=train, test=test)


def _compare(task: _Task, clips: Clips, text_model: NGram, n_iterations: int, n_starts: int, seed: int) -> pd.DataFrame:
    """Phone error rate and losses of every method on one task, and of the control."""
    n_labels, n_symbols = task.supervised.shape
    generator = np.random.default_rng([seed, task.collapse])
    x, mask = task.of(task.train)
    flat = training.flat_start(n_labels, n_symbols, generator)
    starts = torch.cat([flat, training.random_starts(n_starts, n_labels, n_symbols, generator)])
    given = torch.cat([flat, task.supervised[None]])
    model = task.language_model
    from_flat, from_supervised = training.expectation_maximisation(x, model, given, n_iterations, mask).each
    best = training.best_of_starts(from_flat, x, model, starts, n_iterations, mask, n_subset=N_SUBSET)
    redrawn = task.redrawn(np.random.default_rng([seed, task.collapse, 1]))
    x, mask = redrawn.of(redrawn.train)
    overfitted = training.expectation_maximisation(x, model, task.supervised[None], n_iterations, mask)
    rows = [
        (method, *_measured(emission, on, clips))
        for method, emission, on in (
            ("supervised", task.supervised, task),
            ("EM from supervised", from_supervised.best, task),
            ("EM best", best.best, task),
            ("EM flat", from_flat.best, task),
            ("supervised, redrawn", task.supervised, redrawn),
            ("EM from supervised, redrawn", overfitted.best, redrawn),
            ("no speech", torch.full((n_labels, n_symbols), 1 / n_symbols, dtype=torch.float64), task),
        )
    ]
    references = [clips.phones[k] for k in task.test]
    drawn = [text_model.sample(1, len(reference), generator)[0] for reference in references]
    rows.append(("chance", phone_error_rate(references, drawn), np.nan, np.nan))
    return pd.DataFrame(rows, columns=["method", "phone_error_rate", "loss", "held_out_loss"])


def _measured(emission: torch.Tensor, task: _Task, clips: Clips) -> tuple[float, float, float]:
    """Phone error rate on the test clips; loss on the training and the test clips, nats per clip."""
    found = _decoded(emission, task.language_model, [task.symbols[k] for k in task.test], task.collapse)
    error = phone_error_rate([clips.phones[k] for k in task.test], found)
    losses = (training.cross_entropy(emission, task.language_model, *task.of(part)) for part in (task.train, task.test))
    return error, *losses


def _decoded(
    emission: torch.Tensor, language_model: NGram, sequences: list[np.ndarray], collapse: bool
) -> list[np.ndarray]:
    x, mask = _padded(sequences)
    scores = training.generative_scores(emission.log(), x, mask)
    labels = label_posteriors(scores, language_model, mask)[0].argmax(-1)
    found = [row[: len(sequence)].numpy() for row, sequence in zip(labels, sequences, strict=True)]
    return [run_lengths(row)[0] for row in found] if collapse else found


def _padded(sequences: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Symbols (batch, N), zeros after the end, and the mask."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    x = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.int64)
    for row, sequence in zip(x, sequences, strict=True):
        row[: len(sequence)] = torch.from_numpy(np.asarray(sequence, dtype=np.int64))
    return x, torch.arange(x.shape[1]) < lengths[:, None]


def repeat_recognition(
    table: pd.DataFrame, phones: Sequence[Sequence[str]], features: Sequence[np.ndarray], n_phones: int, n_units: int,
    n_iterations: int, n_starts: int, seeds: Sequence[int],
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """`recognise_speech` once per seed: of the split, of k-means and of the starts.

    Returns:
        Its rows with a column seed, and its facts, one row per seed.
    """
    results, facts = {}, {}
    for seed in seeds:
        clips = prepare_clips(list(table["sentence"]), phones, features, n_phones, seed)
        results[seed], facts[seed] = recognise_speech(clips, n_units, n_iterations, n_starts, seed)
    rows = pd.concat(results, names=["seed"]).reset_index("seed").reset_index(drop=True)
    return rows, pd.DataFrame.from_dict(facts, orient="index").rename_axis("seed")
