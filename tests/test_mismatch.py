"""Trials within a language and across, the loss between them, and what subtracting a language's mean changes."""

import math
from itertools import combinations, pairwise, product

import numpy as np
import pandas as pd
import pytest

from cltmlib import cltm
from cltmlib.cltm import (
    DistanceTransferCorrelation,
    change_sentence,
    correlation_sentence,
    language_cost,
    mismatch_sentence,
    mismatch_table,
    score_trials,
    transfer_change,
)
from cltmlib.errors import InputError

ACROSS = "across languages"


def people(n_speakers=3, n_clips=2, languages=("es", "tr")):
    """Rows of so many speakers of each gender, each with so many clips in every language."""
    return [
        {"speaker": f"{gender[0]}{k}", "gender": gender, "language": language}
        for gender in ("female", "male")
        for k in range(n_speakers)
        for language in languages
        for _ in range(n_clips)
    ]


def embed(rows, seed, language_shift=0.0, dim=12):
    """A vector for every speaker, one for every language, and noise: (clip, dim)."""
    generator = np.random.default_rng(seed)
    of_speaker = {name: generator.normal(size=dim) for name in sorted({row["speaker"] for row in rows})}
    of_language = {code: generator.normal(size=dim) for code in sorted({row["language"] for row in rows})}
    noise = generator.normal(size=(len(rows), dim))
    means = [of_speaker[row["speaker"]] + language_shift * of_language[row["language"]] for row in rows]
    return np.array(means) + 0.5 * noise


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


# --- Scores


def test_every_score_is_the_cosine_of_two_clips_of_its_condition():
    """Cosines of random vectors are all different, so that a score tells which two clips it is of."""
    rows = people(3, 3, ("es", "tr", "sw"))
    vectors = embed(rows, seed=0, language_shift=0.5)
    pair_of = {cosine(vectors[a], vectors[b]): (rows[a], rows[b]) for a, b in combinations(range(len(rows)), 2)}
    cosines = np.array(sorted(pair_of))
    assert np.diff(cosines).min() > 1e-9
    trials = score_trials(vectors, rows)
    assert set(trials["condition"]) == {"within es", "within tr", "within sw", ACROSS}
    assert trials["score"].is_unique
    for trial in trials.itertuples():
        found = cosines[np.abs(cosines - trial.score).argmin()]
        assert abs(found - trial.score) < 1e-12
        one, two = pair_of[found]
        assert {trial.speaker, trial.other} == {one["speaker"], two["speaker"]} and one["gender"] == two["gender"]
        assert trial.same_speaker == (one["speaker"] == two["speaker"])
        if trial.condition == ACROSS:
            assert one["language"] != two["language"]
        else:
            assert f"within {one['language']}" == f"within {two['language']}" == trial.condition


def test_scores_of_vectors_at_known_angles():
    """Per gender and language one speaker has two clips: one target, and one of two possible non-targets."""
    degrees = {
        ("f0", "es"): [0, 10], ("f1", "es"): [90], ("m0", "es"): [180, 200], ("m1", "es"): [290],
        ("f0", "tr"): [30], ("f1", "tr"): [150, 155], ("m0", "tr"): [240], ("m1", "tr"): [330, 337],
    }  # fmt: skip
    rows, vectors = [], []
    for (speaker, language), angles in degrees.items():
        for angle in angles:
            rows.append({"speaker": speaker, "gender": "female" if speaker[0] == "f" else "male", "language": language})
            vectors.append(np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))]) * (1 + angle))
    trials = score_trials(np.array(vectors), rows)

    def angles(condition, same):
        part = trials[(trials["condition"] == condition) & (trials["same_speaker"] == same)]
        return sorted(round(math.degrees(math.acos(score)), 6) for score in part["score"])

    assert angles("within es", True) == [10, 20]
    assert angles("within tr", True) == [5, 7]
    assert angles(ACROSS, True) == [20, 30, 40, 40, 47, 60, 60, 65]  # 2 x 1 clips of f0, 1 x 2 of f1; m0, m1 alike
    female, male = angles("within es", False)
    assert female in (80, 90) and male in (90, 110)
    assert all(angle in (120, 125, 90, 97) for angle in angles("within tr", False))
    across = {120, 125, 140, 145, 150, 155, 60, 130, 137, 157, 50}  # f0 with f1, m0 with m1
    assert len(angles(ACROSS, False)) == 8 and set(angles(ACROSS, False)) <= across


