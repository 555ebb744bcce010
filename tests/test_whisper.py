"""Whisper's inputs, its fine-tuning loop and the study of its systems, with a toy model of the real classes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor

from cltmlib import checkpoints, planning, sweep, weighted_ce
from cltmlib.corpora import COLUMNS, frame, load_corpus
from cltmlib.errors import InputError
from cltmlib.params import read_profile, resolve
from cltmlib.pretrain.whisper import Recipe, ctc_targets, pretraining_corpus, stand_in, train, word_error_rates
from cltmlib.sweep.plan import plan_training
from cltmlib.testing import sine_utterance
from cltmlib.weighted_ce import results as study
from cltmlib.weighted_ce import training as loop
from cltmlib.whisper import IGNORED, load_whisper

TINY = Recipe(width=16, n_encoder_layers=1, n_decoder_layers=1, window_s=1, n_positions=24, n_steps=3, batch_size=4)
PARAMS = {
    **read_profile("smoke", "04_whisper_weighted_ce"),
    "languages": ("es", "en"),
    "low_resource_language": "ca",
    "n_train_clips": 6,
    "n_dev_clips": 2,
    "n_test_clips": 3,
    "n_steps": 4,
    "batch_size": 5,
    "seeds": (0, 1),
}


def save(whisper, folder):
    whisper.model.save_pretrained(folder)
    whisper.feature_extractor.save_pretrained(folder)
    whisper.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(stand_in(TINY), tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def whisper(folder):
    return load_whisper(str(folder))


# Inputs ----------------------------------------------------------------------------------------------------------


def test_targets_are_given_the_prefix_and_learn_the_text_and_the_end(whisper):
    inputs, labels = whisper.targets(["ab", " a "], ["ca", "es"])
    names = whisper.tokenizer.convert_ids_to_tokens
    start, task, plain, end = "<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>", "<|endoftext|>"
    assert names(inputs[0]) == [start, "<|ca|>", task, plain, "a", "b"]
    assert names(inputs[1]) == [start, "<|es|>", task, plain, "a", end]  # padded
    assert names(labels[0][3:]) == ["a", "b", end] and names(labels[1][3:5]) == ["a", end]
    assert (labels[:, :3] == IGNORED).all() and labels[1, 5] == IGNORED


def test_every_language_can_be_written(whisper):
    text = "ñ ß д 中 \u0e01"
    assert whisper.tokenizer.decode(whisper.tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize(
    "locale, code", [("zh-CN", "zh"), ("sv-SE", "sv"), ("nb-NO", "no"), ("gl", "gl"), ("fil", "tl")]
)
def test_common_voice_locales_have_whispers_codes(whisper, locale, code):
    assert whisper.language_code(locale) == code
    assert whisper.tokenizer.convert_ids_to_tokens(whisper.language_token(locale)) == f"<|{code}|>"


def test_features_are_padded_to_the_window(whisper):
    features = whisper.features([sine_utterance(0.3), sine_utterance(1.0)])
    assert features.shape == (2, 80, 50) and features.dtype == torch.float32


@pytest.mark.parametrize(
    "act, said",
    [
        (lambda w: w.targets(["a"], ["rw"]), "no token for language 'rw'"),
        (lambda w: w.targets(["  "], ["es"]), "transcript of language 'es' is empty"),
        (lambda w: w.targets(["a" * 20], ["es"]), "has 20 tokens, but model .* holds 19"),
        (lambda w: w.features([sine_utterance(1.1)]), "A clip of 1.1 s is longer than the 1 s"),
    ],
)
def test_what_does_not_fit_the_model_is_one_sentence(whisper, act, said):
    with pytest.raises(InputError, match=said):
        act(whisper)


def test_transcripts_do_not_depend_on_the_batch(whisper):
    features = whisper.features([sine_utterance(0.3 + 0.1 * k, 100 + 30 * k) for k in range(4)])
    languages = ["es", "ca", "en", "es"]
    together = whisper.transcribe(whisper.model, features, languages, 10)
    alone = [whisper.transcribe(whisper.model, features[k : k + 1], languages[k : k + 1], 10)[0] for k in range(4)]
    assert together == alone and any(together)


def test_the_random_prefix_needs_no_weights_and_draws_them_from_the_seed(folder, tmp_path):
    for path in Path(folder).iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    random = load_whisper(f"random:{tmp_path}")
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(random.fresh_model().model.encoder.conv1.weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert random.fingerprint.startswith("random:")


def test_the_hub_name_of_the_paper_is_resolved_from_a_cache_without_network(whisper, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--openai--whisper-small"
    save(whisper, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    code = (
        "from cltmlib.whisper import load_whisper\n"
        "w = load_whisper('openai/whisper-small')\n"
        "print(w.name, w.revision, w.fingerprint, w.model.generation_config.suppress_tokens)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["openai/whisper-small", commit, f"openai/whisper-small@{commit}", "None"]


@pytest.mark.parametrize("missing", ["tokenizer", "weights", "multilingual"])
def test_an_incomplete_or_english_model_is_refused(folder, tmp_path, missing):
    for path in Path(folder).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if missing == "weights":
        (tmp_path / "model.safetensors").unlink()
    elif missing == "tokenizer":
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / "tokenizer_config.json").unlink()
    else:
        settings = json.loads((tmp_path / "generation_config.json").read_text())
        (tmp_path / "generation_config.json").write_text(json.dumps({**settings, "lang_to_id": None}))
    with pytest.raises(InputError, match=missing):
        load_whisper(str(tmp_path))


def test_a_hubert_is_no_whisper():
    with pytest.raises(InputError, match="'hubert' model; this study needs a 'whisper' one"):
        load_whisper("mini-hubert")


# Clips -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tones with transcripts: 3 languages, 3 speakers in each split, 4 clips each; some cannot be used."""
    import soundfile

    root = tmp_path_factory.mktemp("tones")
    rows = []
    for language in ("es", "en", "ca"):
        for split in ("train", "dev", "test"):
            for speaker in range(3):
                for clip in range(4):
                    name = f"{language}/{split}{speaker}{clip}"
                    path = root / f"{name.replace('/', '_')}.wav"
                    soundfile.write(path, sine_utterance(0.4, 100 + 10 * clip, seed=clip), 16000)
                    rows.append(
                        (name, str(path), language, f"{language}{split}{speaker}", None, f"t {clip}", "s", split, 0.4)
                    )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.loc[0, "sentence"] = " . "
    table.loc[1, "duration_s"] = 1.5
    table.loc[2, "sentence"] = "a" * 30
    return table


