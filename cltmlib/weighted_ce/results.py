"""Word error rates of the systems, how they differ, and how sure that is.

Two uncertainties are kept apart: over seeds (training clips, batches), as a standard error or a t interval of changes
paired by seed; and over test speakers, as a bootstrap that resamples whole speakers. Languages written without spaces
are scored by character (`cltmlib.wer.error_unit`).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from cltmlib import wer
from cltmlib.weighted_ce.data import Speech
from cltmlib.weighted_ce.systems import ORIGINAL, PLAIN, PUBLISHED, SYSTEMS

AVERAGE = "average"  # over all languages, each counting the same
OTHERS = "high-resource"  # average over the others than the low-resource language
LEVEL = 0.95


def error_counts(plan: Mapping, results: Mapping[str, Mapping], speech: Speech) -> pd.DataFrame:
    """Errors of every test utterance under every training.

    Args:
        plan: (system, seed) -> training, from `Worker.plan`.
        results: by the trainings' keys.
        speech: the clips.

    Returns:
        Columns system, seed, language, speaker, reference, hypothesis, n_errors, n_reference.
    """
    tables = []
    for (system, seed), training in plan.items():
        for language in speech.languages:
            hypotheses = results[training.key]["hypotheses"][language]
            rows = speech.utterances.loc[list(training.test[f"test/{language}"])]
            counts = wer.errors(rows["sentence"].tolist(), hypotheses, wer.error_unit(language))
            labels = {"system": system, "seed": seed, "language": language}
            texts = {"reference": rows["sentence"].to_numpy(), "hypothesis": hypotheses}
            tables.append(counts.assign(**labels, **texts, speaker=rows["speaker"].to_numpy()))
    columns = "system seed language speaker reference hypothesis n_errors n_reference".split()
    return pd.concat(tables, ignore_index=True)[columns]


def error_rates(counts: pd.DataFrame, low: str) -> pd.DataFrame:
    """WER per training: rows = (system, seed) in the table's order, columns = languages, `OTHERS`, `AVERAGE`."""
    sums = counts.groupby(["system", "seed", "language"], sort=False)[["n_errors", "n_reference"]].sum()
    rates = (sums["n_errors"] / sums["n_reference"]).unstack("language", sort=False)
    rates = rates[[*(language for language in rates if language != low), low]]
    others = rates.drop(columns=low).mean(axis=1)
    return rates.assign(**{OTHERS: others, AVERAGE: rates.mean(axis=1)})


def table(rates: pd.DataFrame) -> pd.DataFrame:
    """Mean WER over seeds with its standard error as text, systems in rows: ``"0.123 ± 0.004"``."""
    groups = rates.groupby("system", sort=False)
    mean, error = groups.mean(), groups.sem(ddof=1)
    text = mean.map("{:.3f}".format)
    return text.where(error.isna(), text + " ± " + error.map("{:.3f}".format))


def changes(rates: pd.DataFrame, column: str, baseline: str) -> pd.DataFrame:
    """Relative change of a column of ``error_rates`` against a baseline system, paired by seed.

    Returns:
        One row per other system: change (mean over seeds of ``rate / baseline rate - 1``), lower and upper end of its
        95 % t interval over seeds (NaN with one seed). All NaN where the baseline makes no error with some seed.
    """
    by_seed = rates[column].unstack("system", sort=False)
    base = by_seed[baseline]
    if baseline == ORIGINAL:  # one run for all seeds
        base = pd.Series(base.dropna().iloc[0], index=by_seed.index)
    ratio = by_seed.div(base, axis=0) - 1 if (base > 0).all() else by_seed * np.nan
    rows = {}
    for system in [name for name in by_seed if name not in (baseline, ORIGINAL)]:
        values = ratio[system].dropna()
        half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.sem() if len(values) > 1 else np.nan
        rows[system] = {"change": values.mean(), "lower": values.mean() - half, "upper": values.mean() + half}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def test_set_intervals(counts: pd.DataFrame) -> pd.DataFrame:
    """WER of each language, errors summed over seeds, with a 95 % bootstrap interval over test speakers.

    Returns:
        One row per system and language: wer, lower, upper, n_speakers; NaN ends where there is a single speaker.
    """
    rows = {}
    for key, rows_of_key in counts.groupby(["system", "language"], sort=False):
        n_speakers = rows_of_key["speaker"].nunique()
        if n_speakers > 1:
            interval = wer.bootstrap_interval(rows_of_key, level=LEVEL, groups=rows_of_key["speaker"])
        else:
            interval = wer.Interval(wer.error_rate(rows_of_key), np.nan, np.nan)
        rows[key] = {
            "wer": interval.estimate,
            "lower": interval.lower,
            "upper": interval.upper,
            "n_speakers": n_speakers,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["system", "language"])


