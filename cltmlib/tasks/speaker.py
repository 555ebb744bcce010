"""Speaker verification (paper, Section 3.3): learn to tell the training speakers apart, compare embeddings of others.

Training is speaker identification with a linear head over the speakers of the training set. The head is then
discarded: the embedding of a clip is the average of the encoder's last hidden layers, its mean over the valid frames,
L2-normalised; the score of a trial is the cosine.
"""

import base64
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn.functional import normalize

from cltmlib.corpora import GENDERS
from cltmlib.encoders import encode, masked_mean
from cltmlib.errors import InputError
from cltmlib.subsets import draw_trials
from cltmlib.subsets.pool import shuffled
from cltmlib.tasks.classification import Classifier

VERSION = 1
PERFORMANCE, PERFORMANCE_NAME, CHANCE = "auc", "AUC", 0.5
COLUMNS = ("speaker", "gender")
OPTIONS = ("embedding_layers",)


class SpeakerEncoder(Classifier):
    """Classifies speakers in training; predicts embeddings."""

    def __init__(self, encoder, speakers, n_layers: int):
        super().__init__(encoder, speakers, "speaker")
        most = encoder.config.num_hidden_layers + 1  # the input of the first layer counts as one
        if n_layers > most:
            raise InputError(f"Parameter 'embedding_layers' is {n_layers}, but this encoder has only {most} layers.")
        self.n_layers = n_layers

    def predict(self, batch):
        """Embeddings of unit length, (batch, dim)."""
        output, mask = encode(self.encoder, batch, output_hidden_states=True)
        hidden = torch.stack(output.hidden_states[-self.n_layers :]).mean(0)  # (batch, frame, dim)
        return normalize(masked_mean(hidden, mask).float(), dim=-1)


def model(encoder, rows, config) -> SpeakerEncoder:
    """A linear layer over the speakers of the training set ``rows``."""
    return SpeakerEncoder(encoder, sorted({row["speaker"] for row in rows}), config["embedding_layers"])


def evaluate(predict, training, rows) -> dict[str, dict]:
    """Verification of every test set: ``auc``, ``eer`` and ``n``, the number of trials.

    ``auc_centred`` and ``eer_centred`` are the same after each language's mean embedding, taken over the training clips
    of that language alone, is subtracted; they are missing where the training has no clip of the language. A training
    with ``keep_embeddings`` in its config (test set -> a number of clips per gender, or None for all) gives embeddings
    too, see `embeddings`.

    Choice: the trials of a test set are the same for all seeds, as they are for all models in the authors' code, so
    that seeds differ by training sets and training alone.

    Raises:
        InputError: the embeddings of a language are all the same, or no trials can be drawn from it.
    """
    learnt = dict(zip(training.train, predict(training.train), strict=True))
    results = {}
    for language, ids in training.test.items():
        vectors = np.stack(predict(ids)).astype(np.float64)  # (clip, dim)
        if np.ptp(vectors, axis=0).max() < 1e-6:
            raise InputError(
                f"The embeddings of all {len(ids)} test clips of {language!r} are identical after training "
                f"{training.label!r}: lower learning_rate."
            )
        trials = draw_trials([rows[u] for u in ids], language)
        results[language] = {**metrics(vectors, trials), "n": len(trials)}
        own = [vector for u, vector in learnt.items() if rows[u]["language"] == language]
        if own:
            centred = metrics(vectors - np.mean(own, axis=0, dtype=np.float64), trials)
            results[language].update({f"{name}_centred": value for name, value in centred.items()})
        kept = training.config.get("keep_embeddings", {})
        if language in kept:
            results[language]["embeddings"] = _pack(ids, vectors, rows, kept[language])
    return results


def metrics(vectors: np.ndarray, trials) -> dict[str, float]:
    """AUC (the paper's performance) and EER of cosine scores.

    Args:
        vectors: (clip, dim), of any length but zero.
        trials: from `cltmlib.subsets.draw_trials`; ``enrol`` and ``test`` are row numbers of ``vectors``.
    """
    scores = cosine_scores(vectors, trials)
    return {
        "auc": float(roc_auc_score(trials["same_speaker"], scores)),
        "eer": equal_error_rate(trials["same_speaker"], scores),
    }


def cosine_scores(vectors: np.ndarray, trials) -> np.ndarray:
    """Cosine of the two clips of every trial, (trial,)."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.einsum("td,td->t", unit[trials["enrol"]], unit[trials["test"]])


def equal_error_rate(same_speaker, scores) -> float:
    """Error rate at which as many targets are rejected as non-targets accepted, interpolated linearly on the ROC.

    Perfect scores give 0, constant ones 0.5; an increasing transform of the scores changes nothing.

    Args:
        same_speaker: (trial,), true for targets; both kinds must occur.
        scores: (trial,), higher for the same speaker.

    Example:
        >>> equal_error_rate([True, True, False, False], [0.9, 0.4, 0.6, 0.1])
        0.5
        >>> equal_error_rate([True, False], [1.0, 0.0]), equal_error_rate([True, False], [0.3, 0.3])
        (0.0, 0.5)
    """
    accepted, hit, _ = roc_curve(same_speaker, scores, drop_intermediate=False)  # rise from 0 to 1
    excess = accepted - (1 - hit)  # from -1 to 1, never falling
    k = int(np.argmax(excess >= 0))
    share = -excess[k - 1] / (excess[k] - excess[k - 1])
    return float(accepted[k - 1] + share * (accepted[k] - accepted[k - 1]))


def _pack(ids: Sequence[str], vectors: np.ndarray, rows: Mapping[str, Mapping], most: int | None) -> dict:
    """Embeddings as plain JSON: ids, and float16 in base64.

    With ``most``, equally many clips of both genders (at most so many), a first of every speaker before a second of
    any: a centroid must not be that of one gender or of one prolific speaker.
    """
    kept = list(ids)
    if most is not None:
        queues = [_by_turns([u for u in ids if rows[u]["gender"] == gender], rows) for gender in GENDERS]
        n = min(most, *map(len, queues))
        kept = sorted(u for queue in queues for u in queue[:n])
    row = {u: k for k, u in enumerate(ids)}
    values = vectors[[row[u] for u in kept]].astype("<f2")
    return {"ids": kept, "float16": base64.b64encode(values.tobytes()).decode("ascii")}


def _by_turns(ids: Sequence[str], rows: Mapping[str, Mapping]) -> list[str]:
    """Clips in an order that takes one of every speaker, then a second, and so on."""
    n_taken: dict[str, int] = {}
    turns = []
    for order, u in enumerate(shuffled(ids, 0)):
        speaker = rows[u]["speaker"]
        n_taken[speaker] = n_taken.get(speaker, 0) + 1
        turns.append((n_taken[speaker], order, u))
    return [u for *_, u in sorted(turns)]


def embeddings(result: dict) -> tuple[list[str], np.ndarray]:
    """Utterance ids and embeddings, (clip, dim), that a training with ``keep_embeddings`` stored for one test set."""
    ids = result["embeddings"]["ids"]
    values = np.frombuffer(base64.b64decode(result["embeddings"]["float16"]), dtype="<f2")
    return ids, values.reshape(len(ids), -1).astype(np.float64)