def test_order_of_the_rows_changes_only_which_non_targets_are_drawn():
    rows = people(4, 3)
    vectors = embed(rows, seed=1)
    plain = score_trials(vectors, rows)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = score_trials(vectors[order], [rows[k] for k in order])
    counts = [trials.groupby(["condition", "same_speaker"]).size() for trials in (plain, shuffled)]
    pd.testing.assert_series_equal(*counts)
    targets = [
        trials[trials["same_speaker"]].sort_values(["condition", "speaker", "score"], ignore_index=True)
        for trials in (plain, shuffled)
    ]
    assert len(targets[0]) == 2 * (2 * 4 * 3 + 4 * 9)  # genders x (2 languages x 3 pairs, and 3 x 3 across)
    pd.testing.assert_frame_equal(*targets)
    pd.testing.assert_frame_equal(plain, score_trials(vectors, rows))


def test_length_of_the_embeddings_changes_no_score():
    rows = people()
    vectors = embed(rows, seed=2)
    lengths = np.random.default_rng(0).uniform(0.1, 10, (len(rows), 1))
    pd.testing.assert_frame_equal(score_trials(vectors, rows), score_trials(vectors * lengths, rows))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (people(languages=["es"]), "Trials across languages need two languages, but all clips are in 'es'."),
        ([], "Trials across languages need two languages, but there are no clips."),
        (
            [row for row in people(4) if (row["language"] == "es") == (row["speaker"][1] in "01")],
            "'es and tr' has 4 female speakers, none of whom speaks two of the languages to test on",
        ),
        (
            [row for row in people(2) if row["language"] == "es" or row["speaker"] != "m1"],
            "Language 'tr' has 1 male speaker to test on",
        ),
        ([row for row in people(3) if row["gender"] == "male"], "Language 'es' has 0 female speakers"),
    ],
)
def test_people_without_trials_across_languages_are_one_sentence(rows, sentence):
    with pytest.raises(InputError) as caught:
        score_trials(np.ones((len(rows), 2)), rows)
    message = str(caught.value)
    assert sentence in message and "\n" not in message and message.endswith(".")


# --- Tables of trials


def random_trials(seed=0, n=60):
    """Trials of two models and three seeds with tied scores; the speakers have nothing to do with the scores."""
    generator = np.random.default_rng(seed)
    parts = []
    for model, of_seed in product(("all", "es alone"), (3, 1, 2)):
        for number, condition in enumerate(("within es", "within tr", ACROSS)):
            same = np.arange(n) % 2 == 0
            score = generator.normal(size=n) + same * generator.uniform(0.3, 2) - 0.4 * number
            speaker = generator.integers(4, size=n)
            other = np.where(same, speaker, (speaker + generator.integers(1, 4, n)) % 4)
            columns = {"condition": condition, "same_speaker": same, "score": score.round(1)}
            names = {"speaker": [f"s{k}" for k in speaker], "other": [f"s{k}" for k in other]}
            parts.append(pd.DataFrame({**columns, **names}).assign(model=model, seed=of_seed))
    return pd.concat(parts, ignore_index=True)


def auc_by_counting(same, score):
    """Share of (target, non-target) pairs in the right order; ties count half."""
    pairs = [(t, o) for (t, o) in product(score[same], score[~same])]
    return sum((t > o) + 0.5 * (t == o) for t, o in pairs) / len(pairs)


