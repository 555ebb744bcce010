"""The speaker embedding space (Section 4.3): a map of it, distance against transfer, and the scores of trials."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from cltmlib.errors import InputError
from cltmlib.figures.layout import Foot, place_in_inches, place_labels, require_columns, shift, write_title
from cltmlib.figures.style import COLUMN_IN, PAGE_IN, StudyFigure, family_order, family_style, style

# No family has these colours; dark and light, so that they differ in grey too.
_GENDERS = {"female": {"color": "#882255", "marker": "o"}, "male": {"color": "#DDAA33", "marker": "^"}}
_NO_GENDER = {"color": "0.5", "marker": "x", "markeredgewidth": 0.6}
_N_LAYERS = 20

_BETWEEN = {"color": "0.5", "marker": "o", "markerfacecolor": "none", "markeredgewidth": 0.6}
_GUIDE = {"color": "0.3", "linewidth": 0.8, "linestyle": (0, (4, 2))}
_MAX_PAIRS_IN_COLUMN, _N_EXTREME = 120, 2  # pairs; pairs named at each end of each axis

_CONDITION_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#404040")
_N_BINS = 40


def embedding_map(
    coordinates: pd.DataFrame, families: Mapping[str, str], settings: str, title: str | None = None
) -> StudyFigure:
    """Draw a projection of the embedding space twice: by language family, and by gender.

    A language's code stands at the mean of its points. The axes of such a projection have no unit and no direction,
    so they have no numbers; a unit is as long up as across.

    Args:
        coordinates: columns x, y, language, gender ("female", "male" or null), one row per point.
        families: family of each language.
        settings: method, perplexity, seed and n of the projection, as in "t-SNE, perplexity 30, seed 0, n = 800".
        title: short title above the panels.

    Raises:
        InputError: a column is missing, the table is empty, a coordinate is not finite, or a language has no family.

    Example:
        >>> points = pd.DataFrame({"x": [0, 2, 5], "y": [0, 0, 1], "language": ["de", "de", "tr"], "gender": "female"})
        >>> figure = embedding_map(points, {"de": "Germanic", "tr": "Turkic"}, "t-SNE, perplexity 1, seed 0, n = 3")
        >>> [text.get_text() for text in figure.axes[0].texts if text.get_gid() == "label"]
        ['de', 'tr']
    """
    require_columns(coordinates, ["x", "y", "language", "gender"], "coordinates")
    points = coordinates[["x", "y"]].to_numpy(dtype=float)
    if not np.isfinite(points).all():
        row = int(np.argmin(np.isfinite(points).all(axis=1)))
        raise InputError(f"Row {row} of the coordinates is {tuple(points[row].tolist())}: give finite numbers.")
    order = family_order(list(dict.fromkeys(coordinates["language"])), families)
    by_family = family_style({language: families[language] for language in order})
    genders = coordinates["gender"].where(coordinates["gender"].isin(list(_GENDERS)), "not known")
    by_gender = {name: look for name, look in {**_GENDERS, "not known": _NO_GENDER}.items() if name in set(genders)}
    size_pt = float(np.clip(60 / np.sqrt(len(points)), 1.6, 5))
    note = f"{settings.rstrip('.')}. The map illustrates (its axes have no unit); "
    note += "distances in the text are computed in the full space."
    with style():
        keys = [[Line2D([], [], label=name, linestyle="none", **look) for name, look in looks.items()]
                for looks in (by_family, by_gender)]  # fmt: skip
        foot = Foot(PAGE_IN, note, keys[0])
        gap_in, bottom_in, top_in = 0.2, foot.height_in + 0.08, 0.5 if title else 0.26
        panel_in = (PAGE_IN - 0.2 - gap_in) / 2
        figure = StudyFigure(figsize=(PAGE_IN, bottom_in + panel_in + top_in))
        place = place_in_inches(figure)
        groups = coordinates["language"].map(families).to_numpy(), genders.to_numpy()
        for k, (group, looks) in enumerate(zip(groups, (by_family, by_gender), strict=True)):
            axes = figure.add_axes(place(0.1 + k * (panel_in + gap_in), bottom_in, panel_in, panel_in))
            # In layers of a mixed order, so that no group lies on top of all others.
            for rows in np.array_split(np.random.default_rng(0).permutation(len(points)), _N_LAYERS):
                for name, look in looks.items():
                    axes.plot(*points[rows[group[rows] == name]].T, linestyle="none", markersize=size_pt, alpha=0.7,
                              gid=name, **{"markeredgewidth": 0, **look})  # fmt: skip
            axes.set(xticks=[], yticks=[])
            axes.set_aspect("equal", adjustable="datalim")
            axes.apply_aspect()
            axes.text(0, 1, ("by language family", "by gender")[k], transform=axes.transAxes + shift(axes, 0, 3))
        centroids = coordinates.groupby("language")[["x", "y"]].mean().loc[order]
        place_labels(figure.axes[0], centroids.to_numpy(), order, points, centred=True)
        figure.axes[1].legend(handles=keys[1], loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=6.5,
                              frameon=False, borderaxespad=0, handletextpad=0.1, columnspacing=1.0)  # fmt: skip
        foot.draw(figure)
        write_title(figure, title)
    return figure


def distance_against_transfer(
    pairs: pd.DataFrame, families: Mapping[str, str], sentence: str, title: str | None = None
) -> StudyFigure:
    """Draw the transfer between two languages against the distance of their centroids, Section 4.3, for all pairs.

    A point is the mean of both directions, a thin vertical line joins the two (up to 120 pairs, which fit one column
    of print). Pairs within a family have its colour and marker. The two pairs at each end of each axis are named.

    Args:
        pairs: columns language_a, language_b, distance, transfer_a_from_b, transfer_b_from_a, one row per unordered
            pair, as from ``cltm.distance_and_transfer``. Pairs without one of them are left out, and counted.
        families: family of each language.
        sentence: correlation and its p-value, for the note under the figure; the line drawn is only a guide.
        title: short title above the axes.

    Raises:
        InputError: a column is missing, no pair has a distance and both transfers, or a language has no family.

    Example:
        >>> pairs = pd.DataFrame({"language_a": ["de", "de"], "language_b": ["nl", "tr"], "distance": [1.0, 2.0],
        ...                       "transfer_a_from_b": [1.0, -0.5], "transfer_b_from_a": [0.5, -1.5]})
        >>> families = {"de": "Germanic", "nl": "Germanic", "tr": "Turkic"}
        >>> figure = distance_against_transfer(pairs, families, "Spearman -1.00, p = 0.5.")
        >>> [line.get_ydata().tolist() for line in figure.axes[0].lines if line.get_gid() in ("Germanic", "between")]
        [[-1.0], [0.75]]
    """
    directions = ["transfer_a_from_b", "transfer_b_from_a"]
    require_columns(pairs, ["language_a", "language_b", "distance", *directions], "pairs")
    family_order([*pairs["language_a"], *pairs["language_b"]], families)  # refuses a language without family
    drawn = pairs.dropna(subset=["distance", *directions])
    if drawn.empty:
        raise InputError("No pair of languages has a distance and both transfers: there is nothing to draw.")
    points = np.column_stack([drawn["distance"], drawn[directions].mean(axis=1)])
    family_a, family_b = (drawn[side].map(families).to_numpy() for side in ("language_a", "language_b"))
    shared = np.where(family_a == family_b, family_a, "between")
    looks = {name: look for name, look in {"between": _BETWEEN, **family_style(families)}.items() if name in shared}
    labels = {name: f"within {name}" for name in looks} | {"between": "between families"}
    few = len(drawn) <= _MAX_PAIRS_IN_COLUMN
    width_in, height_in = (COLUMN_IN, 2.4) if few else (PAGE_IN, 3.4)
    left_out = f", {len(pairs) - len(drawn)} without a defined transfer left out" if len(drawn) < len(pairs) else ""
    note = f"n = {len(drawn)} pairs{left_out}; point: mean of both directions; "
    note += "thin line: from one to the other; " if few else ""
    note += f"dashed: least squares, a guide. {sentence}"
    with style():
        keys = [Line2D([], [], label=labels[name], linestyle="none", **look) for name, look in looks.items()]
        foot = Foot(width_in, note, keys)
        bottom_in, top_in, left_in, right_in = foot.height_in + 0.42, 0.3 if title else 0.1, 0.58, 0.58
        figure = StudyFigure(figsize=(width_in, bottom_in + height_in + top_in))
        axes = figure.add_axes(place_in_inches(figure)(left_in, bottom_in, width_in - left_in - right_in, height_in))
        for value, meaning in ((0, "no effect"), (1, "own data")):
            axes.axhline(value, color="0.6", linewidth=0.6, zorder=0, gid="reference")
            beside = axes.get_yaxis_transform() + shift(axes, 3, 0)
            axes.text(1, value, meaning, transform=beside, va="center_baseline", fontsize=6.5, gid="reference")
        if few:
            low, high = drawn[directions].min(axis=1), drawn[directions].max(axis=1)
            axes.vlines(points[:, 0], low, high, color="0.75", linewidth=0.6, zorder=0.5, gid="directions")
        for name, look in looks.items():
            size = {"markersize": 3 if few else 2.2} if name == "between" else {"markersize": 4, "markeredgewidth": 0}
            axes.plot(*points[shared == name].T, linestyle="none", gid=name, **size, **look)
        if len(np.unique(points[:, 0])) > 1:
            slope, at_zero = np.polyfit(*points.T, 1)
            ends = np.sort(points[:, 0])[[0, -1]]
            axes.plot(ends, at_zero + slope * ends, gid="guide", **_GUIDE)
        axes.margins(0.08)
        axes.locator_params(axis="y", nbins=7)
        axes.set(xlabel="centroid distance (Euclidean), larger is further",
                 ylabel="transfer (mean CLTM), higher is better")  # fmt: skip
        named = _extreme_pairs(points)
        names = [f"{a}\N{EN DASH}{b}" for a, b in drawn[["language_a", "language_b"]].iloc[named].to_numpy()]
        place_labels(axes, points[named], names, points, centred=False)
        foot.draw(figure)
        write_title(figure, title)
    return figure


def trial_scores(trials: pd.DataFrame, auc: Mapping[str, float] | None = None, title: str | None = None) -> StudyFigure:
    """Draw how the scores of same-speaker and different-speaker trials are distributed, in each condition.

    Args:
        trials: columns condition (as in "within a language"; at most four), same_speaker (bool) and score (cosine),
            one row per trial.
        auc: area under the ROC curve of each condition, for the legend.
        title: short title above the axes.

    Raises:
        InputError: a column is missing, the table is empty, a score is not finite, a condition lacks same-speaker or
            different-speaker trials or its AUC, or there are more than four conditions.

    Example:
        >>> trials = pd.DataFrame({"condition": "within a language", "same_speaker": [True, True, False, False],
        ...                        "score": [0.9, 0.7, 0.2, 0.1]})
        >>> figure = trial_scores(trials, {"within a language": 1.0})
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['same speaker', 'different speakers', 'within a language, AUC 1.000']
    """
    require_columns(trials, ["condition", "same_speaker", "score"], "trials")
    scores, same = trials["score"].to_numpy(dtype=float), trials["same_speaker"].to_numpy(dtype=bool)
    if not np.isfinite(scores).all():
        raise InputError(f"Row {int(np.argmin(np.isfinite(scores)))} of the trials has no finite score.")
    conditions = list(dict.fromkeys(trials["condition"]))
    _check_conditions(conditions, trials["condition"].to_numpy(), same, auc)
    edges = np.histogram_bin_edges(scores, bins=_N_BINS)
    counts = [f"{(same & (trials['condition'] == c)).sum()} + {(~same & (trials['condition'] == c)).sum()} {c}"
              for c in conditions]  # fmt: skip
    note = f"n trials (same + different speaker): {', '.join(counts)}; histograms with area 1, {_N_BINS} bins."
    looks = {"same speaker": {"linestyle": "-"}, "different speakers": {"linestyle": (0, (3, 1.5))}}
    with style():
        keys = [Line2D([], [], label=name, color="black", **look) for name, look in looks.items()]
        for condition, colour in zip(conditions, _CONDITION_COLOURS, strict=False):
            label = condition if auc is None else f"{condition}, AUC {auc[condition]:.3f}"
            keys.append(Line2D([], [], label=label, color=colour, linewidth=3))
        foot = Foot(COLUMN_IN, note, keys)
        bottom_in, height_in, top_in = foot.height_in + 0.42, 1.9, 0.3 if title else 0.1
        figure = StudyFigure(figsize=(COLUMN_IN, bottom_in + height_in + top_in))
        axes = figure.add_axes(place_in_inches(figure)(0.5, bottom_in, COLUMN_IN - 0.62, height_in))
        for condition, colour in zip(conditions, _CONDITION_COLOURS, strict=False):
            for (name, look), trial_is in zip(looks.items(), (same, ~same), strict=True):
                member = trial_is & (trials["condition"] == condition).to_numpy()
                density, _ = np.histogram(scores[member], edges, density=True)
                axes.stairs(density, edges, color=colour, linewidth=1, gid=f"{condition}, {name}", **look)
                if name == "same speaker":
                    axes.stairs(density, edges, color=colour, fill=True, alpha=0.15)
        axes.set(xlabel="cosine score (no unit), higher is more alike", ylabel="density (per unit of score)")
        foot.draw(figure)
        write_title(figure, title)
    return figure


def _extreme_pairs(points: np.ndarray) -> list[int]:
    """Positions of the pairs at both ends of the transfer, then of the distance, without repeats."""
    orders = [np.argsort(points[:, column], kind="stable").tolist() for column in (1, 0)]
    return list(dict.fromkeys(row for order in orders for row in order[:_N_EXTREME] + order[-_N_EXTREME:]))


def _check_conditions(
    conditions: Sequence[str], of_trial: np.ndarray, same: np.ndarray, auc: Mapping[str, float] | None
) -> None:
    """Refuse conditions that cannot be compared."""
    if len(conditions) > len(_CONDITION_COLOURS):
        most = len(_CONDITION_COLOURS)
        raise InputError(f"The trials have {len(conditions)} conditions: at most {most} can be told apart.")
    for condition in conditions:
        kinds = {"same": same[of_trial == condition].any(), "different": (~same[of_trial == condition]).any()}
        for kind, present in kinds.items():
            if not present:
                raise InputError(f"Condition {condition!r} has no {kind}-speaker trials: its scores say nothing.")
        if auc is not None and condition not in auc:
            raise InputError(f"Condition {condition!r} has no AUC: give it for {', '.join(map(repr, conditions))}.")
