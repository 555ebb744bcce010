"""Speech recognition as a task: decoding, error rates, the key of a training, a frozen encoder, levels of data."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from figure_checks import assert_legible, texts

from cltmlib import cltm, ctc, figures, finetune, frozen, params, planning, resource_levels, subsets, sweep, tasks, wer
from cltmlib.audio import pack
from cltmlib.encoders import Encoder, _padding_invariant, collate, encode
from cltmlib.errors import InputError
from cltmlib.finetune import run_training
from cltmlib.subsets import ByUtterance, Prepared, halves
from cltmlib.sweep.plan import Training
from cltmlib.tasks import recognition
from cltmlib.testing import sine_utterance, utterance_rows
from tests.test_encoders import EXTRACTOR, tiny_hubert

SMOKE = params.read_profile("smoke", "07_asr_cltm")


def frames(n_frames, n_symbols, seed):
    return torch.randn(n_frames, n_symbols, generator=torch.Generator().manual_seed(seed)).log_softmax(-1).numpy()


# Error rates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("references", "hypotheses", "language", "wer", "cer"),
    [
        (["dos dies"], ["dos dies"], "ca", 0, 0),
        (["dos dies"], [""], "ca", 1, 1),
        (["Dos dies!"], ["dos dia"], "ca", 1 / 2, 2 / 7),  # e -> a and the last s
        (["a b", ""], ["a b", "c d e"], "ca", 3 / 2, 3 / 2),  # an empty reference: every word is an insertion
        (["二十 日"], ["二日"], "zh-CN", 1 / 3, 1 / 3),  # no words there: characters, without spaces
    ],
)
def test_error_rates_are_those_counted_by_hand(references, hypotheses, language, wer, cer):
    found = recognition.error_rates(references, hypotheses, language)
    assert found == pytest.approx({"wer": wer, "cer": cer})


def test_only_empty_references_have_no_error_rate():
    with pytest.raises(InputError, match="references of all 2 utterances are empty"):
        recognition.error_rates(["", "!"], ["a", ""], "ca")


# Decoding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_greedy_decoding_is_that_of_transformers(seed, tmp_path):
    import json

    from transformers import Wav2Vec2CTCTokenizer

    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, **{c: k for k, c in enumerate("abcde", start=1)}}))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), pad_token="<pad>", word_delimiter_token=None)
    log_probs = frames(40, 6, seed)
    ours = "".join("abcde"[k - 1] for k in ctc.greedy(log_probs))
    assert ours == tokenizer.decode(log_probs.argmax(-1).tolist(), group_tokens=True).replace(" ", "")


def probability_of(sequence, log_probs):
    """By the forward algorithm of torch."""
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs)[:, None], torch.tensor([sequence], dtype=torch.long),
        torch.tensor([len(log_probs)]), torch.tensor([len(sequence)]), reduction="sum",
    )  # fmt: skip
    return -float(loss)


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_likeliest_sequence_of_all(seed):
    log_probs = frames(4, 3, seed)
    every = [s for n in range(5) for s in itertools.product((1, 2), repeat=n)]
    scores = {s: probability_of(s, log_probs) for s in every}
    assert tuple(ctc.beam_search(log_probs, width=len(every))) == max(scores, key=scores.get)


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_with_an_ngram_maximises_the_sum_of_both_scores(seed):
    log_probs, model = frames(4, 3, seed), ctc.NGram([[1, 2, 2], [2, 1]], order=2, n_symbols=2)
    every = [s for n in range(5) for s in itertools.product((1, 2), repeat=n)]
    scores = {s: probability_of(s, log_probs) + sum(model.score(s[:k], s[k]) for k in range(len(s))) for s in every}
    assert tuple(ctc.beam_search(log_probs, width=99, score=model.score)) == max(scores, key=scores.get)


def test_the_probability_of_a_sequence_is_the_sum_over_its_paths():
    log_probs = frames(5, 3, 0)
    paths = itertools.product(range(3), repeat=5)
    total = sum(math.exp(sum(log_probs[range(5), path])) for path in paths if _merged(path) == (1, 2))
    assert math.exp(probability_of((1, 2), log_probs)) == pytest.approx(total, rel=1e-4)


def _merged(path):
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_that_of_transformers(seed, encoder, monkeypatch):
    from transformers import HubertForCTC

    config = tiny_hubert("group").config
    config.update({"vocab_size": 5, "pad_token_id": 0, "ctc_loss_reduction": "mean"})
    torch.manual_seed(seed)
    theirs = HubertForCTC(config).eval()
    waveforms, labels = torch.randn(2, 8000), torch.tensor([[1, 2, 2], [3, 4, -100]])
    with torch.no_grad():
        expected = theirs(waveforms, labels=labels)
    ours = recognition.Recogniser(encoder.fresh_model(), CHARACTERS, frozen=False)
    log_probs = expected.logits.log_softmax(-1)
    monkeypatch.setattr(ours, "forward", lambda batch: (log_probs, torch.full((2,), log_probs.shape[1])))
    ours.index = {"a": 1, "b": 2, "c": 3, "d": 4}
    assert float(ours.loss(None, [{"sentence": "abb"}, {"sentence": "cd"}])) == pytest.approx(
        float(expected.loss), rel=1e-5
    )


def test_the_loss_is_computed_on_the_cpu_and_comes_back_to_where_the_model_is(encoder, monkeypatch):
    """Scaling of float16 works on the device of the loss; "meta" stands for a GPU."""

    class Elsewhere:
        device, cpu = torch.device("meta"), staticmethod(lambda: torch.zeros(1, 9, 5).log_softmax(-1))

    ours = recognition.Recogniser(encoder.fresh_model(), CHARACTERS, frozen=False)
    monkeypatch.setattr(ours, "forward", lambda batch: (Elsewhere(), torch.tensor([9])))
    assert ours.loss(None, [{"sentence": "abc"}]).device.type == "meta"


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_of_an_ngram_sum_to_one_after_any_history(order):
    model = ctc.NGram([[1, 2, 3, 1], [3, 3]], order, n_symbols=4)
    for history in [(), (1,), (4, 4), (1, 2, 3), (3, 3, 3)]:
        assert sum(math.exp(model.log_probability(history, k)) for k in range(1, 5)) == pytest.approx(1)


# The model -----------------------------------------------------------------------------------------------------------

CHARACTERS = " abc"


@pytest.fixture(scope="module")
def encoder():
    return Encoder("tiny", _padding_invariant(tiny_hubert("group")), EXTRACTOR, "tiny@0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two languages; a clip's transcript names its pitch, so that there is something to learn."""
    import soundfile

    folder = tmp_path_factory.mktemp("clips")
    table = utterance_rows(["ca", "ru"], n_speakers=3, n_clips=4, splits=("train", "test"))
    table["path"] = [str(folder / f"{k}.wav") for k in range(len(table))]
    table["sentence"] = ["a b" if k % 2 else "c" for k in range(len(table))]
    for k, path in enumerate(table["path"]):
        soundfile.write(path, sine_utterance(0.4 + 0.02 * (k % 7), 240.0 if k % 2 else 110.0, seed=k), 16_000)
    table["duration_s"] = np.nan
    store = pack(table, folder / "store", n_workers=1, min_seconds=0.25)
    design = ByUtterance(None, 6, {"ru": 8})
    sets = design.curves(table, ["ca", "ru"], [4, 8, 16], [0, 1])
    return Prepared(store, sets, design.tests(table, ["ca", "ru"]), table.set_index("utterance_id"), pd.DataFrame())