def eer_by_bisection(same, score):
    """Where the straight line between two neighbouring thresholds has as many misses as false alarms."""
    points = [(1.0, 0.0)]  # (false alarms, misses), from accepting all to accepting nobody
    for threshold in np.unique(score):
        points.append((np.mean(score[~same] > threshold), np.mean(score[same] <= threshold)))
    for (alarm, miss), (next_alarm, next_miss) in pairwise(points):
        if next_miss >= next_alarm:
            low, high = 0.0, 1.0
            for _ in range(60):
                middle = (low + high) / 2
                below = miss + middle * (next_miss - miss) < alarm + middle * (next_alarm - alarm)
                low, high = (middle, high) if below else (low, middle)
            return alarm + low * (next_alarm - alarm)


def standard_error(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def measured(part):
    """The numbers of one model, condition and seed, without pandas' groups and scikit-learn."""
    same, score = part["same_speaker"].to_numpy(), part["score"].to_numpy()
    by_speaker = []
    for name in sorted(set(part["speaker"])):
        own = ((part["speaker"] == name) | (part["other"] == name)).to_numpy()
        if same[own].any() and not same[own].all():
            by_speaker.append(auc_by_counting(same[own], score[own]))
    return {
        "auc": auc_by_counting(same, score),
        "eer": eer_by_bisection(same, score),
        "target_score": score[same].mean(),
        "non_target_score": score[~same].mean(),
        "auc_speaker_sd": standard_error(by_speaker) * math.sqrt(len(by_speaker)),
    }


def test_table_agrees_with_counting_pairs_of_trials():
    trials = random_trials()
    table = mismatch_table(trials)
    assert list(table.columns) == [
        "auc", "auc_standard_error", "eer", "target_score", "non_target_score", "auc_speaker_sd",
    ]  # fmt: skip
    assert list(table.index) == list(product(("all", "es alone"), ("within es", "within tr", ACROSS)))
    for (model, condition), row in table.iterrows():
        of_cell = trials[(trials["model"] == model) & (trials["condition"] == condition)]
        seeds = [measured(of_cell[of_cell["seed"] == seed]) for seed in (1, 2, 3)]
        for name in seeds[0]:
            assert row[name] == pytest.approx(np.mean([of_seed[name] for of_seed in seeds]), abs=1e-12), name
        assert row["auc_standard_error"] == pytest.approx(standard_error([of_seed["auc"] for of_seed in seeds]))


def test_spread_over_speakers_is_that_of_their_own_targets_and_non_targets():
    """a is told apart from b and c in all trials, b and c are not; d has no non-target and does not count."""
    rows = [
        ("a", "a", 0.9), ("b", "b", 0.5), ("c", "c", 0.4), ("d", "d", 0.0),
        ("a", "b", 0.1), ("c", "a", 0.2), ("b", "c", 0.6),
    ]  # fmt: skip
    trials = pd.DataFrame(rows, columns=["speaker", "other", "score"]).assign(condition=ACROSS, model="all", seed=0)
    trials["same_speaker"] = trials["speaker"] == trials["other"]
    row = mismatch_table(trials).loc[("all", ACROSS)]
    assert row["auc_speaker_sd"] == pytest.approx(np.std([1.0, 0.5, 0.5], ddof=1))
    assert row["auc"] == pytest.approx(7 / 12) and np.isnan(row["auc_standard_error"])


def test_cost_is_the_mean_within_less_the_across_paired_over_seeds():
    trials = random_trials(1)
    cost = language_cost(trials)
    assert list(cost.index) == ["all", "es alone"] and cost["n_seeds"].tolist() == [3, 3]
    for model, row in cost.iterrows():
        losses = {"auc": [], "target_score": [], "non_target_score": []}
        for seed in (1, 2, 3):
            part = trials[(trials["model"] == model) & (trials["seed"] == seed)]
            es, tr, across = (measured(part[part["condition"] == c]) for c in ("within es", "within tr", ACROSS))
            for name, of_seed in losses.items():
                of_seed.append((es[name] + tr[name]) / 2 - across[name])
        for name, of_seed in zip(("auc_loss", "target_shift", "non_target_shift"), losses.values(), strict=True):
            assert row[name] == pytest.approx(np.mean(of_seed))
            assert row[f"{name}_standard_error"] == pytest.approx(standard_error(of_seed))


def test_what_a_seed_does_to_all_trials_is_no_error_of_the_cost():
    one = random_trials()
    one = one[(one["model"] == "all") & (one["seed"] == 1) & (one["condition"] != "within tr")]
    one.loc[one["condition"] == "within es", "score"] = one.loc[one["condition"] == ACROSS, "score"].to_numpy() + 0.25
    trials = pd.concat([one.assign(seed=seed, score=one["score"] + 3 * seed) for seed in range(4)])
    assert mismatch_table(trials.assign(seed=0)).loc[("all", ACROSS), "target_score"] > 4  # the seeds do differ
    cost = language_cost(trials).loc["all"]
    assert cost["target_shift"] == pytest.approx(0.25) and cost["non_target_shift"] == pytest.approx(0.25)
    assert cost["target_shift_standard_error"] < 1e-12 and cost["non_target_shift_standard_error"] < 1e-12


def test_cost_of_one_seed_has_no_standard_error():
    cost = language_cost(random_trials().query("seed == 1"))
    assert cost["n_seeds"].eq(1).all() and cost["auc_loss"].notna().all()
    assert cost.filter(like="standard_error").isna().all(axis=None) and len(cost.filter(like="standard_error").T) == 3


@pytest.mark.parametrize("table", [mismatch_table, language_cost])
def test_no_trials_give_a_table_without_rows_and_the_same_columns(table):
    trials = random_trials()
    empty, full = table(trials.iloc[:0]), table(trials)
    assert len(empty) == 0 and list(empty.columns) == list(full.columns)
    assert list(empty.index.names) == list(full.index.names)


def scored(language_shift, n_seeds=4):
    rows = people(6, 4)
    parts = [score_trials(embed(rows, seed, language_shift), rows).assign(seed=seed) for seed in range(n_seeds)]
    return pd.concat(parts).assign(model="all")


def test_a_planted_shift_between_languages_is_found():
    trials = scored(language_shift=1.0)
    table = mismatch_table(trials).loc["all"]
    for within in ("within es", "within tr"):
        assert table.loc[ACROSS, "auc"] < table.loc[within, "auc"] - 0.05
        assert table.loc[ACROSS, "target_score"] < table.loc[within, "target_score"] - 0.2
    cost = language_cost(trials).loc["all"]
    for name, least in (("auc_loss", 0.05), ("target_shift", 0.2), ("non_target_shift", 0.2)):
        assert cost[name] > max(least, 3 * cost[f"{name}_standard_error"])


def test_without_a_shift_the_cost_is_about_zero():
    cost = language_cost(scored(language_shift=0.0)).loc["all"]
    assert abs(cost["auc_loss"]) < 0.01 and abs(cost["target_shift"]) < 0.02 and abs(cost["non_target_shift"]) < 0.03


# --- The change of transfer


def performance_of(table):
    """Rows of a performance table from {target: {donor: values by seed}}."""
    rows = [(i, j, s, value) for i, of in table.items() for j, values in of.items() for s, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["target", "donor", "seed", "performance"])


BEFORE = performance_of(
    {
        "de": {"": [0.48, 0.52, 0.5], "de": [0.7, 0.7, 0.7], "ca": [0.43, 0.37, 0.4]},
        "ca": {"": [0.6, 0.6, 0.6], "ca": [0.68, 0.72, 0.7], "de": [0.62, 0.68, 0.65]},
    }
)
AFTER = performance_of(
    {
        "de": {"": [0.5, 0.5, 0.5], "de": [0.72, 0.72, 0.72], "ca": [0.53, 0.49, 0.45]},
        "ca": {"": [0.7, 0.7, 0.7], "ca": [0.78, 0.82, 0.8], "de": [0.66, 0.65, 0.7]},
    }
)
NAMES = ["performance_alone", "self_gain", "cross_gain", "negative_share", "harm", "relative_harm"]


def random_performance(seed, n_seeds=6, languages=("de", "ca", "tr"), self_gain=0.1, noise=0.05):
    generator = np.random.default_rng(seed)
    table = {
        i: {j: (0.6 + self_gain * (i == j) + generator.normal(0, noise, n_seeds)).tolist() for j in ("", *languages)}
        for i in languages
    }
    return performance_of(table)


def transfer_of(performance, seeds):
    """The six numbers of some seeds, cell by cell."""
    value = performance.set_index(["target", "donor", "seed"])["performance"]
    languages = list(dict.fromkeys(performance["target"]))
    gain = {
        (i, j): [value[i, j, seed] - value[i, "", seed] for seed in seeds] for i, j in product(languages, languages)
    }
    cross = [of_cell for (i, j), of_cell in gain.items() if i != j]
    losses = []
    for of_cell in cross:
        for k, own in enumerate(of_cell):
            others = of_cell[:k] + of_cell[k + 1 :]
            losses.append(-own if np.mean(others) < 0 else 0.0)
    self_gain = np.mean([gain[i, i] for i in languages])
    return np.array(
        [
            np.mean([value[i, "", seed] for i in languages for seed in seeds]),
            self_gain,
            np.mean(cross),
            np.mean([np.mean(of_cell) < 0 for of_cell in cross]),
            np.mean(losses),
            np.mean(losses) / self_gain,
        ]
    )


def test_change_of_hand_made_tables():
    """Cross-gains by seed, before: de from ca -.05, -.15, -.1, ca from de .02, .08, .05; after: .03, -.01, -.05 and
    -.04, -.05, 0.

    Before, only de from ca is negative, on the others as on each: harm .3 / 6. After, the first seed of de from ca is
    negative on the others (-.03) and itself a gain of .03, the second is too (-.01) and a loss of .01, the third is not
    (.01); ca from de loses .04, .05 and 0: harm (-.03 + .01 + .09) / 6.
    """
    table = transfer_change(BEFORE, AFTER)
    assert list(table.columns) == ["before", "after", "change", "standard_error"]
    expected = {
        "performance_alone": (0.55, 0.6),
        "self_gain": (0.15, 0.16),
        "cross_gain": (-0.025, -0.02),
        "negative_share": (0.5, 1.0),
        "harm": (0.05, 0.07 / 6),
        "relative_harm": (0.05 / 0.15, 0.07 / 6 / 0.16),
    }
    assert list(table.index) == list(expected) == NAMES
    np.testing.assert_allclose(table[["before", "after"]], list(expected.values()), atol=1e-12)
    np.testing.assert_allclose(table["change"], [after - before for before, after in expected.values()], atol=1e-12)


def test_change_and_its_jackknife_agree_with_loops_over_cells_and_seeds():
    before, after = random_performance(2), random_performance(3)
    table = transfer_change(before, after)
    seeds = list(range(6))
    np.testing.assert_allclose(table["before"], transfer_of(before, seeds), atol=1e-12)
    np.testing.assert_allclose(table["after"], transfer_of(after, seeds), atol=1e-12)
    left_out = []
    for seed in seeds:
        others = [s for s in seeds if s != seed]
        left_out.append(transfer_of(after, others) - transfer_of(before, others))
    squares = (np.array(left_out) - np.mean(left_out, axis=0)) ** 2
    np.testing.assert_allclose(table["standard_error"], np.sqrt(5 / 6 * squares.sum(axis=0)), atol=1e-12)


def test_standard_error_of_a_mean_is_that_of_its_changes_seed_by_seed():
    before, after = random_performance(4), random_performance(5)
    table = transfer_change(before, after)
    by_seed = []
    for seed in range(6):
        one, two = (t[t["seed"] == seed].pivot(index="target", columns="donor") for t in (before, after))
        change = (two - one)["performance"]
        gains = change.drop(columns="").sub(change[""], axis=0)
        own = np.mean([gains.loc[i, i] for i in gains.index])
        cross = np.mean([gains.loc[i, j] for i, j in product(gains.index, repeat=2) if i != j])
        by_seed.append((change[""].mean(), own, cross))
    for name, changes in zip(NAMES[:3], zip(*by_seed, strict=True), strict=True):
        assert table.loc[name, "change"] == pytest.approx(np.mean(changes))
        assert table.loc[name, "standard_error"] == pytest.approx(standard_error(changes))


def test_identical_tables_change_nothing_with_no_error():
    performance = random_performance(0)
    table = transfer_change(performance, performance.sample(frac=1, random_state=0))
    assert list(table.index) == NAMES and (table["change"] == 0).all() and (table["standard_error"] == 0).all()


def test_what_both_tables_share_through_a_seed_is_no_error_of_the_change():
    """Every number rises by 0.1, and the alone ones fall by 0.02: the same in every seed, however these differ."""
    before = random_performance(1)
    after = before.assign(performance=before["performance"] + 0.1 - 0.02 * (before["donor"] == ""))
    table = transfer_change(before, after).loc[NAMES[:3]]
    np.testing.assert_allclose(table["change"], [0.08, 0.02, 0.02], atol=1e-12)
    np.testing.assert_allclose(table["standard_error"], 0, atol=1e-12)
    unpaired = before.assign(seed=(before["seed"] + 1) % 6, performance=after["performance"])
    assert transfer_change(before, unpaired).loc["performance_alone", "standard_error"] > 0.01


def test_cells_that_are_negative_by_chance_are_no_harm_in_the_mean():
    """Without any transfer half of the mean cross-gains are negative; their negative parts alone would be large."""
    languages = [f"l{k}" for k in range(24)]
    performance = random_performance(0, languages=languages)
    row = transfer_change(performance, performance)["before"]
    gains = performance.pivot_table(index="target", columns="donor", values="performance")
    cross = gains.drop(columns="").sub(gains[""], axis=0).to_numpy()[~np.eye(24, dtype=bool)]
    assert 0.3 < row["negative_share"] < 0.7
    assert -cross.clip(max=0).mean() > 0.008 and abs(row["harm"]) < 0.003


def test_cells_that_are_harmed_count_in_full():
    performance = random_performance(0, noise=0.001)
    hurt = (performance["target"] == "de") & (performance["donor"] == "ca")
    performance.loc[hurt, "performance"] -= 0.12
    row = transfer_change(performance, performance)["before"]
    assert row["harm"] == pytest.approx(0.12 / 6, abs=0.001)
    assert row["relative_harm"] == pytest.approx(0.2, abs=0.01)


def test_a_method_that_halves_all_gains_has_taken_no_relative_harm_out():
    before = random_performance(6)
    alone = before[before["donor"] == ""].set_index(["target", "seed"])["performance"]
    alone = alone.loc[list(zip(before["target"], before["seed"], strict=True))].to_numpy()
    after = before.assign(performance=alone + (before["performance"] - alone) / 2)
    table = transfer_change(before, after)
    assert table.loc["harm", "after"] == pytest.approx(table.loc["harm", "before"] / 2) and table.loc["harm", "change"]
    assert table.loc["relative_harm", ["change", "standard_error"]].abs().max() < 1e-12


def test_without_a_self_gain_there_is_no_relative_harm():
    with_gain, without = random_performance(0), random_performance(0, self_gain=-0.3)
    table = transfer_change(with_gain, without)
    assert np.isfinite(table.drop("relative_harm")).all(axis=None)
    assert np.isfinite(table.loc["relative_harm", "before"])
    assert table.loc["relative_harm", ["after", "change", "standard_error"]].isna().all()


def test_rows_in_any_order_and_languages_in_any_order_give_the_same_change():
    plain = transfer_change(BEFORE, AFTER)
    pd.testing.assert_frame_equal(plain, transfer_change(BEFORE, AFTER.iloc[::-1]))
    pd.testing.assert_frame_equal(plain, transfer_change(BEFORE.iloc[::-1], AFTER))


def test_two_seeds_have_a_change_without_a_standard_error():
    two = [table.query("seed != 2") for table in (BEFORE, AFTER)]
    table = transfer_change(*two)
    assert table["standard_error"].isna().all()
    np.testing.assert_allclose(table["change"], transfer_of(two[1], [0, 1]) - transfer_of(two[0], [0, 1]), atol=1e-12)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (BEFORE, AFTER.assign(seed=AFTER["seed"] + 1), r"different seeds, \[0, 1, 2\] and \[1, 2, 3\]"),
        (BEFORE, AFTER.query("seed < 2"), r"different seeds, \[0, 1, 2\] and \[0, 1\]"),
        (BEFORE, AFTER.query("target == 'de' and donor != 'ca'"), "no performance of target 'de', donor 'ca'"),
        (BEFORE.query("target == 'de' and donor != 'ca'"), AFTER, "Language 'ca' is in the second .* only"),
        (BEFORE.query("seed == 0"), AFTER.query("seed == 0"), "run at least two seeds"),
    ],
)
def test_tables_of_other_seeds_or_languages_or_of_one_seed_are_refused(before, after, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        transfer_change(before, after)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


# --- Sentences


def change_of(before, after, error):
    """The row that the sentence is of, below one that it is not of."""
    row = {"before": before, "after": after, "change": after - before, "standard_error": error}
    return pd.DataFrame([{**row, "change": 9.0, "standard_error": 0.0}, row], index=["harm", "relative_harm"])


GOES = "the harm of transfer, as a share of the mean self-gain, goes from"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (change_of(0.5, 0.2, 0.1), f"Negative transfer shrinks: {GOES} 0.500 to 0.200 (-0.300 ± 0.100)."),
        (change_of(0.2, 0.5, 0.1), f"Negative transfer grows: {GOES} 0.200 to 0.500 (+0.300 ± 0.100)."),
        (
            change_of(0.5, 0.2, 0.151),
            f"No change of negative transfer beyond two standard errors: {GOES} 0.500 to 0.200 (-0.300 ± 0.151).",
        ),
        (
            change_of(0.5, 1.0, 0.25),  # two standard errors are not beyond two
            f"No change of negative transfer beyond two standard errors: {GOES} 0.500 to 1.000 (+0.500 ± 0.250).",
        ),
        (
            change_of(0.5, math.nan, math.nan),
            "With so few seeds, or without a self-gain, nothing can be said about negative transfer.",
        ),
    ],
)
def test_sentence_of_a_change(change, sentence):
    assert change_sentence(change) == sentence