@pytest.fixture(scope="module")
def speech(corpus, whisper, tmp_path_factory):
    return weighted_ce.prepare(corpus, PARAMS, whisper, tmp_path_factory.mktemp("store"))


def test_every_language_trains_on_as_many_clips_as_the_low_resource_one(speech):
    assert speech.languages == ["es", "en", "ca"]
    for of_seed in speech.train.values():
        assert {language: len(ids) for language, ids in of_seed.items()} == {"es": 6, "en": 6, "ca": 6}
    assert speech.train[0] != speech.train[1]
    used = [set(speech.train[0]["es"]), set(speech.dev["es"]), set(speech.test["es"])]
    assert not used[0] & used[1] and not used[1] & used[2]


def test_what_was_left_out_is_counted_by_reason(speech):
    reasons = dict(zip(speech.left_out["reason"], speech.left_out["n"], strict=True))
    assert reasons == {
        "no words in the transcript": 1,
        "too long for the model": 1,
        "transcript too long for the model": 1,
    }
    unusable = {"es/train00", "es/train01", "es/train02"}
    assert not unusable & {u for of_seed in speech.train.values() for ids in of_seed.values() for u in ids}


def test_clips_longer_than_their_row_says_are_left_out_after_decoding(corpus, whisper, tmp_path):
    import soundfile

    table = corpus.copy()
    path = tmp_path / "long.wav"
    soundfile.write(path, sine_utterance(1.4), 16000)
    row = table.index[table["utterance_id"] == "ca/train00"]
    table.loc[row, ["path", "duration_s"]] = [str(path), np.nan]
    params = {**PARAMS, "n_train_clips": None}
    speech = weighted_ce.prepare(table, params, whisper, tmp_path / "store")
    assert len(speech.train[0]["ca"]) == 11
    assert speech.left_out.query("language == 'ca'")["reason"].tolist() == ["too long for the model"]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"low_resource_language": "gl"}, "Language 'gl' has no usable clip in its train split: the corpus has none"),
        ({"low_resource_language": "es"}, "each once"),
        ({"low_resource_language": "rw"}, "no token for language 'rw'"),
    ],
)
def test_a_low_resource_language_that_cannot_be_is_one_sentence(corpus, whisper, tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        weighted_ce.prepare(corpus, {**PARAMS, **change}, whisper, tmp_path)


def test_an_unusable_split_says_why(corpus, whisper, tmp_path):
    table = corpus.assign(sentence=corpus["sentence"].where(corpus["split"] != "dev", ""))
    with pytest.raises(InputError, match=r"'es' has no usable clip in its dev split: left out were 12 \(no words"):
        weighted_ce.prepare(table, PARAMS, whisper, tmp_path)


# Training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(speech, whisper, folder):
    return weighted_ce.Worker(speech, {**PARAMS, "model": str(folder)}, whisper)


def run(training, speech, whisper):
    return loop.run_training(training, speech.store, speech.utterances.to_dict("index"), whisper)


def clips_of(speech, whisper):
    return loop.Clips(speech.store, speech.utterances.to_dict("index"), whisper, "cpu", "float32")


def test_plan_has_the_original_once_and_every_system_with_every_seed(worker):
    plan = worker.plan()
    assert len(plan) == 1 + 2 * len(weighted_ce.SYSTEMS) == len({t.key for t in plan.values()})
    assert plan[weighted_ce.ORIGINAL, 0].train == ()


def test_planned_work_is_that_of_the_trainings(worker):
    params = resolve("04_whisper_weighted_ce", {**read_profile("smoke", "04_whisper_weighted_ce"), **PARAMS})
    work = planning._WORK["04_whisper_weighted_ce"](params)
    plan = worker.plan().values()
    assert (planning.WHISPER_SYSTEMS, planning.FISHER_CLIPS) == (len(weighted_ce.SYSTEMS), loop.FISHER_CLIPS)
    assert work.n_trainings == len(plan)
    assert work.n_evaluated == sum(len(ids) for training in plan for ids in training.test.values())


def test_systems_of_a_seed_share_their_clips(worker, speech):
    plan = worker.plan()
    everything = {u for ids in speech.train[0].values() for u in ids}
    assert set(plan["fine-tuned", 0].train) == set(plan["+ loss ratio", 0].train) == everything
    assert set(plan["EWC", 0].train) == set(plan["low-resource only", 0].train) == set(speech.train[0]["ca"])
    replayed = set(plan["rehearsal", 0].train) - set(speech.train[0]["ca"])
    assert len(replayed) == 2 * round(PARAMS["rehearsal_share"] * 6) and replayed < everything


def test_a_parameter_changes_the_keys_of_the_systems_that_use_it_alone(worker, speech, whisper, folder):
    def changed(**values):
        other = weighted_ce.Worker(speech, {**PARAMS, "model": str(folder), **values}, whisper).plan()
        return {name for (name, seed), t in worker.plan().items() if other[name, seed].key != t.key}

    linear = {"+ linear progressive", "+ linear progressive, augmented", "+ constant weight", "+ batch_scale"}
    assert changed(linear_final=4.0) == linear
    assert changed(ratio_alpha=2.0) == {"+ loss ratio", "+ loss ratio, augmented"}
    assert changed(ewc_strength=1.0) == {"EWC"}
    assert changed(augmentation="on_the_fly") == {n for n, s in weighted_ce.SYSTEMS.items() if s.augmented}
    assert changed(learning_rate=1e-3) == set(weighted_ce.SYSTEMS)


def test_batches_mix_languages_and_augment_the_low_resource_one_alone(worker, speech, whisper):
    clips = clips_of(speech, whisper)
    training = worker.plan()["fine-tuned, augmented", 0]
    n_items = 18 + 6  # an augmented copy of each Catalan clip
    seen, changed = [], set()
    batches = loop._batches(training, clips)
    while len(seen) < n_items:
        waveforms, chosen = next(batches)
        assert len(waveforms) == len(chosen) == PARAMS["batch_size"]
        for waveform, utterance in zip(waveforms, chosen, strict=True):
            seen.append(utterance)
            if not np.array_equal(waveform, speech.store.waveform(utterance)):
                changed.add(utterance)
    epoch = seen[:n_items]
    assert sorted(set(epoch)) == list(training.train)
    assert {epoch.count(u) for u in speech.train[0]["ca"]} == {2} and {
        epoch.count(u) for u in speech.train[0]["es"]
    } == {1}
    assert changed and changed <= set(speech.train[0]["ca"])


def test_a_copy_stays_the_same_and_on_the_fly_changes_with_every_epoch(worker, speech, whisper, folder):
    clips = clips_of(speech, whisper)
    different = {}
    for how in ("copy", "on_the_fly"):
        other = weighted_ce.Worker(speech, {**PARAMS, "model": str(folder), "augmentation": how}, whisper)
        batches = loop._batches(other.plan()["fine-tuned, augmented", 0], clips)
        versions = {}
        for _ in range(60):
            for waveform, utterance in zip(*next(batches), strict=True):
                versions.setdefault(utterance, set()).add(waveform.tobytes())
        different[how] = max(len(v) for u, v in versions.items() if u.startswith("ca/"))
        assert {len(v) for u, v in versions.items() if not u.startswith("ca/")} == {1}
    assert different["copy"] == 2 and different["on_the_fly"] > 4


def test_a_changed_transcript_or_setting_changes_the_key(speech, whisper, folder):
    from dataclasses import replace

    rows = speech.utterances
    others = replace(speech, utterances=rows.assign(sentence=rows["sentence"].where(rows["language"] == "ca", "x")))
    one, two = (weighted_ce.Worker(s, {**PARAMS, "model": str(folder)}, whisper).plan() for s in (speech, others))
    assert all(one[key].key != two[key].key for key in one)  # EWC's too, which hears the others for its penalty alone


def test_every_setting_of_a_folder_is_in_its_fingerprint(folder, tmp_path):
    for path in Path(folder).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = load_whisper(str(tmp_path)).fingerprint
    assert before == load_whisper(str(folder)).fingerprint
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**settings, "begin_suppress_tokens": [1]}))
    assert load_whisper(str(tmp_path)).fingerprint != before