CONFIG = {
    "learning_rate": 1e-3, "head_learning_rate": 1e-2, "batch_size": 4, "precision": "float32", "epochs": 2,
    "vocabulary": CHARACTERS, "trained": "head", "ngram_order": 2,
}  # fmt: skip


def training(data, n=8, seed=0, **changes):
    return Training(
        "recognition", data.subsets[0]["ca"][n], {"ca": data.tests["ca"]}, seed, {**CONFIG, **changes}, "ca"
    )


def run(data, encoder, **changes):
    rows = data.utterances.to_dict("index")
    return run_training(training(data, **changes), data.store, rows, encoder)["ca"]


def batch_of(data, encoder, ids):
    return collate([data.store.waveform(u) for u in ids], encoder.feature_extractor)


@pytest.mark.parametrize("trained", ["head", "all"])
def test_loss_is_the_ctc_loss_of_each_clip_alone(data, encoder, trained):
    """In a padded batch: the mean over clips of -log p(transcript) over its length."""
    torch.manual_seed(0)
    model = recognition.Recogniser(encoder.fresh_model(), CHARACTERS, trained == "head").eval()
    ids = list(data.subsets[0]["ca"][8])[:4]
    rows = [data.utterances.loc[u] for u in ids]

    def inputs(of):
        return finetune._inputs(model, of, data.store, encoder, "cpu")

    alone = []
    for u, row in zip(ids, rows, strict=True):
        log_probs, n_frames = model(inputs([u]))
        target = model.symbols(row["sentence"])
        alone.append(-probability_of(target, log_probs[0, : n_frames[0]].detach().numpy()) / len(target))
    assert float(model.loss(inputs(ids), rows).detach()) == pytest.approx(np.mean(alone), rel=1e-3)


def test_predictions_of_a_padded_batch_are_those_of_the_clips_alone(data, encoder):
    torch.manual_seed(0)
    model = recognition.Recogniser(encoder.fresh_model(), CHARACTERS, frozen=False).eval()
    ids = list(data.tests["ca"])[:5]
    with torch.no_grad():
        together = model.predict(batch_of(data, encoder, ids)).numpy()
        for row, u in zip(together, ids, strict=True):
            alone = model.predict(batch_of(data, encoder, [u])).numpy()[0]
            np.testing.assert_allclose(row[: len(alone)], alone, atol=1e-3)
            assert (row[len(alone) :].argmax(-1) == 0).all() and np.isfinite(row).all()


def test_a_transcript_longer_than_its_clip_adds_nothing(data, encoder):
    model = recognition.Recogniser(encoder.fresh_model(), CHARACTERS, frozen=False).eval()
    batch = batch_of(data, encoder, list(data.tests["ca"])[:1])
    assert float(model.loss(batch, [{"sentence": "abc" * 99}])) == 0.0


def test_a_head_on_a_frozen_encoder_learns_and_leaves_the_encoder_as_it_was(data, encoder):
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    first, last = (run(data, encoder, n=16, epochs=epochs)["cer"] for epochs in (1, 40))
    assert last < 0.2 < first
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())
    torch.manual_seed(0)
    model = recognition.model(encoder.fresh_model(), [], CONFIG)
    finetune._train(model.train(), training(data), data.store, data.utterances.to_dict("index"), encoder, "cpu")
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())