def test_sentence_of_real_changes():
    performance = random_performance(0)
    assert change_sentence(transfer_change(performance, performance)).startswith("No change of negative transfer")
    two = performance.query("seed < 2")
    assert change_sentence(transfer_change(two, two)).startswith("With so few seeds, or without a self-gain")
    hurt = performance["donor"].ne("") & performance["donor"].ne(performance["target"])
    harmful = performance.assign(performance=performance["performance"] - 0.3 * hurt)
    assert change_sentence(transfer_change(performance, harmful)).startswith("Negative transfer grows")
    assert change_sentence(transfer_change(harmful, performance)).startswith("Negative transfer shrinks")


@pytest.mark.parametrize(
    ("loss", "error", "text"),
    [
        (0.1, 0.04, "lose 0.100 ± 0.040 of AUC against those within a language (beyond two standard errors); "),
        (0.5, 0.25, "lose 0.500 ± 0.250 of AUC against those within a language (within two standard errors of zero); "),
        (-0.1, 0.04, "lose -0.100 ± 0.040 of AUC against those within a language (beyond two standard errors); "),
        (0.1, math.nan, "lose 0.100 of AUC against those within a language; "),
    ],
)
def test_sentence_of_the_cost_of_a_language(loss, error, text):
    cost = pd.DataFrame({"auc_loss": [9.0, loss], "auc_loss_standard_error": [9.0, error]}, index=["es alone", "all"])
    cells = pd.MultiIndex.from_product([["all", "es alone"], ["within es", "within tr", ACROSS]])
    mismatch = pd.DataFrame({"auc_speaker_sd": [0.1, 0.15, 0.05, 9, 9, 9]}, index=cells)
    expected = f"Model of all: trials across languages {text}between speakers the AUC differs by 0.100 (standard "
    assert mismatch_sentence(cost, mismatch, "all") == expected + "deviation)."


