"""Figures: what is drawn, and that the same figure gives the same files."""

import errno
import itertools
import os

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_legible, texts
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from cltmlib import figures
from cltmlib.corpora.languages import LANGUAGES
from cltmlib.errors import InputError
from cltmlib.figures import family_style, heatmap, save_figure, self_gain_bars

FAMILIES = {"tr": "Turkic", "de": "Indo-European (Germanic)", "nl": "Indo-European (Germanic)", "hu": "Uralic"}
ORDER = ["de", "nl", "tr", "hu"]


def matrix(languages=("tr", "de", "hu", "nl"), seed=0):
    values = np.random.default_rng(seed).normal(0.5, 1, (len(languages),) * 2)
    np.fill_diagonal(values, 1)
    return pd.DataFrame(values, index=list(languages), columns=list(languages))


def test_heatmap_draws_targets_as_rows_and_donors_as_columns_ordered_by_family():
    values = matrix()
    axes = heatmap(values, FAMILIES).axes[0]
    drawn = axes.collections[0].get_array()
    np.testing.assert_array_equal(np.reshape(drawn, (4, 4)), values.loc[ORDER, ORDER])
    assert [label.get_text() for label in axes.get_yticklabels()] == ORDER
    assert [label.get_text() for label in axes.get_xticklabels()] == ORDER
    assert "target" in axes.get_ylabel() and "donor" in axes.get_xlabel()
    assert axes.yaxis_inverted()


def test_heatmap_colours_are_symmetric_about_zero_up_to_the_limit_of_the_paper():
    figure = heatmap(matrix(), FAMILIES)
    mesh = figure.axes[0].collections[0]
    assert mesh.get_clim() == (-1.5, 1.5)
    assert "higher is better" in figure.axes[1].get_xlabel()


def test_heatmap_frames_each_family_on_the_diagonal():
    frames = [patch for patch in heatmap(matrix(), FAMILIES).axes[0].patches if not patch.get_fill()]
    assert [(*frame.get_xy(), frame.get_width(), frame.get_height()) for frame in frames] == [
        (0, 0, 2, 2),
        (2, 2, 1, 1),
        (3, 3, 1, 1),
    ]
    assert texts(heatmap(matrix(), FAMILIES), "family") == ["Indo-European\n(Germanic)", "Turkic", "Uralic"]


def test_heatmap_prints_values_and_standard_errors_of_the_off_diagonal_cells():
    values, errors = matrix(), matrix(seed=1).abs()
    figure = heatmap(values, FAMILIES, errors)
    assert texts(figure, "value") == [f"{value:.2f}" for value in values.loc[ORDER, ORDER].to_numpy().ravel()]
    shown = [f"±{errors.loc[i, j]:.2f}" for i in ORDER for j in ORDER if i != j]
    assert texts(figure, "standard_error") == shown


def test_printed_values_contrast_with_their_cell():
    figure = heatmap(pd.DataFrame([[1, -3], [0, 1]], index=["de", "tr"], columns=["de", "tr"]), FAMILIES)
    inks = [text.get_color() for text in figure.axes[0].texts if text.get_gid() == "value"]
    assert inks == ["black", "white", "black", "black"]


def test_heatmap_prints_no_values_where_they_would_be_unreadable():
    languages = [f"x{k}" for k in range(25)]
    figure = heatmap(matrix(languages), dict.fromkeys(languages, "Turkic"))
    assert texts(figure, "value") == []
    assert figure.get_figwidth() == figures.PAGE_IN


def test_undefined_row_is_hatched_and_explained():
    values = matrix()
    values.loc["tr"] = np.nan
    figure = heatmap(values, FAMILIES, matrix(seed=1).abs())
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert [patch.get_y() for patch in hatched] == [2, 2, 2, 2]
    assert len(texts(figure, "value")) == 12 and "self-gain not positive" in texts(figure, "note")[0]


@pytest.mark.parametrize("undefined", ["all", "none"])
def test_heatmap_survives_extreme_matrices(undefined, tmp_path):
    values = matrix(["de"])
    save_figure(heatmap(values * np.nan if undefined == "all" else values, FAMILIES), values, tmp_path, "one", "r")


