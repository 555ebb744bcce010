"""Language bias, layer schedule, retrieval metrics and parallel pairs: hand values, simulations, bad input."""

import numpy as np
import pandas as pd
import pytest
import torch

from cltmlib.corpora import fleurs, from_rows
from cltmlib.errors import InputError
from cltmlib.potsa import (
    LanguageBias,
    LayerScheduler,
    ParallelPairs,
    jensen_shannon_divergence,
    recall_at_1,
    target_sentences,
)
from cltmlib.testing import fleurs_folder, utterance_rows


def one_sentence(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# Language bias


def encoder_output(n=12, n_frames=7, dim=5):
    hidden = torch.randn(n, n_frames, dim, generator=torch.Generator().manual_seed(0))
    lengths = torch.arange(n) % n_frames + 1
    languages = [("en", "ja", "ko")[k % 3] for k in range(n)]
    return hidden, lengths, languages


def test_bias_is_the_mean_over_utterances_of_means_over_valid_frames():
    hidden, lengths, languages = encoder_output()
    bias = LanguageBias().fit(hidden, lengths, languages)
    means = [frames[:length].double().mean(0) for frames, length in zip(hidden, lengths, strict=True)]
    for language in ("en", "ja", "ko"):
        expected = torch.stack([mean for mean, name in zip(means, languages, strict=True) if name == language]).mean(0)
        torch.testing.assert_close(bias.bias(language), expected)
    assert bias.n_utterances == {"en": 4, "ja": 4, "ko": 4}


def test_compensated_languages_have_mean_zero_and_every_frame_moves_alike():
    hidden, lengths, languages = encoder_output()
    offset = torch.tensor([{"en": 5.0, "ja": -3.0, "ko": 0.0}[language] for language in languages])
    hidden = hidden + offset[:, None, None]
    bias = LanguageBias().fit(hidden, lengths, languages)
    moved = bias.transform(hidden, languages)
    again = LanguageBias().fit(moved, lengths, languages)
    assert max(again.bias(language).abs().max() for language in ("en", "ja", "ko")) < 1e-6
    shift = hidden - moved
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=0, atol=1e-5)


def test_batches_of_any_size_give_the_same_bias_and_fit_starts_anew():
    hidden, lengths, languages = encoder_output()
    whole = LanguageBias().fit(hidden, lengths, languages)
    parts = LanguageBias().fit(hidden[:1] + 9, lengths[:1], ["en"]).fit(hidden[:0], lengths[:0], [])
    for start, stop in [(0, 5), (5, 6), (6, 12)]:
        parts.partial_fit(hidden[start:stop], lengths[start:stop], languages[start:stop])
    for language in ("en", "ja", "ko"):
        torch.testing.assert_close(parts.bias(language), whole.bias(language), rtol=1e-12, atol=1e-14)


def test_padding_does_not_enter_the_bias_and_the_type_stays():
    hidden, lengths, languages = encoder_output()
    rubbish = hidden.clone()
    for k, length in enumerate(lengths):
        rubbish[k, length:] = float("nan")
    bias = LanguageBias().fit(hidden, lengths, languages)
    assert torch.equal(LanguageBias().fit(rubbish, lengths, languages).bias("ja"), bias.bias("ja"))
    assert bias.transform(hidden.bfloat16(), languages).dtype == torch.bfloat16


def test_language_without_a_bias_is_an_error_or_kept_as_it_is():
    hidden, lengths, languages = encoder_output()
    bias = LanguageBias().fit(hidden, lengths, languages)
    one_sentence(lambda: bias.transform(hidden[:1], ["ast"]), "'ast' has no bias; there are 'en', 'ja', 'ko'")
    kept = LanguageBias(unknown="keep").fit(hidden, lengths, languages).transform(hidden[:2], ["ast", "ja"])
    assert torch.equal(kept[0], hidden[0]) and not torch.equal(kept[1], hidden[1])


def test_bad_encoder_output_is_named_in_one_sentence():
    hidden, lengths, languages = encoder_output()
    broken = hidden.clone()
    broken[4, 0, 0] = float("nan")
    bias = LanguageBias().fit(hidden, lengths, languages)
    for call, message in [
        (lambda: bias.partial_fit(broken, lengths, languages), r"utterance 4 \('ja'\) is not finite"),
        (lambda: bias.partial_fit(hidden, lengths * 0, languages), "Utterance 0 has 0 of 7 frames"),
        (lambda: bias.partial_fit(hidden, lengths + 1, languages), "Utterance 6 has 8 of 7 frames"),
        (lambda: bias.partial_fit(hidden, lengths, languages[1:]), "12 lengths and 11 languages"),
        (lambda: bias.partial_fit(hidden[..., 1:], lengths, languages), "4 dimensions here and had 5"),
        (lambda: bias.transform(hidden[..., 1:], languages), "4 dimensions"),
        (lambda: bias.transform(hidden, ["en"]), "12 utterances but 1 languages"),
        (lambda: LanguageBias(unknown="zero"), "'zero'"),
    ]:
        one_sentence(call, message)


