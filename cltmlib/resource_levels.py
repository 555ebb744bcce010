"""Who gains from whom at which amount of data: the question of the study, beyond a matrix at one N.

A language's own clips and its donor's grow apart: ``Perf_i(D_i(n) + D_j(m)) - Perf_i(D_i(n))``. A training on
D_i(N) + D_j(m) is tested on both languages, so it also tells what j, rich in data, gains from i.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from cltmlib import corpora, subsets
from cltmlib.corpora import sentences
from cltmlib.encoders import Encoder
from cltmlib.errors import InputError
from cltmlib.frozen import FrozenFeatures
from cltmlib.subsets import Prepared
from cltmlib.subsets.pool import shuffled
from cltmlib.sweep.plan import Config, Training, plan_training
from cltmlib.wer import normalise_text

if TYPE_CHECKING:
    from datasets import Dataset


DEV_CLIPS = 200  # of a language at most, that languages are compared by before any training


def corpus(params: Mapping) -> "Dataset":
    """The corpus of notebook 07: clips with a speaker and a transcript, taken whole or not at all.

    The synthetic one reads a narrow domain, a number below 100 and a unit. Clips longer than ``max_seconds`` are left
    out, since a cut clip does not say its transcript; `cltmlib.corpora.dropped` tells how many, and how many have no
    letter in it.
    """
    dataset = corpora.from_params(params, sentences.COUNTS, required=["speaker", "sentence"])
    table = corpora.frame(dataset)
    reason = pd.Series(None, index=table.index, dtype=object)
    reason[table["sentence"].fillna("").map(normalise_text) == ""] = "nothing said in its transcript"
    if params["max_seconds"] is not None:
        reason[table["duration_s"] > params["max_seconds"]] = f"longer than max_seconds ({params['max_seconds']:g} s)"
    counts = table.assign(reason=reason).groupby(["language", "split", "reason"]).size().rename("n").reset_index()
    dropped = pd.concat([corpora.dropped(dataset), counts], ignore_index=True)
    for (language, split), of in table.groupby(["language", "split"], sort=False):
        if reason[of.index].notna().all():
            raise InputError(
                f"Language {language!r}: none of its {len(of)} {split} clips can be used ({reason[of.index[0]]}); "
                "change that or leave the language out."
            )
    return corpora.from_rows(table[reason.isna()], dropped)


def prepare(corpus: "Dataset", params: Mapping, store_directory: str | PathLike) -> Prepared:
    """Draw the nested training sets and the test sets; decode them, and dev clips to compare languages by.

    Low-resource languages have sets of N and 2N, high-resource ones of all ``recognition_n_samples``, the others of N
    and 2N too.

    Raises:
        InputError: as `cltmlib.subsets.prepare`; a language has no dev clip.
    """
    dev = _dev_clips(corpora.frame(corpus), min(params["max_test_samples"] or DEV_CLIPS, DEV_CLIPS))
    _require_dev_clips(dev, params["languages"])
    n = params["recognition_n_samples"][0]
    most = {i: 2 * n for i in params["languages"] if i not in params["high_resource_languages"]}
    design = subsets.ByUtterance(params["samples_per_speaker"], params["max_test_samples"], most)
    data = subsets.prepare(
        corpus, params["languages"], params["recognition_n_samples"], params["seeds"], store_directory, design,
        also=dev, min_seconds=params["min_seconds"],
    )  # fmt: skip
    _require_dev_clips(data.utterances, params["languages"])  # of those drawn, unusable ones are left out
    return data


def _require_dev_clips(table: pd.DataFrame, languages: Sequence[str]) -> None:
    having = set(table.loc[table["split"] == "dev", "language"])
    for language in languages:
        if language not in having:
            raise InputError(
                f"Language {language!r} has no usable dev clip, by which languages are compared before any training: "
                "leave it out, or give it some (the synthetic corpus needs speakers_per_language of 8 or more)."
            )


def _dev_clips(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Dev clips, at most so many of each language: the sentences in one order, so that parallel ones are together."""
    table = table[table["split"] == "dev"]
    names = table["sentence_id"].fillna(table["utterance_id"])
    rank = {name: k for k, name in enumerate(shuffled(set(names), 0))}
    table = table.assign(rank=names.map(rank)).sort_values(["rank", "utterance_id"])
    return table.groupby("language").head(most).drop(columns="rank").sort_index()


