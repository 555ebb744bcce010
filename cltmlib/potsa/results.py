"""BLEU of the systems beside the paper's, and how alike their languages' tokens are.

Uncertainty is over seeds alone (initialisation and order of the batches): as a standard error, or as a t interval of
differences paired by seed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cltmlib.potsa.data import ParallelSpeech
from cltmlib.potsa.systems import (
    BASELINE,
    CONTROLS,
    PUBLISHED_1,
    PUBLISHED_2,
    PUBLISHED_CONTROLS,
    PUBLISHED_LANGUAGES,
    PUBLISHED_TRAINED,
    TABLE_1,
    TABLE_2,
)
from cltmlib.potsa.training import NO_BIAS, compare_languages

AVERAGE = "average"  # over the trained languages
LEVEL = 0.95


def bleu(translations: Sequence[str], references: Sequence[str], target: str = "zh-CN") -> tuple[float, str]:
    """Corpus BLEU-4 and its signature, by sacrebleu; Chinese and Japanese are cut into characters.

    Example:
        >>> bleu(["四十七公里"], ["四十七公里"])[0]
        100.0
    """
    from sacrebleu.metrics import BLEU

    tokenizer = {"zh": "zh", "ja": "char"}.get(target.split("-")[0], "13a")
    metric = BLEU(tokenize=tokenizer)
    score = round(metric.corpus_score(list(translations), [list(references)]).score, 4)
    return score, str(metric.get_signature())


def translations(plan: Mapping, results: Mapping[str, Mapping], speech: ParallelSpeech) -> pd.DataFrame:
    """Every test translation: columns system, seed, language, utterance_id, sentence, reference, translation.

    A zero-shot language stands twice for systems with bias compensation: with the bias estimated from its unlabelled
    training audio under its own name, and without under ``"ky, no bias"``; other systems know no bias, and theirs
    stands under both.
    """
    tables = []
    for (system, seed), training in plan.items():
        texts = dict(results[training.key]["translations"])
        for language in speech.zero_shot:
            texts.setdefault(f"{language}{NO_BIAS}", texts[language])
        for language, written in texts.items():
            ids = list(training.test[language.removesuffix(NO_BIAS)])
            rows = speech.utterances.loc[ids, ["sentence", "translation"]].rename(columns={"translation": "reference"})
            labels = {"system": system, "seed": seed, "language": language}
            tables.append(rows.reset_index().assign(**labels, translation=written))
    columns = "system seed language utterance_id sentence reference translation".split()
    return pd.concat(tables, ignore_index=True)[columns]


def scores(table: pd.DataFrame, speech: ParallelSpeech) -> pd.DataFrame:
    """BLEU per training: rows = (system, seed), columns = trained languages, `AVERAGE` over them, zero-shot ones."""
    groups = table.groupby(["system", "seed", "language"], sort=False)
    values = groups.apply(lambda rows: bleu(rows["translation"], rows["reference"], speech.target)[0])
    wide = values.unstack("language", sort=False)
    zero_shot = [name for i in speech.zero_shot for name in (i, f"{i}{NO_BIAS}")]
    wide[AVERAGE] = wide[list(speech.languages)].mean(axis=1)
    return wide[[*speech.languages, AVERAGE, *zero_shot]]


def mean_and_error(values: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds with its standard error as text, systems in rows: ``"31.2 ± 0.4"``."""
    groups = values.groupby("system", sort=False)
    mean, error = groups.mean().loc[list(systems)], groups.sem(ddof=1).loc[list(systems)]
    text = mean.map("{:.1f}".format)
    return text.where(error.isna(), text + " ± " + error.map("{:.1f}".format))


def table_1(values: pd.DataFrame) -> pd.DataFrame:
    """The rows of Table 1, ours above the paper's, whose average is over those of its five languages that ours has."""
    paper = pd.DataFrame.from_dict(PUBLISHED_1, orient="index", columns=list(PUBLISHED_LANGUAGES)).round(2)
    shared = [language for language in PUBLISHED_TRAINED if language in _trained(values)]
    paper.insert(5, AVERAGE, paper[shared].mean(axis=1).round(2))
    paper = paper.astype(str).replace("nan", "")
    return pd.concat({"ours": mean_and_error(values, TABLE_1), "paper": paper}).fillna("")