def test_a_training_is_repeatable_whatever_features_are_kept(data, encoder, monkeypatch):
    frozen._kept.clear()
    first = run(data, encoder)
    assert run(data, encoder) == first and frozen._kept
    frozen._kept.clear()
    monkeypatch.setattr(frozen, "MOST_BYTES", 1)  # nothing is kept but the last clip
    assert run(data, encoder) == first and len(frozen._kept) == 1
    frozen._kept.clear()
    frozen._n_bytes["kept"] = 0


def test_features_are_computed_once_per_clip(data, encoder, monkeypatch):
    frozen._kept.clear()
    seen = []
    monkeypatch.setattr(frozen, "encode", lambda model, batch, **o: seen.append(1) or encode(model, batch, **o))
    run(data, encoder, epochs=3)
    assert len(seen) == 8 + len(data.tests["ca"])


def test_features_are_kept_per_device(data, encoder):
    frozen._kept.clear()
    frozen.FrozenFeatures(encoder.fresh_model()).means(list(data.tests["ca"])[:1], data.store, EXTRACTOR)
    ((_, device, _),) = frozen._kept
    assert device == "cpu"


def test_a_clip_whose_features_do_not_fit_into_float16_is_named(data, encoder, monkeypatch):
    frozen._kept.clear()

    def too_large(model, batch, **options):
        output, mask = encode(model, batch, **options)
        output.hidden_states = tuple(hidden + 1e6 for hidden in output.hidden_states)
        return output, mask

    monkeypatch.setattr(frozen, "encode", too_large)
    clip = min(data.tests["ca"])
    with pytest.raises(InputError, match=f"Clip '{clip}': the encoder's features are not finite, or too large"):
        frozen.FrozenFeatures(encoder.fresh_model()).means([clip], data.store, EXTRACTOR)
    assert not frozen._kept


def test_other_weights_have_other_features(data):
    ids = list(data.tests["ca"])[:2]
    found = []
    for scale in (1.0, 2.0):
        model = _padding_invariant(tiny_hubert("group"))
        with torch.no_grad():
            model.encoder.layers[0].attention.out_proj.bias.add_(scale * torch.arange(32.0))
        features = frozen.FrozenFeatures(model)
        found.append(features.means(ids, data.store, EXTRACTOR))
    assert found[0].shape[0] == 2 and not np.allclose(*found)


def test_with_an_ngram_both_decodings_are_scored_and_without_one_only_greedy(data, encoder):
    both, greedy = run(data, encoder), run(data, encoder, ngram_order=None)
    assert both.keys() - greedy.keys() == {"wer_ngram", "cer_ngram"}
    assert {name: both[name] for name in greedy} == greedy
    assert greedy["accuracy"] == 1 - greedy["wer"] and greedy["n"] == 6


def test_more_epochs_of_another_task_would_begin_with_the_same_one(data, encoder):
    """The order of the first pass is that of a training with one pass: keys of older trainings keep their results."""
    orders = []

    class Recorder(torch.nn.Linear):
        def loss(self, batch, rows):
            orders[-1].append(tuple(row["name"] for row in rows))
            return self.weight.sum()

    rows = {u: {"name": u} for u in data.utterances.index}
    for changes in ({}, {"epochs": 1}, {"epochs": 3}):
        config = {"learning_rate": 0.1, "batch_size": 4, "precision": "float32", **changes}
        orders.append([])
        one = Training("recognition", data.subsets[0]["ca"][8], {}, 5, config)
        finetune._train(Recorder(1, 1), one, data.store, rows, encoder, "cpu")
    assert orders[0] == orders[1] == orders[2][:2] and len(orders[2]) == 6 and orders[2][2:4] != orders[2][:2]


# The key of a training -----------------------------------------------------------------------------------------------


@pytest.fixture
def worker(data, encoder, monkeypatch):
    monkeypatch.setattr(finetune, "_encoder", lambda name, revision: encoder)
    given = {"encoder": "tiny", "encoder_revision": None, "device": "cpu", **CONFIG}
    return lambda **changes: finetune.Worker("recognition", data, {**given, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"vocabulary": "abcd "}, {"epochs": 3}, {"trained": "all"}, {"head_learning_rate": 0.5}, {"ngram_order": None}],
    ids=lambda changes: next(iter(changes)),
)
def test_the_key_holds_everything_that_decides_the_result(worker, data, changes):
    def key(**changed):
        config = worker(**changed).config
        ids = data.subsets[0]["ca"][4]
        return sweep.plan_training("recognition", ids, {"ca": data.tests["ca"]}, 0, config, "").key

    assert key() == key() != key(**changes)


def test_the_key_holds_the_normalisation_and_the_constants_of_decoding(worker, data):
    decoding = [ctc.BEAM_WIDTH, ctc.LEAST_PROBABILITY, ctc.LM_WEIGHT, ctc.SYMBOL_BONUS]
    assert worker().config(data.subsets[0]["ca"][4])["task_version"] == [1, wer.NORMALISER, decoding]


def test_the_key_holds_the_transcripts(worker, data, monkeypatch):
    ids = data.subsets[0]["ca"][4]
    before = worker().config(ids)
    monkeypatch.setitem(data.__dict__, "utterances", data.utterances.assign(sentence="b"))
    assert worker().config(ids)["labels"] != before["labels"]


def test_a_clip_without_transcript_is_named(worker, data, monkeypatch):
    table = data.utterances.copy()
    table.iloc[3, table.columns.get_loc("sentence")] = None
    monkeypatch.setitem(data.__dict__, "utterances", table)
    with pytest.raises(InputError, match=f"Clip '{table.index[3]}' has no sentence, which task 'recognition' needs"):
        worker()


