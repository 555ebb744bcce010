"""Speaker verification: its metrics against other computations, its embeddings, and that training helps."""

import json
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score

from cltmlib import finetune, sweep
from cltmlib.audio import pack
from cltmlib.encoders import Encoder, _padding_invariant, collate
from cltmlib.errors import InputError
from cltmlib.finetune import run_training
from cltmlib.subsets import draw_trials
from cltmlib.sweep.plan import Training
from cltmlib.tasks import speaker
from tests.test_encoders import EXTRACTOR, clips, tiny_hubert

# --- Metrics


def scored(targets, non_targets):
    """Arguments of the metrics: (same_speaker, scores)."""
    return np.array([True] * len(targets) + [False] * len(non_targets)), np.array([*targets, *non_targets], float)


def auc_of(same_speaker, scores):
    """The task's AUC of given scores: vectors in the plane at angles whose cosines have the order of the scores."""
    places = np.unique(scores, return_inverse=True)[1]
    angles = math.pi / 2 * (1 - places / (places.max() + 1))
    vectors = np.concatenate([[[1.0, 0.0]], np.stack([np.cos(angles), np.sin(angles)], axis=1)])
    rows = np.arange(1, len(vectors))
    trials = pd.DataFrame({"enrol": 0, "test": rows, "same_speaker": same_speaker})
    return speaker.metrics(vectors, trials)["auc"]


def eer_by_root(same_speaker, scores):
    """Root of miss(x) - x on the interpolated ROC, whose points are counted threshold by threshold."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores), reverse=True):
        accepted = [score >= threshold for score in scores]
        points.append(
            tuple(
                sum(a for a, same in zip(accepted, same_speaker, strict=True) if same == kind)
                / sum(same == kind for same in same_speaker)
                for kind in (False, True)
            )
        )
    false_accepts, hits = np.array(points).T
    return brentq(lambda x: 1 - x - np.interp(x, false_accepts, hits), 0, 1, xtol=1e-15, rtol=1e-15)


@st.composite
def score_sets(draw):
    """Both kinds of trials; few different scores make many ties, normal ones none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_targets, n_others, n_levels = draw(st.integers(1, 30)), draw(st.integers(1, 30)), draw(st.integers(1, 12))
    shift = draw(st.floats(-2, 3))
    targets, others = rng.normal(shift, 1, n_targets), rng.normal(0, 1, n_others)
    if draw(st.booleans()):
        targets, others = np.round(targets * n_levels / 6), np.round(others * n_levels / 6)
    return scored(targets, others)


