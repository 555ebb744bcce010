"""Figures of the study of unsupervised training: conditions, bound, training, sample sizes, error rates."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from cltmlib.figures.layout import Foot, place_in_inches, require_columns, text_in
from cltmlib.figures.style import _COLOURS, COLUMN_IN, PAGE_IN, StudyFigure, style

_MARKERS = "os^DvPX"
_LINE = {"color": "0.35", "linewidth": 0.7}


def conditions(matrices: Mapping[str, np.ndarray]) -> StudyFigure:
    """Draw language-model matrices side by side: positions down, labels across, the unigram of each position.

    Args:
        matrices: P by the name that stands above it, each (N, K).
    """
    from cltmlib.unsupervised import conditioning

    with style():
        note = (
            "P(n, c): probability of label c at position n. Condition 2 asks that no column is a combination of the "
            "others; the number below a panel is the rank, then the smallest singular value."
        )
        width_in = PAGE_IN if len(matrices) > 2 else COLUMN_IN
        figure, panels = _panels(len(matrices), 1.1, width_in, note, bottom_in=0.5, top_in=0.3)
        for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
            found = conditioning(matrix)
            axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
            for (n, c), value in np.ndenumerate(matrix):
                axes.text(c, n, f"{value:.2f}", ha="center", va="center", fontsize=6.5, gid="cell",
                          color="white" if value > 0.6 else "black")  # fmt: skip
            axes.set_title(name, fontsize=7)
            axes.set_xticks([])
            axes.set_yticks(range(len(matrix)), [str(n + 1) for n in range(len(matrix))])
            axes.set_xlabel(f"rank {found.rank} of {found.n_labels}; {found.sigma_min:.3f}", fontsize=7)
        panels[0].set_ylabel("position")
    return figure


def structure(edges: pd.DataFrame) -> StudyFigure:
    """Draw what symbols depend on: labels above, symbols below, an arrow for each dependence.

    Args:
        edges: from `cltmlib.unsupervised.structures`: columns panel, cause and effect ("c2", "x2").
    """
    require_columns(edges, ["panel", "cause", "effect"], "structures")
    names = list(dict.fromkeys(edges["panel"]))
    nodes = sorted({*edges["cause"], *edges["effect"]})
    place = {node: (int(node[1:]), 1.0 if node[0] == "c" else 0.0) for node in nodes}
    note = (
        "Labels c come from the language model, which may be any (grey); symbols x are what is heard. Condition 1 asks "
        "that all arrows into a symbol come from its own label, by the same table at every position."
    )
    with style():
        figure, panels = _panels(len(names), 0.85, PAGE_IN, note, bottom_in=0.06, top_in=0.3)
        for axes, name in zip(panels, names, strict=True):
            for cause, effect in edges.loc[edges["panel"] == name, ["cause", "effect"]].to_numpy():
                of_text = cause[0] == effect[0] == "c"
                own = cause[0] == "c" and cause[1:] == effect[1:]
                colour = "0.6" if of_text else _COLOURS[0] if own else _COLOURS[1]
                look = {"arrowstyle": "-|>", "color": colour, "shrinkA": 8, "shrinkB": 8, "linewidth": 0.9}
                axes.annotate("", place[effect], place[cause], arrowprops=look)
            for node, (x, y) in place.items():
                axes.text(x, y, node, ha="center", va="center", gid="node")
            axes.set(xlim=(0.5, max(x for x, _ in place.values()) + 0.5), ylim=(-0.35, 1.35))
            axes.set_axis_off()
            axes.set_title(name, fontsize=7)
    return figure


def bound_scatter(instances: pd.DataFrame, n_shown: int = 3000) -> StudyFigure:
    """Draw D_q against the marginal distance L (the axes of the paper's simulation), and against the bounds.

    Args:
        instances: from `validate_bound`; up to ``n_shown`` of them are drawn, evenly from the table.
    """
    require_columns(instances, ["marginal_distance", "theorem_1_left", "theorem_1_right", "model"], "random models")
    shown = instances.iloc[np.linspace(0, len(instances) - 1, min(n_shown, len(instances))).astype(int)]
    kinds = list(dict.fromkeys(instances["model"]))
    looks = _looks(kinds)
    legend = [Line2D([], [], linestyle="none", markersize=4, label=f"q: {kind}", **looks[kind]) for kind in kinds]
    least = 1e-6  # lower end of the axis of D
    note = (
        f"{len(shown)} of {len(instances)} random pairs of models, {int((shown['theorem_1_left'] < least).sum())} of "
        "them below the lower edge. Left: no point can lie below the line. Middle and right: none can lie above it, "
        "and a point on it uses up its bound. Dotted: the trivial bound 2."
    )
    with style():
        figure, (left, middle, right) = _panels(3, 1.7, PAGE_IN, note, legend, left_in=0.55, gap_in=0.5)
        for axes, column, label, line in (
            (left, "marginal_distance", "L, marginal distance", "D = L (least possible)"),
            (middle, "sharp_right", "κ* L (our constant)", "D = κ* L"),
            (right, "theorem_1_right", "N²‖P⁺‖₁ L (Theorem 1)", "D = bound"),
        ):
            for kind in kinds:
                of_kind = shown[shown["model"] == kind]
                axes.plot(of_kind[column], of_kind["theorem_1_left"], linestyle="none", markersize=1.3, alpha=0.5,
                          markeredgewidth=0, gid=kind, **looks[kind])  # fmt: skip
            low, high = least, 3.0
            axes.plot([low, high], [low, high], gid="bound", **_LINE)
            axes.axhline(2, linestyle=(0, (1, 1.5)), gid="trivial", **_LINE)
            _log_scale(axes, "x", "y")
            axes.set(xlabel=label, ylim=(least, 5))
            axes.set_title(f"line: {line}", fontsize=7)
        left.set_ylabel("D, joint distance")
    return figure


def conditioning_curves(sweep: pd.DataFrame) -> StudyFigure:
    """Draw what happens, and what the bounds allow, as the positions of the language model grow alike.

    Args:
        sweep: from `conditioning_sweep`; medians over draws are drawn, with quartiles.
    """
    columns = {"constant": "N²‖P⁺‖₁", "kappa": "κ*", "joint_over_marginal": "D / L, what happens"}
    require_columns(sweep, ["language_model", "sigma_min", *columns], "the conditioning sweep")
    looks = _looks(list(columns))
    n_draws = int(sweep.groupby(["language_model", "variation"]).size().min())
    legend = [Line2D([], [], markersize=4, label=text, **looks[name]) for name, text in columns.items()]
    note = (
        f"Medians of {n_draws} random pairs of the paper's size (K = 3, V = 4, N = 3), bars: quartiles; q differs in "
    )
    note += "the direction that P sees least. Further left: positions of the language model are more alike."
    with style():
        kinds = list(dict.fromkeys(sweep["language_model"]))
        figure, panels = _panels(len(kinds), 1.6, PAGE_IN * 0.75, note, legend, left_in=0.6)
        for axes, kind in zip(panels, kinds, strict=True):
            groups = sweep[sweep["language_model"] == kind].groupby("variation")
            x = groups["sigma_min"].median()
            for name, look in looks.items():
                low, y, high = (groups[name].quantile(q) for q in (0.25, 0.5, 0.75))
                axes.errorbar(
                    x.to_numpy(), y.to_numpy(), [y - low, high - y], markersize=3.5, elinewidth=0.6, **look
                ).lines[0].set_gid(name)
            _log_scale(axes, "x", "y")
            axes.set_xlabel("σ_min of P (median, log scale)")
            axes.set_title(f"{kind} language model", fontsize=7)
        panels[0].set_ylabel("factor on L (log scale)")
        _share_limits(panels)
    return figure


def training_curves(runs: pd.DataFrame) -> StudyFigure:
    """Draw loss and error mismatch against steps, means over all problems and starts, no start left out.

    Args:
        runs: from `train_on_population`.
    """
    require_columns(runs, ["language_model", "step", "kl", "error_mismatch", "joint_distance"], "training runs")
    kinds = list(dict.fromkeys(runs["language_model"]))
    looks = _looks(kinds)
    counts = runs.groupby(["language_model", "step"]).size()
    n_problems = runs["problem"].nunique()
    legend = [Line2D([], [], markersize=4, label=kind, **looks[kind]) for kind in kinds]
    note = (
        f"Means over {counts.min()} runs ({n_problems} problems, {counts.min() // n_problems} random starts each, none "
        "left out); bands: ±1 standard error over problems. Step 0 stands at the left edge."
    )
    panels_of = {
        "kl": "F − H = KL divergence (nats)",
        "joint_distance": "D, joint distance",
        "error_mismatch": "Δ, error mismatch (string)",
    }
    with style():
        figure, panels = _panels(3, 1.7, PAGE_IN, note, legend, left_in=0.6, gap_in=0.6, top_in=0.1)
        for axes, (column, label) in zip(panels, panels_of.items(), strict=True):
            for kind in kinds:
                of_kind = runs[runs["language_model"] == kind]
                by_problem = of_kind.groupby(["step", "problem"])[column].mean().groupby("step")
                mean, error = by_problem.mean(), by_problem.sem()
                steps = np.maximum(mean.index.to_numpy(), 0.5 * min(step for step in mean.index if step))
                axes.plot(steps, mean, markersize=3, gid=kind, **looks[kind])
                floor = 1e-12 if column == "kl" else -np.inf
                axes.fill_between(steps, np.maximum(mean - error, floor), mean + error, color=looks[kind]["color"],
                                  alpha=0.15, linewidth=0)  # fmt: skip
            _log_scale(axes, "x", *(["y"] if column == "kl" else []))
            axes.set(xlabel="steps of Adam (log scale)", ylabel=label)
            if column == "kl":
                axes.set_ylim(bottom=1e-7)
            else:
                axes.set_ylim(bottom=0)
    return figure


def sample_size_curves(sizes: pd.DataFrame) -> StudyFigure:
    """Draw symbol error against the size of the text and of the speech, unsupervised beside the topline.

    Args:
        sizes: from `sample_sizes`: columns varied, size, seed, method, symbol_error.
    """
    require_columns(sizes, ["varied", "size", "seed", "method", "symbol_error"], "sample sizes")
    methods = list(dict.fromkeys(sizes["method"]))
    looks = _looks(methods)
    n_seeds = sizes["seed"].nunique()
    legend = [Line2D([], [], markersize=4, label=method, **looks[method]) for method in methods]
    note = f"Full-rank bigram; means of {n_seeds} seeds, bars: ±1 standard error. The other size is the largest. "
    note += "The topline uses the same text, and the labels of the same speech."
    with style():
        figure, panels = _panels(2, 1.6, PAGE_IN * 0.75, note, legend, left_in=0.6, top_in=0.1)
        for axes, (varied, unit) in zip(panels, (("text", "sentences of text"), ("speech", "utterances")), strict=True):
            for method in methods:
                chosen = sizes[(sizes["varied"] == varied) & (sizes["method"] == method)].groupby("size")
                mean, error = chosen["symbol_error"].mean(), chosen["symbol_error"].sem().fillna(0)
                axes.errorbar(
                    mean.index.to_numpy(),
                    mean.to_numpy(),
                    error.to_numpy(),
                    markersize=3.5,
                    elinewidth=0.6,
                    **looks[method],
                ).lines[0].set_gid(f"{varied} {method}")
            _log_scale(axes, "x")
            axes.set_xlabel(f"{unit} (log scale)")
        panels[0].set_ylabel("symbol error, lower is better")
        _share_limits(panels)
    return figure


def method_dots(table: pd.DataFrame, panel: str, value: str, label: str, note: str) -> StudyFigure:
    """Draw the error of each method as a dot with its standard error over seeds, a panel per task or language model.

    Args:
        table: one row per seed and method; columns ``panel``, seed, method and ``value``.
        panel: column that says which panel.
        value: column that is drawn.
        label: of the axis.
        note: what stands at the foot; n and the bars are added.
    """
    require_columns(table, [panel, "seed", "method", value], "methods")
    names, methods = (list(dict.fromkeys(table[column])) for column in (panel, "method"))
    n_seeds = table["seed"].nunique()
    with style():
        left_in = text_in(methods, 7) + 0.25
        note = f"{note} {n_seeds} seeds; dot: mean, bar: ±1 standard error, small: each seed."
        width_in = PAGE_IN if len(names) > 2 else PAGE_IN * 0.75
        figure, panels = _panels(len(names), 0.2 * len(methods) + 0.2, width_in, note, left_in=left_in, gap_in=0.2)
        for axes, name in zip(panels, names, strict=True):
            for row, method in enumerate(methods):
                values = table.loc[(table[panel] == name) & (table["method"] == method), value]
                colour = _COLOURS[row % len(_COLOURS)]
                axes.plot(values, np.full(len(values), row), "|", color=colour, markersize=4, alpha=0.7)
                error = values.sem() if len(values) > 1 else 0
                axes.errorbar(values.mean(), row, xerr=error, fmt="o", color=colour, markersize=4,
                              elinewidth=0.8).lines[0].set_gid(f"{name} {method}")  # fmt: skip
            axes.set(ylim=(len(methods) - 0.5, -0.5), xlim=(0, 1.05 * table[value].max()))
            axes.set_yticks(range(len(methods)), methods if axes is panels[0] else [])
            axes.set_title(name, fontsize=7)
            axes.grid(axis="x", linewidth=0.3, color="0.85")
        _label_below(figure, panels, label)
    return figure


def _looks(names: Sequence[str]) -> dict[str, dict[str, str]]:
    return {
        name: {"color": _COLOURS[k % len(_COLOURS)], "marker": _MARKERS[k % len(_MARKERS)]}
        for k, name in enumerate(names)
    }


def _panels(
    n: int, height_in: float, width_in: float, note: str, legend: Sequence[Line2D] = (), left_in: float = 0.5,
    gap_in: float = 0.3, bottom_in: float = 0.46, top_in: float = 0.28,
) -> tuple[StudyFigure, list[Axes]]:  # fmt: skip
    """A row of panels of equal size over legend and note."""
    foot = Foot(width_in, note, legend)
    right_in = 0.12
    panel_in = (width_in - left_in - right_in - (n - 1) * gap_in) / n
    figure = StudyFigure(figsize=(width_in, foot.height_in + bottom_in + height_in + top_in))
    place = place_in_inches(figure)
    panels = []
    for k in range(n):
        left = left_in + k * (panel_in + gap_in)
        axes = figure.add_axes(place(left, foot.height_in + bottom_in, panel_in, height_in))
        axes.spines[["top", "right"]].set_visible(False)
        panels.append(axes)
    foot.draw(figure)
    return figure, panels


def _log_scale(axes: Axes, *which: str) -> None:
    """Logarithmic axes with labels at powers of ten only, so that neighbouring labels never touch."""
    for name in which:
        axes.set(**{f"{name}scale": "log"})
        getattr(axes, f"{name}axis").set_minor_formatter(NullFormatter())


def _share_limits(panels: Sequence[Axes]) -> None:
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        axes.tick_params(labelleft=axes is panels[0])


def _label_below(figure: StudyFigure, panels: Sequence[Axes], label: str) -> None:
    first, last = panels[0].get_position(), panels[-1].get_position()
    y = first.y0 - 0.36 / figure.get_figheight()
    figure.text((first.x0 + last.x1) / 2, y, label, ha="center", va="center")