def test_a_character_that_the_vocabulary_lacks_is_named(data, encoder):
    with pytest.raises(InputError, match="vocabulary has no 'c', which the 'ca' training transcript 'c' holds"):
        run(data, encoder, vocabulary=" ab")


def test_the_vocabulary_is_that_of_the_training_transcripts(data):
    assert recognition.vocabulary(resource_levels.training_transcripts(data)) == CHARACTERS
    tested = data.utterances["split"] == "test"
    odd = data.utterances.assign(sentence=data.utterances["sentence"].where(~tested, "xyz"))
    others = Prepared(data.store, data.subsets, data.tests, odd, pd.DataFrame())
    assert recognition.vocabulary(resource_levels.training_transcripts(others)) == CHARACTERS
    with pytest.raises(InputError, match="2 training transcripts hold no letter"):
        recognition.vocabulary(["?", ""])


def test_the_task_has_what_the_training_loop_reads():
    assert tasks.task("recognition") is recognition and "recognition" in tasks.NAMES


# Sets ----------------------------------------------------------------------------------------------------------------

ROWS = utterance_rows(["ca", "ru", "tr"], n_speakers=6, n_clips=4)


@pytest.mark.parametrize("n_samples", [4, 8, 12])
def test_sets_are_disjoint_in_speakers_and_no_gender_is_needed(n_samples):
    table = ROWS.assign(gender=None)
    speaker = table.set_index("utterance_id")["speaker"]
    design = ByUtterance(max_test_samples=7)
    tests = design.tests(table, ["ca", "ru", "tr"])
    for of_seed in design.subsets(table, ["ca", "ru", "tr"], n_samples, [0, 1]).values():
        for language, parts in of_seed.items():
            assert [len(part) for part in parts] == [n_samples] * 2 and len(tests[language]) == 7
            groups = [set(speaker[list(ids)]) for ids in (*parts, tests[language])]
            assert all(a.isdisjoint(b) for a, b in itertools.combinations(groups, 2))
            assert {u.split("/")[0] for part in parts for u in part} == {language}
            counts = speaker[list(parts.first)].value_counts()
            assert counts.min() == counts.max()  # in equal shares


def test_larger_sets_hold_the_smaller_and_halves_finds_both_halves():
    design = ByUtterance(most={"tr": 12})
    sets = design.curves(ROWS, ["ca", "tr"], [6, 12, 24], [0, 1])
    speaker = ROWS.set_index("utterance_id")["speaker"]
    for of in sets.values():
        assert list(of["ca"]) == [6, 12, 24] and list(of["tr"]) == [6, 12]
        assert set(of["ca"][6]) < set(of["ca"][12]) < set(of["ca"][24])
    for seed, of in halves(sets, 6).items():
        for language, (first, second) in of.items():
            assert sorted((*first, *second)) == sorted(sets[seed][language][12]) and len(first) == len(second) == 6
            assert set(speaker[list(first)]).isdisjoint(speaker[list(second)])
    with pytest.raises(InputError, match="'tr' has no set of 24 clips"):
        halves(sets, 12)


def test_too_little_data_names_the_language():
    few = ROWS[(ROWS["language"] != "ru") | (ROWS["split"] != "train") | ROWS["speaker"].str.endswith("0")]
    with pytest.raises(InputError, match="'ru' has too little data for n_samples=24"):
        ByUtterance().curves(few, ["ca", "ru"], [6, 12, 24], [0])
    assert ByUtterance(most={"ru": 4}).curves(few, ["ca", "ru"], [4, 8], [0])[0]["ru"].keys() == {4}


def speakers_with(**n_clips):
    """Language -> the train clips of each of its speakers."""
    rows = [
        {"utterance_id": f"{i}/{s}/{k}", "language": i, "speaker": f"{i}{s}", "split": "train"}
        for i, counts in n_clips.items()
        for s, count in enumerate(counts)
        for k in range(count)
    ]
    return pd.DataFrame(rows)


def test_clips_per_speaker_are_the_fewest_that_all_languages_can_serve_together():
    # ca needs all of its 4 speakers for 16 clips; ru could do with fewer clips of each of its 8
    table = speakers_with(ca=[6] * 4, ru=[6] * 8)
    design = ByUtterance(most={"ru": 8})
    sets = design.curves(table, ["ca", "ru"], [4, 8, 16], [0])[0]
    speaker = table.set_index("utterance_id")["speaker"]
    assert {tuple(speaker[list(ids)].value_counts().unique()) for of in sets.values() for ids in of.values()} == {(4,)}
    # alone, ru would take 1 clip of each of 8 speakers; with the 2 that ca needs it has too few: 4 serves both
    table = speakers_with(ca=[2] * 8 + [4] * 4, ru=[1] * 8 + [4] * 2)
    sets = ByUtterance(most={"ru": 8}).curves(table, ["ca", "ru"], [4, 8, 16], [0])[0]
    speaker = table.set_index("utterance_id")["speaker"]
    assert {tuple(speaker[list(ids)].value_counts().unique()) for of in sets.values() for ids in of.values()} == {(4,)}