@settings(max_examples=100, deadline=None)
@given(score_sets())
def test_eer_is_the_root_on_the_interpolated_roc(trials):
    assert speaker.equal_error_rate(*trials) == pytest.approx(eer_by_root(*trials), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(score_sets())
def test_auc_is_that_of_scikit_learn_and_the_share_of_pairs_in_the_right_order(trials):
    same_speaker, scores = trials
    targets, others = scores[same_speaker], scores[~same_speaker]
    right = np.mean([(a > b) + 0.5 * (a == b) for a in targets for b in others])
    assert auc_of(*trials) == pytest.approx(right, abs=1e-12)
    assert auc_of(*trials) == pytest.approx(roc_auc_score(same_speaker, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("targets", "non_targets", "eer", "auc"),
    [
        ([0.9, 0.6, 0.4], [0.7, 0.5, 0.1], 1 / 3, 6 / 9),  # at 0.6: one of three missed, one of three accepted
        ([0.9, 0.4], [0.6, 0.1], 1 / 2, 3 / 4),  # the ROC runs level at 1/2 from a false accept of 0 to one of 1/2
        ([1, 1, 0], [1, 0, 0], 1 / 3, 6 / 9),  # at 1: one of three missed, one of three accepted
        ([1, 0], [1, 0, 0, 0], 2 / 5, 5 / 8),  # from (1/4, miss 1/2) to (1, miss 0) they meet after a fifth: 1/4 + 3/20
        ([2, 1, 1, 0], [1, 0], 3 / 8, 11 / 16),  # from (0, miss 3/4) to (1/2, miss 1/4): 3/4 - x = x
    ],
)
def test_eer_and_auc_by_hand(targets, non_targets, eer, auc):
    trials = scored(targets, non_targets)
    assert speaker.equal_error_rate(*trials) == pytest.approx(eer, abs=1e-12)
    assert auc_of(*trials) == pytest.approx(auc, abs=1e-12)


@given(st.integers(1, 20), st.integers(1, 20), st.floats(-1, 1))
@settings(max_examples=30, deadline=None)
def test_constant_scores_give_one_half_perfect_ones_zero_and_reversed_ones_one(n_targets, n_others, score):
    same_speaker, _ = scored([0] * n_targets, [0] * n_others)
    results = [
        (speaker.equal_error_rate(same_speaker, scores), auc_of(same_speaker, scores))
        for scores in (np.full(len(same_speaker), score), same_speaker.astype(float), -same_speaker.astype(float))
    ]
    assert results == [(0.5, 0.5), (0.0, 1.0), (1.0, 0.0)]


@settings(max_examples=40, deadline=None)
@given(score_sets(), st.lists(st.floats(0.001, 100), min_size=60, max_size=60), st.floats(-1000, 1000))
def test_an_increasing_transform_of_the_scores_changes_no_digit(trials, steps, start):
    same_speaker, scores = trials
    places = np.unique(scores, return_inverse=True)[1]
    other = (start + np.cumsum(steps))[places]  # any increasing values in the places of the scores
    assume(len(np.unique(other)) == len(np.unique(scores)))
    assert speaker.equal_error_rate(same_speaker, other) == speaker.equal_error_rate(same_speaker, scores)
    assert roc_auc_score(same_speaker, other) == roc_auc_score(same_speaker, scores)


@settings(max_examples=30, deadline=None)
@given(score_sets())
def test_swapping_the_kinds_and_the_sign_of_the_scores_changes_nothing(trials):
    same_speaker, scores = trials
    swapped = speaker.equal_error_rate(~same_speaker, -scores)
    assert swapped == pytest.approx(speaker.equal_error_rate(same_speaker, scores), abs=1e-12)


def test_scores_are_cosines_whatever_the_length_of_the_vectors():
    vectors = np.array([[1.0, 0.0], [0.0, 5.0], [3.0, 3.0], [-2.0, 0.0], [3.0, 4.0]])
    trials = pd.DataFrame({"enrol": [0, 0, 0, 1, 2], "test": [1, 2, 3, 4, 4], "same_speaker": True})
    expected = [0, math.sqrt(0.5), -1, 0.8, 7 / (5 * math.sqrt(2))]
    np.testing.assert_allclose(speaker.cosine_scores(vectors, trials), expected, atol=1e-15)


# --- Evaluation, with embeddings that are given


def made_up(languages=("de", "ca"), n_clips=4, dim=6, seed=0):
    """Rows of test clips (and a train clip or two of each language), and an embedding of each."""
    rng = np.random.default_rng(seed)
    rows = {
        f"{language}/{split}{gender[0]}{k}_{clip}": {
            "language": language, "speaker": f"{language}{gender[0]}{k}", "gender": gender,
        }
        for language in languages
        for split in ("train", "test")
        for gender in ("female", "male")
        for k in range(3)
        for clip in range(n_clips)
    }  # fmt: skip
    vectors = {u: rng.normal(size=dim).astype(np.float32) for u in rows}
    return rows, {u: v / np.linalg.norm(v) for u, v in vectors.items()}


def evaluation(rows, vectors, train=("de",), test=("de", "ca"), **config):
    ids = {
        split: {i: tuple(u for u in rows if u.startswith(f"{i}/{split}")) for i in chosen}
        for split, chosen in (("train", train), ("test", test))
    }
    learnt = tuple(u for of in ids["train"].values() for u in of)
    training = Training("speaker", learnt, ids["test"], 0, config, "de seed 0")
    return training, speaker.evaluate(lambda names: [vectors[u] for u in names], training, rows)


def test_metrics_equal_a_computation_pair_by_pair():
    rows, vectors = made_up()
    training, results = evaluation(rows, vectors)
    for language, ids in training.test.items():
        trials = draw_trials([rows[u] for u in ids], language)
        scores = [
            sum(float(a) * float(b) for a, b in zip(vectors[ids[t.enrol]], vectors[ids[t.test]], strict=True))
            for t in trials.itertuples()
        ]
        assert results[language]["auc"] == pytest.approx(roc_auc_score(trials["same_speaker"], scores), abs=1e-12)
        assert results[language]["eer"] == pytest.approx(eer_by_root(trials["same_speaker"], scores), abs=1e-12)
        assert results[language]["n"] == len(trials) == 72  # 2 genders, 3 speakers with 6 pairs each, twice


def test_centring_takes_the_mean_of_the_languages_own_training_clips():
    rows, vectors = made_up()
    training, results = evaluation(rows, vectors, train=("de",))
    assert "auc_centred" not in results["ca"] and "eer_centred" not in results["ca"]
    training, both = evaluation(rows, vectors, train=("de", "ca"))
    for language, ids in training.test.items():
        own = [vectors[u].astype(float) for u in training.train if u.startswith(f"{language}/")]
        mean = sum(own) / len(own)
        trials = draw_trials([rows[u] for u in ids], language)
        scores = []
        for t in trials.itertuples():
            one, two = (vectors[ids[k]].astype(float) - mean for k in (t.enrol, t.test))
            scores.append(one @ two / math.sqrt((one @ one) * (two @ two)))
        expected = roc_auc_score(trials["same_speaker"], scores)
        assert both[language]["auc_centred"] == pytest.approx(expected, abs=1e-12)
        assert both[language]["eer_centred"] == pytest.approx(eer_by_root(trials["same_speaker"], scores), abs=1e-12)
        assert expected != both[language]["auc"]
    assert results["de"]["auc_centred"] == both["de"]["auc_centred"] and results["ca"]["auc"] == both["ca"]["auc"]


def test_trials_are_the_same_after_every_training():
    """Perfect embeddings in one language, constant but for a trifle in the other: results tell only of embeddings."""
    rows, vectors = made_up()
    speakers = sorted({row["speaker"] for row in rows.values()})
    by_speaker = dict(zip(speakers, np.eye(len(speakers)), strict=True))
    perfect = {u: by_speaker[row["speaker"]] for u, row in rows.items()}
    assert evaluation(rows, perfect)[1]["de"]["auc"] == 1 and evaluation(rows, perfect)[1]["de"]["eer"] == 0
    assert evaluation(rows, vectors)[1] == evaluation(rows, vectors)[1]


@pytest.mark.parametrize("noise", [0, 1e-8])
def test_identical_embeddings_are_an_error_that_names_language_and_training(noise):
    rows, vectors = made_up()
    rng = np.random.default_rng(0)
    vectors.update({u: np.full(6, 0.5) + noise * rng.normal(size=6) for u in vectors if u.startswith("ca/test")})
    with pytest.raises(InputError) as caught:
        evaluation(rows, vectors)
    assert str(caught.value) == (
        "The embeddings of all 24 test clips of 'ca' are identical after training 'de seed 0': lower learning_rate."
    )


@pytest.mark.parametrize(
    ("drop", "message"),
    [("ca/testm", "'ca' has 0 male"), (("ca/testf1", "ca/testf2"), "'ca' has 1 female"), ("_0", "'ca' has 3 female")],
)
def test_a_test_set_without_trials_is_refused_by_language(drop, message):
    rows, vectors = made_up(n_clips=1 if drop == "_0" else 4)
    rows = {u: row for u, row in rows.items() if not u.startswith(drop)}
    with pytest.raises(InputError, match=message):
        evaluation(rows, vectors, test=("ca",))


def test_speakers_with_a_single_clip_are_tested_too():
    rows, vectors = made_up()
    rows = {u: row for u, row in rows.items() if not (u.startswith("de/testf2") and not u.endswith("_0"))}
    _, results = evaluation(rows, vectors, test=("de",))
    assert results["de"]["n"] == 2 * (2 * 6) + 2 * 3 * 6


@pytest.mark.parametrize("kept", [1, 5, 12, 100, None])
def test_embeddings_that_are_kept_come_back_from_json(kept):
    rows, vectors = made_up()
    training, results = evaluation(rows, vectors, keep_embeddings={"de": kept, "ca": kept})
    plain = evaluation(rows, vectors)[1]
    for language, result in json.loads(json.dumps(results)).items():
        ids, found = speaker.embeddings(result)
        n = 12 if kept is None else min(kept, 12)  # of each gender
        assert Counter(rows[u]["gender"] for u in ids) == {"female": n, "male": n}
        assert len(set(ids)) == len(ids) and set(ids) <= set(training.test[language])
        np.testing.assert_allclose(found, [vectors[u] for u in ids], atol=2**-11)  # float16 of values below 1
        del result["embeddings"]
        assert result == plain[language]
    assert "embeddings" not in plain["de"]


def test_kept_embeddings_are_of_as_many_speakers_and_as_balanced_as_can_be():
    rows, vectors = made_up()
    rows = {u: row for u, row in rows.items() if not (row["gender"] == "male" and u.endswith("_3"))}
    _, results = evaluation(rows, vectors, keep_embeddings={"de": 6, "ca": 100})
    ids, _ = speaker.embeddings(results["de"])
    assert set(Counter(rows[u]["speaker"] for u in ids).values()) == {2}  # 6 of each gender, 3 speakers of each
    ids, _ = speaker.embeddings(results["ca"])
    assert Counter(rows[u]["gender"] for u in ids) == {"female": 9, "male": 9}  # though there are 12 female clips
    everything, _ = speaker.embeddings(evaluation(rows, vectors, keep_embeddings={"ca": None})[1]["ca"])
    assert Counter(rows[u]["gender"] for u in everything) == {"female": 12, "male": 9}


# --- The model


@pytest.fixture(scope="module")
def encoder():
    return Encoder("tiny", _padding_invariant(tiny_hubert("group")), EXTRACTOR, "tiny@0")


TRAIN_ROWS = [{"speaker": name, "gender": "female"} for name in ("b", "a", "b", "c")]


def model_of(encoder, n_layers):
    return speaker.model(encoder.fresh_model(), TRAIN_ROWS, {"embedding_layers": n_layers}).eval()


def test_the_head_tells_the_training_speakers_apart(encoder):
    model = model_of(encoder, 1)
    assert model.index == {"a": 0, "b": 1, "c": 2} and model.head.out_features == 3
    batch = collate(clips([6_000, 9_000]), EXTRACTOR)
    with torch.inference_mode():
        expected = torch.nn.functional.cross_entropy(model(batch), torch.tensor([2, 0]))
        assert model.loss(batch, [TRAIN_ROWS[3], TRAIN_ROWS[1]]) == expected


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_an_embedding_is_the_mean_over_frames_and_last_hidden_layers_at_unit_length(norm, n_layers):
    """By hand: what goes into the first layer and comes out of each, one clip at a time, without padding."""
    plain = tiny_hubert(norm)
    states = []
    hooks = [plain.encoder.layers[0].register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))]
    for layer in plain.encoder.layers:
        hooks.append(layer.register_forward_hook(
            lambda module, inputs, output: states.append(output[0] if isinstance(output, tuple) else output)
        ))  # fmt: skip
    waveforms = clips([5_000, 9_000, 7_777])
    expected = []
    for waveform in waveforms:
        states.clear()
        values = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        with torch.inference_mode():
            plain(torch.from_numpy(values.astype(np.float32))[None])
        assert len(states) == 3
        mean = np.mean([state[0].double().numpy().mean(axis=0) for state in states[-n_layers:]], axis=0)
        expected.append(mean / math.sqrt((mean**2).sum()))
    model = speaker.model(_padding_invariant(tiny_hubert(norm)), TRAIN_ROWS, {"embedding_layers": n_layers}).eval()
    with torch.inference_mode():
        found = model.predict(collate(waveforms, EXTRACTOR)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.astype(float), axis=1), 1, atol=1e-6)


