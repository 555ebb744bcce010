"""From symbols to speech: k-means units, a phone language model from text alone, and phone error rates.

Speech is cut into text, training and test parts by sentence, so that the language model never sees a sentence that is
heard. Two versions of the same task: ``units`` (runs of k-means units, nothing else is known) and ``segments`` (one
unit for each phone, between boundaries that a supervised alignment gives: the setting of the theorem, where label and
symbol sequences are of equal length).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from cltmlib import audio, corpora, paths
from cltmlib.errors import InputError
from cltmlib.unsupervised import phones as phonetics
from cltmlib.unsupervised import training
from cltmlib.unsupervised.bound import conditioning
from cltmlib.unsupervised.loss import label_posteriors
from cltmlib.unsupervised.ngram import NGram, estimate_ngram

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
        Utterance rows; their waveforms, float32 at 16 kHz; and what was left out, as in `WaveformStore.skipped`.

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
    table = table[[name in store for name in table["utterance_id"]]]
    if params["max_seconds"] is not None:
        table = table[store.duration_s(table["utterance_id"]) <= params["max_seconds"]]
    if table.empty:
        raise InputError(
            f"No clip of language {params['language']!r} is usable between min_seconds {params['min_seconds']} and "
            f"max_seconds {params['max_seconds']}: widen them or give another corpus."
        )
    table = table.reset_index(drop=True)
    return table, [store.waveform(name) for name in table["utterance_id"]], store.skipped


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
        from cltmlib.pretrain import mfcc_features

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


def cluster(frames: np.ndarray, n_units: int, seed: int):
    """K-means (scikit-learn, mini-batches) of frames (n, dim); ``.predict`` gives units ``0 .. n_units - 1``."""
    from sklearn.cluster import MiniBatchKMeans

    if len(frames) < n_units:
        raise InputError(f"Parameter 'n_units' is {n_units}, but there are only {len(frames)} frames to cluster.")
    return MiniBatchKMeans(n_units, batch_size=2048, n_init=3, max_iter=50, random_state=seed).fit(frames)


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
    paths = [np.arange(len(u)) * len(p) // len(u) for u, p in zip(units, phones, strict=True)]
    for _ in range(n_rounds + 1):
        pairs = [np.asarray(p)[path] for p, path in zip(phones, paths, strict=True)]
        symbols, labels = (torch.from_numpy(np.concatenate(part)) for part in (units, pairs))
        emission = training.supervised_emission(symbols, labels, n_labels, n_symbols)
        logs = emission.log().numpy()
        paths = [align(u, p, logs) for u, p in zip(units, phones, strict=True)]
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

    Methods: ``supervised`` (topline), ``EM best`` (flat and random starts, best by loss), ``EM flat``, ``EM from
    supervised`` (does training leave the right table?), ``no speech`` (language model alone), ``chance`` (phones drawn
    from the language model, as many as the reference has).

    Args:
        clips: from `prepare_clips`.
        n_units: k-means units.
        n_iterations: of EM.
        n_starts: random starts, besides the flat one.
        seed: of k-means and starts.

    Returns:
        One row per task (``units``, ``segments``) and method: phone_error_rate, and loss on the training speech, in
        nats per clip. And facts about the run: clips, phones, repetition, sigma_min, rank, dependence.
    """
    text_model = estimate_ngram(clips.text, len(clips.alphabet), order=2, smoothing=0.1)
    frames = np.concatenate([clips.features[k] for k in clips.of("train")])
    kmeans = cluster(frames, n_units, seed)
    runs = [run_lengths(kmeans.predict(features)) for features in clips.features]
    # Fewer units than phones: no alignment, so these clips are left out, in training and test alike.
    usable = np.array([len(units) >= len(p) for (units, _), p in zip(runs, clips.phones, strict=True)])
    train, test = ([int(k) for k in clips.of(part) if usable[k]] for part in ("train", "test"))
    if not train or not test:
        raise InputError("Hardly any clip has as many units as phones: raise 'n_units' or choose other features.")
    units = {k: runs[k][0] for k in [*train, *test]}
    repetition = 1 - np.mean([len(p) for p in clips.text]) / np.mean([len(units[k]) for k in train])
    lasting = text_model.with_repetition(float(np.clip(repetition, 0, 0.95)))
    aligned = train_supervised(
        [units[k] for k in train], [clips.phones[k] for k in train], len(clips.alphabet), n_units
    )
    of_units = _compare(units, clips, train, test, lasting, aligned, n_units, n_iterations, n_starts, seed, True)

    segments = _segments(clips, runs, [*train, *test], aligned)
    means = np.concatenate([segments[k] for k in train])
    kmeans = cluster(means, n_units, seed)
    symbols = {k: kmeans.predict(segments[k]) for k in segments}
    pairs = [symbols[k] for k in train], [clips.phones[k] for k in train]
    paired = (torch.from_numpy(np.concatenate(part)).long() for part in pairs)
    counted = training.supervised_emission(*paired, len(clips.alphabet), n_units)
    of_segments = _compare(
        symbols, clips, train, test, text_model, counted, n_units, n_iterations, n_starts, seed, False
    )

    table = pd.concat({"units": of_units, "segments": of_segments}, names=["task"]).reset_index("task")
    rank = conditioning(text_model.matrix(max(len(p) for p in clips.text)))
    of_phones = [(units[k], _labels_of(units[k], clips.phones[k], aligned)) for k in train]
    facts = {
        "n_train": len(train), "n_test": len(test), "n_left_out": int((~usable).sum()), "n_text": len(clips.text),
        "n_labels": len(clips.alphabet), "repetition": float(repetition), "rank": rank.rank,
        "sigma_min": rank.sigma_min,
        "dependence_units": dependence(of_phones, seed),
        "dependence_segments": dependence([(symbols[k], np.asarray(clips.phones[k])) for k in train], seed),
    }  # fmt: skip
    return table, facts


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


