"""The seven diagnostics: hand-computed values, an oracle written with loops, properties."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cltmlib.cltm import diagnostics
from cltmlib.errors import InputError

NAMES = ["rms", "rfd_1", "asym_rel", "prop_pos", "reciprocity_pos", "cos_rows", "intra_family_pos"]
FAMILIES = {"a": "X", "b": "X", "c": "Y", "d": "Z", "e": "Y"}


def frame(matrix, languages="abcde"):
    languages = list(languages)[: len(matrix)]
    return pd.DataFrame(matrix, index=languages, columns=languages, dtype=float)


def by_loops(values, families):
    """The definitions of the issue, term by term, on dicts of floats."""
    languages = list(values.index)
    n = len(languages)
    cell = {(i, j): float(values.loc[i, j]) for i in languages for j in languages}
    squares = sum(value**2 for value in cell.values())
    deviation = sum((value - 1) ** 2 for value in cell.values())
    asymmetry = sum((cell[i, j] - cell[j, i]) ** 2 for i in languages for j in languages)
    positive = reciprocal = pairs = 0
    cosines, inside, mass = [], 0.0, 0.0
    for x, i in enumerate(languages):
        for y, j in enumerate(languages):
            if i == j:
                continue
            positive += cell[i, j] > 0
            mass += max(cell[i, j], 0)
            inside += max(cell[i, j], 0) * (families[i] == families[j])
            if x < y:
                pairs += 1
                reciprocal += cell[i, j] > 0 and cell[j, i] > 0
            dot = sum(cell[i, k] * cell[j, k] for k in languages)
            lengths = [math.sqrt(sum(cell[row, k] ** 2 for k in languages)) for row in (i, j)]
            cosines.append(dot / (lengths[0] * lengths[1]))
    return [
        math.sqrt(squares) / n,
        math.sqrt(deviation) / n,
        math.sqrt(asymmetry) / math.sqrt(squares),
        positive / (n * (n - 1)),
        reciprocal / pairs,
        sum(cosines) / len(cosines),
        inside / mass if mass > 0 else math.nan,
    ]


@st.composite
def matrices(draw):
    n = draw(st.integers(2, 5))
    matrix = draw(arrays(float, (n, n), elements=st.floats(-3, 3).map(lambda x: round(x, 3))))
    np.fill_diagonal(matrix, 1)
    return frame(matrix)


def test_hand_computed_matrix():
    values = frame([[1, 2, 0], [-1, 1, 1], [1, 1, 1]])
    result = diagnostics(values, FAMILIES)
    assert list(result.index) == NAMES
    cosines = [(-1 + 2) / math.sqrt(5 * 3), (1 + 2) / math.sqrt(5 * 3), (-1 + 1 + 1) / 3]
    expected = [
        math.sqrt(1 + 4 + 0 + 1 + 1 + 1 + 3) / 3,
        math.sqrt(1 + 1 + 4) / 3,
        math.sqrt(2 * (9 + 1 + 0)) / math.sqrt(11),
        4 / 6,  # ab, bc, ca, cb; a zero is not positive
        1 / 3,  # only bc and cb
        sum(cosines) / 3,
        2 / 5,
    ]
    np.testing.assert_allclose(result, expected)


def test_all_ones_matrix_is_language_agnostic():
    result = diagnostics(frame(np.ones((4, 4))), FAMILIES)
    np.testing.assert_allclose(result, [1, 0, 0, 1, 1, 1, 2 / 12])


def test_identity_has_no_transfer_and_no_family_share():
    result = diagnostics(frame(np.eye(3)), FAMILIES)
    np.testing.assert_allclose(result, [math.sqrt(1 / 3), math.sqrt(2 / 3), 0, 0, 0, 0, np.nan])


@given(values=matrices())
@settings(max_examples=60, deadline=None)
def test_diagnostics_agree_with_loops_over_the_definitions(values):
    np.testing.assert_allclose(diagnostics(values, FAMILIES), by_loops(values, FAMILIES), rtol=1e-9, atol=1e-12)


@given(values=matrices(), data=st.data())
@settings(max_examples=30, deadline=None)
def test_order_of_languages_changes_no_diagnostic(values, data):
    order = data.draw(st.permutations(list(values.index)))
    np.testing.assert_allclose(
        diagnostics(values.loc[order, order], FAMILIES), diagnostics(values, FAMILIES), rtol=1e-9, atol=1e-12
    )


@given(values=matrices())
@settings(max_examples=30, deadline=None)
def test_ranges_and_what_transposing_keeps(values):
    result, transposed = diagnostics(values, FAMILIES), diagnostics(values.T, FAMILIES)
    assert 0 <= result["reciprocity_pos"] <= result["prop_pos"] <= 1
    assert -1 - 1e-9 <= result["cos_rows"] <= 1 + 1e-9
    assert 0 <= result["asym_rel"] <= 2 + 1e-9
    kept = [name for name in NAMES if name != "cos_rows"]
    np.testing.assert_allclose(transposed[kept], result[kept], rtol=1e-9, atol=1e-12)


def test_language_without_positive_self_gain_leaves_as_target_and_as_donor():
    values = frame([[1, 9, 2, 3], [np.nan] * 4, [0.5, 9, 1, -1], [2, 9, 0.1, 1]])
    with pytest.warns(UserWarning, match="b"):
        result = diagnostics(values, FAMILIES)
    np.testing.assert_allclose(result, diagnostics(values.drop(index="b", columns="b"), FAMILIES))
    assert result.attrs == {"n_languages": 3, "left_out": ["b"]}


@pytest.mark.parametrize("n_defined", [0, 1])
def test_fewer_than_two_languages_give_nan(n_defined):
    values = frame([[1, 0.5], [np.nan, np.nan]] if n_defined else np.full((2, 2), np.nan))
    with pytest.warns(UserWarning):
        result = diagnostics(values, FAMILIES)
    assert list(result.index) == NAMES and result.isna().all()
    assert result.attrs["n_languages"] == n_defined


def test_language_without_family_is_named():
    with pytest.raises(InputError, match="'b'"):
        diagnostics(frame(np.ones((2, 2))), {"a": "X"})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_single_undefined_cell_is_named_not_skipped(bad):
    with pytest.raises(InputError, match="target 'a', donor 'b'"):
        diagnostics(frame([[1, bad], [1, 1]]), FAMILIES)


def test_rows_and_columns_in_another_order_are_refused():
    with pytest.raises(InputError, match="same order"):
        diagnostics(frame(np.ones((2, 2)))[["b", "a"]], FAMILIES)
