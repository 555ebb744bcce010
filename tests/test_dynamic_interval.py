"""The dynamic interval: values by hand, an independent oracle, edges of the rule, and simulated curves.

The simulation also measures where the released rule misses, and the tests claim no more than that.
"""

import functools
import json
import math
import statistics
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cltmlib.cltm import chosen_n_samples, dynamic_interval, save_chosen
from cltmlib.errors import InputError

COLUMNS = ["language", "n_samples", "seed", "performance"]


def curves_of(performances):
    """Table from {language: {N: performances, one per seed}}."""
    rows = [
        (language, n, seed, performance)
        for language, curve in performances.items()
        for n, by_seed in curve.items()
        for seed, performance in enumerate(by_seed)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def curve_of_gains(gains, first=4, base=0.3):
    """One language on a grid of doublings from ``first``, two equal seeds: SE is 0, the slope term binds below 0.69."""
    performances = base + np.concatenate([[0], np.cumsum(gains)])
    return curves_of({"de": {first * 2**i: [p, p] for i, p in enumerate(performances)}})


def median_of_gain(gain):
    """CI_min where the slope term binds."""
    return np.asarray(gain) / (0.05 * np.log(2))


# --- The oracle: the rule again, in plain loops, from means and standard errors {language: {N: value}}.


def oracle_scores(mean, error, tau=0.05, z=1.3, epsilon=0.05):
    scores = {}
    for language in mean:
        for n, before in mean[language].items():
            if 2 * n not in mean[language]:
                continue
            gain = mean[language][2 * n] - before
            gain_error = math.sqrt(error[language][n] ** 2 + error[language][2 * n] ** 2)
            ratios = [gain / (math.log(2) * epsilon)]
            ratios += [gain / (tau * before)] if before else []
            ratios += [gain / (z * gain_error)] if gain_error else []
            scores[language, n] = min(ratios) if gain > 0 else 0.0
    return scores


def oracle_choice(scores):
    """Median by N, outliers, grid, smoothed curve and chosen N."""
    measured = sorted({n for _, n in scores})
    medians = [statistics.median(score for (_, m), score in scores.items() if m == n) for n in measured]
    first, third = sorted_quantile(medians, 0.25), sorted_quantile(medians, 0.75)
    kept = [i for i, median in enumerate(medians) if median <= third + 1.5 * (third - first)]
    if len(kept) == 1:
        grid, smooth = [float(measured[kept[0]])], [medians[kept[0]]]
    else:
        low, high = math.log10(measured[kept[0]]), math.log10(measured[kept[-1]])
        log_grid = [low + (high - low) * i / 199 for i in range(200)]
        raw = np.interp(log_grid, [math.log10(measured[i]) for i in kept], [medians[i] for i in kept])
        padded = [*raw[:20][::-1], *raw, *raw[-20:][::-1]]  # mirrored at the ends, 4 sigma each side
        weights = [math.exp(-(k**2) / (2 * 5**2)) for k in range(-20, 21)]
        smooth = [sum(w * padded[i + k] for k, w in enumerate(weights)) / sum(weights) for i in range(200)]
        grid = [10**x for x in log_grid]
    n_opt = grid[int(np.argmax(smooth))]
    chosen = min(measured, key=lambda n: abs(n - n_opt))
    outliers = [n for i, n in enumerate(measured) if i not in kept]
    return dict(zip(measured, medians, strict=True)), outliers, grid, smooth, chosen


def sorted_quantile(values, share):
    """Linear interpolation between order statistics."""
    values, position = sorted(values), share * (len(values) - 1)
    below = math.floor(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (position - below) * (values[above] - values[below])


# --- By hand


BY_HAND = curves_of(
    {
        "de": {10: [0.5, 0.5], 20: [0.6, 0.6], 40: [0.6, 0.62]},
        "nl": {10: [0.4, 0.5], 20: [0.5, 0.6], 40: [0.5, 0.5]},
    }
)


def test_scores_medians_and_choice_match_a_computation_by_hand():
    interval = dynamic_interval(BY_HAND)
    # Slope: 0.1 / (0.05 ln 2) = 2.885 against 4 (relative) and no SE; 0.01 / (0.05 ln 2) against 0.333 and 0.769.
    # nl: two values 0.1 apart have SE 0.05, so the gain 0.1 is 0.1 / (1.3 sqrt(0.005)) = 1.088; then it is negative.
    scores = [[2.885390, 0.288539], [1.087857, 0.0]]
    np.testing.assert_allclose(interval.scores, scores, rtol=1e-5)
    np.testing.assert_allclose(interval.median, np.mean(scores, axis=0), rtol=1e-5)
    assert list(interval.scores.index) == ["de", "nl"] and list(interval.scores.columns) == [10, 20]
    assert (interval.n, interval.two_n, interval.valid, interval.outliers) == (10, 20, [10], [])
    assert interval.is_valid and interval.score == interval.median[10]
    assert (interval.tau, interval.z, interval.epsilon) == (0.05, 1.3, 0.05)
    table = interval.table()
    assert table.drop(columns="median_ci_min").reset_index().to_numpy().tolist() == [
        [10, 20, 2, False, True, True],
        [20, 40, 2, False, False, False],
    ]
    np.testing.assert_allclose(table["median_ci_min"], interval.median)


@pytest.mark.parametrize(
    ("threshold", "base", "half_width", "score"),
    [
        ("tau", 0.9, 0.001, 0.03 / (0.05 * 0.9)),
        ("z", 0.4, 0.03, 0.03 / (1.3 * math.sqrt(2) * 0.03)),
        ("epsilon", 0.4, 0.001, 0.03 / math.log(2) / 0.05),
    ],
)
def test_each_of_the_three_terms_can_bind_and_then_only_its_threshold_matters(threshold, base, half_width, score):
    # Two values at m +- h have standard error h.
    curve = {n: [mean - half_width, mean + half_width] for n, mean in {8: base, 16: base + 0.03}.items()}
    table = curves_of({"de": curve})
    np.testing.assert_allclose(dynamic_interval(table).score, score)
    for name, value in {"tau": 0.05, "z": 1.3, "epsilon": 0.05}.items():
        stricter = dynamic_interval(table, **{name: 1.01 * value}).score
        np.testing.assert_allclose(stricter, score / 1.01 if name == threshold else score)


def test_standard_error_is_that_of_the_mean_over_seeds_and_not_their_standard_deviation():
    low, high = [0.30, 0.34, 0.38, 0.42], [0.36, 0.40, 0.44, 0.48]  # standard deviation 0.0516
    score = dynamic_interval(curves_of({"de": {8: low, 16: high}})).score
    np.testing.assert_allclose(score, 0.06 / (1.3 * math.sqrt(2) * statistics.stdev(low) / 2))


def test_a_first_performance_of_zero_makes_the_relative_gain_infinite():
    table = curves_of({"de": {8: [0.0, 0.0], 16: [0.1, 0.1]}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(dynamic_interval(table).score, median_of_gain(0.1))


# --- Against the oracle


GRIDS = {
    "doublings": [4 * 2**i for i in range(10)],
    "with steps between": [4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 128, 256],
    "dense": list(range(10, 50)),
}


@pytest.mark.parametrize("grid", GRIDS)
@given(seed=st.integers(0, 10**6), lost=st.sampled_from([0.0, 0.2]))
@settings(max_examples=20, deadline=None)
def test_result_equals_an_independent_implementation_on_random_curves(grid, seed, lost):
    generator = np.random.default_rng(seed)
    performances = {}
    for language in ["de", "nl", "tr", "fi"][: generator.integers(1, 5)]:
        middle, slope = generator.uniform(2, 7), generator.uniform(0.5, 3)
        performances[language] = {
            n: np.clip(0.4 + 0.5 / (1 + np.exp(-slope * (np.log2(n) - middle))) + generator.normal(0, 0.03, k), 0, 1)
            for n in GRIDS[grid]
            if generator.uniform() >= lost
            for k in [generator.integers(2, 6)]
        }
    mean = {language: {n: statistics.mean(p) for n, p in curve.items()} for language, curve in performances.items()}
    error = {
        language: {n: statistics.stdev(p) / math.sqrt(len(p)) for n, p in curve.items()}
        for language, curve in performances.items()
    }
    scores = oracle_scores(mean, error)
    medians, outliers, smooth_n, smooth, chosen = oracle_choice(scores)
    interval = dynamic_interval(curves_of(performances))
    found = interval.scores.stack().dropna().to_dict()
    assert found.keys() == scores.keys()
    np.testing.assert_allclose([found[key] for key in scores], list(scores.values()), rtol=1e-9)
    assert list(interval.median.index) == list(medians)
    np.testing.assert_allclose(interval.median, list(medians.values()), rtol=1e-9)
    assert interval.outliers == outliers
    np.testing.assert_allclose(interval.smoothed.index, smooth_n)
    np.testing.assert_allclose(interval.smoothed, smooth, rtol=1e-9, atol=1e-12)
    assert interval.n == chosen
    assert interval.valid == [n for n, median in medians.items() if median >= 1]


# --- The choice: outliers, ties, ends


BROAD = np.array([0.01, 0.03, 0.05, 0.07, 0.05, 0.03, 0.02, 0.01])


def test_a_stray_measurement_far_from_the_rise_is_set_aside_as_an_outlier():
    table = curve_of_gains([*BROAD, 0.0])
    assert (dynamic_interval(table).n, dynamic_interval(table).outliers) == (32, [])
    dip = table["n_samples"] == 1024
    table.loc[dip, "performance"] -= 0.3  # so the doubling from 1024 seems worth 0.3
    interval = dynamic_interval(table)
    assert interval.median.idxmax() == 1024 and interval.outliers == [1024]
    assert interval.n == 32 and 1024 in interval.valid and interval.smoothed.index[-1] == pytest.approx(512)


def test_a_rise_within_one_doubling_is_itself_the_outlier_and_a_neighbour_is_chosen():
    """A weakness of the released rule, kept and told: the steepest doubling is lost where the rest is flat."""
    interval = dynamic_interval(curve_of_gains([0.0, 0.001, 0.02, 0.3, 0.03, 0.002, 0.001, 0.0]))
    assert interval.median.idxmax() == 32 and interval.outliers == [32]
    assert interval.n == 64 and not interval.is_valid and interval.valid == [32]
    sentence = interval.sentence()
    assert sentence.startswith("NOT VALID") and "valid N: 32;" in sentence and "outliers: N = 32." in sentence


def test_the_nearest_n_may_be_an_outlier():
    # N from 20 to 39 and their doubles from 40: no N is the double of another, so gains can be set freely.
    gain = {n: 0.1 - 0.01 * abs(n - 30) if n != 30 else 0.6 for n in range(20, 40)}
    curve = {n: [0.3, 0.3] for n in gain} | {2 * n: [0.3 + g, 0.3 + g] for n, g in gain.items() if n >= 20}
    interval = dynamic_interval(curves_of({"de": curve}))
    assert interval.outliers == [30] and interval.n == 30 and interval.table().loc[30, ["outlier", "chosen"]].all()


def test_nearest_is_in_n_and_not_in_log_n():
    gains = {1: 0.01, 8: 0.1, 28: 0.1, 1024: 0.01}
    curve = {n: [0.3, 0.3] for n in gains} | {2 * n: [0.3 + gain] * 2 for n, gain in gains.items()}
    interval = dynamic_interval(curves_of({"de": curve}))
    assert math.sqrt(8 * 28) < interval.smoothed.idxmax() < (8 + 28) / 2
    assert interval.n == 8


def test_medians_that_differ_by_rounding_make_no_outlier_and_the_smallest_n_wins():
    exact = [0.25 + i / 32 for i in range(9)]  # all gains are the same float, so the quartiles are equal
    exact[4] = np.nextafter(exact[4], 1)
    interval = dynamic_interval(curves_of({"de": {4 * 2**i: [p, p] for i, p in enumerate(exact)}}))
    assert interval.median.idxmax() == 32 and 0 < interval.median[32] - interval.median[4] < 1e-12
    assert interval.outliers == [] and interval.n == 4


def test_of_two_equal_peaks_the_smaller_n_wins():
    interval = dynamic_interval(curve_of_gains([0.01, 0.05, 0.01, 0.01, 0.05, 0.01]))
    np.testing.assert_allclose(interval.median[8], interval.median[64])
    assert interval.n == 8


def test_a_single_n_with_its_double_is_the_answer():
    interval = dynamic_interval(curve_of_gains([0.1], first=30))
    assert (interval.n, interval.two_n, interval.outliers) == (30, 60, [])
    assert interval.smoothed.to_dict() == {30.0: interval.score}
    assert interval.dynamic_region == (30, 60) and "no other N" in interval.sentence()


def test_flat_and_falling_curves_score_zero_and_the_sentence_says_not_valid():
    for gains in ([0.0, 0.0, 0.0], [-0.01, -0.02, -0.1]):
        interval = dynamic_interval(curve_of_gains(gains, base=0.8))
        assert (interval.median == 0).all() and not interval.is_valid and interval.valid == []
        assert interval.n == 4 and interval.dynamic_region is None and interval.region(4) == "undetermined"
        assert interval.sentence().startswith("NOT VALID") and "add seeds" in interval.sentence()


def test_regions_are_the_unbroken_run_of_valid_intervals_around_the_chosen_one():
    gains = [0.04, 0.01, 0.05, 0.1, 0.06, 0.01, 0.04]  # valid is 0.0347 and more: N = 4, then 16 to 64, then 256
    interval = dynamic_interval(curve_of_gains(gains))
    assert (interval.n, interval.valid) == (32, [4, 16, 32, 64, 256])
    assert interval.dynamic_region == (16, 128)
    names = {n: interval.region(n) for n in (4, 15, 16, 60, 128, 129, 512)}
    assert list(names.values()) == ["under-trained"] * 2 + ["dynamic"] * 3 + ["saturated"] * 2
    assert dynamic_interval(curve_of_gains([0.05, 0.07, 0.05, 0.01])).dynamic_region == (4, 32)
    assert dynamic_interval(curve_of_gains([0.01, 0.05, 0.07, 0.05])).dynamic_region == (8, 64)


def test_sentence_names_the_interval_and_says_when_the_best_lies_at_an_end():
    inside = dynamic_interval(curve_of_gains(BROAD)).sentence()
    assert inside.startswith("The dynamic interval is [32, 64] (median CI_min 2.020 over 1 of 1 languages")
    assert "beyond" not in inside and "NOT VALID" not in inside
    assert "smallest N" in dynamic_interval(curve_of_gains([0.1, 0.06, 0.04])).sentence()
    assert "largest N" in dynamic_interval(curve_of_gains([0.04, 0.06, 0.1])).sentence()


# --- Tables that are not complete


def test_each_n_uses_the_languages_that_have_it_and_its_double_and_counts_them():
    table = curves_of(
        {
            "de": {8: [0.4, 0.4], 16: [0.5, 0.5], 32: [0.52, 0.52]},
            "nl": {16: [0.5, 0.5], 32: [0.56, 0.56], 7: [0.4, 0.4]},
            "tr": {8: [0.4, 0.4], 32: [0.6, 0.6]},
        }
    )
    interval = dynamic_interval(table)
    assert list(interval.scores.index) == ["de", "nl", "tr"] and list(interval.scores.columns) == [8, 16]
    assert interval.scores.isna().to_numpy().tolist() == [[False, False], [True, False], [True, True]]
    assert interval.table()["n_languages"].tolist() == [1, 2]
    np.testing.assert_allclose(interval.median, median_of_gain([0.1, 0.04]))
    assert "over 1 of 3 languages" in interval.sentence()


def test_seeds_may_differ_between_n_and_its_double():
    table = curves_of({"de": {8: [0.40, 0.42], 16: [0.50, 0.53, 0.56]}})
    same = dynamic_interval(table)
    table.loc[table["n_samples"] == 16, "seed"] += 10
    pd.testing.assert_frame_equal(dynamic_interval(table).scores, same.scores, check_exact=True)


def test_a_single_seed_is_allowed_where_no_interval_uses_it():
    extra = pd.DataFrame([("de", 1000, 0, 0.9)], columns=COLUMNS)
    assert dynamic_interval(pd.concat([BY_HAND, extra])).n == 10


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_order_of_rows_and_names_of_seeds_change_nothing(seed):
    generator = np.random.default_rng(seed)
    curves = {name: {4 * 2**i: generator.uniform(0.2, 0.9, 3) for i in range(6)} for name in ("de", "nl", "tr")}
    table = curves_of(curves)
    first = dynamic_interval(table)
    second = dynamic_interval(table.sample(frac=1, random_state=seed).assign(seed=lambda t: 7 - t["seed"]))
    pd.testing.assert_frame_equal(second.scores.loc[first.scores.index], first.scores, check_exact=True)
    pd.testing.assert_frame_equal(second.table(), first.table(), check_exact=True)
    pd.testing.assert_series_equal(second.smoothed, first.smoothed, check_exact=True)


def test_a_table_read_back_from_csv_gives_the_same_and_the_input_is_left_as_it_was(tmp_path):
    before = BY_HAND.copy()
    first = dynamic_interval(BY_HAND)
    pd.testing.assert_frame_equal(BY_HAND, before)
    BY_HAND.assign(n_samples=BY_HAND["n_samples"].astype(float), extra="x").to_csv(tmp_path / "curves.csv")
    second = dynamic_interval(pd.read_csv(tmp_path / "curves.csv"))
    pd.testing.assert_frame_equal(second.table(), first.table())
    assert type(second.n) is int


def changed(column, value, row=3):
    table = BY_HAND.astype({column: object})
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (BY_HAND.drop(columns="n_samples"), ["column 'n_samples'"]),
        (BY_HAND.iloc[:0], ["empty"]),
        (changed("seed", None), ["Row 3", "no seed"]),
        (changed("language", None), ["Row 3", "no language"]),
        (changed("performance", np.nan), ["'de'", "n_samples 20", "seed 1", "finite"]),
        (changed("performance", "bad"), ["'de'", "performance bad", "finite"]),
        (changed("performance", 62.0), ["'de'", "62.0", "percent"]),
        (changed("performance", -0.1), ["'de'", "-0.1", "[0, 1]"]),
        (changed("n_samples", 0), ["'de'", "n_samples 0", "positive whole number"]),
        (changed("n_samples", -20), ["n_samples -20", "positive whole number"]),
        (changed("n_samples", 20.5), ["n_samples 20.5", "positive whole number"]),
        (changed("n_samples", np.nan), ["'de'", "positive whole number"]),
        (pd.concat([BY_HAND, BY_HAND.iloc[[3]]]), ["'de'", "n_samples 20", "seed 1", "twice"]),
        (BY_HAND.drop(index=3), ["'de'", "single seed at n_samples 20", "two seeds"]),
        (BY_HAND[BY_HAND["seed"] == 1], ["'de'", "single seed at n_samples 10"]),
        (BY_HAND[BY_HAND["n_samples"] != 20], ["N and 2N", "10, 40"]),
        # The N and 2N of different languages make no interval.
        (curves_of({"de": {8: [0.5, 0.5]}, "nl": {16: [0.6, 0.6]}}), ["N and 2N", "8, 16"]),
    ],
)
def test_bad_tables_are_refused_in_one_sentence_that_names_the_row(table, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            dynamic_interval(table)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("name", ["tau", "z", "epsilon"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_thresholds_that_are_not_positive_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=name):
        dynamic_interval(BY_HAND, **{name: value})


# --- Handing the choice on to the notebooks of the matrices


PARAMS = {
    "corpus": "synthetic", "corpus_dir": None, "encoder": "mini-hubert", "encoder_revision": None, "batch_size": 4,
    "learning_rate": 3e-4, "max_seconds": 1.2, "samples_per_speaker": None, "speakers_per_sample": 0.25,
    "embedding_layers": 4, "trim_db": None, "n_samples": "auto",
}  # fmt: skip


@pytest.fixture
def outputs(tmp_path):
    """Folder of a profile, with the choices of notebook 01 for both tasks; the second is not valid."""
    intervals = {"gender": dynamic_interval(BY_HAND), "speaker": dynamic_interval(curve_of_gains([0.01, 0.02, 0.03]))}
    assert intervals["gender"].is_valid and not intervals["speaker"].is_valid
    save_chosen(tmp_path / "01_learning_curves", PARAMS, intervals)
    return tmp_path


def chosen(outputs, task="gender", **changes):
    return chosen_n_samples({**PARAMS, "output_dir": str(outputs / "02_gr_cltm"), **changes}, task)


def test_the_interval_that_was_chosen_is_what_auto_means(outputs):
    assert chosen(outputs) == 10 and type(chosen(outputs)) is int
    saved = json.loads((outputs / "01_learning_curves" / "dynamic_interval.json").read_text())
    interval = dynamic_interval(BY_HAND)
    entry = saved["tasks"]["gender"]
    assert entry.pop("made_with").items() <= PARAMS.items()
    assert entry == {"n": 10, "two_n": 20, "score": interval.score, "is_valid": True}


def test_of_a_path_only_what_is_not_of_the_machine_is_kept_and_compared(tmp_path):
    params = {**PARAMS, "corpus": "common_voice", "corpus_dir": "/disk/someone/cv", "encoder": "/disk/someone/hubert"}
    save_chosen(tmp_path / "01_learning_curves", params, {"gender": dynamic_interval(BY_HAND)})
    assert "someone" not in (tmp_path / "01_learning_curves" / "dynamic_interval.json").read_text()
    moved = {**params, "corpus_dir": "/data/cv", "output_dir": str(tmp_path / "02_gr_cltm")}
    assert chosen_n_samples(moved, "gender") == 10
    with pytest.raises(InputError, match=r"with corpus_dir '\.\.\./cv' and not '\.\.\./other'"):
        chosen_n_samples({**moved, "corpus_dir": "/data/other"}, "gender")


def test_a_rate_of_the_task_alone_is_the_one_compared(tmp_path):
    curves = {**PARAMS, "gender_learning_rate": 1e-4, "gender_batch_size": None}
    save_chosen(tmp_path / "01_learning_curves", curves, {"gender": dynamic_interval(BY_HAND)})
    assert chosen(tmp_path, learning_rate=1e-4) == 10
    with pytest.raises(InputError, match=r"learning_rate 0\.0001 and not 0\.0003"):
        chosen(tmp_path)


def test_a_relative_output_dir_counts_from_the_repository(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    save_chosen("outputs/mini/01_learning_curves", PARAMS, {"gender": dynamic_interval(BY_HAND)})
    assert (tmp_path / "outputs" / "mini" / "01_learning_curves" / "dynamic_interval.json").is_file()
    assert chosen_n_samples({**PARAMS, "output_dir": "outputs/mini/03_sv_cltm"}, "gender") == 10
    with pytest.raises(InputError, match=r"there is no outputs/smoke/01_learning_curves/dynamic_interval.json"):
        chosen_n_samples({**PARAMS, "output_dir": "outputs/smoke/03_sv_cltm"}, "gender")


def test_a_number_is_taken_as_it_is_whatever_was_chosen(outputs, tmp_path):
    assert chosen(outputs, n_samples=60) == 60 == chosen(tmp_path / "nothing", n_samples=60)
    assert chosen(outputs, task="speaker", n_samples=7, encoder="another") == 7


def test_saving_again_leaves_nothing_of_the_choice_before(outputs):
    file = outputs / "01_learning_curves" / "dynamic_interval.json"
    later = dynamic_interval(curve_of_gains([0.01, 0.2, 0.01], first=5))
    save_chosen(file.parent, {**PARAMS, "corpus": "common_voice"}, {"speaker": later})
    assert set(json.loads(file.read_text())["tasks"]) == {"speaker"}
    assert chosen(outputs, task="speaker", corpus="common_voice") == later.n
    with pytest.raises(InputError, match="holds no interval for gender"):
        chosen(outputs, corpus="common_voice")
    assert [path.name for path in file.parent.iterdir()] == ["dynamic_interval.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": "common_voice"}, "was made with corpus 'synthetic' and not 'common_voice': run notebook 01"),
        ({"encoder": "random:mini-hubert"}, "was made with encoder 'mini-hubert' and not 'random:mini-hubert'"),
        ({"learning_rate": 1e-3}, "was made with learning_rate 0.0003 and not 0.001"),
        (
            {"task": "speaker"},
            r"no interval of speaker in .* is valid \(best: N = \d+, median CI_min 0\.\d+ below 1\)",
        ),
        ({"output_dir": "/nowhere/at/all"}, "is auto, but there is no .*dynamic_interval.json: run notebook 01"),
    ],
)
def test_auto_without_a_choice_that_fits_is_refused_with_what_to_do(outputs, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        chosen(outputs, **changes)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".") and "give a number" in str(caught.value)
    assert str(outputs) not in str(caught.value)  # nothing of the machine


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"tasks": {"gender": {"n": 8}}}'])
def test_a_file_that_is_no_choice_says_to_run_notebook_01_again(outputs, text):
    (outputs / "01_learning_curves" / "dynamic_interval.json").write_text(text)
    with pytest.raises(InputError, match=r"dynamic_interval.json cannot be read .*: run notebook 01.* again"):
        chosen(outputs)


def test_a_choice_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"chosen interval cannot be written to .* \(Not a directory|File exists"):
        save_chosen(tmp_path / "file" / "01_learning_curves", PARAMS, {"gender": dynamic_interval(BY_HAND)})