def test_sentence_of_the_cost_of_real_trials():
    trials = random_trials()
    text = mismatch_sentence(language_cost(trials), mismatch_table(trials), "es alone")
    row = language_cost(trials).loc["es alone"]
    assert text.startswith(f"Model of es alone: trials across languages lose {row['auc_loss']:.3f} ± ")


def correlation(spearman=-0.6, p=0.01, n_left_out=0, n_permutations=5040, exact=True):
    return DistanceTransferCorrelation(spearman, p, 0.9, 0.9, 21, n_left_out, n_permutations, exact)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            correlation(),
            "Spearman -0.60 over 21 pairs, p = 0.010 (exact permutations of languages): distant languages transfer "
            "less.",
        ),
        (
            correlation(0.4, 0.0502, n_permutations=9999, exact=False),
            "Spearman 0.40 over 21 pairs, p = 0.050 (9999 random permutations of languages): no relation beyond "
            "chance.",
        ),
        (
            correlation(0.75, 0.05, n_left_out=2),
            "Spearman 0.75 over 21 pairs, p = 0.050 (exact permutations of languages): distant languages transfer "
            "more; 2 languages without a row are left out.",
        ),
        (
            correlation(-0.5, 0.4, n_left_out=1),
            "Spearman -0.50 over 21 pairs, p = 0.400 (exact permutations of languages): no relation beyond chance; "
            "1 language without a row is left out.",
        ),
        (
            correlation(-0.8, 0.0001, n_permutations=9999, exact=False),
            "Spearman -0.80 over 21 pairs, p < 0.001 (9999 random permutations of languages): distant languages "
            "transfer less.",
        ),
        (
            correlation(math.nan, math.nan, n_left_out=3),
            "Distance and transfer: too few languages, or no differences, to correlate.",
        ),
    ],
)
def test_sentence_of_a_correlation(found, sentence):
    assert correlation_sentence(found) == sentence


def test_sentence_of_a_planted_relation():
    """Six languages on a line, whose transfer falls with the distance."""
    codes = ["de", "nl", "ca", "es", "tr", "ka"]
    place = pd.Series([0.0, 1.0, 2.5, 4.5, 7.0, 11.0], index=codes)
    distances = pd.DataFrame(np.abs(np.subtract.outer(place.to_numpy(), place.to_numpy())), codes, codes)
    for matrix, verdict in ((1 - distances / 12, "transfer less."), (distances / 12, "transfer more.")):
        text = correlation_sentence(cltm.distance_transfer_correlation(distances, matrix))
        assert text.endswith(f"(exact permutations of languages): distant languages {verdict}"), text
