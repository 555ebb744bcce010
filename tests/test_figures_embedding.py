"""Figures of the embedding space: what is drawn."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_legible, lines, texts

from cltmlib import cltm, figures
from cltmlib.errors import InputError
from cltmlib.figures import distance_against_transfer, embedding_map, save_figure, trial_scores

FAMILIES = cltm.families()
SETTINGS = "t-SNE, perplexity 30, seed 0, n = 60 speakers"
SENTENCE = "Spearman correlation -0.51, permutation p = 0.004."


def coordinates(languages=("tr", "de", "nl"), n=20):
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 8, (len(languages), 2))
    points = (centres[:, None] + generator.normal(0, 1, (len(languages), n, 2))).reshape(-1, 2)
    table = pd.DataFrame(points, columns=["x", "y"])
    genders = ["female", "male", None, "female"] * (len(table) // 4)
    return table.assign(language=np.repeat(languages, n), gender=genders)


def pairs(languages=("de", "nl", "tr", "ca", "es", "uz")):
    generator = np.random.default_rng(0)
    rows = []
    for a, b in itertools.combinations(languages, 2):
        distance = generator.uniform(1, 3)
        rows.append((a, b, distance, *(1.2 - 0.8 * distance + generator.normal(0, 0.3, 2))))
    return pd.DataFrame(
        rows, columns=["language_a", "language_b", "distance", "transfer_a_from_b", "transfer_b_from_a"]
    )


def trials(conditions=("within a language", "across languages"), n=200):
    generator = np.random.default_rng(0)
    return pd.concat(
        pd.DataFrame({"condition": name, "same_speaker": same, "score": generator.normal(middle, 0.15, n)})
        for name in conditions
        for same, middle in ((True, 0.6), (False, 0.2))
    )


def drawn(axes, gid):
    """Points under one name, sorted: they are drawn in several layers."""
    return np.array(sorted(point for line in lines(axes, gid) for point in zip(*line.get_data(), strict=True)))


def test_map_draws_every_point_once_by_family_and_once_by_gender():
    table = coordinates()
    by_family, by_gender = embedding_map(table, FAMILIES, SETTINGS).axes
    points = table[["x", "y"]].sort_values(["x", "y"])
    for axes, group in ((by_family, table["language"].map(FAMILIES)), (by_gender, table["gender"].fillna("not known"))):
        for name in group.unique():
            np.testing.assert_array_equal(drawn(axes, name), points[group.loc[points.index] == name])
    assert by_family.get_xlim() == by_gender.get_xlim() and by_family.get_ylim() == by_gender.get_ylim()
    assert not len(by_family.get_xticks()) and by_family.get_aspect() == 1


def test_map_names_each_language_at_the_mean_of_its_points():
    table = coordinates()
    axes = embedding_map(table, FAMILIES, SETTINGS).axes[0]
    labels = {text.get_text(): text.xy for text in axes.texts if text.get_gid() == "label"}
    assert list(labels) == ["de", "nl", "tr"]
    for language, middle in table.groupby("language")[["x", "y"]].mean().iterrows():
        np.testing.assert_allclose(labels[language], middle)


def test_map_carries_the_colours_of_the_families_and_its_settings_and_warning():
    figure = embedding_map(coordinates(), FAMILIES, SETTINGS)
    look = figures.family_style(FAMILIES)["Turkic"]
    assert {(line.get_color(), line.get_marker()) for line in lines(figure.axes[0], "Turkic")} == {tuple(look.values())}
    note = " ".join(texts(figure, "note"))
    assert note.startswith(SETTINGS) and "illustrates" in note and "computed in the full space" in note


def test_genders_that_are_absent_have_no_key():
    table = coordinates().assign(gender="female")
    legend = embedding_map(table, FAMILIES, SETTINGS).axes[1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["female"]


@pytest.mark.parametrize("languages", [["de"], ["de", "nl", "tr"], list(FAMILIES)])
def test_map_is_legible_from_one_language_to_all(languages):
    assert_legible(embedding_map(coordinates(languages, n=8), FAMILIES, SETTINGS * 4, "Speaker embeddings"))


def test_map_refuses_what_it_cannot_place():
    table = coordinates()
    for bad, message in (
        (table.drop(columns="gender"), "no column 'gender'"),
        (table[:0], "empty"),
        (table.assign(x=table["x"].where(table.index != 7)), "Row 7 of the coordinates is"),
        (table.assign(language="xx"), "'xx' has no family"),
    ):
        with pytest.raises(InputError, match=message):
            embedding_map(bad, FAMILIES, SETTINGS)


def test_pairs_are_drawn_at_the_mean_of_both_directions_within_and_between_families():
    table = pairs()
    axes = distance_against_transfer(table, FAMILIES, SENTENCE).axes[0]
    family_a, family_b = table["language_a"].map(FAMILIES), table["language_b"].map(FAMILIES)
    table["transfer"] = (table["transfer_a_from_b"] + table["transfer_b_from_a"]) / 2
    for gid, rows in (
        ("between", family_a != family_b),
        ("Turkic", (family_a == "Turkic") & (family_b == "Turkic")),
        ("Indo-European (Romance)", (family_a == "Indo-European (Romance)") & (family_b == family_a)),
    ):
        (line,) = lines(axes, gid)
        np.testing.assert_allclose(line.get_xydata(), table.loc[rows, ["distance", "transfer"]])
    assert lines(axes, "between")[0].get_markerfacecolor() == "none"


def test_thin_lines_span_both_directions_where_there_is_room():
    table = pairs()
    axes = distance_against_transfer(table, FAMILIES, SENTENCE).axes[0]
    (spans,) = (collection for collection in axes.collections if collection.get_gid() == "directions")
    ends = np.array([segment[:, 1] for segment in spans.get_segments()])
    np.testing.assert_allclose(ends, np.sort(table[["transfer_a_from_b", "transfer_b_from_a"]], axis=1))
    many = distance_against_transfer(pairs(list(FAMILIES)[:20]), FAMILIES, SENTENCE)
    assert not many.axes[0].collections and many.get_figwidth() == figures.PAGE_IN


def test_zero_one_and_the_least_squares_line_are_drawn():
    table = pairs()
    axes = distance_against_transfer(table, FAMILIES, SENTENCE).axes[0]
    assert [line.get_ydata()[0] for line in lines(axes, "reference")] == [0, 1]
    (guide,) = lines(axes, "guide")
    slope = np.polyfit(table["distance"], table[["transfer_a_from_b", "transfer_b_from_a"]].mean(axis=1), 1)[0]
    np.testing.assert_allclose(np.diff(guide.get_ydata()) / np.diff(guide.get_xdata()), slope)


def test_the_pairs_at_both_ends_of_both_axes_are_named():
    table = pairs()
    axes = distance_against_transfer(table, FAMILIES, SENTENCE).axes[0]
    names = {text.get_text() for text in axes.texts if text.get_gid() == "label"}
    transfer = table[["transfer_a_from_b", "transfer_b_from_a"]].mean(axis=1)
    extreme = {row for column in (transfer, table["distance"]) for row in column.sort_values().index[[0, 1, -2, -1]]}
    assert names == {f"{table['language_a'][row]}\N{EN DASH}{table['language_b'][row]}" for row in extreme}


def test_pairs_without_a_transfer_are_left_out_and_counted():
    table = pairs()
    table.loc[[0, 3], "transfer_a_from_b"] = np.nan
    figure = distance_against_transfer(table, FAMILIES, SENTENCE)
    note = " ".join(texts(figure, "note"))
    assert "n = 13 pairs, 2 without a defined transfer left out" in note and SENTENCE in note
    points = [line.get_xydata() for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert sum(map(len, points)) == 13


@pytest.mark.parametrize("languages", [["de", "tr"], ["de", "nl", "tr"], list(FAMILIES)[:10], list(FAMILIES)[:44]])
def test_distance_against_transfer_is_legible_from_one_pair_to_all(languages):
    assert_legible(distance_against_transfer(pairs(languages), FAMILIES, SENTENCE, "Speaker verification"))


def test_bad_pairs_are_refused():
    table = pairs()
    for bad, message in (
        (table.drop(columns="distance"), "no column 'distance'"),
        (table.assign(transfer_a_from_b=np.nan), "No pair"),
        (table.assign(language_b="xx"), "'xx' has no family"),
    ):
        with pytest.raises(InputError, match=message):
            distance_against_transfer(bad, FAMILIES, SENTENCE)


def test_trial_scores_are_histograms_of_area_one_on_shared_bins():
    table = trials()
    axes = trial_scores(table).axes[0]
    steps = {patch.get_gid(): patch for patch in axes.patches if patch.get_gid()}
    assert len(steps) == 4
    for (condition, same), members in table.groupby(["condition", "same_speaker"]):
        patch = steps[f"{condition}, {'same speaker' if same else 'different speakers'}"]
        values, edges, _ = patch.get_data()
        np.testing.assert_allclose((values * np.diff(edges)).sum(), 1)
        np.testing.assert_allclose(values, np.histogram(members["score"], edges, density=True)[0])
        assert (edges[0], edges[-1]) == (table["score"].min(), table["score"].max())


def test_trial_scores_name_conditions_auc_and_numbers_of_trials():
    figure = trial_scores(trials(), {"within a language": 0.9731, "across languages": 0.91}, "Speaker verification")
    assert_legible(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "same speaker",
        "different speakers",
        "within a language, AUC 0.973",
        "across languages, AUC 0.910",
    ]
    assert "200 + 200 within a language, 200 + 200 across languages" in " ".join(texts(figure, "note"))


def test_bad_trials_are_refused():
    table = trials()
    for bad, auc, message in (
        (table.drop(columns="score"), None, "no column 'score'"),
        (table.assign(score=np.inf), None, "Row 0 of the trials has no finite score"),
        (table[table["same_speaker"]], None, "'within a language' has no different-speaker trials"),
        (table, {"within a language": 0.9}, "'across languages' has no AUC"),
        (trials("abcde"), None, "5 conditions: at most 4"),
    ):
        with pytest.raises(InputError, match=message):
            trial_scores(bad, auc)


def test_saving_twice_gives_the_same_bytes_whatever_the_readers_settings(tmp_path):
    draws = {
        "map": lambda: embedding_map(coordinates(), FAMILIES, SETTINGS, "t"),
        "pairs": lambda: distance_against_transfer(pairs(), FAMILIES, SENTENCE),
        "trials": lambda: trial_scores(trials()),
    }
    for name, draw in draws.items():
        plain = save_figure(draw(), coordinates(), tmp_path / "a", name, "run-7")
        with matplotlib.rc_context({"font.size": 20, "lines.markersize": 12, "lines.linestyle": ":"}):
            odd = save_figure(draw(), coordinates(), tmp_path / "b", name, "run-7")
        for kind in plain:
            assert plain[kind].read_bytes() == odd[kind].read_bytes(), (name, kind)