# --- Simulated learning curves with a known answer

N_LANGUAGES, N_SEEDS = 10, 5
MEASURED = [4 * 2**i for i in range(10)]  # 4 to 2048: nine intervals


@functools.cache
def hit_rates(noise, n_draws, slope=1.5, centred=True):
    """How often the interval found is the true one, in two senses; shares of the draws.

    Expected performance of a language: floor + size / (1 + exp(-slope (log2 N - middle))), floor in 0.45 to 0.55, size
    in 0.35 to 0.45, middles with a standard deviation of 0.3 doublings around a common one. Centred, the common middle
    is that of the interval [64, 128], where with slope 1.5 the doubling is worth 0.14, the next best 0.09; otherwise
    it is anywhere from 32 to 512, so it may fall between two equally good intervals. Every training has normal noise of
    this standard deviation. "rule" is the interval that the oracle gives for the expected curves and the true standard
    errors, noise / sqrt(n_seeds); "rise" the one with the largest median over languages of the expected gain.
    """
    generator = np.random.default_rng(11)
    languages = [f"l{i}" for i in range(N_LANGUAGES)]
    index = pd.MultiIndex.from_product([languages, MEASURED, range(N_SEEDS)], names=COLUMNS[:3])
    hits = dict.fromkeys(["rule", "rule within one", "rise", "rise within one"], 0)
    for _ in range(n_draws):
        middle = (6.5 if centred else generator.uniform(5, 9)) + generator.normal(0, 0.3, (N_LANGUAGES, 1))
        floor = generator.uniform(0.45, 0.55, (N_LANGUAGES, 1))
        size = generator.uniform(0.35, 0.45, (N_LANGUAGES, 1))
        expected = floor + size / (1 + np.exp(-slope * (np.log2(MEASURED) - middle)))  # (language, N)
        mean = {name: dict(zip(MEASURED, row, strict=True)) for name, row in zip(languages, expected, strict=True)}
        error = {name: dict.fromkeys(MEASURED, noise / math.sqrt(N_SEEDS)) for name in languages}
        truth = {
            "rule": MEASURED.index(oracle_choice(oracle_scores(mean, error))[-1]),
            "rise": int(np.argmax(np.median(np.diff(expected), axis=0))),
        }
        performance = expected[:, :, None] + generator.normal(0, noise, (*expected.shape, N_SEEDS))
        curves = pd.DataFrame({"performance": performance.ravel().clip(0, 1)}, index=index).reset_index()
        found = MEASURED.index(dynamic_interval(curves).n)
        for sense, true in truth.items():
            hits[sense] += found == true
            hits[f"{sense} within one"] += abs(found - true) <= 1
    return {sense: count / n_draws for sense, count in hits.items()}