def beside_the_paper(rates: pd.DataFrame, low: str) -> pd.DataFrame:
    """The paper's three relative changes beside ours, for the systems that it has.

    Choice: "fine-tuning without the method" is plain fine-tuning without augmentation.
    """
    ours = {
        "low-resource, to fine-tuned": changes(rates, low, PLAIN)["change"],
        "low-resource, to original": changes(rates, low, ORIGINAL)["change"],
        "average": changes(rates, AVERAGE, PLAIN)["change"],
    }
    methods = ["fine-tuned, augmented"]  # what augmentation does without weights
    methods += [name for name, system in SYSTEMS.items() if system.weight in ("linear", "ratio")]
    rows = {name: {what: values[name] for what, values in ours.items()} for name in methods}
    return pd.DataFrame.from_dict({"paper": PUBLISHED, **rows}, orient="index")


def forgetting(rates: pd.DataFrame, low: str) -> pd.DataFrame:
    """Change of the other languages' WER since the original model, in percentage points; positive is forgotten.

    Returns:
        Rows = systems, columns = high-resource languages and `OTHERS`, means over seeds, and the standard error of
        `OTHERS` over seeds.
    """
    original = rates.xs(ORIGINAL, level="system").iloc[0]
    change = 100 * (rates.drop(index=ORIGINAL, level="system") - original).drop(columns=[low, AVERAGE])
    groups = change.groupby("system", sort=False)
    return groups.mean().assign(standard_error=groups[OTHERS].sem(ddof=1))


def weighting_effects(rates: pd.DataFrame, low: str) -> pd.DataFrame:
    """What each weighting changes against the same fine-tuning without weights, low-resource WER, paired by seed.

    Returns:
        One row per system with weights: baseline, change, lower, upper (as `changes`) and verdict: "helps" or "harms"
        where the 95 % interval over seeds excludes zero, else "not told apart from zero".
    """
    rows = {}
    for name, system in SYSTEMS.items():
        if system.weight == "none":
            continue
        baseline = next(n for n, s in SYSTEMS.items() if s.weight == "none" and s.augmented == system.augmented)
        row = changes(rates, low, baseline).loc[name]
        if not np.isfinite(row["change"]):
            verdict = "no relative change: the baseline makes no errors"
        elif not np.isfinite(row["lower"]):
            verdict = "one seed, so no interval"
        else:
            verdict = "helps" if row["upper"] < 0 else "harms" if row["lower"] > 0 else "not told apart from zero"
        rows[name] = {"baseline": baseline, **row, "verdict": verdict}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def weighting_sentences(effects: pd.DataFrame, low: str) -> list[str]:
    """`weighting_effects` in words, one sentence each."""
    lines = []
    for row in effects.itertuples():
        interval = f", 95 % interval over seeds [{row.lower:+.1%}, {row.upper:+.1%}]" if np.isfinite(row.lower) else ""
        change = f"{row.change:+.1%} relative WER of {low!r} against {row.baseline!r}{interval}"
        lines.append(f"{row.Index}: {change}: {row.verdict}")
    return lines


def training_steps(plan: Mapping, results: Mapping[str, Mapping]) -> pd.DataFrame:
    """Losses and weights of all steps: columns system, seed, step, low_loss, other_loss, weight."""
    tables = []
    for (system, seed), training in plan.items():
        steps = pd.DataFrame(results[training.key]["steps"], columns=["low_loss", "other_loss", "weight"], dtype=float)
        tables.append(steps.assign(system=system, seed=seed, step=np.arange(len(steps))))
    return pd.concat([t for t in tables if len(t)], ignore_index=True)


def checkpoints(plan: Mapping, results: Mapping[str, Mapping]) -> pd.DataFrame:
    """Dev WER at each checkpoint and whether it was chosen: columns system, seed, step, dev_wer, chosen."""
    rows = [
        (system, seed, step, rate, step == results[training.key]["chosen"])
        for (system, seed), training in plan.items()
        for step, rate in results[training.key]["checkpoints"]
    ]
    return pd.DataFrame(rows, columns=["system", "seed", "step", "dev_wer", "chosen"])