def test_workers_in_other_processes_give_the_same(worker, tmp_path):
    plan = [t for (name, _), t in worker.plan().items() if name in ("+ loss ratio, augmented", "EWC")]
    results = []
    for n_workers in (1, 2):
        with sweep.RunStore(tmp_path / f"{n_workers}.sqlite") as store:
            results.append(sweep.run(plan, worker, store, n_workers=n_workers, progress=False))
    assert results[0] == results[1] and len(results[0]) == 4


def test_rehearsal_replays_at_least_a_clip_of_every_language(speech, whisper, folder):
    few = weighted_ce.Worker(speech, {**PARAMS, "model": str(folder), "rehearsal_share": 0.01}, whisper).plan()
    assert len(few["rehearsal", 0].train) == len(few["low-resource only", 0].train) + 2


def test_a_training_gives_the_same_twice_and_learns(worker, whisper):
    training = worker.plan()["+ linear progressive", 1]
    one, two = worker(training), worker(training)
    assert one == two == json.loads(json.dumps(one))
    assert [weight for _, _, weight in one["steps"]] == [1.0, 1.0, 1.0, 3.5]
    assert [step for step, _ in one["checkpoints"]] == [4] and one["chosen"] == 4
    assert {k: len(v) for k, v in one["hypotheses"].items()} == {"es": 3, "en": 3, "ca": 3}
    assert one["steps"][-1][1] < one["steps"][0][1]


