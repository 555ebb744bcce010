"""The dynamic training interval [N, 2N] of a set of learning curves (arXiv:2603.08231, Section 2.2).

The paper describes the interval in words; the rule here, with its thresholds, is the one of the authors' released code
(scripts/interval/find_interval.py).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from cltmlib import paths
from cltmlib.errors import InputError

_COLUMNS = ["language", "n_samples", "seed", "performance"]

# Constants of the released code: the smallest CI_min of a valid interval, outliers, grid and smoothing.
_VALID = 1.0
_OUTLIER_IQR = 1.5
_GRID_POINTS = 200
_SIGMA = 5  # grid points

# Medians that are equal on paper differ by floating-point dust, which must choose no N and make no outlier.
_DUST = 1e-9


@dataclass(frozen=True, eq=False)
class DynamicInterval:
    """The chosen interval [n, two_n] with all that led to it. N always has its 2N among the measurements.

    Attributes:
        n: the chosen N; the interval is chosen even where it is not valid, so look at ``is_valid``.
        scores: CI_min, dimensionless; rows = languages, columns = N; NaN where a language lacks N or 2N.
        median: median of ``scores`` over the languages that have one, by N.
        outliers: N whose median was set aside before smoothing.
        smoothed: the curve whose maximum was taken; index = N (float), uniform in log10.
        tau: smallest relative gain.
        z: smallest gain in standard errors of the gain.
        epsilon: smallest gain per unit of ln N, in units of the performance.
    """

    n: int
    scores: pd.DataFrame
    median: pd.Series
    outliers: list[int]
    smoothed: pd.Series
    tau: float
    z: float
    epsilon: float

    @property
    def two_n(self) -> int:
        """Upper end of the interval."""
        return 2 * self.n

    @property
    def score(self) -> float:
        """Median CI_min of the chosen interval, before smoothing."""
        return float(self.median[self.n])

    @property
    def is_valid(self) -> bool:
        """Whether the chosen interval reaches all thresholds in the median language."""
        return self.score >= _VALID

    @property
    def valid(self) -> list[int]:
        """All N whose interval [N, 2N] is valid, outliers included."""
        return [int(n) for n in self.median.index[self.median >= _VALID]]

    @property
    def dynamic_region(self) -> tuple[int, int] | None:
        """First and last training size of the dynamic region; None if the chosen interval is not valid.

        Choice: the paper draws the region (Figure 1) without defining it. Here it is the unbroken run of valid
        intervals around the chosen one: from the first N of the run to twice its last N.
        """
        if not self.is_valid:
            return None
        measured = [int(n) for n in self.median.index]
        first = last = measured.index(self.n)
        while first > 0 and measured[first - 1] in self.valid:
            first -= 1
        while last + 1 < len(measured) and measured[last + 1] in self.valid:
            last += 1
        return measured[first], 2 * measured[last]

    def region(self, n_samples: float) -> str:
        """Name the region of a training size: "under-trained", "dynamic" (both ends included) or "saturated".

        It is "undetermined" where the chosen interval is not valid.
        """
        if self.dynamic_region is None:
            return "undetermined"
        first, last = self.dynamic_region
        return "under-trained" if n_samples < first else "saturated" if n_samples > last else "dynamic"

    def table(self) -> pd.DataFrame:
        """One row per N: two_n, median_ci_min, n_languages, outlier, valid, chosen."""
        measured = self.median.index
        return pd.DataFrame(
            {
                "two_n": 2 * measured,
                "median_ci_min": self.median,
                "n_languages": self.scores.notna().sum(),
                "outlier": measured.isin(self.outliers),
                "valid": self.median >= _VALID,
                "chosen": measured == self.n,
            }
        )

    def sentence(self) -> str:
        """Which interval was chosen, in one sentence that begins with NOT VALID where it is not."""
        n_languages = int(self.scores[self.n].notna().sum())
        score = f"median CI_min {self.score:.3f} over {n_languages} of {len(self.scores)} languages"
        if self.is_valid:
            text = f"The dynamic interval is [{self.n}, {self.two_n}] ({score}, at least {_VALID:g})"
        else:
            text = f"NOT VALID: the best interval, [{self.n}, {self.two_n}], has {score}, below {_VALID:g}"
            text += f"; valid N: {', '.join(map(str, self.valid)) or 'none, so add seeds or measure other N'}"
        if self.outliers:
            text += f"; higher medians, set aside as outliers: N = {', '.join(map(str, self.outliers))}"
        if len(self.median) == 1:
            text += "; no other N was measured with its 2N"
        elif self.n in (self.median.index[0], self.median.index[-1]):
            end = "smallest" if self.n == self.median.index[0] else "largest"
            text += f"; it is the {end} N measured with its 2N, so a better one may lie beyond"
        return text + "."


def dynamic_interval(curves: pd.DataFrame, tau: float = 0.05, z: float = 1.3, epsilon: float = 0.05) -> DynamicInterval:
    """Choose the interval [N, 2N] in which a doubling of the training data is worth most, reliably.

    Paper, Section 2.2: the model is "neither under-trained nor near performance saturation". For a language with
    ``gain = Perf(2N) - Perf(N)``, means over seeds, and ``SE_gain = sqrt(SE(N)^2 + SE(2N)^2)``,
    ``CI_min(N) = min(gain / (tau Perf(N)), gain / (z SE_gain), gain / (epsilon ln 2))``, and 0 if gain <= 0.
    [N, 2N] is valid where the median of CI_min over languages is at least 1.

    To choose N, medians above Q3 + 1.5 IQR of all medians are set aside as outliers; the others are interpolated
    linearly at 200 points uniform in log10 N and smoothed by a Gaussian (sigma 5 points); at the maximum, the nearest
    N wins. Mind that the outlier step cannot tell a stray point from a steep rise: where curves are flat but for one
    or two doublings, or only four or five N were measured, the steepest doubling may be the outlier and a neighbour is
    chosen. ``sentence()`` names the outliers.

    Choice: nearest is in ``|N - N_opt|``, not in log N, and among all N, outliers included, as in the released code;
    of equal maxima, and of two equally near, the smaller N wins.

    Choice: SE is the standard error of the mean over seeds (ddof = 1), as the released rule says of its thresholds.
    The file its companion script writes for it holds the standard deviation over seeds; with that, the second term is
    smaller by sqrt(n_seeds). The seeds at N and 2N are taken as independent; an SE of 0 makes that term infinite.

    Choice: a language without N or 2N has no part in that median; ``table()`` counts those that have.

    Args:
        curves: columns language, n_samples (whole, > 0), seed, performance (a share in [0, 1], higher is better:
            epsilon is in its units). At least two seeds wherever N and 2N are both measured.
        tau: smallest gain as a share of Perf(N).
        z: smallest gain in standard errors.
        epsilon: smallest gain per unit of ln N; 0.05 is 0.035 per doubling.

    Returns:
        The chosen interval and the tables that led to it; it may not be valid.

    Raises:
        InputError: a column or a seed is missing, a row is there twice, a value is out of range, no language was
            measured at N and 2N, or a threshold is not positive.

    Example:
        >>> rows = [("de", 8, 0, 0.5), ("de", 8, 1, 0.5), ("de", 16, 0, 0.6), ("de", 16, 1, 0.6),
        ...         ("de", 32, 0, 0.6), ("de", 32, 1, 0.62)]
        >>> interval = dynamic_interval(pd.DataFrame(rows, columns=["language", "n_samples", "seed", "performance"]))
        >>> interval.scores.round(3).loc["de"].to_dict()
        {8: 2.885, 16: 0.289}
        >>> interval.n, interval.two_n, interval.valid, interval.region(32)
        (8, 16, [8], 'saturated')
    """
    for name, value in {"tau": tau, "z": z, "epsilon": epsilon}.items():
        if not 0 < value < np.inf:
            raise InputError(f"Parameter {name} is {value}: it must be a positive number.")
    scores = _scores(_checked(curves), tau, z, epsilon)
    median = scores.median().rename("median_ci_min")

    first_quartile, third_quartile = median.quantile([0.25, 0.75])
    is_outlier = median > third_quartile + _OUTLIER_IQR * (third_quartile - first_quartile) + _DUST
    smoothed = _smooth(median[~is_outlier])
    n_opt = smoothed.index[smoothed >= smoothed.max() - _DUST][0]
    nearest = np.argmin(np.abs(median.index - n_opt))
    return DynamicInterval(
        n=int(median.index[nearest]),
        scores=scores,
        median=median,
        outliers=[int(n) for n in median.index[is_outlier]],
        smoothed=smoothed,
        tau=tau,
        z=z,
        epsilon=epsilon,
    )


_CHOSEN = "dynamic_interval.json"  # in the output folder of 01_learning_curves


def save_chosen(folder: str | os.PathLike, params: Mapping, intervals: Mapping[str, DynamicInterval]) -> None:
    """Write the chosen interval of every task where `chosen_n_samples` looks for it."""
    tasks = {
        task: {
            "n": interval.n,
            "two_n": interval.two_n,
            "score": interval.score,
            "is_valid": interval.is_valid,
            "made_with": _setting(params, task),
        }
        for task, interval in intervals.items()
    }
    path = paths.output_folder(folder) / _CHOSEN
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps({"tasks": tasks}, indent=2) + "\n")
        os.replace(path.with_suffix(".part"), path)
    except OSError as error:
        raise InputError(f"The chosen interval cannot be written to {path.parent} ({error.strerror}).") from error


def _setting(params: Mapping, task: str) -> dict:
    """What has to agree for an interval to be taken over; paths without what is of one machine."""
    names = ["corpus", "corpus_dir", "encoder", "encoder_revision", "batch_size", "learning_rate", "max_seconds"]
    names += {"gender": ["samples_per_speaker"], "speaker": ["speakers_per_sample", "embedding_layers", "trim_db"]}[
        task
    ]
    setting = {name: params.get(f"{task}_{name}") or params[name] for name in names}
    for name in ("corpus_dir", "encoder"):
        if setting[name] is not None:
            setting[name] = paths.without_machine(setting[name])
    return setting


def chosen_n_samples(params: Mapping, task: str) -> int:
    """``n_samples`` of a notebook; for "auto", the N that notebook 01 of the same profile chose for the task.

    Raises:
        InputError: notebook 01 has not run, ran with another corpus, encoder or training or without this task, or found
            no valid interval.
    """
    if params["n_samples"] != "auto":
        return params["n_samples"]
    path = paths.output_folder(params["output_dir"]).parent / "01_learning_curves" / _CHOSEN
    where = paths.without_machine(path)
    try:
        entry = json.loads(path.read_text())["tasks"].get(task)
        made_with = entry["made_with"] if entry else {}
    except FileNotFoundError:
        raise InputError(
            f"Parameter 'n_samples' is auto, but there is no {where}: run notebook 01_learning_curves first, or give a "
            "number."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{where} cannot be read ({error}): run notebook 01_learning_curves again.") from error
    if entry is None:
        raise InputError(f"Parameter 'n_samples' is auto, but {where} holds no interval for {task}: give a number.")
    for name, value in _setting(params, task).items():
        if made_with.get(name) != value:
            raise InputError(
                f"Parameter 'n_samples' is auto, but {where} was made with {name} {made_with.get(name)!r} and not "
                f"{value!r}: run notebook 01_learning_curves with the same, or give a number."
            )
    if not entry["is_valid"]:
        raise InputError(
            f"Parameter 'n_samples' is auto, but no interval of {task} in {where} is valid (best: N = {entry['n']}, "
            f"median CI_min {entry['score']:.2f} below 1): measure other N or more seeds there, or give a number."
        )
    return entry["n"]


def _scores(table: pd.DataFrame, tau: float, z: float, epsilon: float) -> pd.DataFrame:
    """CI_min of every language at every N whose 2N it has; rows in the order in which the languages first appear."""
    languages = pd.Index(dict.fromkeys(table["language"]), name="language")
    # Sorted, so that neither the order of the rows nor that of the seeds changes the last digit of a mean.
    groups = table.sort_values("performance").groupby(["language", "n_samples"])["performance"]
    mean, error = (frame.unstack().reindex(languages) for frame in (groups.mean(), groups.sem(ddof=1)))
    measured = [n for n in mean.columns if 2 * n in mean.columns and (mean[n].notna() & mean[2 * n].notna()).any()]
    if not measured:
        raise InputError(
            f"No language was measured at both N and 2N, only at n_samples {', '.join(map(str, mean.columns))}: "
            "train with twice as many samples too."
        )
    doubled = [2 * n for n in measured]
    base, base_error = mean[measured], error[measured].to_numpy()  # (language, N)
    gain = mean[doubled].to_numpy() - base.to_numpy()
    gain_error = np.sqrt(base_error**2 + error[doubled].to_numpy() ** 2)
    alone = np.argwhere(np.isfinite(gain) & np.isnan(gain_error))
    if len(alone):
        row, column = alone[0]
        n = measured[column] if np.isnan(base_error[row, column]) else doubled[column]
        raise InputError(
            f"Language {languages[row]!r} has a single seed at n_samples {n}, so its gain has no standard error: "
            "train at least two seeds."
        )
    with np.errstate(divide="ignore", invalid="ignore"):  # Perf(N) = 0 or SE = 0: that term is infinite, or 0 / 0
        terms = [gain / (tau * base.to_numpy()), gain / (z * gain_error), gain / (epsilon * np.log(2))]
    lowest = np.where(gain <= 0, 0.0, np.minimum.reduce(terms))
    return pd.DataFrame(lowest, index=languages, columns=base.columns)


def _smooth(median: pd.Series) -> pd.Series:
    """Interpolate on the uniform grid in log10 N and smooth; a single N is its own curve."""
    if len(median) == 1:
        return median.set_axis(median.index.astype(float)).rename("smoothed_ci_min")
    log_n = np.log10(median.index.to_numpy(dtype=float))
    grid = np.linspace(log_n[0], log_n[-1], _GRID_POINTS)
    values = gaussian_filter1d(np.interp(grid, log_n, median.to_numpy()), sigma=_SIGMA)
    return pd.Series(values, index=pd.Index(10**grid, name="n_samples"), name="smoothed_ci_min")


def _checked(curves: pd.DataFrame) -> pd.DataFrame:
    """The four columns of the table, checked, n_samples as integers."""
    for column in _COLUMNS:
        if column not in curves.columns:
            raise InputError(f"The table of learning curves has no column {column!r}: it needs {', '.join(_COLUMNS)}.")
    table = curves[_COLUMNS].astype({"language": object}).reset_index(drop=True)
    if table.empty:
        raise InputError("The table of learning curves is empty: run the sweep first.")
    for column in ("language", "seed"):
        if table[column].isna().any():
            raise InputError(f"Row {int(table[column].isna().argmax())} of the learning curves has no {column}.")

    counts = pd.to_numeric(table["n_samples"], errors="coerce").astype(float)
    _refuse(table, ~(counts > 0) | (counts % 1 != 0), "its n_samples is not a positive whole number: correct it")
    table["n_samples"] = counts.astype(int)
    performance = pd.to_numeric(table["performance"], errors="coerce").astype(float)
    _refuse(table, ~np.isfinite(performance), "its performance is not a finite number: train it again")
    _refuse(
        table,
        ~performance.between(0, 1),
        "its performance is outside [0, 1]: give a score where higher is better, as a share and not in percent",
    )
    _refuse(table, table.duplicated(["language", "n_samples", "seed"]), "it is in the table twice: keep one row")
    return table.assign(performance=performance)


def _refuse(table: pd.DataFrame, wrong: pd.Series, why: str) -> None:
    if wrong.any():
        language, n_samples, seed, performance = table[wrong].iloc[0]
        raise InputError(
            f"Learning curve of language {language!r}, n_samples {n_samples}, seed {seed}, performance {performance}: "
            f"{why}."
        )
