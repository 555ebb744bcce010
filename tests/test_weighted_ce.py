"""The weighted loss and its schedules, against independent references and by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from cltmlib.errors import InputError
from cltmlib.weighted_ce import (
    SYSTEMS,
    ConstantWeight,
    LinearProgressiveWeight,
    LossRatioWeight,
    batch_scale,
    group_losses,
    schedule,
    utterance_losses,
    weighted_cross_entropy,
)

IGNORED = -100


def reference(logits, labels, weights):
    """The definition in plain Python floats: sum(w * token loss) / sum(w * tokens)."""
    total = count = 0.0
    for row, targets, weight in zip(logits.tolist(), labels.tolist(), weights.tolist(), strict=True):
        for scores, target in zip(row, targets, strict=True):
            if target == IGNORED:
                continue
            highest = max(scores)
            log_sum = highest + math.log(math.fsum(math.exp(score - highest) for score in scores))
            total += weight * (log_sum - scores[target])
            count += weight
    return total / count


def random_batch(rng, kind):
    """Logits, labels and weights of a batch with padding on the right and ignored tokens anywhere."""
    n, length, vocabulary = rng.integers(1, 7), rng.integers(1, 8), rng.integers(2, 9)
    logits = torch.from_numpy(rng.normal(scale=rng.choice([0.1, 3.0, 30.0]), size=(n, length, vocabulary)))
    labels = torch.from_numpy(rng.integers(vocabulary, size=(n, length)))
    for row in range(n):
        labels[row, rng.integers(1, length + 1) :] = IGNORED
    labels[torch.from_numpy(rng.random((n, length)) < 0.2)] = IGNORED
    if (labels == IGNORED).all():
        labels[0, 0] = 0
    is_low = {"mixed": rng.random(n) < 0.5, "none low": np.zeros(n, bool), "all low": np.ones(n, bool)}[kind]
    return logits, labels, torch.from_numpy(np.where(is_low, rng.uniform(1, 6), 1.0))


def test_the_loss_equals_the_definition_on_a_thousand_random_batches():
    rng = np.random.default_rng(0)
    for k in range(1000):
        logits, labels, weights = random_batch(rng, ("mixed", "mixed", "none low", "all low")[k % 4])
        expected = reference(logits, labels, weights)
        assert weighted_cross_entropy(logits, labels, weights).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        single = weighted_cross_entropy(logits.float(), labels, weights.float()).item()
        assert single == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_equal_weights_give_torchs_loss_and_gradients():
    rng = np.random.default_rng(1)
    for _ in range(100):
        logits, labels, weights = random_batch(rng, "all low")
        logits = logits.float()
        ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        weighted_cross_entropy(ours, labels, weights).backward()
        expected = cross_entropy(theirs.transpose(1, 2), labels, ignore_index=IGNORED)
        expected.backward()
        assert weighted_cross_entropy(logits, labels, weights).item() == pytest.approx(
            expected.item(), abs=1e-6, rel=1e-6
        )
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("loss", [weighted_cross_entropy, batch_scale])
def test_the_gradient_is_that_of_finite_differences(loss):
    rng = np.random.default_rng(2)
    for kind in ("mixed", "none low", "all low"):
        logits, labels, weights = random_batch(rng, kind)
        logits = (logits / logits.abs().max()).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, y=labels, w=weights: loss(x, y, w), logits)


def test_ignored_positions_have_no_gradient():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    labels = torch.tensor([[1, IGNORED, 2], [IGNORED, 0, IGNORED]])
    weighted_cross_entropy(logits, labels, torch.tensor([1.0, 3.0])).backward()
    assert (logits.grad[labels == IGNORED] == 0).all() and (logits.grad[labels != IGNORED] != 0).any(-1).all()


def test_a_weight_moves_the_loss_towards_its_utterance_but_not_alone_in_a_batch():
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(1))
    first, second = utterance_losses(logits, labels)
    half = weighted_cross_entropy(logits, labels, torch.tensor([3.0, 1.0]))
    assert half.item() == pytest.approx(((3 * first + second) / 4).item(), rel=1e-6)
    alone = weighted_cross_entropy(logits[:1], labels[:1], torch.tensor([5.0]))
    assert alone.item() == pytest.approx(first.item(), rel=1e-6)


def test_batch_scale_is_the_released_formula():
    """Scalar loss times (1 + (w - 1) * n_low / batch): no utterance counts more than another."""
    logits, labels = torch.randn(4, 3, 5), torch.randint(5, (4, 3))
    plain = cross_entropy(logits.transpose(1, 2), labels)
    scaled = batch_scale(logits, labels, torch.tensor([1.0, 5.0, 1.0, 1.0]))
    assert scaled.item() == pytest.approx(plain.item() * (1 + 4 / 4), rel=1e-6)


def test_half_precision_logits_are_summed_in_single_precision():
    logits = torch.full((1, 4000, 10), 3.0, dtype=torch.float16)
    loss = weighted_cross_entropy(logits, torch.zeros(1, 4000, dtype=torch.long), torch.ones(1))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(math.log(10), rel=1e-5)


@pytest.mark.parametrize(
    "shapes, said",
    [(((2, 3), (2, 3), (2,)), "logits"), (((2, 3, 4), (2, 2), (2,)), "labels"), (((2, 3, 4), (2, 3), (3,)), "weight")],
)
def test_shapes_that_do_not_fit_are_named(shapes, said):
    logits, labels, weights = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(InputError, match=said):
        weighted_cross_entropy(logits, labels.long(), weights)


def test_group_losses():
    losses = torch.tensor([1.0, 3.0, 8.0], requires_grad=True)
    assert group_losses(losses, [True, True, False]) == (2.0, 8.0)
    assert group_losses(losses, [False] * 3) == (None, 4.0)
    assert group_losses(losses, [True] * 3) == (4.0, None)


# Schedules -------------------------------------------------------------------------------------------------------


def test_linear_progressive_at_its_edges():
    w = LinearProgressiveWeight()  # the authors': 8000 steps, from 4000, 2 to 5
    expected = {
        0: 1,
        1: 1,
        3999: 1,
        4000: 1,
        4001: 2 + 3 / 4000,
        6000: 3.5,
        7999: 5 - 3 / 4000,
        8000: 5,
        8001: 5,
        10**9: 5,
    }
    assert {step: w.weight(step) for step in expected} == pytest.approx(expected, rel=1e-15)
    assert w.weight(4000) == 1.0 and w.weight(8000) == 5.0 == w.weight(8001)  # exactly


def test_linear_progressive_from_the_first_step_and_downwards():
    w = LinearProgressiveWeight(n_steps=4, start=0, initial=5, final=1)
    assert [w.weight(step) for step in range(6)] == [1, 4, 3, 2, 1, 1]
    assert w.mean == (1 + 4 + 3 + 2) / 4


@given(st.integers(1, 500), st.data())
def test_linear_progressive_stays_between_its_ends_and_never_falls(n_steps, data):
    start = data.draw(st.integers(0, n_steps - 1))
    w = LinearProgressiveWeight(n_steps, start, 2, 5)
    values = [w.weight(step) for step in range(n_steps + 3)]
    assert values[: start + 1] == [1.0] * (start + 1) and values[n_steps:] == [5.0] * 3
    assert all(2 < v <= 5 for v in values[start + 1 :]) and values == sorted(values)


def test_loss_ratio_at_its_edges():
    def ratio(low, high, alpha=1.5):
        return LossRatioWeight(alpha).weight(0, (low, high))

    assert ratio(0.6, 1.0) == 1.0  # alpha * r = 0.9
    assert ratio(2.0, 3.0) == 1.5  # alpha * r = 1 exactly: it acts
    assert ratio(1.4, 1.0) == 1.5 and ratio(1.5, 1.0) == 1.5 and ratio(1.6, 1.0) == pytest.approx(1.6)
    assert ratio(0.99, 1.0, alpha=1.0) == 1.0 and ratio(4.0, 2.0, alpha=1.0) == 2.0


def test_loss_ratio_keeps_what_it_knew_where_a_group_is_missing():
    w = LossRatioWeight()
    assert w.weight(0, (None, 1.0)) == 1.0 == w.weight(1, (2.0, None))  # no ratio yet
    assert w.weight(2, (2.0, 1.0)) == 2.0 == w.weight(3, (None, 1.0)) == w.weight(4, (9.0, None))
    assert w.weight(5, (3.0, 1.0)) == 3.0
    assert w.weight(6, (3.0, 0.0)) == 3.0  # no ratio to a loss of zero


def test_loss_ratio_smoothing_by_hand():
    w = LossRatioWeight(smoothing=0.5)
    assert [w.weight(0, (low, 1.0)) for low in (4.0, 2.0, 2.0)] == [4.0, 3.0, 2.5]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: ConstantWeight(0.5), "value"),
        (lambda: ConstantWeight(float("nan")), "value"),
        (lambda: LinearProgressiveWeight(initial=0.9), "initial"),
        (lambda: LinearProgressiveWeight(final=0.0), "final"),
        (lambda: LinearProgressiveWeight(n_steps=10, start=10), "start"),
        (lambda: LossRatioWeight(alpha=0.2), "alpha"),
        (lambda: LossRatioWeight(smoothing=1.0), "smoothing"),
    ],
)
def test_schedules_that_make_no_sense_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_every_system_has_a_schedule_and_the_constant_one_weighs_as_much_as_the_linear_one():
    params = {"n_steps": 80, "linear_initial": 2.0, "linear_final": 5.0, "ratio_alpha": 1.5, "ratio_smoothing": 0.0}
    weights = {name: schedule(system, params) for name, system in SYSTEMS.items()}
    linear, constant = weights["+ linear progressive"], weights["+ constant weight"]
    assert linear.weight(40) == 1.0 and linear.weight(80) == 5.0
    assert constant.value == pytest.approx(np.mean([linear.weight(step) for step in range(80)]))
    assert weights["fine-tuned"] == weights["rehearsal"] == ConstantWeight(1.0)