# Layer schedule


def test_schedule_follows_equations_5_to_7_on_a_trace_by_hand():
    scheduler = LayerScheduler(3, rho=0.5, beta=2.0, tau=0.5, generator=np.random.default_rng(0))
    for layer, loss in [(0, 5.0), (1, 4.0), (2, 3.0), (0, 4.0), (0, 3.5), (2, 3.2)]:
        scheduler.update(layer, loss)
    # Layer 0: 0 -> 0.5 * (5 - 4) = 0.5 -> 0.25 + 0.5 * (4 - 3.5) = 0.5; layer 2: 0.5 * (3 - 3.2) = -0.1.
    np.testing.assert_allclose(scheduler.values, [0.5, 0.0, -0.1])
    assert scheduler.counts.tolist() == [3, 1, 2]
    utilities = [0.5 + 2 * np.sqrt(np.log(6) / 3), 2 * np.sqrt(np.log(6)), -0.1 + 2 * np.sqrt(np.log(6) / 2)]
    np.testing.assert_allclose(scheduler.utilities(), utilities)
    weights = np.exp(np.array(utilities) / 0.5)
    np.testing.assert_allclose(scheduler.probabilities(), weights / weights.sum())


def test_reward_per_step_is_the_fall_over_the_steps_in_between():
    scheduler = LayerScheduler(2, rho=1.0, beta=0.0, tau=1.0, per_step=True)
    for layer, loss in [(0, 5.0), (1, 4.0), (1, 3.0), (0, 2.0)]:
        scheduler.update(layer, loss)
    np.testing.assert_allclose(scheduler.values, [(5 - 2) / 3, 1.0])


def test_every_layer_is_tried_once_before_any_is_drawn():
    orders = set()
    for seed in range(20):
        scheduler = LayerScheduler(5, generator=np.random.default_rng(seed))
        first = []
        for step in range(5):
            first.append(scheduler.sample())
            scheduler.update(first[-1], 9.0 - step)
        assert sorted(first) == list(range(5))
        orders.add(tuple(first))
    assert len(orders) > 10


def play(seed, shared=False, n_steps=600, n_layers=8, **options):
    """The best layer and how often each was played.

    An activation lowers the loss by 0.3 (best layer) or 0.1 (others), give or take 0.3, and the loss is seen with a
    noise of 0.1. It is the layer's own loss, so that rewards are those of a bandit, or one loss shared by all.
    """
    generator = np.random.default_rng(seed)
    best = int(generator.integers(n_layers))
    falls = np.where(np.arange(n_layers) == best, 0.3, 0.1)
    scheduler = LayerScheduler(n_layers, generator=generator, **options)
    losses = np.zeros(n_layers)
    for _ in range(n_steps):
        layer = scheduler.sample()
        scheduler.update(layer, losses[layer] + generator.normal(0, 0.1))
        losses[slice(None) if shared else layer] -= falls[layer] + generator.normal(0, 0.3)
    return best, scheduler.counts


def n_won(**options):
    wins = sum(best == counts.argmax() for best, counts in (play(seed, **options) for seed in range(100)))
    print(f"{options}: the best layer is played most often in {wins} of 100 runs")
    return wins


def test_the_best_layer_of_a_bandit_is_played_most_in_95_of_100_runs():
    assert n_won(rho=0.05, beta=0.2, tau=0.1) >= 95


def test_with_one_loss_for_all_layers_only_the_reward_per_step_finds_the_best():
    options = {"shared": True, "rho": 0.2, "beta": 0.05, "tau": 0.02}
    assert n_won(per_step=True, **options) >= 95 > n_won(**options)


def test_same_seed_draws_the_same_layers():
    options = {"rho": 0.05, "beta": 0.2, "tau": 0.1}
    assert play(3, **options)[1].tolist() == play(3, **options)[1].tolist() != play(4, **options)[1].tolist()


def test_bad_schedules_are_refused():
    for options in ({"n_layers": 0}, {"rho": 0.0}, {"rho": 1.5}, {"beta": -1.0}, {"tau": 0.0}):
        one_sentence(lambda options=options: LayerScheduler(**{"n_layers": 2} | options), "Layer schedule with")
    for layer, loss in [(2, 1.0), (-1, 1.0), (0, float("nan"))]:
        one_sentence(lambda layer=layer, loss=loss: LayerScheduler(2).update(layer, loss), f"Layer {layer} of 2")