def test_true_interval_is_found_in_95_percent_of_200_draws_with_5_seeds_and_seed_noise_of_2_points():
    rates = hit_rates(0.02, 200)
    assert rates["rule"] >= 0.95 and rates["rise"] >= 0.95, rates
    assert rates["rule within one"] == rates["rise within one"] == 1, rates


@pytest.mark.parametrize(("noise", "exact"), [(0.04, 0.85), (0.08, 0.5)])
def test_with_more_seed_noise_the_interval_found_is_the_true_one_or_its_neighbour(noise, exact):
    rates = hit_rates(noise, 100)
    assert rates["rule within one"] >= 0.95 and rates["rise within one"] >= 0.95, rates
    assert rates["rule"] >= exact and rates["rise"] >= exact, rates


def test_where_the_rise_may_fall_between_two_intervals_the_one_found_is_the_true_one_or_its_neighbour():
    rates = hit_rates(0.02, 100, centred=False)
    assert rates["rule within one"] >= 0.95 and rates["rise within one"] >= 0.95, rates
    assert rates["rule"] >= 0.7 and rates["rise"] >= 0.65, rates


def test_where_the_rise_takes_two_doublings_the_steepest_one_is_rarely_chosen_but_a_neighbour_is():
    """Slope 2.5: the doubling is worth 0.22, the next best 0.08; the outlier step sets the first aside."""
    rates = hit_rates(0.02, 50, slope=2.5)
    assert rates["rise"] <= 0.2 and rates["rise within one"] >= 0.95, rates