def test_no_message_blames_clips_per_speaker_that_nobody_gave():
    apart = speakers_with(ca=[1] * 16, ru=[4] * 2)  # either can, but not with the same number
    with pytest.raises(InputError, match="Language 'ru' has too little data for a set of 8 clips") as found:
        ByUtterance(most={"ru": 8}).curves(apart, ["ca", "ru"], [4, 8, 16], [0])
    assert "with 1 it needs 8 speakers, and 2 of its train split have so many" in str(found.value)
    odd = speakers_with(ca=[1] * 18, ru=[4] * 2)  # ru alone could give 4 of each, which does not divide 18
    with pytest.raises(InputError) as found_odd:
        ByUtterance(most={"ru": 8}).curves(odd, ["ca", "ru"], [4, 8, 18], [0])
    with pytest.raises(InputError, match="n_samples=0, 4: give sizes of at least 1") as found_none:
        ByUtterance().curves(apart, ["ca"], [0, 4], [0])
    assert all("samples_per_speaker" not in str(error.value) for error in (found, found_odd, found_none))


# Levels of data ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def levels(data):
    return resource_levels.plan("recognition", data, 4, ["ru"], ["ca"], {})


def test_levels_share_the_trainings_of_the_matrix_and_give_both_directions(data, levels):
    matrix = sweep.cltm_plan("recognition", halves(data.subsets, 4), data.tests, [0, 1], {})
    pairs = {cell.training.key for cell in matrix.cells if cell.donor not in ("", cell.target)}
    at_n = {level.together.key for level in levels if level.own == level.given}
    assert at_n == pairs and len(levels) == 2 * 2 * 3  # seeds, directions, sizes of ca
    for level in levels:
        assert len(level.together.train) == level.own + level.given and len(level.alone.train) == level.own
        assert set(level.alone.train) < set(level.together.train)
        assert set(level.together.test) == {"ca", "ru"} and set(level.alone.test) == {level.target}


def test_gains_and_comparisons_are_those_counted_by_hand(levels):
    def result(training):  # a language's performance: its own clips / 100, and a tenth of a donor's
        own = {i: sum(u.startswith(i) for u in training.train) for i in training.test}
        noise = training.seed * 1e-3 * (own.get("ru") == 4 and len(training.train) > 16)  # in ru(4) + ca(16) alone
        return {i: {"accuracy": own[i] / 100 + (len(training.train) - own[i]) / 1000 + noise} for i in training.test}

    results = {t.key: result(t) for level in levels for t in (level.alone, level.together)}
    gains = resource_levels.gain_table(levels, results, "accuracy")
    noise = gains["seed"] * 1e-3 * (gains["own"] + gains["given"] == 20)
    np.testing.assert_allclose(gains["gain"], gains["given"] / 1000 + noise)
    np.testing.assert_allclose(gains["share"], gains["gain"] / (1 - gains["own"] / 100))
    errors = {key: {i: {"cer": 1 - of["accuracy"]} for i, of in result.items()} for key, result in results.items()}
    np.testing.assert_allclose(resource_levels.gain_table(levels, errors, "cer")["gain"], gains["gain"])
    table = resource_levels.comparisons(
        gains, ["ru"], ["ca"], {"ca": "Romance", "ru": "Slavic"}, {"ca": "LATIN", "ru": "CYRILLIC"}
    )
    first, grown = table.iloc[0], table.iloc[4]  # ru(4) from ca(16): 0.016 and 0.017 in the two seeds
    np.testing.assert_allclose(first[["first", "second", "difference"]].astype(float), [0.0165, 0.0045, 0.012])
    assert np.isnan(first["lower"]) and not first["told_apart"]  # both seeds say 0.012: no spread to go by
    half = 12.706204736 * 0.0005  # Student's t with one degree of freedom; standard error of 0.012 and 0.013
    np.testing.assert_allclose(grown[["lower", "upper"]].astype(float), [0.0125 - half, 0.0125 + half], rtol=1e-6)
    assert grown["told_apart"]
    both = pd.concat({"wer": table, "cer": table})
    words = resource_levels.answer(table, both, {"ca": "LATIN", "ru": "CYRILLIC"}).splitlines()
    assert "difference +0.012 in all 2 seeds: not told apart" in words[1]
    assert "difference +0.013 [+0.006, +0.019] over 2 seeds: the first gain more" in words[5]
    assert words[-2].endswith("pairs of both kinds are not here.")
    n, n_apart = 2 * table["lower"].notna().sum(), 2 * table["told_apart"].sum()
    assert 0 < n_apart < n and words[-1] == (
        f"Intervals are over seeds, in these 2 languages; of all rates together {n_apart} of {n}, not corrected for "
        "their number, exclude zero."
    )
    figure = figures.resource_gains(gains, ["ru"], ["ca"], "1 - WER")
    assert_legible(figure)
    lines = [container.lines[0].get_ydata().tolist() for axes in figure.axes for container in axes.containers]
    np.testing.assert_allclose(lines, [[0.004, 0.008, 0.0165], [0.004, 0.004, 0.0045]])


def test_no_two_pairs_of_languages_look_the_same():
    low, high = [f"l{k}" for k in range(4)], [f"h{k}" for k in range(5)]
    rows = [(*pair, *sizes, s, 0.1) for i in low for j in high for s in (0, 1)
            for pair, sizes in (((i, j), (4, 8)), ((j, i), (8, 4)), ((i, j), (4, 4)), ((j, i), (4, 4)))]  # fmt: skip
    gains = pd.DataFrame(rows, columns=["target", "donor", "own", "given", "seed", "gain"])
    figure = figures.resource_gains(gains, low, high, "1 - WER")
    assert_legible(figure)
    for axes in figure.axes:
        drawn = {container.lines[0] for container in axes.containers}
        looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in drawn}
        assert len(drawn) == len(looks) == 20