# Retrieval metrics


def test_recall_counts_nearest_parallel_utterances_both_ways():
    source = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    target = np.array([[2.0, 0.0], [0.0, 5.0], [0.1, 3.0]])
    found = recall_at_1(source, target)
    # Sources 0, 1 are nearest to target 0, source 2 to target 1; targets 0, 1, 2 are nearest to sources 0, 2, 2.
    assert found == pytest.approx((1 / 3, 2 / 3, 1 / 2))
    assert recall_at_1(source, source[[0, 1, 2]]).mean == 1.0


def test_several_recordings_of_a_sentence_are_all_right():
    vectors = np.eye(4)
    assert recall_at_1(vectors, vectors[[1, 0, 3, 2]], ["a", "a", "b", "b"], ["a", "a", "b", "b"]).mean == 1.0


def test_equal_vectors_score_chance_and_scale_changes_nothing():
    assert recall_at_1(np.ones((10, 3)), np.ones((10, 3))).mean == pytest.approx(0.1)
    source, target = np.random.default_rng(0).normal(size=(2, 30, 5))
    assert recall_at_1(source, target) == recall_at_1(source * np.arange(1, 31)[:, None], 7 * target)


def test_divergence_agrees_with_scipy_on_known_clusters():
    from scipy.spatial.distance import jensenshannon

    generator = np.random.default_rng(0)
    centres = 100 * np.eye(5)
    shares = {"en": [0.5, 0.3, 0.2, 0, 0], "ja": [0, 0, 0.2, 0.4, 0.4], "ko": [0.1] * 3 + [0.3, 0.4]}
    places = [
        np.repeat(np.arange(5), (100 * times * np.array(share)).round().astype(int))  # languages of different sizes
        for times, share in enumerate(shares.values(), 1)
    ]
    tokens = centres[np.concatenate(places)]
    languages = np.repeat(list(shares), list(map(len, places)))
    table = jensen_shannon_divergence(tokens + generator.normal(size=tokens.shape), languages, n_clusters=5)
    for one in shares:
        for other in shares:
            expected = jensenshannon(shares[one], shares[other], base=2) ** 2
            assert table.loc[one, other] == pytest.approx(expected, abs=1e-12)


def test_divergence_is_0_for_equal_and_1_for_disjoint_tokens_and_small_for_one_distribution():
    generator = np.random.default_rng(0)
    tokens = generator.normal(size=(200, 4))
    table = jensen_shannon_divergence(np.concatenate([tokens, tokens, tokens + 99]), np.repeat(["a", "b", "c"], 200), 8)
    assert table.loc["a", "b"] == 0 and table.loc["a", "c"] == 1 and (np.diag(table) == 0).all()
    same = jensen_shannon_divergence(generator.normal(size=(4000, 4)), np.repeat(["a", "b"], 2000), n_clusters=64)
    assert same.loc["a", "b"] == pytest.approx(63 / (4 * 2000 * np.log(2)), rel=0.5)


def test_bad_vectors_are_named_in_one_sentence():
    good, bad = np.eye(3), np.diag([1.0, 0.0, 1.0])
    for call, message in [
        (lambda: recall_at_1(good, bad), "Target vector 1 is 0"),
        (lambda: recall_at_1(good * np.nan, good), "Source vector 0 is 0 or not finite"),
        (lambda: recall_at_1(good, good[:2]), "sentence id"),
        (lambda: recall_at_1(good, good, ["a", "b", "c"], ["a", "b", "b"]), "source utterance 2 has no parallel"),
        (lambda: recall_at_1(good[:0], good[:0]), "no utterance"),
        (lambda: jensen_shannon_divergence(good, ["a", "b"], 2), "2 languages"),
        (lambda: jensen_shannon_divergence(good, ["a", "b", "b"], 4), "not more clusters"),
        (lambda: jensen_shannon_divergence(good / bad.clip(0, 1), ["a", "b", "b"], 2), "Token 0 is not finite"),
    ]:
        with np.errstate(all="ignore"):
            one_sentence(call, message)


# Parallel pairs


@pytest.fixture
def rows():
    """Three languages, six sentences, two recordings of each; other splits have other sentences."""
    table = utterance_rows(["en", "ja", "ko"], n_speakers=1, n_clips=6)
    clip = table["utterance_id"].str.rsplit("_").str[-1]
    return table.assign(sentence_id=table["split"] + clip, sentence=table["language"] + " " + clip)


def sampled(pairs, n_steps=60, n_pairs=4):
    generator = np.random.default_rng(0)
    return [pairs.sample(n_pairs, generator) for _ in range(n_steps)]