def test_everything_drawn_lies_inside_the_printed_page():
    values = matrix()
    values.loc["tr"] = np.nan
    for figure in (heatmap(values, FAMILIES, title="Title"), self_gain_bars(values, FAMILIES, "macro-F1", "Title")):
        with figures.style():
            box = figure.get_tightbbox()
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight()
        assert figure.get_figwidth() == figures.COLUMN_IN


def signs(values, *cells):
    """Calls the signs of the given (target, donor) cells."""
    called = values * 0
    for target, donor in cells:
        called.loc[target, donor] = np.sign(values.loc[target, donor])
    return called.astype(int)


def marked(figure):
    """Row and column, as drawn, of the marked cells, and where in the cell the marks are."""
    (marks,) = (collection for collection in figure.axes[0].collections if collection.get_gid() == "called")
    x, y = np.asarray(marks.get_offsets()).T
    return list(zip(y.astype(int).tolist(), x.astype(int).tolist(), strict=True)), x % 1, y % 1, marks.get_facecolors()


def test_dots_mark_the_cells_whose_sign_is_called_clear_of_the_printed_value():
    values = matrix()
    figure = heatmap(values, FAMILIES, called=signs(values, ("de", "hu"), ("tr", "nl"), ("hu", "de")))
    cells, x, y, _ = marked(figure)
    assert sorted(cells) == [(0, 3), (2, 1), (3, 0)]  # in the order de, nl, tr, hu
    assert (x > 0.85).all() and (y < 0.15).all()
    assert texts(figure, "note") == ["Dot: sign survives FDR 5 % over the matrix."]


def test_dots_stand_in_the_middle_where_no_values_are_printed():
    languages = [f"x{k}" for k in range(44)]
    values = matrix(languages)
    figure = heatmap(values, dict.fromkeys(languages, "Turkic"), called=np.sign(values), false_discovery_rate=0.1)
    cells, x, y, _ = marked(figure)
    assert len(cells) == 44 * 44 and (x == 0.5).all() and (y == 0.5).all()
    assert texts(figure, "note") == ["Dot: sign survives FDR 10 % over the matrix."]


def test_undefined_and_missing_cells_get_no_dot_and_both_notes_stand():
    values = matrix()
    called = np.sign(values)
    values.loc["tr"] = np.nan
    called.loc["de", "hu"] = np.nan
    figure = heatmap(values, FAMILIES, called=called)
    cells, *_ = marked(figure)
    assert len(cells) == 11 and not {(2, 0), (2, 1), (2, 2), (2, 3), (0, 3)} & set(cells)
    assert len(texts(figure, "note")) == 2
    assert_legible(figure)


def test_dots_contrast_with_their_cell():
    values = pd.DataFrame([[1, -3], [0.01, 1]], index=["de", "tr"], columns=["de", "tr"])
    *_, inks = marked(heatmap(values, FAMILIES, called=np.sign(values)))
    assert inks[:, :3].sum(axis=1).tolist() == [0, 3, 0, 0]


def test_signs_of_other_languages_or_other_signs_are_refused():
    values = matrix()
    sign = np.sign(values)
    for called, message in (
        (sign.drop(index="de"), "same languages"),
        (sign.rename(columns={"de": "xx"}), "same languages"),
        (sign * 2, "called"),
        (-sign, "target 'tr', donor 'tr' is called -1 where the matrix has 1"),
    ):
        with pytest.raises(InputError, match=f"(?i){message}"):
            heatmap(values, FAMILIES, called=called)


def test_language_without_family_is_named():
    with pytest.raises(InputError, match="'xx'"):
        heatmap(matrix(["de", "xx"]), FAMILIES)


def test_self_gain_bars_show_mean_standard_error_and_every_seed():
    gains = pd.DataFrame([[0.1, 0.3, 0.2], [-0.2, -0.1, 0.0]], index=["tr", "de"], columns=[1, 2, 3])
    figure = self_gain_bars(gains, FAMILIES, "macro-F1")
    axes = figure.axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in axes.containers[0]], [-0.1, 0.2])
    segments = axes.containers[1][2][0].get_segments()
    halves = [(segment[1, 0] - segment[0, 0]) / 2 for segment in segments]
    np.testing.assert_allclose(halves, [0.1 / np.sqrt(3)] * 2)
    seeds = [line.get_xdata() for line in axes.lines if line.get_gid() == "seeds"]
    np.testing.assert_allclose(np.array(seeds).T, gains.loc[["de", "tr"]])
    assert [bool(bar.get_hatch()) for bar in axes.containers[0]] == [True, False]
    words = " ".join([axes.get_xlabel(), *(text.get_text() for text in figure.texts)])
    assert all(word in words for word in ("macro-F1", "mean of 3 seeds", "standard error", "higher is better"))