def test_one_seed_has_no_interval():
    gains = pd.DataFrame(
        [
            ("ca", "es", 4, 8, 0, 0.3),
            ("es", "ca", 8, 4, 0, 0.1),
            ("ca", "es", 4, 4, 0, 0.2),
            ("es", "ca", 4, 4, 0, 0.2),
        ],
        columns=["target", "donor", "own", "given", "seed", "gain"],
    ).assign(share=0.0)
    table = resource_levels.comparisons(gains, ["ca"], ["es"], {"ca": "R", "es": "R"}, {"ca": "L", "es": "L"})
    assert np.isnan(table["lower"]).all() and not table["told_apart"].any()
    words = resource_levels.answer(table, table, {"ca": "LATIN", "es": "LATIN"})
    assert "difference +0.200 in one seed: not told apart" in words and "together 0 of 0, not corrected" in words


def test_the_answer_says_how_few_pairs_a_claim_on_scripts_rests_on():
    scripts = {"ca": "LATIN", "es": "LATIN", "pl": "LATIN", "ru": "CYRILLIC", "ky": "CYRILLIC", "ug": "ARABIC"}
    rows = [(i, j, 4, 4, seed, 0.1 + 0.01 * seed) for i in scripts for j in scripts if i != j for seed in (0, 1)]
    gains = pd.DataFrame(rows, columns=["target", "donor", "own", "given", "seed", "gain"]).assign(share=0.0)
    gains["gain"] += 0.1 * (gains["target"].map(scripts) == gains["donor"].map(scripts)) * (1 + 0.1 * gains["seed"])
    table = resource_levels.comparisons(gains, ["ca"], ["es"], dict.fromkeys(scripts, "R"), scripts)
    (line,) = [line for line in resource_levels.answer(table, table, scripts).splitlines() if "script" in line]
    assert line.endswith(
        "over 2 seeds: the first gain more (over seeds, in these 6 languages; with 3 Latin pairs and 1 Cyrillic pair "
        "it cannot be generalised to scripts)."
    )


@pytest.mark.parametrize("n_seeds", [2, 3])
def test_planned_work_is_that_of_the_trainings(n_seeds):
    languages, low, high = ["ca", "ru", "tr", "es"], ["ca"], ["es", "tr"]
    changes = {"languages": languages, "low_resource_languages": low, "high_resource_languages": high}
    changes |= {"recognition_n_samples": [2, 4, 8], "max_test_samples": 5, "seeds": list(range(n_seeds)), "epochs": 3}
    work = planning._WORK["07_asr_cltm"](params.resolve("07_asr_cltm", {**SMOKE, **changes}))
    table = utterance_rows(languages, n_speakers=6, n_clips=4)
    design = ByUtterance(None, 5, {"ca": 4, "ru": 4})
    sets, tests = design.curves(table, languages, [2, 4, 8], range(n_seeds)), design.tests(table, languages)
    drawn = Prepared(None, sets, tests, table.set_index("utterance_id"), pd.DataFrame())
    every = list(sweep.cltm_plan("recognition", halves(sets, 2), tests, range(n_seeds), {}).trainings)
    every += [point.training for point in sweep.curve_plan("recognition", sets, tests, {})]
    for level in resource_levels.plan("recognition", drawn, 2, low, high, {}):
        every += [level.alone, level.together]
    every += resource_levels.alone_plan("recognition", drawn, 2, low, {"trained": "all"}).values()
    every = {training.key: training for training in every}.values()
    n_evaluated = sum(len(ids) for training in every for ids in training.test.values())
    assert work.n_trainings == len(every) and work.n_evaluated == n_evaluated
    assert work.n_trained == 3 * sum(len(training.train) for training in every)


@pytest.mark.parametrize("trained", ["head", "all"])
def test_the_search_with_an_ngram_is_planned(trained):
    def work(**changes):
        return planning._WORK["07_asr_cltm"](params.resolve("07_asr_cltm", {**SMOKE, "trained": trained, **changes}))

    greedy = work(ngram_order=None)
    for kind, (step, test) in work().seconds_per_clip.items():
        assert (step, test - planning.NGRAM_SECONDS_PER_CLIP[kind]) == pytest.approx(greedy.seconds_per_clip[kind])
    assert "n-gram" in work().text and "n-gram" not in greedy.text


def test_a_long_clip_is_left_out_and_not_cut(monkeypatch):
    table = utterance_rows(["ca", "ru"], n_speakers=2, n_clips=2)
    table.loc[table.index[:2], "duration_s"] = [9.0, np.nan]
    table.loc[table.index[2], "sentence"] = "?!"
    from cltmlib import corpora

    dataset = corpora.from_rows(table)
    monkeypatch.setattr(corpora, "from_params", lambda *arguments, **options: dataset)
    found = resource_levels.corpus({"max_seconds": 4.0})
    left = set(table["utterance_id"]) - set(found["utterance_id"])
    assert left == set(table["utterance_id"].iloc[[0, 2]])
    reasons = corpora.dropped(found)["reason"].tolist()
    assert sorted(reasons) == ["longer than max_seconds (4 s)", "nothing said in its transcript"]
    with pytest.raises(InputError, match=r"'ca': none of its \d+ \w+ clips can be used \(longer than max_seconds"):
        resource_levels.corpus({"max_seconds": 0.01})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low_resource_languages": ["tr"]}, "'low_resource_languages' holds 'tr', which is not among 'languages'"),
        ({"high_resource_languages": ["ca"]}, "'ca' is both low- and high-resource"),
        ({"recognition_n_samples": [4, 6, 12]}, "must begin with N and hold 2N"),
        ({"recognition_n_samples": []}, "must begin with N and hold 2N"),
        ({"low_resource_languages": []}, "'low_resource_languages' is .*at least one language"),
        ({"trained": "some"}, "'trained' is 'some': it must be one of head, all"),
        ({"seeds": [0]}, "'seeds' of notebook 07_asr_cltm needs two or more"),
    ],
)
def test_parameters_that_do_not_fit_together_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        params.load("07_asr_cltm", {**SMOKE, **changes})


