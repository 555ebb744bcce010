"""The study of the speech LLM: its data, its trainings and its tables, with toy models of the real classes."""

import dataclasses
import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from figure_checks import assert_legible

from cltmlib import corpora, figures, params, planning, potsa, sweep
from cltmlib.corpora import COLUMNS
from cltmlib.errors import InputError
from cltmlib.potsa import data, systems, training
from cltmlib.potsa.frames import n_valid_frames
from cltmlib.potsa.llm import load_llm
from cltmlib.pretrain import qwen, whisper
from cltmlib.sweep.plan import plan_training
from cltmlib.testing import fleurs_folder, sine_utterance
from cltmlib.whisper import load_whisper

EAR = whisper.Recipe(width=16, n_encoder_layers=1, n_decoder_layers=1, window_s=1, n_positions=24)
PEN = qwen.Recipe(width=16, n_layers=1, n_heads=2)
PARAMS = {
    **params.read_profile("smoke", "05_potsa_ablations"),
    "languages": ("en", "es", "ja"),
    "zero_shot_languages": ("ca", "ky"),
    "n_train_sentences": None,
    "n_test_sentences": None,
    "qformer_width": 8,
    "n_steps": 3,
    "seeds": (0, 1),
}


@pytest.fixture(scope="module")
def ear(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    model = whisper.stand_in(EAR)
    for part in (model.model, model.feature_extractor, model.tokenizer):
        part.save_pretrained(folder)
    return load_whisper(str(folder))


@pytest.fixture(scope="module")
def pen_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    texts = [before + answer for before, answer in qwen.documents(qwen.domain("train")[:6], PEN.languages)]
    model = qwen.stand_in(PEN, texts)
    for part in (model.model, model.tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pen(pen_folder):
    return load_llm(str(pen_folder))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones: 4 train and 3 test sentences in every language, the target's as text that needs no audio file."""
    import soundfile

    root = tmp_path_factory.mktemp("tones")
    rows = []
    for k, language in enumerate(("en", "es", "ja", "ca", "ky", "zh-CN")):
        for split, n_sentences in (("train", 4), ("test", 3)):
            for sentence in range(n_sentences):
                name = f"{language}/{split}{sentence}"
                path = root / f"{name.replace('/', '_')}.wav"
                if language != "zh-CN":
                    soundfile.write(path, sine_utterance(0.3 + 0.1 * sentence, 100 + 40 * k, seed=sentence), 16000)
                text = "二四六八"[sentence] + "天" if language == "zh-CN" else f"{sentence} days"
                said = (f"{split}{sentence}", split, 0.3 + 0.1 * sentence)
                rows.append((name, str(path), language, f"{language}{split}", None, text, *said))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.fixture(scope="module")
def speech(corpus, ear, tmp_path_factory):
    return potsa.prepare(corpus, PARAMS, ear, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def worker(speech, pen, pen_folder, tmp_path_factory):
    return potsa.Worker(speech, {**PARAMS, "llm": str(pen_folder)}, pen, tmp_path_factory.mktemp("stage1"))


@pytest.fixture(scope="module")
def done(worker, tmp_path_factory):
    plan = worker.plan()
    with sweep.RunStore(tmp_path_factory.mktemp("runs") / "runs.sqlite") as store:
        return plan, sweep.run(plan.values(), worker, store, n_workers=1, progress=False)


# Data ------------------------------------------------------------------------------------------------------------


def test_every_clip_has_its_translation_and_test_sentences_are_those_of_all_languages(speech):
    assert speech.utterances.at["ja/train2", "translation"] == "六天"
    assert {i: len(ids) for i, ids in speech.train.items()} == dict.fromkeys(("en", "es", "ja", "ca", "ky"), 4)
    assert all(len(ids) == 3 for ids in speech.test.values()) and "zh-CN" not in speech.test
    assert speech.summary().loc["ky", "role"] == "zero-shot"


def test_a_sentence_that_one_language_lacks_is_not_tested_and_one_without_translation_is_counted(corpus, ear, tmp_path):
    table = corpus[~corpus["utterance_id"].isin(["ky/test1", "es/train0", "zh-CN/train3"])]
    speech = potsa.prepare(table, PARAMS, ear, tmp_path)
    assert [len(ids) for ids in speech.test.values()] == [2] * 5
    assert [len(ids) for ids in speech.train.values()] == [3, 2, 3, 3, 3]
    assert speech.left_out["n"].sum() == 5 and set(speech.left_out["reason"]) == {"no sentence in zh-CN"}


def test_sentences_are_drawn_not_clips(corpus, ear, tmp_path):
    speech = potsa.prepare(corpus, {**PARAMS, "n_train_sentences": 2, "n_test_sentences": 1}, ear, tmp_path)
    for part, n in ((speech.train, 2), (speech.test, 1)):
        drawn = [{u.split("/")[1] for u in ids} for ids in part.values()]
        assert drawn == [drawn[0]] * 5 and len(drawn[0]) == n


@pytest.mark.parametrize(
    "drop, change, said",
    [
        ("zh-CN/", {}, "no text in the target language 'zh-CN'"),
        ("ky/train", {}, "Language 'ky' has no usable clip in its train split"),
        ("", {"zero_shot_languages": ("es", "ky")}, "each once"),
    ],
)
def test_a_corpus_that_cannot_be_is_one_sentence(corpus, ear, tmp_path, drop, change, said):
    table = corpus[~corpus["utterance_id"].str.startswith(drop)] if drop else corpus
    with pytest.raises(InputError, match=said):
        potsa.prepare(table, {**PARAMS, **change}, ear, tmp_path)


def test_languages_that_share_no_test_sentence_are_one_sentence(corpus, ear, tmp_path):
    table = corpus.copy()
    mine = (table["language"] == "ky") & (table["split"] == "test")
    table.loc[mine, "sentence_id"] = table.loc[mine, "sentence_id"] + "x"
    table = pd.concat(
        [table, table[mine].assign(language="zh-CN", utterance_id=lambda t: "zh-CN/x" + t["sentence_id"])]
    )
    with pytest.raises(InputError, match="share no sentence in the test split"):
        potsa.prepare(table, PARAMS, ear, tmp_path)


def test_frames_are_the_encoders_valid_ones_and_are_computed_once(speech, ear, tmp_path):
    names = ["en/train0", "en/train3"]  # 0.3 s and 0.6 s of a window of 1 s with 25 frames
    hidden, lengths = speech.frames.batch(names)
    assert lengths.tolist() == [8, 15] and hidden.shape == (2, 15, 16) and not hidden[0, 8:].any()
    wave = sine_utterance(0.6, 100, seed=3)
    assert n_valid_frames(ear, len(wave)) == 15
    with torch.no_grad():
        expected = ear.model.get_encoder()(ear.features([wave])).last_hidden_state[0, :15]
    torch.testing.assert_close(hidden[1], expected, atol=5e-3, rtol=5e-3)
    copy = pickle.loads(pickle.dumps(speech.frames))
    assert copy._map is None and torch.equal(copy.batch(names)[0], hidden)


def test_a_frame_that_is_not_finite_names_its_clip(corpus, ear, tmp_path, monkeypatch):
    monkeypatch.setattr(
        type(ear), "features", lambda self, waves, device="cpu": torch.full((len(waves), 80, 50), np.nan)
    )
    with pytest.raises(InputError, match=r"encoder's output for clip 'ca/t\w+' is not finite"):
        potsa.prepare(corpus, PARAMS, ear, tmp_path)
    assert not list((tmp_path / "encoded").glob("*")), "nothing half made is left"


def test_bias_is_the_mean_of_the_clips_means_whatever_the_batches(speech):
    one, many = (data.estimate_bias(speech.frames, speech.train, batch_size=n) for n in (1, 99))
    means = [speech.frames.batch([u])[0][0].double().mean(0) for u in speech.train["ja"]]
    for bias in (one, many, speech.bias):
        torch.testing.assert_close(bias.bias("ja"), torch.stack(means).mean(0), atol=1e-6, rtol=1e-5)


def test_fleurs_from_a_local_folder_is_prepared(ear, tmp_path):
    """The paper's languages, from Parquet files laid out as on the Hub."""
    paper = params.read_profile("paper", "05_potsa_ablations")
    spoken = [*paper["languages"], *paper["zero_shot_languages"], paper["target_language"]]
    configs = ["en_us", "ja_jp", "es_419", "ko_kr", "ru_ru", "ast_es", "ky_kg", "cmn_hans_cn"]
    root = fleurs_folder(tmp_path / "fleurs", configs)
    cfg = params.load("05_potsa_ablations", {**paper, "corpus_dir": str(root), "device": "cpu"})
    corpus = corpora.load_corpus("fleurs", root=root, languages=spoken, cache_dir=tmp_path / "cache")
    speech = potsa.prepare(corpus, cfg, ear, tmp_path)
    assert list(speech.train) == spoken[:-1] and all(len(ids) == 8 for ids in speech.train.values())
    assert set(speech.utterances["translation"].str[:12]) == {"Cmn_Hans_Cn:"}
    assert speech.frames.batch(["ast/" + speech.test["ast"][0].split("/")[1]])[0].shape[2] == 16


# Trainings -------------------------------------------------------------------------------------------------------


def test_plan_has_every_system_with_every_seed_and_planned_work_is_that_of_the_trainings(worker):
    plan = worker.plan()
    assert len(plan) == 2 * len(potsa.SYSTEMS) == len({t.key for t in plan.values()})
    of_systems = list(potsa.SYSTEMS.values())
    assert planning.POTSA_SYSTEMS == len(of_systems)
    assert planning.POTSA_COMPENSATED == sum(s.compensated for s in of_systems)
    cfg = params.resolve("05_potsa_ablations", PARAMS)
    assert planning._WORK["05_potsa_ablations"](cfg).n_trainings == len(plan)


def test_zero_shot_languages_train_nothing(worker, speech):
    for planned in worker.plan().values():
        assert {u.split("/")[0] for u in planned.train} == {"en", "es", "ja"}


def test_a_parameter_changes_the_keys_of_the_systems_that_use_it_alone(worker, speech, pen, pen_folder, tmp_path):
    def changed(**values):
        other = potsa.Worker(speech, {**PARAMS, "llm": str(pen_folder), **values}, pen, tmp_path).plan()
        return {name for (name, seed), t in worker.plan().items() if other[name, seed].key != t.key}

    aligned = {name for name, s in potsa.SYSTEMS.items() if s.alignment}
    assert changed(alpha=1.0) == changed(epsilon=0.1) == aligned
    assert changed(rho=0.5) == {name for name in aligned if potsa.SYSTEMS[name].layers == "scheduled"}
    assert changed(n_steps=2) == changed(translation_steps=2) == set(potsa.SYSTEMS)


def test_a_training_gives_the_same_twice_with_stage_1_trained_or_read(worker, speech, pen, pen_folder, tmp_path):
    planned = worker.plan()["POTSA", 1]
    fresh = potsa.Worker(speech, {**PARAMS, "llm": str(pen_folder)}, pen, tmp_path)
    one, two, three = fresh(planned), fresh(planned), worker(planned)
    assert one == two == three == json.loads(json.dumps(one))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_seeds_share_stage_1_between_systems_with_and_without_bias_apart(done, worker):
    assert len(list(worker._directory.glob("*.safetensors"))) == 2 * 2


def test_systems_with_the_same_pairs_translate_the_same_batches(done):
    plan, found = done
    first = {name: found[plan[name, 0].key]["steps"][0][0] for name in potsa.SYSTEMS}
    for compensated in (True, False):
        losses = {
            first[name]
            for name, system in potsa.SYSTEMS.items()
            if (system.compensated, system.pairs) == (compensated, "random")
        }
        assert len(losses) == 1, "before the first step they are the same model"
    assert first["anchor"] == first["frozen anchor"]


def test_layers_are_those_of_the_system(done):
    plan, found = done

    def layers(name):
        return [chosen for _, _, chosen in found[plan[name, 0].key]["steps"]]

    assert layers("baseline") == layers("without alignment") == [[], [], []]
    assert layers("single layer") == layers("POTSA") == [[0]] * 3, "of two blocks, the lower half is one"
    assert set(map(tuple, layers("scheduled, all layers")[:2])) == {(0,), (1,)}, "every block is tried first"


def test_only_systems_with_bias_compensation_are_tested_without_it(done):
    plan, found = done
    with_bias, without = (set(found[plan[name, 0].key]["translations"]) for name in ("POTSA", "baseline"))
    assert without == {"en", "es", "ja", "ca", "ky"} and with_bias == without | {"ca, no bias", "ky, no bias"}


def test_bias_compensation_without_an_estimate_leaves_frames_as_they_are(worker, speech, pen):
    config = worker.plan()["POTSA", 0].config
    unknown = training.Clips(speech, pen, training._without(speech.bias, ["ky"]), config)
    plain = training.Clips(speech, pen, None, config)
    assert torch.equal(unknown.hidden(["ky/test0"])[0], plain.hidden(["ky/test0"])[0])
    assert not torch.equal(unknown.hidden(["ja/test0"])[0], plain.hidden(["ja/test0"])[0])


def trained(worker, speech, pen, name, monkeypatch, **changes):
    """What each step of stage 2 gave, and the batches, for a model that is wide awake from the start."""
    planned = worker.plan()[name, 0]
    planned = dataclasses.replace(planned, config={**planned.config, **changes})
    clips = training.Clips(speech, pen, speech.bias, planned.config)
    batches = []
    hidden = clips.hidden
    monkeypatch.setattr(clips, "hidden", lambda ids: (batches.append(list(ids)), hidden(ids))[1])
    torch.manual_seed(0)
    model = training.SpeechLLM(pen.model, 16, n_queries=3, n_blocks=2, width=8, n_heads=2)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data *= 20  # else so narrow a model hardly hears its input
    return list(training.second_stage(model, planned, clips)), batches


def test_batches_are_parallel_pairs_of_changing_languages(worker, speech, pen, monkeypatch):
    _, batches = trained(worker, speech, pen, "baseline", monkeypatch, n_steps=20)
    sentences = speech.utterances["sentence_id"]
    languages = set()
    for batch in batches:
        assert len(batch) == 4
        for one, other in zip(batch[:2], batch[2:], strict=True):
            assert sentences[one] == sentences[other] and one != other
            languages.add((one.split("/")[0], other.split("/")[0]))
    assert len(languages) == 6, "three languages, both ways"
    _, batches = trained(worker, speech, pen, "anchor", monkeypatch, n_steps=20)
    assert {u.split("/")[0] for batch in batches for u in batch[:2]} == {"en"}


def test_alignment_brings_parallel_utterances_together(worker, speech, pen, monkeypatch):
    options = {"n_steps": 40, "learning_rate": 1e-2, "warmup_steps": 0}
    steps, _ = trained(worker, speech, pen, "MSE alignment", monkeypatch, **options)
    distances = [distance for _, distance, _ in steps]
    assert np.mean(distances[-5:]) < 0.5 * np.mean(distances[:5])


def test_the_anchor_is_frozen_where_the_system_says_so(worker, speech, pen, monkeypatch):
    called = []
    loss = training.alignment_loss
    monkeypatch.setattr(training, "alignment_loss", lambda *sides, **how: (called.append(how), loss(*sides, **how))[1])
    for name, frozen in (("frozen anchor", True), ("anchor", False), ("POTSA", False)):
        trained(worker, speech, pen, name, monkeypatch, n_steps=1)
        assert called[-1]["freeze_source"] is frozen


def test_the_frozen_model_goes_where_the_rest_is_in_the_type_of_a_gpu(worker, monkeypatch):
    monkeypatch.setattr(training, "run_training", lambda planned, speech, llm, directory: llm.model.device.type)
    monkeypatch.setattr(worker, "device", "meta")  # no GPU here; where it would go
    monkeypatch.setattr(worker, "_llm", None)
    monkeypatch.setattr(training, "_language_model", training.load_llm)
    assert worker(None) == "meta"
    assert potsa.llm_dtype({"device": "cpu", "precision": "bfloat16"}) == torch.float32
    monkeypatch.setattr(training, "resolve_device", lambda device: device)
    assert potsa.llm_dtype({"device": "cuda", "precision": "bfloat16"}) == torch.bfloat16


@pytest.mark.parametrize("name", ["baseline", "POTSA"])
def test_a_diverging_training_is_one_sentence(worker, name):
    planned = worker.plan()[name, 0]
    config = {**planned.config, "learning_rate": 1e30, "warmup_steps": 0}
    with pytest.raises(InputError, match="'wild' diverged"):
        worker(plan_training("potsa", planned.train, planned.test, 0, config, "wild"))


def test_blank_texts_are_left_out_and_counted(corpus, ear, tmp_path):
    table = corpus.copy()
    table.loc[table["utterance_id"] == "zh-CN/train1", "sentence"] = " "
    table.loc[table["utterance_id"] == "en/train2", "sentence"] = None
    table.loc[table["utterance_id"] == "es/train2", "sentence"] = None
    found = potsa.prepare(table, PARAMS, ear, tmp_path)
    assert found.train["en"] == ("en/train0", "en/train3") and found.train["es"] == tuple(
        f"es/train{k}" for k in (0, 2, 3)
    )
    counted = found.left_out.set_index(["language", "reason"])["n"]
    assert counted["en", "no transcript"] == 1 and counted["ja", "no sentence in zh-CN"] == 1


def test_too_few_sentences_for_a_language_name_the_parameter(corpus, ear, tmp_path):
    with pytest.raises(InputError, match="'n_train_sentences' is 1, which leaves '"):
        for keep in range(4):  # whichever sentence is drawn, three of these corpora lack it in ja
            gone = [f"ja/train{k}" for k in range(4) if k != keep]
            potsa.prepare(corpus[~corpus["utterance_id"].isin(gone)], {**PARAMS, "n_train_sentences": 1}, ear, tmp_path)


def test_layer_choice_by_name():
    def choice(**changes):
        return systems.LayerChoice(systems.System(**changes), 8, np.random.default_rng(0), rho=0.1, beta=0.5, tau=1.0)

    assert choice(layers="single").draw() == [3]
    assert {choice().draw()[0] for _ in range(9)} <= {0, 1, 2, 3}
    random = choice(layers="random")
    assert {random.draw()[0] for _ in range(99)} == {0, 1, 2, 3}
    every, drawn = choice(all_layers=True), set()
    for _ in range(8):
        layers = every.draw()
        every.report(layers, 1.0)
        drawn |= set(layers)
    assert drawn == set(range(8))


# Tables and figures ----------------------------------------------------------------------------------------------


def test_bleu_is_sacrebleus_over_characters():
    score, signature = potsa.bleu(["四十七公里"], ["四十八公里"])
    assert "tok:zh" in signature and 0 < score < 100
    assert potsa.bleu(["四十七公里"], ["四十七公里"])[0] == 100


def made_up(values):
    index = pd.MultiIndex.from_tuples(values, names=["system", "seed"])
    return pd.DataFrame({potsa.AVERAGE: list(values.values())}, index=index)


def test_differences_are_paired_by_seed():
    table = made_up({("a", 0): 10.0, ("a", 1): 30.0, ("b", 0): 11.0, ("b", 1): 33.0})
    row = potsa.differences(table, "a").loc["b"]
    half = 12.706204736 * 1.0  # t(0.975, 1 degree of freedom) times the standard error of (1, 3)
    np.testing.assert_allclose(row, [2, 2 - half, 2 + half])
    assert "not told apart from zero" in potsa.in_words(table, "a")[0]


def test_tables_hold_every_system_beside_the_paper(done, speech):
    plan, found = done
    translations = potsa.translations(plan, found, speech)
    assert len(translations) == 24 * 3 * 7
    same = translations[(translations["system"] == "baseline") & (translations["language"].str.startswith("ky"))]
    assert (same.groupby(["seed", "utterance_id"])["translation"].nunique() == 1).all(), "it knows no bias"
    values = potsa.scores(translations, speech)
    assert list(values) == ["en", "es", "ja", "average", "ca", "ca, no bias", "ky", "ky, no bias"]
    first = potsa.table_1(values)
    assert len(first.loc["ours"]) == len(first.loc["paper"]) == 6
    average = round((40.87 + 31.10 + 25.97) / 3, 2)  # over the trained languages alone: en, es, ja
    assert first.loc[("paper", "POTSA"), ["average", "ky"]].tolist() == [str(average), "5.76"]
    second = potsa.table_2(values)
    assert second["paper"].isna().all() and len(second) == 7
    values.insert(3, "ko", 1.0)
    values.insert(4, "ru", 1.0)
    assert potsa.table_1(values).loc[("paper", "POTSA"), "average"] == "31.84"
    assert potsa.table_2(values)["paper"].tolist() == [31.36, 30.19, 31.5, 30.86, 31.84, 30.52, 30.74]


def test_published_averages_are_those_of_the_five_languages():
    for name, numbers in {**systems.PUBLISHED_1}.items():
        average = {"baseline": 30.91, "POTSA": 31.84, "anchor": 25.34}.get(name)
        assert average is None or np.mean(numbers[:5]) == pytest.approx(average, abs=0.006)


def test_alignment_of_every_block_pair_and_seed(done):
    plan, found = done
    table = potsa.language_alignment(plan, found)
    assert len(table) == 24 * 2 * 3 and table["recall"].between(0, 1).all() and table["overlap"].between(0, 1).all()
    assert potsa.alignment_summary(table, plan, found).index.tolist() == list(potsa.SYSTEMS)
    np.testing.assert_allclose(np.sum(found[plan["POTSA", 0].key]["transport"], 1), 1, atol=1e-3)


def test_bias_compensation_brings_made_up_languages_together(speech):
    space, points = potsa.encoder_space(speech)
    assert len(space) == 2 * 3 and len(points) == 2 * 5 * 3
    centres = points.drop(columns="sentence_id").groupby(["stage", "language"]).mean()
    spread = centres.groupby("stage").var().mean(axis=1)
    assert spread["after"] < 0.5 * spread["before"]


def test_figures_draw_what_the_tables_say(done, speech):
    plan, found = done
    projected, settings = potsa.map_of(potsa.encoder_space(speech)[1])
    assert "perplexity" in settings and len(figures.encoder_maps(projected, settings).axes) == 2
    table = potsa.language_alignment(plan, found)
    drawn = figures.recall_against_overlap(table[table["block"] == 1], ["baseline", "POTSA"])
    marks = {line.get_gid(): line.get_ydata() for line in drawn.axes[0].lines}
    mean = table[(table["block"] == 1) & (table["system"] == "POTSA")].groupby(["language_a", "language_b"])["recall"]
    assert sorted(marks["POTSA"]) == pytest.approx(sorted(mean.mean()))
    choices = potsa.layer_choices(plan, found)
    shares = figures.layer_choices(choices[choices["system"] == "scheduled, all layers"], n_windows=3)
    assert len(shares.axes) == 1
    plans = {name: np.array(found[plan[name, 0].key]["transport"]) for name in ("baseline", "POTSA")}
    for figure in (figures.encoder_maps(projected, settings), figures.transport_plans(plans, ["en", "es"], "two days")):
        assert_legible(figure)
    assert_legible(shares)
    with pytest.raises(InputError, match="no system 'other'"):
        figures.recall_against_overlap(table, ["baseline", "other"])
    with pytest.raises(InputError, match="no transport plan"):
        figures.transport_plans({}, ["en", "ja"], "two days")


# Parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, said",
    [
        ({"target_language": "es"}, "Language 'es' is named twice"),
        ({"corpus": "common_voice"}, "only FLEURS and the synthetic corpus"),
        ({"qformer_heads": 3}, "must be a multiple of 'qformer_heads'"),
        ({"rho": 1.5}, "'rho' is 1.5"),
        ({"batch_size": 5}, "'batch_size' is 5: batches hold pairs"),
        ({"seeds": (0,)}, "needs two or more"),
    ],
)
def test_parameters_that_do_not_fit_are_one_sentence(change, said):
    with pytest.raises(InputError, match=said):
        params.load("05_potsa_ablations", {**PARAMS, **change})


def test_the_other_notebooks_take_no_fleurs():
    given = {**params.read_profile("smoke", "02_gr_cltm"), "corpus": "fleurs"}
    with pytest.raises(InputError, match="FLEURS lacks the speakers"):
        params.load("02_gr_cltm", given)