def test_the_checkpoint_with_the_lowest_dev_wer_is_kept(worker, whisper, speech, monkeypatch):
    """The rates are made up: 0.5, 0.2, 0.2, 0.9. The first of the best two must be what transcribes the test set."""
    rates, states = iter([0.5, 0.2, 0.2, 0.9]), []  # after steps 5, 6, 7 and 8

    def mean_wer(model, clips, sets):
        assert sets == speech.dev  # never the test set
        states.append(model.state_dict()["model.encoder.conv1.weight"].clone())
        return next(rates)

    used = []
    monkeypatch.setattr(loop, "mean_wer", mean_wer)
    monkeypatch.setattr(
        loop.Clips, "transcribe", lambda self, model, ids: used.append(model.model.encoder.conv1.weight.clone()) or []
    )
    training = worker.plan()["fine-tuned", 0]
    config = {**training.config, "n_checkpoints": 4, "n_steps": 8}
    training = plan_training(loop.TASK, training.train, training.test, 0, config, "one")
    result = run(training, speech, whisper)
    assert result["chosen"] == 6 and torch.equal(used[0], states[1]) and not torch.equal(used[0], states[3])


def test_the_original_is_the_model_as_it_is(worker, whisper, speech):
    result = worker(worker.plan()[weighted_ce.ORIGINAL, 0])
    clips = clips_of(speech, whisper)
    assert result["hypotheses"]["ca"] == clips.transcribe(whisper.fresh_model(), speech.test["ca"])
    assert result["steps"] == result["checkpoints"] == []


