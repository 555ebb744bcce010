"""Phones, units, alignment and error rates; the figures of notebook 06; its parameters."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from figure_checks import assert_legible, lines, texts
from numpy.testing import assert_allclose

from cltmlib import figures, params, planning, unsupervised
from cltmlib.errors import InputError
from cltmlib.unsupervised import phones, population, report, simulation, speech
from cltmlib.unsupervised.adversarial import emission_of, train_adversarially

NOTEBOOK = "06_unsupervised_asr"
SMOKE = params.read_profile("smoke", NOTEBOOK)


def test_phones_come_from_spelling_alone():
    found = phones.phones_of(["Buenos días", "", "tres niños"], "es")
    assert found[0] == list("bwenosðias") and found[1] == [] and found[2] == list("tɾesniɲos")
    assert phones.phones_of(["Schweiz"], "de")[0][-1] in ("ts", "s")
    assert phones.phones_of(["uno", "dos"], "es") == [["u", "n", "o"], ["d", "o", "s"]]


def test_a_language_that_espeak_does_not_speak_is_named():
    with pytest.raises(InputError, match="Parameter 'language' is 'xx'"):
        phones.phones_of(["a"], "xx")


def test_rare_phones_share_one_label():
    text = [list("aaab"), list("aabc"), list("d")]
    assert phones.alphabet(text, 3) == ["a", "b", phones.OTHER]
    assert phones.alphabet(text, 9) == ["a", "b", "c", "d"]
    assert phones.to_labels(list("abcx"), ["a", "b", phones.OTHER]) == [0, 1, 2, 2]
    assert phones.to_labels(list("abcx"), ["a", "b"]) == [0, 1]
    with pytest.raises(InputError, match="'n_phones'"):
        phones.alphabet([["a"]], 5)


def test_alignment_is_the_best_monotone_one():
    generator = np.random.default_rng(0)
    for _ in range(30):
        n_units, n_phones = 7, int(generator.integers(1, 5))
        units, labels = generator.integers(0, 4, n_units), generator.integers(0, 3, n_phones)
        logs = np.log(generator.dirichlet(np.ones(4), 3))
        path = speech.align(units, labels, logs)
        assert path[0] == 0 and path[-1] == n_phones - 1 and set(np.diff(path)) <= {0, 1}

        def score(cuts, units=units, labels=labels, logs=logs, n_phones=n_phones):
            at = np.searchsorted(cuts, np.arange(len(units)), side="right")
            return logs[labels[at], units].sum()

        from itertools import combinations

        best = max(score(np.array(cuts, dtype=int)) for cuts in combinations(range(1, n_units), n_phones - 1))
        assert logs[labels[path], units].sum() == pytest.approx(best)


def test_phone_error_rate_counts_edits():
    assert speech.phone_error_rate([[1, 2, 3]], [[1, 2, 3]]) == 0
    assert speech.phone_error_rate([[1, 2, 3], [4]], [[1, 3], [4, 5]]) == 0.5
    assert speech.phone_error_rate([[1]], [[2, 3, 4]]) == 3


def fake_clips(n_clips=60, seed=0, dependent=False):
    """Clips whose phones are heard as noisy points; the text comes from the same bigram."""
    generator = np.random.default_rng(seed)
    model = unsupervised.NGram(([0.7, 0.2, 0.1], [[0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.5, 0.2, 0.3]]))
    centres = 4 * np.eye(3)
    names, features, sentences = list("abc"), [], []
    for _ in range(n_clips):
        labels = model.sample(1, 12, generator)[0]
        frames = np.repeat(centres[labels], generator.integers(2, 5, len(labels)), axis=0)
        features.append((frames + 0.3 * generator.normal(size=frames.shape)).astype(np.float32))
        sentences.append([names[label] for label in labels])
    return ["".join(sentence) for sentence in sentences], sentences, features


def test_speech_that_keeps_the_conditions_is_recognised_without_transcripts():
    sentences, phone_lists, features = fake_clips(200)
    clips = speech.prepare_clips(sentences, phone_lists, features, 5, seed=0)
    table, facts = speech.recognise_speech(clips, n_units=6, n_iterations=30, n_starts=4, seed=0)
    rates = table.set_index(["task", "method"])["phone_error_rate"]
    assert rates["segments", "supervised"] < 0.1 and rates["segments", "EM best"] < 0.15
    assert rates["segments", "chance"] > 0.3 and facts["n_unaligned"] == 0
    assert abs(facts["dependence_segments"]) < 0.1
    losses = table.set_index(["task", "method"])
    assert np.isfinite(losses.drop("chance", level="method")[["loss", "held_out_loss"]]).all(axis=None)
    for task in ("segments", "units"):
        started, redrawn = (losses.loc[task].loc[f"EM from supervised{end}"] for end in ("", ", redrawn"))
        assert started["loss"] < losses.loc[(task, "supervised"), "loss"] + 0.01, "EM lowers it by construction"
        assert redrawn["loss"] < losses.loc[(task, "supervised, redrawn"), "loss"] + 0.01


def test_the_units_task_uses_clips_whatever_their_transcripts_say():
    """A clip with more phones than units cannot be aligned; only methods that see transcripts leave it out."""
    sentences, phone_lists, features = fake_clips(80)
    wrong = [list("abcabcabcabcabcabc") * 4 if k % 10 == 0 else p for k, p in enumerate(phone_lists)]
    results = []
    for phones_of_speech in (phone_lists, wrong):
        clips = speech.prepare_clips(sentences, phone_lists, features, 5, seed=0)
        labels = {s: [("abc").index(x) for x in p] for s, p in zip(sentences, phones_of_speech, strict=True)}
        heard = [s for s, part in zip(sentences, speech.split_sentences(sentences, 0), strict=True) if part != "text"]
        position = [clips.alphabet.index(name) for name in "abc"]
        clips = dataclasses.replace(clips, phones=[[position[c] for c in labels[s]] for s in heard])
        results.append(speech.recognise_speech(clips, n_units=6, n_iterations=5, n_starts=2, seed=0))
    (before, facts), (after, facts_of_wrong) = results
    assert facts["n_unaligned"] == 0 < facts_of_wrong["n_unaligned"]
    assert facts["n_train"] == facts_of_wrong["n_train"] and facts["n_test"] == facts_of_wrong["n_test"]
    units = (table[table["task"] == "units"].set_index("method") for table in (before, after))
    before, after = (table.loc[["EM best", "EM flat"], ["loss", "held_out_loss"]] for table in units)
    assert_allclose(before, after, rtol=1e-12)


def test_runs_of_independent_frames_depend_on_their_neighbours_as_much_as_the_floor_says():
    generator = np.random.default_rng(2)
    labels = [np.repeat(generator.integers(0, 3, 60), 5) for _ in range(100)]
    emission = generator.dirichlet(np.ones(6), 3)
    units = [(emission[c].cumsum(1) < generator.random((len(c), 1))).sum(1) for c in labels]
    frames = list(zip(units, labels, strict=True))
    assert abs(speech.dependence(frames, 0)) < 0.01, "frames keep Condition 1"
    runs = [(u[starts], c[starts]) for (u, c), (_, starts) in zip(frames, map(speech.run_lengths, units), strict=True)]
    floor = speech.collapse_dependence(frames, 3, 6, 0)
    assert speech.dependence(runs, 0) == pytest.approx(floor, abs=0.03) and floor > 0.05


def test_clips_that_are_too_long_are_listed_with_the_reason(tmp_path):
    given = {**SMOKE, "output_dir": str(tmp_path / "out"), "max_seconds": 2.0, "n_clips": 20}
    table, waveforms, skipped = speech.load_clips(given)
    assert len(table) == len(waveforms) and len(table) + len(skipped) == 20
    assert skipped["reason"].str.contains("max_seconds").any()
    assert max(map(len, waveforms)) <= 2.0 * 16000


def test_sentences_are_never_in_two_parts():
    sentences = [f"sentence {k % 20}" for k in range(60)]
    part = speech.split_sentences(sentences, seed=0)
    assert pd.DataFrame({"s": sentences, "p": part}).groupby("s")["p"].nunique().max() == 1
    assert set(part) == {"text", "train", "test"}
    with pytest.raises(InputError, match="7 different sentences"):
        speech.split_sentences(list("abcdefg"), seed=0)


def test_dependence_is_zero_where_condition_1_holds_and_not_elsewhere():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 20000)
    free = 2 * labels + generator.integers(0, 2, len(labels))
    speaker = 2 * labels + np.repeat(generator.integers(0, 2, 200), 100)  # who speaks shows in every symbol
    parts = [np.split(x, 200) for x in (labels, free, speaker)]
    assert abs(speech.dependence(list(zip(parts[1], parts[0], strict=True)), 0)) < 0.01
    assert speech.dependence(list(zip(parts[2], parts[0], strict=True)), 0) > 0.6


def test_too_many_units_are_named():
    with pytest.raises(InputError, match="'n_units' is 50"):
        speech.cluster(np.zeros((10, 2), np.float32), 50, 0)


@pytest.mark.parametrize("layer, dim", [(None, 39), (2, 128)])
def test_features_are_normalised_over_the_frames_of_a_clip(layer, dim):
    from cltmlib.encoders import load_encoder
    from cltmlib.testing import sine_utterance

    encoder = None if layer is None else load_encoder("mini-hubert")
    (found,) = speech.extract_features([sine_utterance(1.0)], encoder, layer, "auto")
    assert found.shape[1] == dim and 45 <= len(found) <= 50 and found.dtype == np.float32
    assert_allclose(found.mean(0), 0, atol=1e-3)
    if layer is not None:
        with pytest.raises(InputError, match="'feature_layer' is 9, but mini-hubert has 4 layers"):
            speech.extract_features([sine_utterance(1.0)], encoder, 9)


def test_adversarial_training_is_repeatable_and_gives_distributions():
    problem = simulation.draw_problem("full-rank bigram", 200, 200, 0)
    symbols, text = problem.symbols[None], torch.from_numpy(problem.text)[None]
    first, second = (train_adversarially(symbols, text, 6, 12, 3, [1]) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (1, 12, 6)
    beside = train_adversarially(symbols.repeat(2, 1, 1), text.repeat(2, 1, 1), 6, 12, 3, [5, 1])
    assert_allclose(beside[1], first[0], atol=1e-5)
    assert (beside[0] - beside[1]).abs().max() > 0.01, "runs draw their own numbers"
    assert_allclose(first.sum(-1), 1)
    assert_allclose(emission_of(first[0], problem.symbols).sum(1), 1)


@pytest.fixture(scope="module")
def experiments():
    torch.set_num_threads(1)
    return {
        "methods": unsupervised.compare_methods(simulation.KINDS, [0, 1], 100, 100, 3, 1),
        "sizes": unsupervised.sample_sizes([5, 50], [20, 100], [0, 1], 3),
        "objectives": unsupervised.compare_objectives([0, 1], 100, 100, 3, 2, 2),
        "runs": population.train_on_population(list(unsupervised.KINDS), 2, 2, 10, 0),
        "instances": unsupervised.validate_bound(60, 0),
        "sweep": unsupervised.conditioning_sweep([1.0, 0.1], 5, 0),
    }


def test_figures_show_the_tables_and_are_legible(experiments):
    drawn = {
        "conditions": figures.conditions({"one": np.eye(3), "two": np.full((3, 3), 1 / 3)}),
        "structure": figures.structure(unsupervised.structures()),
        "bound": figures.bound_scatter(experiments["instances"]),
        "sweep": figures.conditioning_curves(experiments["sweep"]),
        "training": figures.training_curves(experiments["runs"]),
        "sizes": figures.sample_size_curves(experiments["sizes"]),
        "methods": figures.method_dots(experiments["methods"], "language_model", "symbol_error", "symbol error", "n."),
    }
    for figure in drawn.values():
        assert_legible(figure)
    low = experiments["instances"].assign(theorem_1_left=1e-9)
    assert "60 of them below the lower edge" in " ".join(texts(figures.bound_scatter(low), "note"))
    sizes = experiments["sizes"]
    (line,) = lines(drawn["sizes"].axes[0], "text EM flat")
    of_text = sizes[(sizes["varied"] == "text") & (sizes["method"] == "EM flat")].groupby("size")["symbol_error"].mean()
    assert_allclose(line.get_ydata(), of_text.to_numpy())
    dots = lines(drawn["methods"].axes[0], "full-rank bigram EM flat")
    methods = experiments["methods"].set_index(["language_model", "method"])["symbol_error"]
    assert_allclose(np.array(dots[0].get_xdata(), float), methods["full-rank bigram", "EM flat"].mean())


def test_sentences_follow_the_tables(experiments):
    against = unsupervised.against_topline(experiments["methods"])
    against["excess"] = [1.0, 3.0, 1.0, 1.0]
    text = report.topline_sentence(against)
    assert "stationary bigram" in text and text.count("NOT within") == 1
    violated = unsupervised.violations(experiments["instances"])
    assert "60 random pairs" in report.validation_sentence(violated, experiments["instances"])
    summary = unsupervised.objectives_summary(experiments["objectives"])
    assert set(summary.index) == {"cross-entropy", "adversarial", "adversarial + LM"}
    assert "topline" in unsupervised.objectives_sentence(summary)
    runs = experiments["runs"]
    sentence = population.population_sentence(runs, population.population_summary(runs).assign(bound_used=2.0))
    assert "VIOLATED" in sentence
    sentence = population.population_sentence(runs, population.population_summary(runs).assign(bound_used=np.nan))
    assert "no corollary" in sentence and "VIOLATED" not in sentence


def test_the_sentence_on_speech_counts_held_out_losses_and_subtracts_the_control():
    """Both drifts are .1 in error; held-out loss falls on the speech of one seed of two, the control's rises."""
    errors = {"supervised": 0.2, "EM from supervised": 0.3, "EM best": 0.4, "chance": 0.8}
    errors |= {"supervised, redrawn": 0.2, "EM from supervised, redrawn": 0.24}
    rows = [
        (task, seed, method, error, (-1 if seed else 1) if method == "EM from supervised" else 0.0)
        for task in ("units", "segments") for seed in (0, 1) for method, error in errors.items()
    ]  # fmt: skip
    rows = pd.DataFrame(rows, columns=["task", "seed", "method", "phone_error_rate", "held_out_loss"])
    columns = ["rank", "n_labels", "sigma_min", "dependence_units", "dependence_units_floor", "dependence_segments"]
    text = report.speech_sentence(rows, pd.DataFrame([[2, 2, 0.1, 0.5, 0.1, 0.2]] * 2, columns=columns))
    assert text.count("Beyond that control: +0.060") == 2
    assert text.count("prefers the table with more errors in 1 of 2 seeds") == 2
    assert "(0.10 from the collapse of repetitions alone)" in text


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"language": False}, "bare no as false"),
        ({"language": "Spanish"}, "no locale code"),
        ({"language": ["es"]}, "Parameter 'language'"),
        ({"text_sizes": []}, "'text_sizes' and 'speech_sizes'"),
        ({"seeds": [0]}, "two or more"),
        ({"n_phones": 1}, "'n_phones'"),
        ({"feature_layer": 0}, "'feature_layer'"),
        ({"n_instances": 9}, "'n_instances'"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        params.load(NOTEBOOK, {**SMOKE, **changes})


def test_plan_needs_no_store():
    row, note = planning.estimate(params.load(NOTEBOOK, SMOKE))
    assert row[1] == "-" and "random models" in note
