"""Figures of learning curves and of the dynamic interval: what is drawn."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_legible, lines, texts

from cltmlib import cltm, figures
from cltmlib.cltm.interval import dynamic_interval
from cltmlib.errors import InputError
from cltmlib.figures import interval_curve, learning_curves, learning_curves_by_language, save_figure
from cltmlib.figures.layout import spread, text_in, wrapped

FAMILIES = cltm.families()
TEN = ["de", "en", "ca", "es", "fr", "ru", "pl", "tr", "uz", "zh-CN"]
MEASURED = [8, 16, 32, 64, 128, 256]
BOTH = pytest.mark.parametrize("draw", [learning_curves, learning_curves_by_language])


def curves(languages=("tr", "de", "nl"), measured=MEASURED, n_seeds=4, steepness=2.0, noise=0.01):
    generator = np.random.default_rng(0)
    rows = [
        (language, n, seed, 0.4 + (0.5 - 0.01 * k) / (1 + (40 / n) ** steepness) + generator.normal(0, noise))
        for k, language in enumerate(languages)
        for n in measured
        for seed in range(n_seeds)
    ]
    return pd.DataFrame(rows, columns=["language", "n_samples", "seed", "performance"])


def an_interval(**changes):
    """An interval with regions of its own: under-trained to 16, dynamic in 16-128, saturated from 128."""
    scores = pd.DataFrame([[0.5, 2.0, 3.0, 1.0], [0.7, 2.2, 9.0, 0.8]], index=["de", "tr"], columns=[8, 16, 32, 64])
    median = scores.median()
    settings = {
        "n": 32, "two_n": 64, "valid": [16, 32], "is_valid": True, "scores": scores, "median": median,
        "outliers": [32], "smoothed": median[[8, 16, 64]].set_axis([8.0, 16.0, 64.0]),
        "region": lambda n: "under-trained" if n < 16 else "dynamic" if n <= 128 else "saturated",
    }  # fmt: skip
    return SimpleNamespace(**settings | changes)


def spans(axes, gid):
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches if patch.get_gid() == gid]


def test_each_language_is_its_mean_over_seeds_with_one_standard_error():
    table = curves()
    axes = learning_curves(table, an_interval(), FAMILIES, "macro-F1").axes[0]
    groups = table.groupby(["language", "n_samples"])["performance"]
    for language, container in zip(["de", "nl", "tr"], axes.containers, strict=True):
        (line,) = lines(axes, language)
        np.testing.assert_allclose(line.get_xdata(), MEASURED)
        np.testing.assert_allclose(line.get_ydata(), groups.mean()[language])
        halves = [(segment[1, 1] - segment[0, 1]) / 2 for segment in container.lines[2][0].get_segments()]
        np.testing.assert_allclose(halves, groups.sem()[language])


def test_thick_line_is_the_mean_over_languages_with_the_error_of_that_mean_over_seeds():
    table = curves()
    axes = learning_curves(table, an_interval(), FAMILIES, "macro-F1").axes[0]
    by_seed = table.groupby(["seed", "n_samples"])["performance"].mean().unstack()
    (line,) = lines(axes, "mean")
    np.testing.assert_allclose(line.get_ydata(), by_seed.mean())
    band = next(c for c in axes.collections if isinstance(c, matplotlib.collections.PolyCollection))
    for n, middle, error in zip(MEASURED, by_seed.mean(), by_seed.sem(), strict=True):
        edges = [y for x, y in band.get_paths()[0].vertices if np.isclose(x, n)]
        np.testing.assert_allclose([min(edges), max(edges)], [middle - error, middle + error])


def test_mean_is_drawn_only_where_all_languages_were_measured():
    table = curves().query("not (language == 'tr' and n_samples == 256) and not (language == 'de' and n_samples == 8)")
    axes = learning_curves(table, an_interval(), FAMILIES, "macro-F1").axes[0]
    assert lines(axes, "mean")[0].get_xdata().tolist() == [16, 32, 64, 128]
    assert lines(axes, "tr")[0].get_xdata().tolist() == MEASURED[:-1]


@BOTH
def test_ticks_stand_at_the_measured_sizes_and_n_and_2n_are_named(draw):
    for measured in (MEASURED, [8, 15, 16, 30, 32, 60, 64, 120, 240, 480, 960, 1920]):
        for axes in draw(curves(measured=measured), an_interval(), FAMILIES, "macro-F1").axes:
            assert axes.get_xscale() == "log" and axes.get_xticks().tolist() == measured
            assert not len(axes.get_xticks(minor=True))
            shown = [label.get_text() for label in axes.get_xticklabels() if label.get_text()]
            assert {"32\nN", "64\n2N"} <= set(shown)
            assert {text.split("\n")[0] for text in shown} <= set(map(str, measured))


def test_regions_are_named_and_shaded_and_the_interval_is_marked():
    figure = learning_curves(curves(), an_interval(), FAMILIES, "macro-F1")
    axes = figure.axes[0]
    assert texts(figure, "region") == ["under-trained", "dynamic", "saturated"]
    low, high = axes.get_xlim()
    assert spans(axes, "under-trained") == [(low, 16)] and spans(axes, "saturated") == [(128, high)]
    assert spans(axes, "chosen") == [(32, 64)]
    assert [line.get_xdata()[0] for line in lines(axes, "chosen")] == [32, 64]
    assert "[32,\N{NO-BREAK SPACE}64]" in " ".join(texts(figure, "note"))


def test_an_interval_that_is_not_valid_is_dashed_and_the_note_says_so():
    interval = an_interval(is_valid=False, region=lambda n: "undetermined")
    figure = learning_curves(curves(), interval, FAMILIES, "macro-F1")
    assert spans(figure.axes[0], "chosen") == [] and spans(figure.axes[0], "undetermined") == []
    assert all(line.get_linestyle() == "--" for line in lines(figure.axes[0], "chosen"))
    assert "not valid" in " ".join(texts(figure, "note")) and texts(figure, "region") == ["undetermined"]


def test_up_to_twelve_languages_are_named_at_the_end_in_the_order_of_their_ends():
    figure = learning_curves(curves(TEN), an_interval(), FAMILIES, "macro-F1", chance=0.5)
    assert sorted(texts(figure, "end")) == sorted([*TEN, "mean", "chance"])
    names = [text for text in figure.axes[0].texts if text.get_gid() == "end"]
    from_top = [text.get_text() for text in sorted(names, key=lambda text: -text.get_position()[1])]
    last = curves(TEN).query("n_samples == 256").groupby("language")["performance"].mean()
    assert [name for name in from_top if name in TEN] == last.sort_values(ascending=False).index.tolist()
    (chance,) = lines(figure.axes[0], "chance")
    assert list(chance.get_ydata()) == [0.5, 0.5]


def test_members_of_a_family_share_colour_and_marker_and_differ_in_line_style():
    axes = learning_curves(curves(), an_interval(), FAMILIES, "macro-F1").axes[0]
    (de,), (nl,), (tr,) = (lines(axes, language) for language in ("de", "nl", "tr"))
    assert (de.get_color(), de.get_marker()) == (nl.get_color(), nl.get_marker())
    assert de.get_linestyle() != nl.get_linestyle() and de.get_color() != tr.get_color()


def test_many_languages_are_thin_lines_without_names_or_bars():
    many = list(FAMILIES)[:44]
    figure = learning_curves(curves(many, n_seeds=2), an_interval(), FAMILIES, "macro-F1")
    assert texts(figure, "end") == ["mean"] and not figure.axes[0].containers
    assert all(len(lines(figure.axes[0], language)) == 1 for language in many)


def test_width_is_a_column_for_few_languages_and_a_page_for_more():
    widths = [learning_curves(curves(TEN[:n]), an_interval(), FAMILIES, "x").get_figwidth() for n in (6, 7)]
    assert widths == [figures.COLUMN_IN, figures.PAGE_IN]


@pytest.mark.parametrize("languages", [["de"], ["de", "tr"], TEN, list(FAMILIES)])
@BOTH
def test_text_lies_on_the_page_and_does_not_overlap(draw, languages):
    table = curves(languages, [8, 16, 32, 64, 1000, 20000], n_seeds=2)
    figure = draw(table, an_interval(), FAMILIES, "macro-F1", 0.5, "Gender recognition")
    assert_legible(figure)
    assert "higher is better" in " ".join(
        text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_rotation() == 90
    )


def test_panels_show_every_language_with_the_gain_inside_the_interval():
    table = curves()
    figure = learning_curves_by_language(table, an_interval(), FAMILIES, "macro-F1", chance=0.5)
    wide = table.set_index(["language", "seed", "n_samples"])["performance"].unstack()
    gains = (wide[64] - wide[32]).groupby("language")
    assert texts(figure, "language") == ["de", "nl", "tr"]
    assert texts(figure, "gain") == [
        f"gain {gain:+.2f} ±{error:.2f}" for gain, error in zip(gains.mean(), gains.sem(), strict=True)
    ]
    for axes, language in zip(figure.axes, ["de", "nl", "tr"], strict=True):
        mean = wide.loc[language].mean()
        np.testing.assert_allclose(lines(axes, language)[0].get_ydata(), mean)
        np.testing.assert_allclose(lines(axes, "step")[0].get_ydata(), mean[[32, 32, 64]])
        assert spans(axes, "chosen") == [(32, 64)] and axes.get_ylim() == figure.axes[0].get_ylim()


def test_a_language_without_2n_has_a_panel_without_gain():
    table = curves().query("not (language == 'nl' and n_samples == 64)")
    figure = learning_curves_by_language(table, an_interval(), FAMILIES, "macro-F1")
    assert [bool(lines(axes, "step")) for axes in figure.axes] == [True, False, True]


@BOTH
def test_one_seed_claims_no_standard_error(draw):
    figure = draw(curves(n_seeds=1), an_interval(), FAMILIES, "macro-F1")
    note = " ".join(texts(figure, "note"))
    assert "one seed, so no standard error" in note and "±" not in note


def test_number_of_seeds_is_in_the_note_also_where_it_varies():
    table = curves()[1:]
    note = " ".join(texts(learning_curves(table, an_interval(), FAMILIES, "x"), "note"))
    assert "n = 3 languages" in note and "mean of 3 to 4 seeds" in note


@BOTH
def test_bad_curves_are_refused_with_the_training_named(draw):
    table = curves()
    for bad, message in (
        (table.drop(columns="seed"), "no column 'seed'"),
        (table[:0], "empty"),
        (table.assign(performance=np.nan), "'tr', n_samples 8, seed 0 is not a finite number"),
        (pd.concat([table, table[:1]]), "'tr', n_samples 8, seed 0 is there twice"),
        (table.replace({"language": {"tr": "xx"}}), "'xx' has no family"),
    ):
        with pytest.raises(InputError, match=message):
            draw(bad, an_interval(), FAMILIES, "macro-F1")


def test_the_curves_of_a_real_interval_are_drawn():
    table = curves(TEN)
    interval = dynamic_interval(table)
    figure = learning_curves(table, interval, FAMILIES, "macro-F1")
    assert spans(figure.axes[0], "chosen") == [(interval.n, 2 * interval.n)]
    (drawn,) = lines(interval_curve(interval).axes[0], "smoothed")
    np.testing.assert_allclose(drawn.get_ydata(), interval.smoothed)


def test_interval_curve_draws_scores_medians_outliers_threshold_and_choice():
    interval = an_interval()
    axes = interval_curve(interval).axes[0]
    (median,), (outlier,), (smoothed,) = (lines(axes, gid) for gid in ("median", "outlier", "smoothed"))
    assert dict(zip(median.get_xdata(), median.get_ydata(), strict=True)) == interval.median.drop(32).to_dict()
    assert (outlier.get_xdata().tolist(), outlier.get_markerfacecolor()) == ([32], "white")
    np.testing.assert_allclose(smoothed.get_ydata(), interval.smoothed)
    assert lines(axes, "threshold")[0].get_ydata()[0] == 1
    assert lines(axes, "chosen")[0].get_xdata()[0] == 32
    drawn = {(x, y) for line in lines(axes, "score") for x, y in zip(*line.get_data(), strict=True)}
    top = axes.get_ylim()[1]
    expected = {(n, y) for n, column in interval.scores.items() for y in column if y <= top}
    assert drawn == expected and (32, 9.0) not in drawn
    assert axes.get_xticks().tolist() == [8, 16, 32, 64]


def test_scores_above_the_axis_are_triangles_at_its_edge_and_explained():
    scores = an_interval().scores.assign(**{"32": [np.inf, 1e6]}).rename(columns={"32": 128})
    interval = an_interval(scores=scores, median=scores.median(), outliers=[128])
    figure = interval_curve(interval)
    axes = figure.axes[0]
    assert axes.get_ylim()[1] < 30
    above = [line.get_xdata().tolist() for line in lines(axes, "above")]
    assert above == [[128], [32, 128], [128]]  # de, tr, and the median of 128
    assert "Triangles: above the axis" in " ".join(texts(figure, "note"))


def test_interval_curve_is_legible_and_says_whether_the_choice_is_valid():
    for is_valid, words in ((True, "is chosen (yellow)"), (False, "but not valid")):
        figure = interval_curve(an_interval(is_valid=is_valid), "Speaker verification")
        assert_legible(figure)
        assert words in " ".join(texts(figure, "note"))
    with pytest.raises(InputError, match="no scores"):
        interval_curve(an_interval(scores=pd.DataFrame()))


def test_saving_curves_twice_gives_the_same_bytes_whatever_the_readers_settings(tmp_path):
    table, interval = curves(), an_interval()
    draws = {
        "all": lambda: learning_curves(table, interval, FAMILIES, "macro-F1", 0.5, "t"),
        "each": lambda: learning_curves_by_language(table, interval, FAMILIES, "macro-F1", 0.5, "t"),
        "interval": lambda: interval_curve(interval),
    }
    for name, draw in draws.items():
        plain = save_figure(draw(), table, tmp_path / "a", name, "run-7")
        with matplotlib.rc_context({"font.size": 20, "lines.markersize": 12, "lines.linestyle": ":"}):
            odd = save_figure(draw(), table, tmp_path / "b", name, "run-7")
        for kind in plain:
            assert plain[kind].read_bytes() == odd[kind].read_bytes(), (name, kind)


def test_spread_keeps_order_and_distance_and_stays_inside_where_there_is_room():
    generator = np.random.default_rng(0)
    for _ in range(50):
        centres, sizes = generator.uniform(0, 10, 8), generator.uniform(0.2, 1.2, 8)
        moved = spread(centres, sizes, 0, 10)
        order = np.argsort(centres)
        starts, ends = (moved - sizes / 2)[order], (moved + sizes / 2)[order]
        assert (starts[1:] >= ends[:-1] - 1e-9).all() and starts[0] >= -1e-9 and ends[-1] <= 10 + 1e-9
    np.testing.assert_allclose(spread([5, 1, 9], [1, 1, 1], 0, 10), [5, 1, 9])


def test_wrapped_lines_fit_and_keep_no_break_spaces_and_all_words():
    text = "one two [32,\N{NO-BREAK SPACE}64] three " * 6
    parts = wrapped(text.strip(), 1.2, 6)
    assert " ".join(parts) == text.strip() and len(parts) > 3
    assert max(text_in([part], 6) for part in parts) <= 1.2