# The encoder's own representation ------------------------------------------------------------------------------------


def test_cka_of_unrelated_representations_is_near_zero_where_the_biased_one_is_near_one():
    rng = np.random.default_rng(0)
    found = [cltm.linear_cka(rng.normal(size=(20, 100)), rng.normal(size=(20, 100))) for _ in range(50)]
    assert abs(np.mean(found)) < 0.05


def test_cka_is_that_of_the_definition_by_sums_over_distinct_sentences():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    x, y = x - x.mean(0), y - y.mean(0)

    def hsic(a, b):
        """Song et al. 2012, as the mean over four distinct indices of the U-statistic's kernel."""
        k, m = a @ a.T, b @ b.T
        return np.mean([
            k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q]
            for i, j, q, r in itertools.permutations(range(6), 4)
        ])  # fmt: skip

    assert cltm.linear_cka(x, y) == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)))
    with pytest.raises(InputError, match="same 4 sentences or more twice, not 6 and 5"):
        cltm.linear_cka(x, y[:5])


def test_cka_compares_parallel_sentences_alone():
    rng = np.random.default_rng(2)
    one = rng.normal(size=(8, 3))
    embeddings = np.concatenate([one, one[::-1], rng.normal(size=(3, 3))])
    names = [f"s{k}" for k in range(8)]
    table = cltm.cka_matrix(embeddings, ["ca"] * 8 + ["es"] * 8 + ["tr"] * 3, [*names, *names[::-1], "x", "y", "z"])
    assert table.loc["ca", "es"] == pytest.approx(1) and np.isnan(table.loc["ca", "tr"])
    assert (np.diag(table) == 1).all()


def test_cka_is_computed_once_for_two_languages(monkeypatch):
    seen = []
    monkeypatch.setattr(cltm.similarity, "linear_cka", lambda x, y: seen.append(1) or float(len(seen)))
    names = [f"s{k}" for k in range(4)] * 3
    table = cltm.cka_matrix(np.eye(12), [i for i in ("ca", "es", "tr") for _ in range(4)], names)
    np.testing.assert_array_equal(table, [[1, 1, 2], [1, 1, 3], [2, 3, 1]])


def test_the_jackknife_interval_holds_the_estimate_and_is_open_with_few_languages():
    rng = np.random.default_rng(3)
    languages = list("abcdefg")
    position = rng.normal(size=(7, 2))
    distances = np.linalg.norm(position[:, None] - position[None], axis=-1)
    noise = rng.normal(size=(7, 7)) * 0.3
    tables = [pd.DataFrame(z, languages, languages) for z in (distances, 1 - distances + noise)]
    found = cltm.correlation_interval(*tables)
    assert found.lower < found.spearman < found.upper and (found.n_pairs, found.n_languages) == (21, 7)
    expected = cltm.distance_transfer_correlation(*tables).spearman
    assert found.spearman == pytest.approx(expected)
    few = cltm.correlation_interval(*(table.loc[list("abc"), list("abc")] for table in tables))
    assert np.isnan(few.lower) and few.n_languages == 3


def test_there_is_no_jackknife_interval_where_all_replicates_agree():
    languages = list("abcdef")
    distances = pd.DataFrame(np.abs(np.subtract.outer(*2 * [2.0 ** np.arange(6)])), languages, languages)
    found = cltm.correlation_interval(distances, 1 - distances / 32)
    assert found.spearman == pytest.approx(-1) and np.isnan(found.lower) and np.isnan(found.upper)


def test_similar_languages_that_transfer_more_correlate_positively_by_both_similarities():
    rng = np.random.default_rng(4)
    sentences, languages = rng.normal(size=(30, 8)), list("abcdef")
    noise = rng.normal(size=(6, 30, 8))
    shares = np.linspace(0.1, 1.2, 6)  # language a speaks most clearly, and lies nearest to the others
    layers = np.concatenate([sentences + s * e + 3 * s**2 for s, e in zip(shares, noise, strict=True)])[:, None]
    values = pd.DataFrame(2 - shares[:, None] - shares, languages, languages)
    values = values.mask(np.eye(6, dtype=bool), 1.0)
    ids = [f"s{k}" for k in range(30)] * 6
    names = [i for i in languages for _ in range(30)]
    table = cltm.layer_similarity(layers, names, ids, values)
    assert table.index.tolist() == [("centroid", 0), ("cka", 0)] and (table["n_pairs"] == 15).all()
    assert table.loc[("cka", 0), "spearman"] > 0.8 and (table["lower"] < table["spearman"]).all()
    assert (table["spearman"] < table["upper"]).all()
    apart = cltm.layer_similarity(layers, names, [f"{i}{k}" for i in languages for k in range(30)], values)
    assert np.isnan(apart.loc[("cka", 0), "spearman"])  # no parallel sentences