def test_a_training_without_the_low_resource_language_is_refused(worker, speech, whisper):
    training = worker.plan()["fine-tuned", 0]
    others = plan_training(loop.TASK, speech.train[0]["es"], training.test, 0, training.config, "es alone")
    with pytest.raises(InputError, match="'ca' has no clip in training 'es alone'"):
        run(others, speech, whisper)


def test_a_diverging_training_is_refused(worker, speech, whisper):
    training = worker.plan()["fine-tuned", 0]
    config = {**training.config, "learning_rate": 1e30, "warmup_steps": 0}
    with pytest.raises(InputError, match="diverged at step"):
        run(plan_training(loop.TASK, training.train, training.test, 0, config, "wild"), speech, whisper)


def test_consolidation_is_the_squared_distance_weighted_by_the_fisher_information(worker, speech, whisper):
    clips, model = clips_of(speech, whisper), whisper.fresh_model()
    utterances = list(speech.train[0]["es"][:2])
    penalty = loop.consolidation(model, clips, utterances, strength=3.0)
    assert penalty().item() == 0
    tensor = model.model.decoder.layers[0].fc1.weight
    fisher = torch.zeros_like(tensor)
    for utterance in utterances:
        logits, labels = clips.logits(model, [speech.store.waveform(utterance)], [utterance])
        kept = labels[0] != IGNORED
        log_p = logits[0].log_softmax(-1)[kept].gather(1, labels[0][kept][:, None]).sum()
        fisher += torch.autograd.grad(log_p, tensor)[0].square() / 2
    with torch.no_grad():
        tensor += 0.5
    assert penalty().item() == pytest.approx((3.0 / 2 * fisher.sum() * 0.25).item(), rel=1e-4)


