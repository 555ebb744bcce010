"""One space for all languages: which trainings it takes, and what is read back of their results."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from cltmlib import common_space, sweep
from cltmlib.cltm import language_cost, mismatch_table, score_trials
from cltmlib.common_space import ALL, MOST_CLIPS, MOST_EMBEDDINGS, MOST_PEOPLE, SHARED
from cltmlib.corpora import COLUMNS, common_voice
from cltmlib.errors import InputError
from cltmlib.subsets import BySpeaker, Prepared, prepare
from cltmlib.tasks import speaker
from cltmlib.testing import break_clip, common_voice_folder, utterance_rows

LANGUAGES, SEEDS = ["de", "tr", "ca"], [5, 3]


def shared_rows(languages=("de", "tr"), n_speakers=3, n_clips=2):
    """People who speak all these languages, all in the test split."""
    rows = utterance_rows(languages, n_speakers, n_clips, splits=["test"])
    rows["utterance_id"] = rows["utterance_id"].str.replace("/", "/shared-")
    rows["speaker"] = rows["speaker"].str.split("_").str[-1]
    return rows


def prepared(shared, languages=LANGUAGES, seeds=SEEDS):
    """What `prepare` gives, without audio."""
    table = utterance_rows(languages, n_speakers=4, n_clips=3)
    design = BySpeaker(0.5)
    subsets, tests = design.subsets(table, languages, 4, seeds), design.tests(table, languages)
    rows = pd.concat([table, shared]).set_index("utterance_id")
    return Prepared(None, subsets, tests, rows, pd.DataFrame())


def config(ids):
    return {"learning_rate": 1e-4, "audio": sorted(ids)}


def plan_of(shared, decoded=None, **options):
    data = prepared(shared if decoded is None else decoded, **options)
    return data, common_space.plan(data, shared["utterance_id"], list(data.subsets), config)


# --- Who is compared


def test_people_are_cut_to_some_of_each_gender_and_some_clips_of_each_language():
    rows = shared_rows(["de", "tr"], n_speakers=30, n_clips=10)
    table = common_space.people(rows)
    kept = table.groupby(["gender", "speaker", "language"]).size()
    assert set(kept) == {MOST_CLIPS} == {8} and len(kept) == 2 * MOST_PEOPLE * 2 == 100
    pd.testing.assert_frame_equal(table, rows.loc[table.index])
    again = common_space.people(rows.sample(frac=1, random_state=0))
    assert set(again["utterance_id"]) == set(table["utterance_id"])
    fewer = rows[rows["speaker"] != table["speaker"].iloc[0]]  # another takes the place, all others stay
    assert len(set(common_space.people(fewer)["speaker"]) - set(table["speaker"])) == 1


def test_few_people_are_all_kept_but_for_those_without_one_gender():
    rows = shared_rows(n_speakers=4)
    pd.testing.assert_frame_equal(common_space.people(rows), rows)
    rows.loc[rows["speaker"] == "female2", "gender"] = None
    rows.loc[(rows["speaker"] == "male1") & (rows["language"] == "tr"), "gender"] = "female"
    kept = common_space.people(rows)
    pd.testing.assert_frame_equal(kept, rows[~rows["speaker"].isin(["female2", "male1"])])


def test_nobody_is_an_empty_table_and_too_few_are_one_sentence():
    rows = shared_rows()
    assert common_space.people(rows.iloc[:0]).empty
    for few, lack in (
        (rows[rows["gender"] == "male"], "has 0 female speakers"),
        (rows[~rows["speaker"].isin(["male0", "male2"])], "has 1 male speaker to test on"),
        (
            rows[(rows["language"] == "de") == (rows["speaker"].str[-1] == "0")],
            "has 3 female speakers, none of whom speaks two of the languages",
        ),
    ):
        with pytest.raises(InputError, match=lack) as caught:
            common_space.people(few)
        message = str(caught.value)
        assert "'de and tr'" in message and "\n" not in message
        assert message.endswith("Set shared_languages to others, or to null.")


# --- The plan


def test_one_training_of_all_languages_and_one_of_each_shared_language_per_seed():
    data, trainings = plan_of(shared_rows())
    models = [ALL, "de alone", "tr alone"]
    assert sorted(trainings) == sorted((model, seed) for model in models for seed in SEEDS)
    assert len({training.key for training in trainings.values()}) == 6
    for (model, seed), training in trainings.items():
        sets = data.subsets[seed]
        which = LANGUAGES if model == ALL else [model.split()[0]]
        assert training.train == tuple(sorted(u for language in which for u in sets[language].first))
        assert training.task == "speaker" and training.seed == seed
    assert len({training.label for training in trainings.values()}) == 6


def test_the_common_model_is_tested_on_all_and_the_others_on_the_shared_speakers_only():
    shared = shared_rows()
    data, trainings = plan_of(shared)
    clips = tuple(sorted(shared["utterance_id"]))
    for (model, _), training in trainings.items():
        expected = {SHARED: clips}
        if model == ALL:
            expected |= {language: data.tests[language] for language in LANGUAGES}
        assert dict(training.test) == expected


def test_keys_include_that_embeddings_are_kept_and_all_clips():
    data, trainings = plan_of(shared_rows())
    for training in trainings.values():
        assert training.config["keep_embeddings"] == {**dict.fromkeys(LANGUAGES, MOST_EMBEDDINGS), SHARED: None}
        assert training.config["learning_rate"] == 1e-4
        ids = [*training.train, *(u for names in training.test.values() for u in names)]
        assert training.config["audio"] == sorted(ids)
        without = {name: value for name, value in training.config.items() if name != "keep_embeddings"}
        assert dataclasses.replace(training, config=without).key != training.key
    matrix = sweep.cltm_plan("speaker", data.subsets, data.tests, SEEDS, config)
    assert not {t.key for t in matrix.trainings} & {t.key for t in trainings.values()}


def test_order_of_the_shared_clips_changes_no_key():
    shared = shared_rows()
    forward, backward = plan_of(shared)[1], plan_of(shared.iloc[::-1])[1]
    assert {name: t.key for name, t in forward.items()} == {name: t.key for name, t in backward.items()}


def test_shared_clips_that_were_not_decoded_are_left_out():
    shared = shared_rows()
    missing = ["de/shared-de_test_female1_0", "tr/shared-tr_test_male0_1"]
    decoded = shared[~shared["utterance_id"].isin(missing)]
    assert len(decoded) == len(shared) - 2
    _, trainings = plan_of(shared, decoded)
    for training in trainings.values():
        assert training.test[SHARED] == tuple(sorted(decoded["utterance_id"]))


@pytest.mark.parametrize("nothing_decoded", [False, True], ids=["nobody", "nothing decoded"])
def test_without_shared_speakers_there_is_only_the_common_model(nothing_decoded):
    shared = shared_rows() if nothing_decoded else shared_rows().iloc[:0]
    data, trainings = plan_of(shared, shared.iloc[:0])
    assert list(trainings) == [(ALL, seed) for seed in SEEDS]
    for training in trainings.values():
        assert dict(training.test) == data.tests


def test_a_language_outside_the_matrix_has_no_model_of_its_own():
    shared = shared_rows(["de", "sw"])
    _, trainings = plan_of(shared)
    assert {model for model, _ in trainings} == {ALL, "de alone"}
    assert all(len(training.test[SHARED]) == len(shared) for training in trainings.values())


# --- Results


def vectors_of(ids, model, seed, dim=6):
    """An embedding for each clip that depends on clip, model and seed."""
    rows = [np.random.default_rng([seed, *model.encode(), 0, *u.encode()]).normal(size=dim) for u in ids]
    return np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)


def results_of(trainings, data, most=MOST_EMBEDDINGS):
    """What the task keeps: all shared clips, and up to so many of each gender of a language."""
    rows = data.utterances.to_dict("index")
    return {
        training.key: {
            name: {
                "auc": 0.5,
                "embeddings": speaker._pack(ids, vectors_of(ids, model, seed), rows, None if name == SHARED else most),
            }
            for name, ids in training.test.items()
        }
        for (model, seed), training in trainings.items()
    }


@pytest.mark.parametrize("most", [MOST_EMBEDDINGS, 5])
def test_space_has_test_clips_of_all_languages_each_beside_its_row(most):
    data, trainings = plan_of(shared_rows())
    spaces = common_space.spaces(trainings, results_of(trainings, data, most), data)
    assert list(spaces) == SEEDS
    for seed, space in spaces.items():
        ids = list(space.utterances.index)
        assert len(set(ids)) == len(ids) == len(space.embeddings)
        np.testing.assert_allclose(space.embeddings, vectors_of(ids, ALL, seed), atol=1e-3)  # kept as float16
        assert space.utterances["language"].tolist() == [u.split("/")[0] for u in ids]
        assert list(dict.fromkeys(space.utterances["language"])) == LANGUAGES
        for language, of in space.utterances.groupby("language"):
            assert set(of.index) <= set(data.tests[language])
            assert of["gender"].value_counts().to_dict() == dict.fromkeys(("female", "male"), min(most, 12))
            assert of["speaker"].nunique() == 8  # five of four speakers: each of them, and one twice


def test_trials_of_the_shared_speakers_are_scored_by_every_model_and_seed():
    shared = shared_rows()
    data, trainings = plan_of(shared)
    trials = common_space.shared_trials(trainings, results_of(trainings, data), data)
    assert list(trials.columns) == ["condition", "same_speaker", "score", "speaker", "other", "model", "seed"]
    assert trials["same_speaker"].dtype == bool
    ids = sorted(shared["utterance_id"])
    rows = shared.set_index("utterance_id").loc[ids].to_dict("records")
    groups = dict(list(trials.groupby(["model", "seed"])))
    assert set(groups) == set(trainings)
    for (model, seed), part in groups.items():
        expected = score_trials(vectors_of(ids, model, seed), rows)
        assert set(expected["condition"]) == {"within de", "within tr", "across languages"}
        part = part.drop(columns=["model", "seed"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(part, expected, atol=2e-3, rtol=0)
    assert list(language_cost(trials).index) == [ALL, "de alone", "tr alone"]


def test_without_shared_speakers_there_are_no_trials_and_the_tables_are_empty():
    data, trainings = plan_of(shared_rows().iloc[:0])
    trials = common_space.shared_trials(trainings, results_of(trainings, data), data)
    assert len(trials) == 0
    assert list(trials.columns) == ["condition", "same_speaker", "score", "speaker", "other", "model", "seed"]
    assert mismatch_table(trials).empty and language_cost(trials).empty


# --- Clips of the caller's own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return common_voice_folder(tmp_path_factory.mktemp("cv"), ["de", "no"], n_speakers=3, n_clips=3, seconds=0.6)


def test_usable_extra_clips_are_kept_and_broken_ones_listed_with_the_reason(folder, tmp_path):
    corpus = common_voice.load(folder, ["de"])
    also = common_voice.load(folder, ["no"]).to_pandas().query("split == 'test'")
    broken = dict(zip(also["utterance_id"].iloc[[1, 4, 9]], ("corrupt", "silence", "missing"), strict=True))
    break_clip(also["path"].iloc[1], "corrupt")
    break_clip(also["path"].iloc[4], "silent")
    also.loc[also.index[9], "path"] += ".gone"
    options = {"languages": ["de"], "n_samples": 4, "seeds": [0], "design": BySpeaker(0.5)}
    alone = prepare(corpus, store_directory=tmp_path / "alone", **options)
    data = prepare(corpus, store_directory=tmp_path / "store", also=also, **options)

    assert (data.subsets, data.tests) == (alone.subsets, alone.tests) and alone.skipped.empty
    kept = also[~also["utterance_id"].isin(broken)].set_index("utterance_id")
    pd.testing.assert_frame_equal(data.utterances.loc[alone.utterances.index], alone.utterances)
    pd.testing.assert_frame_equal(data.utterances.loc[kept.index], kept[alone.utterances.columns])
    assert len(data.utterances) == len(alone.utterances) + len(kept)
    assert all(name in data.store for name in data.utterances.index)
    reasons = data.skipped.set_index("utterance_id")["reason"]
    assert set(reasons.index) == set(broken) and len(reasons) == 3
    for name, reason in broken.items():
        assert reason in reasons[name]

    trainings = common_space.plan(data, also["utterance_id"], [0], config)
    assert trainings[ALL, 0].test[SHARED] == tuple(sorted(kept.index))


def test_extra_clips_of_the_corpus_are_neither_doubled_nor_listed_twice(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["de"], n_speakers=3, n_clips=3, seconds=0.6)
    corpus = common_voice.load(root, ["de"])
    also = corpus.to_pandas().query("split == 'test'")
    break_clip(also["path"].iloc[0], "corrupt")
    data = prepare(corpus, ["de"], 4, [0], tmp_path / "store", BySpeaker(0.5), also=also)
    assert data.skipped["utterance_id"].tolist() == [also["utterance_id"].iloc[0]]
    assert data.utterances.index.is_unique and set(also["utterance_id"].iloc[1:]) <= set(data.utterances.index)
    assert list(data.utterances.columns) == [name for name in COLUMNS if name != "utterance_id"]


def test_no_extra_clips_are_the_same_as_none(folder, tmp_path):
    corpus = common_voice.load(folder, ["de"])
    none, empty = (
        prepare(corpus, ["de"], 4, [0], tmp_path / "store", BySpeaker(0.5), also=also)
        for also in (None, pd.DataFrame(columns=list(COLUMNS)))
    )
    pd.testing.assert_frame_equal(none.utterances, empty.utterances)
    assert (none.subsets, none.tests) == (empty.subsets, empty.tests) and empty.skipped.empty