def test_more_embedding_layers_than_the_encoder_has_are_refused(encoder):
    assert model_of(encoder, 3)
    with pytest.raises(InputError, match="Parameter 'embedding_layers' is 4, but this encoder has only 3 layers"):
        model_of(encoder, 4)


# --- A training, on speakers with resonances of their own


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Table and store: language xx, where 8 speakers per gender are for training and 4 for tests, and yy, for tests.

    A speaker is a resonance between 400 and 3200 Hz; the pitch, a whistle and noise come with the clip.
    """
    import soundfile

    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    rows = []
    for language, n_train, n_test, n_clips in (("xx", 8, 4, 8), ("yy", 0, 2, 3)):
        for gender, pitch_hz in (("female", 200), ("male", 110)):
            resonances_hz = rng.permutation(400 * 2 ** np.linspace(0, 3, n_train + n_test))
            for number, resonance_hz in enumerate(resonances_hz):
                for clip in range(n_clips):
                    t = np.arange(int(16_000 * rng.uniform(0.4, 0.6))) / 16_000
                    harmonics_hz = pitch_hz * rng.uniform(0.8, 1.25) * np.arange(1, 25)[:, None]
                    x = np.sin(2 * np.pi * harmonics_hz * t) * np.exp(-2 * abs(np.log2(harmonics_hz / resonance_hz)))
                    x = x.sum(0) / x.sum(0).std()
                    x += 0.5 * rng.uniform() * np.sin(2 * np.pi * rng.uniform(200, 5000) * t)
                    x += 0.15 * rng.uniform() * rng.standard_normal(len(t))
                    name = f"{gender[0]}{number}_{clip}"
                    soundfile.write(folder / f"{language}_{name}.wav", 0.1 * x / np.abs(x).max(), 16_000)
                    rows.append(
                        {
                            "utterance_id": f"{language}/{name}", "path": str(folder / f"{language}_{name}.wav"),
                            "language": language, "speaker": f"{language}_{gender[0]}{number}", "gender": gender,
                            "split": "train" if number < n_train else "test", "duration_s": len(t) / 16_000,
                        }
                    )  # fmt: skip
    table = pd.DataFrame(rows)
    return table, pack(table, folder / "store", n_workers=1, min_seconds=0.3)


CONFIG = {"learning_rate": 5e-4, "batch_size": 1, "precision": "float32", "embedding_layers": 2}


def run(corpus, encoder, seed=0, n=None, **config):
    table, store = corpus
    ids = table[table["split"] == "train"]["utterance_id"]
    train = tuple(ids if n is None else ids[:: len(ids) // n])
    tests = {i: tuple(of["utterance_id"]) for i, of in table[table["split"] == "test"].groupby("language")}
    rows = table.set_index("utterance_id")[["language", "speaker", "gender"]].to_dict("index")
    training = Training("speaker", train, tests, seed, {**CONFIG, **config}, "xx")
    return run_training(training, store, rows, encoder)


def test_an_easy_difference_between_speakers_is_learned(corpus, encoder):
    """Of 16 speakers, on others; one epoch of 128 clips. Untrained 0.63, trained 0.81 and 0.75."""
    untrained = run(corpus, encoder, learning_rate=0.0, batch_size=32)["xx"]
    for seed in (0, 1):
        trained = run(corpus, encoder, seed)["xx"]
        assert trained["auc"] > untrained["auc"] + 0.06 and trained["auc_centred"] > untrained["auc_centred"] + 0.06
        assert trained["eer"] < untrained["eer"] - 0.04


def test_the_same_training_gives_the_same_digits_whatever_ran_before(corpus, encoder):
    first = run(corpus, encoder, n=16, keep_embeddings={"xx": 4})
    assert run(corpus, encoder, seed=1, n=16, keep_embeddings={"xx": 4}) != first
    torch.manual_seed(123)
    assert run(corpus, encoder, n=16, keep_embeddings={"xx": 4}) == first


def test_results_of_a_training_are_plain_numbers_of_both_languages(corpus, encoder, tmp_path):
    results = run(corpus, encoder, n=16, batch_size=4, keep_embeddings={"xx": 3, "yy": 3})
    assert list(results) == ["xx", "yy"]
    assert list(results["xx"]) == ["auc", "eer", "n", "auc_centred", "eer_centred", "embeddings"]
    assert list(results["yy"]) == ["auc", "eer", "n", "embeddings"]  # no clip of yy was trained on
    assert results["xx"]["n"] == 2 * 2 * 4 * 28 and results["yy"]["n"] == 2 * 2 * 2 * 3
    training = Training("speaker", ("xx/f0_0",), {}, 0)
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        assert store.add(training, results, 1.0, "2026-01-01T00:00:00+00:00") == results
        assert store.finished([training.key])[training.key] == results


def test_embeddings_do_not_depend_on_the_other_clips_of_the_batch(corpus, encoder):
    table, store = corpus
    model = model_of(encoder, 2)
    ids = table["utterance_id"].iloc[::13].tolist()
    together = finetune.predict(model, ids, store, encoder)
    for utterance, vector in zip(ids, together, strict=True):
        np.testing.assert_allclose(finetune.predict(model, [utterance], store, encoder)[0], vector, atol=1e-5)
    assert len({len(store.waveform(u)) for u in ids}) > 10 and np.ptp(together, axis=0).max() > 1e-3


def test_divergence_is_an_error_not_a_data_point(corpus, encoder):
    with pytest.raises(InputError, match=r"'xx' diverged|identical after training 'xx'"):
        run(corpus, encoder, n=16, learning_rate=1e30)


def test_embedding_layers_reach_the_training(corpus, encoder):
    results = [
        run(corpus, encoder, n=8, embedding_layers=k, keep_embeddings={"xx": 1})["xx"]["embeddings"] for k in (1, 2, 3)
    ]
    assert results[0]["ids"] == results[1]["ids"] and len({result["float16"] for result in results}) == 3
    with pytest.raises(InputError, match="'embedding_layers' is 9"):
        run(corpus, encoder, n=8, embedding_layers=9)