def table_2(values: pd.DataFrame) -> pd.DataFrame:
    """Average BLEU by layer strategy (Table 2) and by kind of alignment, and the difference from the baseline.

    Returns:
        Columns ours, paper (NaN where ours are not its five languages), difference (mean over seeds of the system less
        the baseline), lower and upper end of its 95 % t interval over seeds.
    """
    names = [*TABLE_2, *CONTROLS]
    published = {**PUBLISHED_2, **PUBLISHED_CONTROLS} if set(_trained(values)) == set(PUBLISHED_TRAINED) else {}
    rows = differences(values, BASELINE).reindex(names)
    ours = mean_and_error(values[[AVERAGE]], names)[AVERAGE]
    rows = rows.assign(ours=ours, paper=pd.Series(published, dtype=float))
    return rows[["ours", "paper", "difference", "lower", "upper"]]


def _trained(values: pd.DataFrame) -> list[str]:
    return list(values.columns[: values.columns.get_loc(AVERAGE)])


def differences(values: pd.DataFrame, reference: str, column: str = AVERAGE) -> pd.DataFrame:
    """A column of every system less that of a reference, paired by seed: difference, lower, upper (95 % t interval)."""
    by_seed = values[column].unstack("system", sort=False)
    change = by_seed.drop(columns=reference).sub(by_seed[reference], axis=0)
    half = stats.t.ppf((1 + LEVEL) / 2, len(change) - 1) * change.sem() if len(change) > 1 else np.nan
    mean = change.mean()
    return pd.DataFrame({"difference": mean, "lower": mean - half, "upper": mean + half})


def language_alignment(plan: Mapping, results: Mapping[str, Mapping]) -> pd.DataFrame:
    """Columns system, seed, block (1-based), language_a, language_b, recall (Recall@1), overlap (1 - JSD)."""
    rows = [
        (system, seed, block + 1, *values)
        for (system, seed), training in plan.items()
        for block, *values in results[training.key]["alignment"]
    ]
    return pd.DataFrame(rows, columns="system seed block language_a language_b recall overlap".split())


def alignment_summary(table: pd.DataFrame, plan: Mapping, results: Mapping[str, Mapping]) -> pd.DataFrame:
    """Means over pairs, blocks and seeds, by system: recall, overlap, both also of the last block, and ``spread``.

    ``spread`` is the mean cosine distance between two tokens of an utterance: where it falls, tokens collapse, which
    Eq. (3) rewards, and a higher overlap means less.
    """
    last = table[table["block"] == table["block"].max()]
    groups, of_last = (t.groupby("system", sort=False)[["recall", "overlap"]].mean() for t in (table, last))
    spread = pd.Series(
        {key: np.mean(results[training.key]["spread"]) for key, training in plan.items()}, name="spread"
    ).rename_axis(["system", "seed"])
    return groups.join(of_last.add_suffix(", last block")).join(spread.groupby("system", sort=False).mean())