def training_transcripts(data: Prepared) -> list[str]:
    """Transcripts of all clips that a training may see: what the vocabulary is made from."""
    ids = {
        u for of_seed in data.subsets.values() for sets in of_seed.values() for clips in sets.values() for u in clips
    }
    return data.utterances.loc[sorted(ids), "sentence"].tolist()


def representation(data: Prepared, encoder: Encoder, device: str = "cpu") -> tuple[np.ndarray, pd.DataFrame]:
    """Dev clips in all layers of the encoder before it is trained: means over frames, (clip, layer, dim), and rows.

    Of a ``random:`` encoder these are the weights that trainings of the first seed start from.
    """
    rows = data.utterances[data.utterances["split"] == "dev"]
    rows = rows.assign(sentence_id=rows["sentence_id"].fillna(pd.Series(rows.index, rows.index)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(next(iter(data.subsets)))
        model = encoder.fresh_model().to(device)
    features = FrozenFeatures(model)
    return features.means(list(rows.index), data.store, encoder.feature_extractor), rows


def alone_plan(
    task: str, data: Prepared, n_samples: int, languages: Sequence[str], config: Config
) -> dict[tuple[str, int], Training]:
    """(language, seed) -> training on N clips of that language alone, as in `plan`; to compare two configs by."""
    return {
        (i, seed): plan_training(
            task, data.subsets[seed][i][n_samples], {i: data.tests[i]}, seed, config, f"{i}({n_samples}) seed {seed}"
        )
        for i in languages
        for seed in data.subsets
    }


def config_table(
    plans: Mapping[str, Mapping[tuple[str, int], Training]], results: Mapping[str, Mapping], metric: str
) -> pd.DataFrame:
    """What two configs give for the same clips and seeds.

    Args:
        plans: name of the config -> its `alone_plan`; two of them.
        results: by key of the training.
        metric: which metric.

    Returns:
        Index: language, and "all"; columns the two names (means over seeds), difference (first less second), lower,
        upper (Student's 95 % interval over seeds), n_seeds, told_apart.
    """
    parts = {
        name: pd.Series({key: results[t.key][key[0]][metric] for key, t in of.items()}) for name, of in plans.items()
    }
    table = pd.DataFrame(parts).rename_axis(["language", "seed"]).reset_index()
    (first, second), rows = plans, {}
    for language, of in [*table.groupby("language", sort=False), ("all", table)]:
        a, b = (of[["seed", name]].rename(columns={name: "gain"}) for name in (first, second))
        rows[language] = _difference(a, b)
    return pd.DataFrame.from_dict(rows, orient="index").rename(columns={"first": first, "second": second})


class Level(NamedTuple):
    """One gain: ``target`` with ``own`` clips of its own, alone and together with ``given`` clips of ``donor``."""

    target: str
    donor: str
    own: int
    given: int
    seed: int
    alone: Training
    together: Training


def plan(
    task: str, data: Prepared, n_samples: int, low: Sequence[str], high: Sequence[str], config: Config
) -> list[Level]:
    """Gains of all pairs at N clips of both, and of low- and high-resource languages at all sizes of the latter.

    The pairs at N are the trainings of the transfer matrix, with the same keys.

    Args:
        task: name of the downstream task.
        data: with nested sets, ``subsets[seed][language][size]``.
        n_samples: N, the size of a low-resource language's set.
        low, high: languages of either kind; the others are compared at N alone.
        config: see `cltmlib.sweep.plan_training`.
    """
    seeds, languages = list(data.subsets), list(next(iter(data.subsets.values())))

    def training(seed: int, parts: Mapping[str, int]) -> Training:
        ids = [u for language, n in parts.items() for u in data.subsets[seed][language][n]]
        label = " + ".join(f"{language}({n})" for language, n in sorted(parts.items()))
        return plan_training(task, ids, {i: data.tests[i] for i in parts}, seed, config, f"{label} seed {seed}")

    levels = []
    for seed in seeds:
        sets = data.subsets[seed]
        amounts = [(i, j, n_samples) for i in languages for j in languages if i < j]
        amounts += [(i, j, m) for i in low for j in high for m in sets[j] if m > n_samples]
        for i, j, m in amounts:
            both = training(seed, {i: n_samples, j: m})
            levels.append(Level(i, j, n_samples, m, seed, training(seed, {i: n_samples}), both))
            levels.append(Level(j, i, m, n_samples, seed, training(seed, {j: m}), both))
    return levels


def gain_table(levels: Sequence[Level], results: Mapping[str, Mapping], metric: str) -> pd.DataFrame:
    """One row per level; higher is better: of an error rate (``wer``, ``cer_ngram``, ...) one minus it counts.

    Columns target, donor, own, given, seed, alone, together, gain, and share: the gain over 1 - alone, that is over the
    errors that the target makes alone.
    """
    rows = []
    for level in levels:
        alone, together = (results[t.key][level.target][metric] for t in (level.alone, level.together))
        if metric.startswith(("wer", "cer")):
            alone, together = 1 - alone, 1 - together
        rows.append((*level[:5], alone, together, together - alone))
    table = pd.DataFrame(rows, columns=["target", "donor", "own", "given", "seed", "alone", "together", "gain"])
    return table.assign(share=table["gain"] / (1 - table["alone"]).where(table["alone"] < 1))


def comparisons(
    gains: pd.DataFrame,
    low: Sequence[str],
    high: Sequence[str],
    families: Mapping[str, str],
    scripts: Mapping[str, str],
) -> pd.DataFrame:
    """The study's questions as differences between two groups of gains, with 95 % intervals over seeds.

    In each group a seed counts with the mean of its gains; the difference is paired by seed and its interval is
    Student's. A question with an empty group has NaN. Choice: no interval where all seeds agree to the last digit, as
    they may with few test clips, for such a spread says nothing of other seeds.

    Args:
        gains: from `gain_table`.
        low, high: as for `plan`.
        families, scripts: family and script of each language.

    Returns:
        Index: the question; columns first, second (mean gains of the groups), difference, lower, upper, n_seeds,
        told_apart (whether the interval excludes 0).
    """
    n, most = gains["own"].min(), gains["own"].max()
    of_low, of_high = gains["target"].isin(low), gains["target"].isin(high)
    from_low, from_high = gains["donor"].isin(low), gains["donor"].isin(high)
    at_n, own_most, given_most = (
        (gains["own"] == n) & (gains["given"] == n),
        gains["own"] == most,
        gains["given"] == most,
    )
    script, family = (gains["target"].map(of) == gains["donor"].map(of) for of in (scripts, families))
    question = (of_low & from_high & given_most, of_high & from_low & own_most)
    groups = {
        f"low-resource ({n}) from high-resource ({most}), against the reverse": question,
        "the same as a share of the target's errors": (*question, "share"),
        f"the same at equal size ({n} clips each)": (of_low & from_high & at_n, of_high & from_low & at_n),
        f"high-resource languages when they have {n} clips, against {most}": (
            of_high & from_low & at_n,
            of_high & from_low & own_most,
        ),
        f"low-resource languages when the donor gives {most} clips, against {n}": (
            of_low & from_high & given_most,
            of_low & from_high & at_n,
        ),
        f"donors of the same script, against others ({n} clips each)": (at_n & script, at_n & ~script),
        f"donors of the same family, against others ({n} clips each)": (at_n & family, at_n & ~family),
    }
    rows = {name: _difference(gains[a], gains[b], *column) for name, (a, b, *column) in groups.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("gains of")


def _difference(first: pd.DataFrame, second: pd.DataFrame, column: str = "gain") -> dict:
    from scipy.stats import t

    a, b = (group.groupby("seed")[column].mean() for group in (first, second))
    difference = (a - b).dropna()
    n, mean, spread = len(difference), difference.mean(), difference.std(ddof=1)
    half = t.ppf(0.975, n - 1) * spread / np.sqrt(n) if n > 1 and spread > 1e-12 else np.nan
    return {
        "first": a.mean(),
        "second": b.mean(),
        "difference": mean,
        "lower": mean - half,
        "upper": mean + half,
        "n_seeds": n,
        "told_apart": bool(abs(mean) > half),
    }


def answer(table: pd.DataFrame, by_metric: pd.DataFrame, scripts: Mapping[str, str]) -> str:
    """What the rows of `comparisons` say: the question of the study, a line for each row, how far the intervals go.

    Args:
        table: from `comparisons`.
        by_metric: the same questions asked of several rates, to count the intervals.
        scripts: as there.
    """
    first, share = table.iloc[0], table.iloc[1]
    verdicts = {"in points": first, "as a share of the errors": share}
    parts = []
    for how, row in verdicts.items():
        more = "more" if row["difference"] > 0 else "less"
        parts.append(f"{how}, {more if row['told_apart'] else 'not told apart'}")
    lines = [f"Transfer helps the low-resource languages: {'; '.join(parts)}."]
    for question, row in table.iterrows():
        if not np.isfinite(row["difference"]):
            lines.append(f"- {question}: pairs of both kinds are not here.")
            continue
        numbers = f"{row['first']:+.3f} against {row['second']:+.3f}, difference {row['difference']:+.3f}"
        interval = f" [{row['lower']:+.3f}, {row['upper']:+.3f}] over {row['n_seeds']} seeds"
        if not np.isfinite(row["lower"]):
            interval = " in one seed" if row["n_seeds"] == 1 else f" in all {row['n_seeds']} seeds"
        verdict = "not told apart"
        if row["told_apart"]:
            verdict = "the first gain more" if row["difference"] > 0 else "the second gain more"
        limits = f" ({_limits(scripts)})" if "same script" in question else ""
        lines.append(f"- {question}: {numbers}{interval}: {verdict}{limits}.")
    n, n_apart = int(by_metric["lower"].notna().sum()), int(by_metric["told_apart"].sum())
    lines.append(
        f"Intervals are over seeds, in these {len(scripts)} languages; of all rates together {n_apart} of {n}, not "
        "corrected for their number, exclude zero."
    )
    return "\n".join(lines)


def _limits(scripts: Mapping[str, str]) -> str:
    counts = Counter(scripts.values())
    n_pairs = {script: n * (n - 1) // 2 for script, n in counts.items() if n > 1}
    pairs = " and ".join(f"{n} {script.title()} pair{'s' if n > 1 else ''}" for script, n in n_pairs.items())
    return f"over seeds, in these {len(scripts)} languages; with {pairs} it cannot be generalised to scripts"


def scripts(utterances: pd.DataFrame) -> dict[str, str]:
    """Script of each language, from the letters of its transcripts: the first word of the commonest Unicode name.

    Example:
        >>> scripts(pd.DataFrame({"language": ["ru", "de"], "sentence": ["два дня", "zwei"]}))
        {'ru': 'CYRILLIC', 'de': 'LATIN'}
    """
    found = {}
    for language, texts in utterances.groupby("language", sort=False)["sentence"]:
        letters = Counter(c for sentence in texts for c in normalise_text(sentence) if c.isalpha())
        names = Counter()
        for letter, count in letters.items():
            names[unicodedata.name(letter, "UNKNOWN").split()[0]] += count
        found[language] = names.most_common(1)[0][0] if names else "UNKNOWN"
    return found