def test_pairs_are_two_languages_one_split_one_sentence(rows):
    table = rows.set_index("utterance_id")
    languages = set()
    for step in sampled(ParallelPairs(rows, ["en", "ja", "ko"])):
        assert len({pair[2:4] for pair in step}) == 1 and len({pair.sentence_id for pair in step}) == 4
        for pair in step:
            source, target = table.loc[pair.source_id], table.loc[pair.target_id]
            assert source["split"] == target["split"] == "train"
            assert source["sentence_id"] == target["sentence_id"] == pair.sentence_id
            assert (source["language"], target["language"]) == (pair.source_language, pair.target_language)
            languages.add(pair[2:4])
    assert len(languages) == 6  # every ordered pair of three languages


def test_anchor_is_always_the_source_and_frozen_is_a_flag(rows):
    steps = sampled(ParallelPairs(rows, ["ja", "en", "ko"], strategy="anchor"))
    assert {pair[2:4] for step in steps for pair in step} == {("en", "ja"), ("en", "ko")}
    frozen = ParallelPairs(rows, ["ja", "en", "ko"], strategy="frozen_anchor")
    assert frozen.freeze_source and not ParallelPairs(rows, ["en", "ko"]).freeze_source
    assert sampled(frozen) == steps


def test_each_of_several_recordings_is_drawn(rows):
    used = {pair.source_id for step in sampled(ParallelPairs(rows, ["en", "ja"])) for pair in step}
    assert used == set(rows.loc[rows["language"].isin(["en", "ja"]) & (rows["split"] == "train"), "utterance_id"])


def test_same_generator_draws_the_same_pairs(rows):
    assert sampled(ParallelPairs(rows, ["en", "ja"])) == sampled(ParallelPairs(from_rows(rows), ["en", "ja"]))


def test_missing_parallel_sentence_is_named_or_skipped(rows):
    rows = rows[~((rows["language"] == "ja") & (rows["sentence_id"] == "train3"))]
    message = "'ja' has no recording of sentence 'train3' in the train split"
    one_sentence(lambda: ParallelPairs(rows, ["en", "ja", "ko"]), message)
    pairs = ParallelPairs(rows, ["en", "ja", "ko"], incomplete="skip")
    skipped = [pair for step in sampled(pairs) for pair in step if pair.sentence_id == "train3"]
    assert skipped and {pair[2:4] for pair in skipped} == {("en", "ko"), ("ko", "en")}


def test_translations_are_the_sentences_of_the_target_language(rows):
    texts = target_sentences(rows, "ko")
    assert list(texts.index) == list(rows["utterance_id"])
    assert (texts.to_numpy() == "ko " + rows["sentence"].str[-1]).all()
    lacking = rows[~((rows["language"] == "ko") & (rows["sentence_id"] == "dev2"))]
    one_sentence(lambda: target_sentences(lacking, "ko"), "'ko' has no text of sentence 'dev2' in the dev split")


def test_bad_pairings_are_named_in_one_sentence(rows):
    elsewhere = rows.assign(sentence_id=rows["sentence_id"].where(rows["language"] != "ko", "other"))
    for call, message in [
        (lambda: ParallelPairs(rows, ["en"]), "two or more"),
        (lambda: ParallelPairs(rows, ["ja", "ko"], strategy="anchor"), "the anchor among them"),
        (lambda: ParallelPairs(rows, ["en", "es"]), "'es' has no sentence in the train split"),
        (lambda: ParallelPairs(rows, ["en", "ja"], split="validated"), "'en' has no sentence in the validated"),
        (lambda: ParallelPairs(rows, ["en", "ja"], strategy="pivot"), "'pivot'"),
        (lambda: ParallelPairs(elsewhere, ["en", "ko"], incomplete="skip"), "'en' and 'ko' share no sentence"),
        (lambda: ParallelPairs(rows, ["en", "ja"]).sample(7, np.random.default_rng(0)), "share 6 sentences"),
    ]:
        one_sentence(call, message)


def test_fleurs_makes_pairs_and_translations(tmp_path):
    folder = fleurs_folder(tmp_path / "snapshot", ["en_us", "ja_jp", "cmn_hans_cn"])
    corpus = fleurs.load(["en", "ja", "zh-CN"], folder, cache_dir=tmp_path / "cache")
    assert len(ParallelPairs(corpus, ["en", "ja"], split="dev").sample(4, np.random.default_rng(0))) == 4
    texts = target_sentences(corpus, "zh-CN")
    assert isinstance(texts, pd.Series) and texts.iloc[0] == "Cmn_Hans_Cn: sentence 0." and len(texts) == len(corpus)