def test_is_checkpoint():
    assert [s for s in range(1, 8001) if loop.is_checkpoint(s, 8000, 4)] == [5000, 6000, 7000, 8000]
    assert [s for s in range(1, 61) if loop.is_checkpoint(s, 60, 2)] == [45, 60]
    for n_steps in range(2, 40):
        for n in range(1, n_steps // 2 + 1):
            chosen = [s for s in range(1, n_steps + 1) if loop.is_checkpoint(s, n_steps, n)]
            assert len(chosen) == n and chosen[-1] == n_steps and chosen[0] > n_steps // 2


def test_weight_decay_spares_biases_and_norms(whisper):
    groups = loop._optimiser(whisper.fresh_model(), {"weight_decay": 0.3, "learning_rate": 1.0}).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {p.ndim for p in groups[1]["params"]} == {1} and {p.ndim for p in groups[0]["params"]} == {2, 3}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_of_training_on_a_gpu(worker, speech, whisper, precision):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    training = worker.plan()["+ loss ratio", 0]
    config = {**training.config, "device": "cuda", "precision": precision}
    result = run(plan_training(loop.TASK, training.train, training.test, 0, config, "one"), speech, whisper)
    assert len(result["steps"]) == 4


def test_a_step_of_the_study_on_the_true_architecture_of_whisper_small(folder, worker, speech, tmp_path):
    """Random weights, 30 s windows, 12 layers of width 768; the toy tokenizer, whose vocabulary is far smaller."""
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((Path(folder) / name).read_bytes())
    toy = json.loads((Path(folder) / "config.json").read_text())
    special = {name: toy[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")}
    WhisperConfig(
        vocab_size=51865, d_model=768, encoder_layers=12, decoder_layers=12, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072, **special,
    ).save_pretrained(tmp_path)  # fmt: skip
    WhisperFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    small = load_whisper(f"random:{tmp_path}")
    assert small.n_parameters == 241_734_912 and small.max_seconds == 30  # as openai/whisper-small
    training = worker.plan()["+ linear progressive", 0]
    config = {**training.config, "n_steps": 1, "batch_size": 1, "warmup_steps": 0}
    training = plan_training(loop.TASK, training.train, training.test, 0, config, "small")
    model = small.model  # its weights are random already
    before = model.model.encoder.layers[0].fc1.weight.detach().clone()
    ((done, record),) = loop.fine_tune(model, training, clips_of(speech, small))
    assert done == 1 and all(8 < loss < 14 for loss in record[:2] if loss)  # log(51865) = 10.9
    assert not torch.equal(before, model.model.encoder.layers[0].fc1.weight)


# Results ---------------------------------------------------------------------------------------------------------


def rates_of(values):
    """{(system, seed): (es, en, ca)} as error_rates gives it."""
    index = pd.MultiIndex.from_tuples(values, names=["system", "seed"])
    table = pd.DataFrame(list(values.values()), index=index, columns=["es", "en", "ca"], dtype=float)
    return table.assign(**{study.OTHERS: table[["es", "en"]].mean(axis=1), study.AVERAGE: table.mean(axis=1)})


RATES = rates_of(
    {
        ("original", 0): (0.1, 0.2, 1.0),
        ("fine-tuned", 0): (0.1, 0.2, 0.5),
        ("fine-tuned", 1): (0.1, 0.2, 0.4),
        ("+ loss ratio", 0): (0.2, 0.2, 0.45),
        ("+ loss ratio", 1): (0.1, 0.4, 0.4),
    }
)


def test_changes_are_relative_and_paired_by_seed():
    change = study.changes(RATES, "ca", "fine-tuned").loc["+ loss ratio"]
    assert change["change"] == pytest.approx(-0.05)  # of -0.1 and 0
    assert change["upper"] - change["change"] == pytest.approx(12.706 * 0.05, rel=1e-3)  # t with one degree of freedom
    to_original = study.changes(RATES, "ca", "original")["change"]
    assert to_original.to_dict() == pytest.approx({"fine-tuned": -0.55, "+ loss ratio": -0.575})


def test_forgetting_is_in_points_of_the_other_languages():
    forgotten = study.forgetting(RATES, "ca")
    assert forgotten.loc["fine-tuned"].to_list()[:3] == pytest.approx([0, 0, 0])
    assert forgotten.loc["+ loss ratio", ["es", "en", study.OTHERS]].to_list() == pytest.approx([5, 10, 7.5])
    assert forgotten.loc["+ loss ratio", "standard_error"] == pytest.approx(2.5)


def test_no_relative_change_from_a_baseline_without_errors():
    perfect = rates_of({("fine-tuned", s): (0, 0, 0) for s in (0, 1)} | {("EWC", s): (0, 0, 0.1) for s in (0, 1)})
    assert study.changes(perfect, "ca", "fine-tuned").isna().all(axis=None)


def test_the_papers_numbers_stand_above_ours():
    values = {("original", 0): (0.2, 0.2, 1.0), ("fine-tuned", 0): (0.2, 0.2, 0.5)}
    values |= {(name, 0): (0.2, 0.2, 0.45) for name in weighted_ce.SYSTEMS if name != "fine-tuned"}
    table = study.beside_the_paper(rates_of(values), "ca")
    assert table.loc["paper"].to_list() == [-0.0669, -0.4886, -0.0329]
    assert table.loc["+ loss ratio"].to_list() == pytest.approx([-0.1, -0.55, 0.85 / 0.9 - 1])


def test_intervals_over_speakers_enclose_the_rate_of_every_language():
    rows = [("a", 0, i, f"s{k % 5}", "", "", k % 3, 4) for i in ("es", "ca") for k in range(40)]
    rows += [("a", 0, "en", "alone", "", "", 1, 2)]
    columns = "system seed language speaker reference hypothesis n_errors n_reference".split()
    table = study.test_set_intervals(pd.DataFrame(rows, columns=columns))
    assert table["n_speakers"].to_dict() == {("a", "es"): 5, ("a", "ca"): 5, ("a", "en"): 1}
    several = table.drop(index=("a", "en"))
    assert (several["lower"] < several["wer"]).all() and (several["wer"] < several["upper"]).all()
    assert table.loc[("a", "en"), "wer"] == 0.5 and np.isnan(table.loc[("a", "en"), "lower"])


def test_tables_of_a_run_hold_every_training(worker, speech):
    plan = {key: t for key, t in worker.plan().items() if key[0] in (weighted_ce.ORIGINAL, "+ loss ratio")}
    results = {training.key: worker(training) for training in plan.values()}
    counts = study.error_counts(plan, results, speech)
    assert len(counts) == 3 * 9 and counts["n_reference"].eq(2).all()
    assert list(study.error_rates(counts, "ca")) == ["es", "en", "ca", study.OTHERS, study.AVERAGE]
    steps, chosen = study.training_steps(plan, results), study.checkpoints(plan, results)
    assert len(steps) == 2 * PARAMS["n_steps"] and set(steps["system"]) == {"+ loss ratio"}
    ratio = (steps["low_loss"] / steps["other_loss"]).dropna()
    expected = np.where(1.5 * ratio < 1, 1.0, np.maximum(1.5, ratio))
    assert steps.loc[ratio.index, "weight"].to_numpy() == pytest.approx(expected, abs=2e-3)  # losses are rounded
    assert chosen["chosen"].all() and chosen["step"].eq(PARAMS["n_steps"]).all()


def test_tables_with_one_seed_have_no_interval():
    one = RATES.xs(0, level="seed", drop_level=False)
    assert study.changes(one, "ca", "fine-tuned")[["lower", "upper"]].isna().all(axis=None)
    assert "±" not in study.table(one).to_string() and "±" in study.table(RATES).to_string()


def test_error_rates_pool_utterances_within_a_language_and_average_over_languages():
    rows = [("a", 0, "es", "s", "", "", 1, 4), ("a", 0, "es", "s", "", "", 1, 1), ("a", 0, "ca", "s", "", "", 3, 2)]
    columns = "system seed language speaker reference hypothesis n_errors n_reference".split()
    rates = study.error_rates(pd.DataFrame(rows, columns=columns), "ca").iloc[0]
    assert rates.to_dict() == pytest.approx({"es": 0.4, "ca": 1.5, study.OTHERS: 0.4, study.AVERAGE: 0.95})


def test_weighting_is_called_only_where_the_interval_says_so():
    values = {("original", 0): (0, 0, 1)}
    for seed in range(3):
        values["fine-tuned", seed] = (0, 0, 0.5)
        for name in weighted_ce.SYSTEMS:
            values[name, seed] = (0, 0, 0.5)
        values["+ loss ratio", seed] = (0, 0, 0.4 + 0.001 * seed)
        values["+ constant weight", seed] = (0, 0, 0.6 + 0.001 * seed)
        values["+ batch_scale", seed] = (0, 0, 0.5 + 0.1 * (seed - 1))
    effects = study.weighting_effects(rates_of(values), "ca")
    lines = {line.split(":")[0]: line for line in study.weighting_sentences(effects, "ca")}
    assert lines["+ loss ratio"].endswith("helps") and lines["+ constant weight"].endswith("harms")
    assert lines["+ batch_scale"].endswith("not told apart from zero") and len(lines) == 6


# The stand-in ----------------------------------------------------------------------------------------------------


def test_ctc_targets_are_the_text_without_the_end():
    labels = torch.tensor([[IGNORED, 1, 2, 9], [IGNORED, 3, 9, IGNORED]])
    text, lengths = ctc_targets(labels, 9)
    assert text.tolist() == [1, 2, 3] and lengths.tolist() == [2, 1]


def test_pretraining_lowers_both_losses():
    whisper = stand_in(TINY)
    features = whisper.features([sine_utterance(0.4, 100 + 30 * k) for k in range(4)]).half()
    log = train(
        whisper,
        features,
        ["a", "b", "c", "d"],
        ["es"] * 4,
        Recipe(**{**vars(TINY), "n_steps": 150, "warmup_steps": 10}),
    )
    assert [row["step"] for row in log] == [50, 100, 150]
    assert log[-1]["loss"] < 0.7 * log[0]["loss"] and log[-1]["ctc_loss"] < log[0]["ctc_loss"]


def test_the_stand_in_kept_here_was_made_by_this_recipe_and_transcribes_usefully():
    kept = json.loads((checkpoints.STAND_INS / "mini-whisper" / "recipe.json").read_text())
    assert kept["recipe"] == asdict(Recipe()) and kept["corpus"] == pretraining_corpus()
    assert "ca" not in kept["corpus"]["languages"] and kept["log"][-1]["step"] == Recipe().n_steps
    assert kept["wer"].keys() == set(kept["corpus"]["languages"]) and max(kept["wer"].values()) < 0.3
    # Other people and other sentences than those of the pretraining and of its own measurement.
    options = {**pretraining_corpus(), "speakers_per_language": 8, "utterances_per_speaker": 10, "seed": 7}
    table = frame(load_corpus("synthetic", **options))
    table = table[(table["split"] == "test") & (table["duration_s"] <= Recipe().window_s)]
    rates = word_error_rates(load_whisper("mini-whisper"), table)
    assert np.mean(list(rates.values())) < 0.3, rates