def _conditional_information(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """I(first; second | group) from counts, nats."""

    def entropy(*columns: np.ndarray) -> float:
        counts = np.unique(np.stack(columns, 1), axis=0, return_counts=True)[1] / len(group)
        return float(-(counts * np.log(counts)).sum())

    return entropy(group, first) + entropy(group, second) - entropy(group, first, second) - entropy(group)


def _labels_of(units: np.ndarray, phones: Sequence[int], emission: torch.Tensor) -> np.ndarray:
    return np.asarray(phones)[align(units, phones, emission.log().numpy())]


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


def _compare(
    symbols: dict, clips: Clips, train: list[int], test: list[int], language_model: NGram, supervised: torch.Tensor,
    n_symbols: int, n_iterations: int, n_starts: int, seed: int, collapse: bool,
) -> pd.DataFrame:  # fmt: skip
    """Phone error rate and loss of every method on one task."""
    n_labels, generator = len(clips.alphabet), np.random.default_rng([seed, collapse])
    x, mask = _padded([symbols[k] for k in train])
    flat = training.flat_start(n_labels, n_symbols, generator)
    starts = torch.cat([flat, training.random_starts(n_starts, n_labels, n_symbols, generator)])
    given = torch.cat([flat, supervised[None]])
    from_flat, from_supervised = training.expectation_maximisation(x, language_model, given, n_iterations, mask).each
    from_all = training.train_from_starts(x, language_model, starts, n_iterations, mask, n_subset=N_SUBSET)
    best = min((from_flat, from_all), key=lambda trained: trained.losses[-1].min())
    emissions = {
        "supervised": supervised,
        "EM from supervised": from_supervised.best,
        "EM best": best.best,
        "EM flat": from_flat.best,
        "no speech": torch.full((n_labels, n_symbols), 1 / n_symbols, dtype=torch.float64),
    }
    references = [clips.phones[k] for k in test]
    rows = [
        (
            method,
            phone_error_rate(references, _decoded(emission, language_model, [symbols[k] for k in test], collapse)),
            training.cross_entropy(emission, language_model, x, mask),
        )
        for method, emission in emissions.items()
    ]
    text_model = estimate_ngram(clips.text, n_labels, order=2, smoothing=0.1)
    drawn = [text_model.sample(1, len(reference), generator)[0] for reference in references]
    rows.append(("chance", phone_error_rate(references, drawn), np.nan))
    return pd.DataFrame(rows, columns=["method", "phone_error_rate", "loss"])


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
