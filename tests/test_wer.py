import itertools
import random
import time
import unicodedata

import jiwer
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cltmlib.errors import InputError
from cltmlib.wer import Interval, bootstrap_interval, error_rate, error_unit, errors, normalise_text, paired_bootstrap


def counted(references, hypotheses, unit="word"):
    return errors(references, hypotheses, unit).to_numpy().tolist()


def counts(n_errors, n_reference):
    return pd.DataFrame({"n_errors": n_errors, "n_reference": n_reference})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("  a\tb\u00a0\u3000c\r\n", "a b c"),
        ("ＦＵＬＬ ﬁt Å", "full fit å"),
        ("e\u0301t\u00e9", "été"),
        ("e.\u0301", "é"),  # composed once the full stop is out
        ("L’aigua l´aigua lʼaigua l'aigua", "l'aigua l'aigua l'aigua l'aigua"),
        ("'quoted' ‘words’ rock 'n' roll's the dogs'", "quoted words rock n roll's the dogs"),
        ("c'h 90's l'11 ''a''", "c'h 90's l'11 a"),
        ("dir-li—sí–no‑ni snake_case and/or", "dir li sí no ni snake case and or"),
        ("well...maybe…no. yes", "well maybe no yes"),
        ("col·legi coŀlegi U.S.A. 1,000 3.5", "collegi collegi usa 1000 35"),
        ("Ինչպե՞ս ես", "ինչպես ես"),
        ("צה״ל בית־ספר", "צהל בית ספר"),
        ("ሰላም፡ነው።", "ሰላም ነው"),
        ("नमस्ते।दुनिया", "नमस्ते दुनिया"),
        ("ที่นี่ ๑๒", "ที่นี่ ๑๒"),
        ("so\u00adft ze\u200bro می\u200cخواهم \ufeffa\u200e", "soft zero میخواهم a"),
        ("thumb 👍🏽 heart ❤\ufe0f 5 % + 3 € ™", "thumb heart 5 3"),
        ("½ x² ①", "1 2 x2 1"),
        ("İstanbul IŞIK ışık", "istanbul işik ışık"),
        ("Straße ΟΔΟΣ", "straße οδος"),
        ("ﾊﾟﾋﾟ。カー", "パピカー"),
        ("¿?", ""),
        ("", ""),
    ],
)
def test_normalisation_of_known_texts(text, expected):
    assert normalise_text(text) == expected


# Characters that the rules name, mixed with any others, so that their combinations are met.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("aiI İ''’´.-…·¨ªŉ½ǰΐ\u0301\u0307\u0345\u00ad\u200d\ufe0f՞")))


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_normalised_text_holds_words_alone_and_is_final(text):
    result = normalise_text(text)
    assert normalise_text(result) == result == " ".join(result.split())
    assert {unicodedata.category(c)[0] for c in result} - {"L", "M", "N"} <= {"P", "Z"}
    assert {c for c in result if unicodedata.category(c)[0] in "PZ"} <= {"'", " "}
    assert not any(word.startswith("'") or word.endswith("'") for word in result.split())


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_composed_and_decomposed_texts_become_the_same(text):
    assert normalise_text(unicodedata.normalize("NFD", text)) == normalise_text(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize("text", [None, float("nan"), 3, ["a"]])
def test_transcript_that_is_no_text_is_refused(text):
    with pytest.raises(InputError, match="is not a text"):
        errors(["a"], [text])


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("one two three", "one two three", [0, 3]),
        ("one two three", "one too three", [1, 3]),
        ("one two three", "one two two three", [1, 3]),
        ("one two three", "one three", [1, 3]),
        ("one two three", "two four three five", [3, 3]),  # deletion, insertion or two substitutions, insertion
        ("one two three", "", [3, 3]),
        ("one", "a b c d", [4, 1]),
        ("", "a b", [2, 0]),
        ("?!", "a b", [2, 0]),
        ("", "", [0, 0]),
        ("One, TWO: three!", "one two three", [0, 3]),
        ("L’aigua és freda.", "l'aigua es freda", [1, 3]),
    ],
)
def test_errors_counted_by_hand(reference, hypothesis, expected):
    assert counted([reference], [hypothesis]) == [expected]
    assert counted(["x y", reference, ""], ["x", hypothesis, "z"]) == [[1, 2], expected, [1, 0]]