def encoder_space(speech: ParallelSpeech, n_clips: int = 200, n_frames: int = 16) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The encoder's own space, before and after bias compensation, from evenly spaced valid frames of test clips.

    Returns:
        Recall@1 and 1 - JSD of every two trained languages (columns stage, language_a, language_b, recall, overlap),
        frames being the tokens; and the mean of each clip's frames, ``n_clips`` per language at most and zero-shot
        languages among them: columns stage, language, sentence_id and one per dimension.
    """
    sentence_ids = speech.utterances["sentence_id"]
    shown = sorted({sentence_ids[u] for u in speech.test[speech.languages[0]]})[:n_clips]
    frames, ids = {}, {}
    for language in (*speech.languages, *speech.zero_shot):
        chosen = [u for u in speech.test[language] if sentence_ids[u] in set(shown)][:n_clips]
        ids[language] = sentence_ids.loc[chosen].tolist()
        frames[language] = torch.stack([_spaced_frames(speech, u, n_frames) for u in chosen])  # (clip, frame, width)
    said = set.intersection(*(set(ids[language]) for language in speech.languages))
    rows, points = [], []
    for stage in ("before", "after"):
        tokens = frames
        if stage == "after":
            tokens = {language: speech.bias.transform(of, [language] * len(of)) for language, of in frames.items()}
        for language, of in tokens.items():
            table = pd.DataFrame(of.mean(1).numpy()).assign(sentence_id=ids[language])
            points.append(table.assign(stage=stage, language=language))
        kept = {i: [k for k, sentence in enumerate(ids[i]) if sentence in said] for i in speech.languages}
        of_shared = {i: [ids[i][k] for k in rows_of] for i, rows_of in kept.items()}
        rows += [[stage, *row] for row in compare_languages({i: tokens[i][k] for i, k in kept.items()}, of_shared)]
    columns = "stage language_a language_b recall overlap".split()
    return pd.DataFrame(rows, columns=columns), pd.concat(points, ignore_index=True)


def _spaced_frames(speech: ParallelSpeech, utterance: str, n_frames: int) -> torch.Tensor:
    hidden, lengths = speech.frames.batch([utterance])
    return hidden[0, torch.linspace(0, int(lengths[0]) - 1, n_frames).round().long()]


def map_of(points: pd.DataFrame, perplexity: float = 30.0, seed: int = 0) -> tuple[pd.DataFrame, str]:
    """t-SNE of each stage of `encoder_space`: columns stage, language, sentence_id, x, y; and its settings in words."""
    from sklearn.manifold import TSNE  # slow to import

    tables = []
    for _, of in points.groupby("stage", sort=False):
        vectors = of.drop(columns=["stage", "language", "sentence_id"]).to_numpy()
        used = min(perplexity, (len(of) - 1) / 3)
        xy = TSNE(perplexity=used, random_state=seed, init="pca").fit_transform(vectors)
        tables.append(of[["stage", "language", "sentence_id"]].assign(x=xy[:, 0], y=xy[:, 1]))
    return pd.concat(tables, ignore_index=True), f"t-SNE, perplexity {used:.3g}, seed {seed}, n = {len(of)}"


def layer_choices(plan: Mapping, results: Mapping[str, Mapping]) -> pd.DataFrame:
    """Aligned blocks step by step: columns system, seed, step, block (1-based), one row per aligned block."""
    rows = [
        (system, seed, step, layer + 1)
        for (system, seed), training in plan.items()
        for step, (_, _, layers) in enumerate(results[training.key]["steps"])
        for layer in layers
    ]
    return pd.DataFrame(rows, columns=["system", "seed", "step", "block"])


def training_losses(plan: Mapping, results: Mapping[str, Mapping]) -> pd.DataFrame:
    """Losses of stage 2: columns system, seed, step, loss (of the translations), alignment."""
    rows = [
        (system, seed, step, loss, distance)
        for (system, seed), training in plan.items()
        for step, (loss, distance, _) in enumerate(results[training.key]["steps"])
    ]
    return pd.DataFrame(rows, columns=["system", "seed", "step", "loss", "alignment"]).astype({"alignment": float})


def in_words(values: pd.DataFrame, reference: str, column: str = AVERAGE, unit: str = "BLEU") -> list[str]:
    """For each other system: its difference from a reference, and whether the seeds tell it apart from zero.

    Args:
        values: rows = (system, seed), a column among ``column``.
        reference: system.
        column: what is compared.
        unit: of the column, as text.
    """
    lines = []
    for system, row in differences(values, reference, column).iterrows():
        if not np.isfinite(row["lower"]):
            called = "one seed, so no interval"
        else:
            called = "not told apart from zero" if row["lower"] <= 0 <= row["upper"] else "told apart from zero"
        lines.append(
            f"{system}: {row['difference']:+.2f} {unit} ({column}) against {reference!r}, 95 % interval over seeds "
            f"[{row['lower']:+.2f}, {row['upper']:+.2f}]: {called}"
        )
    return lines