def test_bars_of_one_seed_claim_no_standard_error():
    figure = self_gain_bars(pd.DataFrame([[0.1]], index=["tr"]), FAMILIES)
    assert len(figure.axes[0].containers) == 1
    assert "no standard error" in figure.texts[0].get_text()


def test_family_style_does_not_depend_on_the_other_families():
    alone = family_style({"tr": "Turkic"})["Turkic"]
    assert family_style(FAMILIES)["Turkic"] == alone
    assert family_style({"xx": "Unheard-of"}) == family_style({"yy": "Unheard-of"})


def test_no_two_families_of_the_study_share_colour_and_marker():
    styles = family_style({code: language.family for code, language in LANGUAGES.items()})
    assert len({tuple(style.values()) for style in styles.values()}) == len(styles)
    for style in styles.values():
        to_rgba(style["color"])


def test_saving_twice_gives_the_same_bytes(tmp_path):
    values = matrix()
    values.loc["tr"] = np.nan
    paths = [
        save_figure(heatmap(values, FAMILIES, title="t"), values, tmp_path / folder, "cltm", "run-7") for folder in "ab"
    ]
    assert list(paths[0]) == ["csv", "pdf", "png"]
    for kind in paths[0]:
        assert paths[0][kind].read_bytes() == paths[1][kind].read_bytes(), kind
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["cltm.csv", "cltm.pdf", "cltm.png"]


def test_saved_files_hold_the_numbers_the_run_id_and_truetype_text_but_no_time(tmp_path):
    values = matrix()
    paths = save_figure(heatmap(values, FAMILIES), values, tmp_path, "cltm", "run-7")
    pd.testing.assert_frame_equal(pd.read_csv(paths["csv"], index_col=0), values)
    pdf = paths["pdf"].read_bytes()
    assert b"run-7" in pdf and b"/CIDFontType2" in pdf and b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    with Image.open(paths["png"]) as image:
        assert image.info["run_id"] == "run-7" and "Software" not in image.info
        assert image.size[0] == pytest.approx(figures.COLUMN_IN * 300, abs=1)


def test_full_disk_is_one_sentence_and_leaves_the_old_files(tmp_path, monkeypatch):
    values = matrix()
    old = save_figure(heatmap(values, FAMILIES), values, tmp_path, "cltm", "run-1")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_figure(heatmap(values, FAMILIES), values * 2, tmp_path, "cltm", "run-2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before and old["csv"].exists()


def test_a_file_in_place_of_the_folder_and_a_path_as_name_are_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        save_figure(Figure(), matrix(), tmp_path / "taken", "cltm", "r")
    for name in ("", "..", "a/b"):
        with pytest.raises(InputError, match="plain file name"):
            save_figure(Figure(), matrix(), tmp_path, name, "r")


def test_drawing_leaves_the_settings_of_the_reader_alone_and_ignores_them(tmp_path):
    values = matrix()
    plain = save_figure(heatmap(values, FAMILIES), values, tmp_path, "plain", "r")["png"].read_bytes()
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 40}):
        before = dict(matplotlib.rcParams)
        figure = heatmap(values, FAMILIES)
        odd = save_figure(figure, values, tmp_path / "odd", "plain", "r")["png"].read_bytes()
        assert figure._repr_png_().startswith(b"\x89PNG")
        assert dict(matplotlib.rcParams) == before
    assert odd == plain


def test_family_order_is_by_family_then_as_given():
    for languages in itertools.permutations(FAMILIES):
        order = figures.family_order(languages, FAMILIES)
        assert [FAMILIES[code] for code in order] == sorted(FAMILIES.values())
        assert [code for code in order if code in ("de", "nl")] == [code for code in languages if code in ("de", "nl")]