def test_characters_are_counted_without_spaces():
    assert counted(["今日は、晴れ。"], ["今日 は 雨"], "character") == [[2, 5]]
    assert counted(["kitten", "", "ab c"], ["sitting", "ab", "a bc"], "character") == [[3, 6], [2, 0], [0, 3]]
    assert counted(["今日は晴れ"], ["今日は雨"], "word") == [[1, 1]]


def test_languages_without_spaces_are_judged_by_characters():
    units = {code: error_unit(code) for code in "zh-CN zh-TW zh yue ja th nan-tw km ko vi de gl no".split()}
    assert [code for code, unit in units.items() if unit == "character"] == "zh-CN zh-TW zh yue ja th nan-tw km".split()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from(["a", "b", "cc", "d"]), max_size=7)] * 2), min_size=1, max_size=6))
def test_pooled_rate_is_that_of_jiwer(pairs):
    references, hypotheses = ([" ".join(words) for words in texts] for texts in zip(*pairs, strict=True))
    table = errors(references, hypotheses)
    assert table["n_errors"].ge(abs(np.array([len(b) - len(a) for a, b in pairs]))).all()
    if any(references):
        assert error_rate(table) == pytest.approx(jiwer.wer(references, hypotheses))


def distance(a, b):
    """Levenshtein distance by the textbook recursion."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def test_counts_are_the_fewest_edits():
    rng = random.Random(0)
    texts = [[" ".join(rng.choices("abc", k=rng.randrange(9))) for _ in range(200)] for _ in range(2)]
    expected = [[distance(a.split(), b.split()), len(a.split())] for a, b in zip(*texts, strict=True)]
    assert counted(*texts) == expected
    assert counted(*texts, "character") == expected


def test_rate_pools_errors_over_words_and_may_exceed_one():
    assert error_rate(errors(["a b c d", "e"], ["a b c", "f"])) == 0.4
    assert error_rate(errors(["a"], ["x y z"])) == 3.0
    assert error_rate(errors(["a b", ""], ["a b", "c d"])) == 1.0


def test_tables_are_read_by_position_and_any_sequence_will_do():
    references = pd.Series(["a b", "c"], index=[5, 3])
    expected = [[0, 2], [1, 1]]
    assert counted(references, np.array(["a b", "d"])) == counted(tuple(references), ["a b", "d"]) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: errors(["a", "b"], ["a"]), "There are 2 references but 1 hypotheses"),
        (lambda: errors("a b", "a c"), "one per utterance"),
        (lambda: errors(["a"], ["a"], "phone"), "'phone' of an error rate is unknown"),
        (lambda: error_rate(errors([], [])), "There are no utterances"),
        (lambda: error_rate(errors(["", "?"], ["a", ""])), "references of all 2 utterances are empty"),
        (lambda: bootstrap_interval(errors([], [])), "There are no utterances"),
        (lambda: bootstrap_interval(errors(["?"] * 3, ["a"] * 3)), "references of all 3 utterances are empty"),
        (lambda: bootstrap_interval(errors(["a"], ["a"])), "at least 2 utterances, not 1"),
        (lambda: bootstrap_interval(errors(["a", "", ""], ["a"] * 3)), "resamples have only empty references"),
        (lambda: bootstrap_interval(errors(["a"] * 3, ["a"] * 3), groups=["x"] * 3), "at least 2 groups, not 1"),
        (lambda: bootstrap_interval(errors(["a"] * 3, ["a"] * 3), groups=["x", "y"]), "a group for each of the 3"),
        (lambda: bootstrap_interval(errors(["a"] * 2, ["a"] * 2), groups=["x", None]), "none missing"),
        (lambda: bootstrap_interval(errors(["a"] * 2, ["a"] * 2), level=95), "has no 95 interval"),
        (lambda: bootstrap_interval(errors(["a"] * 2, ["a"] * 2), n_resamples=39), "bootstrap of 39 resamples"),
        (lambda: paired_bootstrap(errors(["a b"], ["a"]), errors(["a"], ["a"])), "different references"),
        (lambda: paired_bootstrap(errors(["?"] * 2, ["a"] * 2), errors(["?"] * 2, ["a"] * 2)), "utterances are empty"),
    ],
)
def test_what_has_no_answer_is_refused_in_one_sentence(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def drawn_counts(rng, n_speakers, n_each, rate=0.3, spread=0.0, words=(3, 12)):
    """Errors of ``n_each`` utterances of each speaker, whose error rates vary by ``spread`` around ``rate``."""
    chances = np.repeat(np.clip(rng.normal(rate, spread, n_speakers), 0.0, 1.0), n_each)
    n_reference = rng.integers(*words, size=n_speakers * n_each)
    return counts(rng.binomial(n_reference, chances), n_reference)


def test_interval_covers_the_true_rate_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(drawn_counts(rng, 100, 1), 200, 0.9, seed) for seed in range(300)]
    covered = np.mean([low <= 0.3 <= high for _, low, high in intervals])
    assert abs(covered - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 300)


def test_groups_restore_the_coverage_when_speakers_differ():
    rng = np.random.default_rng(1)
    speakers = np.repeat(np.arange(30), 20)
    tables = [drawn_counts(rng, 30, 20, spread=0.1) for _ in range(200)]
    by_utterance, by_speaker = (
        np.mean([low <= 0.3 <= high for _, low, high in (bootstrap_interval(t, 200, groups=g) for t in tables)])
        for g in (None, speakers)
    )
    assert by_utterance < 0.75 and by_speaker > 0.88


def test_interval_agrees_with_the_enumeration_of_all_resamples():
    table = counts([0, 1, 5], [4, 2, 5])
    rows = np.array(list(itertools.product(range(3), repeat=3)))
    rates = table["n_errors"].to_numpy()[rows].sum(1) / table["n_reference"].to_numpy()[rows].sum(1)
    expected = np.quantile(rates, [0.1, 0.9], method="inverted_cdf")
    estimate, *ends = bootstrap_interval(table, 20000, 0.8)
    assert estimate == 6 / 11
    np.testing.assert_allclose(ends, expected)


def test_interval_is_repeatable_and_its_blocks_do_not_matter(monkeypatch):
    table = drawn_counts(np.random.default_rng(0), 50, 1)
    first = bootstrap_interval(table)
    assert first == bootstrap_interval(table) and first != bootstrap_interval(table, seed=1)
    assert isinstance(first, Interval) and first.lower < first.estimate < first.upper
    monkeypatch.setattr("cltmlib.wer._RESAMPLED_VALUES", 50 * 300)  # three blocks of 300 and one of 100
    np.testing.assert_allclose(bootstrap_interval(table), first, atol=0.01)


def test_each_utterance_its_own_group_is_the_ordinary_bootstrap():
    table = drawn_counts(np.random.default_rng(0), 40, 1)
    assert bootstrap_interval(table, groups=[f"s{i}" for i in range(40)]) == bootstrap_interval(table)


def test_equal_error_rates_everywhere_have_an_interval_of_no_width():
    assert bootstrap_interval(counts([1] * 10, [4] * 10)) == (0.25, 0.25, 0.25)
    assert bootstrap_interval(counts([0] * 10, [4] * 10)) == (0.0, 0.0, 0.0)


def test_paired_change_of_a_system_against_itself_is_exactly_zero():
    table = drawn_counts(np.random.default_rng(0), 50, 1)
    assert paired_bootstrap(table, table) == (0.0, 0.0, 0.0)
    half = table.assign(n_errors=2 * table["n_errors"])
    assert paired_bootstrap(half, table) == (-0.5, -0.5, -0.5)


def test_paired_interval_is_narrower_than_that_of_independent_test_sets_and_covers():
    rng = np.random.default_rng(2)
    covered, widths = [], []
    for seed in range(200):
        hard = rng.beta(1, 2, 150)  # both systems stumble over the same utterances
        n_reference = rng.integers(4, 12, 150)
        a, b = (counts(rng.binomial(n_reference, factor * hard), n_reference) for factor in (1.0, 0.9))
        _, low, high = paired_bootstrap(a, b, 200, 0.9, seed)
        covered.append(low <= -0.1 <= high)
        apart = [bootstrap_interval(table, 200, 0.9, seed) for table in (a, b)]
        widths.append((high - low) / (apart[1].upper / apart[0].lower - apart[1].lower / apart[0].upper))
    assert abs(np.mean(covered) - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 200)
    assert np.median(widths) < 0.7


def test_change_from_no_errors_is_infinite_or_none():
    perfect, one_error = counts([0] * 20, [5] * 20), counts([1] + [0] * 19, [5] * 20)
    assert paired_bootstrap(perfect, perfect) == (0.0, 0.0, 0.0)
    assert paired_bootstrap(perfect, one_error) == (np.inf, 0.0, np.inf)
    assert paired_bootstrap(one_error, perfect) == (-1.0, -1.0, 0.0)


def test_large_test_set_takes_seconds_at_most():
    table = drawn_counts(np.random.default_rng(0), 15000, 1)
    start_s = time.process_time()
    bootstrap_interval(table)
    assert time.process_time() - start_s < 10