def test_three_tasks_stand_side_by_side_whether_or_not_the_others_were_run(tmp_path):
    values = pd.DataFrame([[1.0, 0.5], [0.4, 1.0]], ["ca", "es"], ["ca", "es"])
    ours = cltm.diagnostics(values, {"ca": "R", "es": "R"})
    cltm.beside_the_paper(ours, "gr_mhubert").to_csv(tmp_path / "diagnostics.csv")
    table = cltm.tasks_table(
        {"gender": tmp_path / "diagnostics.csv", "speaker": tmp_path / "none.csv", "recognition": ours}
    )
    for task in ("gender", "recognition"):
        np.testing.assert_allclose(table.loc[(task, "ours"), ours.index].astype(float), ours)
    assert table.loc[("speaker", "ours")].isna().all() and table.xs("published", level="source").notna().all(axis=None)
    figure = figures.tasks_side_by_side(table, {"rfd_1": "RFD_1", "prop_pos": "prop+"})
    assert_legible(figure)
    assert "Not run here, or without a positive self-gain: speaker." in " ".join(texts(figure, "note"))


def test_scripts_come_from_the_letters():
    table = pd.DataFrame({"language": ["ky", "tr", "tr", "ja"], "sentence": ["отуз", "otuz", "ИИ üç on beş", "!"]})
    assert resource_levels.scripts(table) == {"ky": "CYRILLIC", "tr": "LATIN", "ja": "UNKNOWN"}


def test_prepare_decodes_parallel_dev_clips_and_caps_the_sets(monkeypatch):
    table = utterance_rows(["ca", "es", "ru"], n_speakers=2, n_clips=3)
    table["sentence_id"] = [f"s{k % 12}" for k in range(len(table))]
    dev = resource_levels._dev_clips(table, 4)
    ids = dev.groupby("language")["sentence_id"].agg(frozenset)
    assert len(set(ids)) == 1 and dev.groupby("language").size().eq(4).all() and set(dev["split"]) == {"dev"}
    seen = {}

    def prepared(*arguments, also, **options):
        seen.update(design=arguments[5], also=also)
        return Prepared(None, {}, {}, table.set_index("utterance_id"), pd.DataFrame())

    monkeypatch.setattr(subsets, "prepare", prepared)
    from cltmlib import corpora

    resource_levels.prepare(corpora.from_rows(table), params.load("07_asr_cltm", SMOKE), "nowhere")
    n = SMOKE["recognition_n_samples"][0]
    assert seen["design"].most == {"ca": 2 * n, "ru": 2 * n}
    assert seen["also"].groupby("language").size().eq(SMOKE["max_test_samples"]).all()


@pytest.mark.parametrize(("cap", "n_dev"), [(None, 200), (1000, 200), (5, 5)])
def test_languages_are_compared_by_so_many_dev_clips_at_most(monkeypatch, cap, n_dev):
    from cltmlib import corpora

    table = utterance_rows(["ca", "es", "ru"], n_speakers=10, n_clips=30, splits=("dev",))
    seen = {}

    def prepared(*arguments, also, **options):
        seen.update(also=also)
        return Prepared(None, {}, {}, also, pd.DataFrame())

    monkeypatch.setattr(subsets, "prepare", prepared)
    cfg = params.load("07_asr_cltm", {**SMOKE, "max_test_samples": cap})
    resource_levels.prepare(corpora.from_rows(table), cfg, "nowhere")
    assert seen["also"].groupby("language").size().tolist() == [n_dev] * 3


def test_a_language_without_dev_clips_is_named_before_anything_is_drawn(monkeypatch):
    from cltmlib import corpora

    table = utterance_rows(["ca", "es", "ru"], n_speakers=2, n_clips=3)
    few = table[(table["language"] != "es") | (table["split"] != "dev")]
    cfg, message = params.load("07_asr_cltm", SMOKE), "Language 'es' has no usable dev clip"
    monkeypatch.setattr(subsets, "prepare", None)
    with pytest.raises(InputError, match=message):
        resource_levels.prepare(corpora.from_rows(few.reset_index(drop=True)), cfg, "nowhere")
    left = Prepared(None, {}, {}, few, pd.DataFrame())  # all of them were found unusable
    monkeypatch.setattr(subsets, "prepare", lambda *arguments, **options: left)
    with pytest.raises(InputError, match=message):
        resource_levels.prepare(corpora.from_rows(table), cfg, "nowhere")


def test_a_small_synthetic_corpus_has_no_dev_clips_and_says_so(monkeypatch):
    monkeypatch.setattr(subsets, "prepare", None)
    cfg = params.load("07_asr_cltm", {**SMOKE, "speakers_per_language": 6, "utterances_per_speaker": 2})
    with pytest.raises(InputError, match=r"'ca' has no usable dev clip.*speakers_per_language of 8 or more"):
        resource_levels.prepare(resource_levels.corpus(cfg), cfg, "nowhere")


def test_the_representation_of_a_random_encoder_is_that_of_the_first_seed(data, encoder):
    from dataclasses import replace

    shown = replace(data, utterances=data.utterances.assign(split="dev").iloc[:3])
    random = replace(encoder, random_init=True)
    state = torch.random.get_rng_state()
    found = [resource_levels.representation(shown, random)[0] for _ in range(2)]
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(*found)
    torch.manual_seed(0)
    first = frozen.FrozenFeatures(random.fresh_model())
    np.testing.assert_array_equal(found[0], first.means(list(shown.utterances.index), shown.store, EXTRACTOR))
