"""Theorem 1 by exact enumeration, and the sequence-level loss against brute force."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from cltmlib import unsupervised
from cltmlib.errors import InputError
from cltmlib.unsupervised import cases, exact, loss, population, training, validation
from cltmlib.unsupervised.adversarial import emission_of
from cltmlib.unsupervised.inequalities import INEQUALITIES, constants
from cltmlib.unsupervised.ngram import NGram, all_sequences, draw, estimate_ngram, from_table
from cltmlib.unsupervised.validation import draw_language_model

TRUE = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]])
Q = np.array([[0.6, 0.2, 0.1, 0.1], [0.1, 0.5, 0.3, 0.1], [0.2, 0.1, 0.3, 0.4]])
PRODUCT = np.einsum("a,b,c->abc", *np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]]))
BIGRAM = NGram(([0.6, 0.3, 0.1], [[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.2, 0.5, 0.3]]))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Exact enumeration and the bound ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "language_model, known",
    [  # reference values computed by an independent implementation
        (PRODUCT, (0.334267, 3.63158, 8.50526, 0.274832, 0.0552813, 0.569112, 0.578656, 0.053844, 0.25, 0.0333333,
                   0.82, 0.42, 8.98267)),
        (BIGRAM.table(3), (0.0515587, 23.4659, 45.8535, 0.248282, 0.0459844, 0.576664, 0.578485, 0.059091, 0.260169,
                           0.0536373, 0.8304, 0.3348, 52.4355)),
    ],
)  # fmt: skip
def test_known_values(language_model, known):
    e = exact.enumerate_models(language_model, TRUE, Q)
    found, kappa = constants(e)
    values = (
        found.sigma_min, found.inverse_norm, kappa, e.marginal_distance, e.kl, e.joint_distance, e.bayes_error,
        e.error_mismatch, e.symbol_bayes_error, e.symbol_mismatch, e.weights @ e.emission_distance,
        e.position_distance.sum(), INEQUALITIES["theorem_1"](e)[1],
    )  # fmt: skip
    assert_allclose(values, known, rtol=1e-5)
    bound = unsupervised.classification_error_bound(e.matrix, e.marginal_distance)
    assert bound == pytest.approx(known[-1], rel=1e-5)
    sharp = unsupervised.classification_error_bound(e.matrix, e.marginal_distance, sharp=True)
    assert sharp == pytest.approx(kappa * e.marginal_distance)


def test_enumeration_agrees_with_loops():
    e = exact.enumerate_models(PRODUCT, TRUE, Q)
    marginal = joint = 0.0
    for x in itertools.product(range(4), repeat=3):
        d = [
            PRODUCT[c] * (np.prod([TRUE[c[n], x[n]] for n in range(3)]) - np.prod([Q[c[n], x[n]] for n in range(3)]))
            for c in itertools.product(range(3), repeat=3)
        ]
        marginal, joint = marginal + abs(sum(d)), joint + sum(map(abs, d))
    assert_allclose([e.marginal_distance, e.joint_distance], [marginal, joint], rtol=1e-12)


def test_no_inequality_is_violated_on_random_models():
    instances = unsupervised.validate_bound(1200, seed=1)
    table = unsupervised.violations(instances)
    assert set(table.index) == set(INEQUALITIES) and (table["n"] == 1200).all()
    assert (table["max_violation"] <= 1e-10).all() and not table[["n_beyond", "n_beyond_relative"]].any(axis=None)
    assert (table["max_ratio"] <= 1 + 1e-9).all()
    assert table["max_ratio"].max() > 0.999, "the tight links of the proof are met"
    assert set(instances["language_model"]) == set(validation.LANGUAGE_MODELS)
    assert set(instances["model"]) == set(validation.MODELS)


def test_a_side_that_is_nan_counts_as_a_violation():
    instances = unsupervised.validate_bound(20, seed=2)
    instances.loc[3, "pinsker_right"] = math.nan
    table = unsupervised.violations(instances)
    assert table["n_beyond"].sum() == table.loc["pinsker", "n_beyond"] == 1
    assert table.loc["pinsker", "n_beyond_relative"] == 1 and math.isnan(table.loc["pinsker", "max_violation"])
    assert "1 violations" in unsupervised.validation_sentence(table, instances)


def test_a_violation_of_small_numbers_is_seen_relative_to_them():
    instances = unsupervised.validate_bound(20, seed=2)
    instances.loc[3, ["marginal_by_joint_left", "marginal_by_joint_right"]] = 2e-11, 1e-11
    table = unsupervised.violations(instances).loc["marginal_by_joint"]
    assert table["n_beyond"] == 0 and table["n_beyond_relative"] == 1


@pytest.mark.parametrize("change", [1e-10, 1e-12, 3e-14, 1e-15, 1e-16])
def test_near_the_edge_of_full_rank_there_is_a_constant_or_a_sentence(change):
    """One tolerance for rank, pseudo-inverse and kappa*: nothing between them raises anything else."""
    matrix = np.array([[0.3, 0.7], [0.3 + change, 0.7 - change], [0.3, 0.7]])
    if unsupervised.conditioning(matrix).full_rank:
        kappa = unsupervised.sharp_constant(matrix)
        assert math.isfinite(kappa) and kappa <= unsupervised.conditioning(matrix).constant * (1 + 1e-3)
    else:
        with pytest.raises(InputError, match="Condition 2 fails"):
            unsupervised.sharp_constant(matrix)
    assert unsupervised.conditioning(matrix).full_rank == (change > 1e-11)


def test_constants_are_in_their_order():
    """Spec 3.2: N <= kappa* <= sum w |P+| <= the theorem's constant; |P+|_1 >= K / N."""
    generator = np.random.default_rng(3)
    for _ in range(100):
        n_labels = int(generator.integers(2, 5))
        n_positions = n_labels + int(generator.integers(0, 3))
        matrix = exact.language_model_matrix(draw_language_model("product", n_labels, n_positions, generator))
        found = unsupervised.conditioning(matrix)
        if found.sigma_min < 1e-6:
            continue
        kappa = unsupervised.sharp_constant(matrix)
        by_pinv = (matrix.sum(0)[:, None] * np.abs(np.linalg.pinv(matrix))).sum()
        assert n_positions <= kappa * (1 + 1e-9) and kappa <= by_pinv * (1 + 1e-9)
        assert by_pinv <= found.constant * (1 + 1e-9) and found.inverse_norm >= n_labels / n_positions * (1 - 1e-9)


def test_sharp_constant_by_subsets_equals_the_linear_program(monkeypatch):
    matrix = np.random.default_rng(4).dirichlet(np.ones(3), 6)
    by_subsets = unsupervised.sharp_constant(matrix)
    monkeypatch.setattr("cltmlib.unsupervised.bound._MAX_SUBSETS", 0)
    assert unsupervised.sharp_constant(matrix) == pytest.approx(by_subsets, rel=1e-7)


def test_counterexamples_sound_alike_and_err():
    table = unsupervised.counterexamples()
    assert (table["marginal_distance"] < 1e-15).all()
    assert_allclose(table["joint_distance"], [2, 1.974, 1.925926, 1.4, 0.8], atol=1e-6)
    assert_allclose(table["model_error"] - table["bayes_error"], [1, 0.813, 50 / 108, 0.6, 0.4], atol=2e-6)
    assert_allclose(table["symbol_mismatch"][:3], [1, 0.9, 7 / 9], atol=1e-9)
    assert table["rank"].tolist() == [1, 1, 2, 2, 2]


def test_every_rank_deficient_matrix_without_zero_columns_has_a_counterexample():
    generator = np.random.default_rng(5)
    for _ in range(100):
        a, b = generator.dirichlet(np.ones(3), 2)
        matrix = np.stack([a, b, 0.3 * a + 0.7 * b])
        e = exact.enumerate_models(*unsupervised.product_counterexample(matrix, generator))
        assert e.marginal_distance < 1e-14 and e.joint_distance > 1e-4
    table = unsupervised.proposition_a({"one": matrix, "two": matrix})
    assert list(table.index) == ["one", "two"] and (table["marginal_distance"] < 1e-14).all()
    with pytest.raises(InputError, match="full column rank 3"):
        unsupervised.product_counterexample(np.eye(3), generator)
    with pytest.raises(InputError, match="Label 2 has probability zero"):
        unsupervised.product_counterexample(np.array([[0.3, 0.7, 0], [0.6, 0.4, 0], [0.5, 0.5, 0]]), generator)


def test_stationary_start_makes_the_matrix_rank_one():
    transition = np.random.default_rng(6).dirichlet(np.ones(5), 5)
    matrix = NGram((validation.stationary(transition), transition)).matrix(8)
    assert np.linalg.matrix_rank(matrix, tol=1e-12) == 1


def test_kl_is_accurate_where_the_plain_formula_is_not():
    p = np.array([0.3, 0.7])
    for step in (1e-9, 1e-12):
        q = p + np.array([step, -step])
        change = q - p
        assert exact.kl_divergence(p, q) == pytest.approx(float((change**2 / p).sum() / 2), rel=1e-3)
    assert exact.kl_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == math.inf
    assert exact.kl_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(math.log(2))
    tiny = exact.kl_divergence(np.array([1e-320, 1 - 1e-320]), np.array([1e-3, 1 - 1e-3]))
    assert tiny == pytest.approx(-math.log1p(-1e-3), rel=1e-9), "q / p overflows, the divergence does not"


# Language models -------------------------------------------------------------------------------------------------


def test_matrix_and_table_of_an_ngram_agree():
    generator = np.random.default_rng(7)
    for order in (1, 2, 3, 4):
        tables = [generator.dirichlet(np.ones(3), (3,) * k) for k in range(order)]
        model = NGram(tuple(tables))
        table = model.table(4)
        assert table.sum() == pytest.approx(1)
        assert_allclose(exact.language_model_matrix(table), model.matrix(4), atol=1e-12)
        assert_allclose(from_table(table).table(4), table, atol=1e-12)


def test_ngram_of_much_text_is_the_ngram_that_wrote_it():
    generator = np.random.default_rng(8)
    text = BIGRAM.sample(20000, 6, generator)
    found = estimate_ngram(text, 3, order=2, smoothing=0.1)
    for table, true in zip(found.tables, BIGRAM.tables, strict=True):
        assert_allclose(table, true, atol=0.02)
    trigram = estimate_ngram([[0, 1, 2, 0, 1, 2]], 3, order=3, smoothing=0.01)
    assert trigram.tables[2][0, 1].argmax() == 2 and trigram.tables[0].argmax() == 0


def test_repetition_lengthens_labels_and_keeps_a_distribution():
    lasting = BIGRAM.with_repetition(0.75)
    assert_allclose(lasting.tables[1].sum(1), 1)
    assert lasting.tables[1][0, 0] == pytest.approx(0.75 + 0.25 * 0.1)


# The loss --------------------------------------------------------------------------------------------------------


def random_case(generator):
    """Language model of order 1 to 4, an emission, a padded batch of symbols and its mask."""
    n_labels, order, n_positions, n_symbols = (int(generator.integers(1, high)) for high in (5, 5, 6, 5))
    model = NGram(tuple(generator.dirichlet(np.full(n_labels, 0.5), (n_labels,) * k) for k in range(order)))
    emission = generator.dirichlet(np.full(n_symbols, 0.3), n_labels) + 1e-200
    symbols = torch.from_numpy(generator.integers(0, n_symbols, (3, n_positions)))
    mask = torch.arange(n_positions) < torch.from_numpy(generator.integers(1, n_positions + 1, (3, 1)))
    return model, torch.from_numpy(emission / emission.sum(1, keepdims=True)), symbols, mask


def brute_force(model, emission, symbols, mask):
    losses = []
    for x, valid in zip(symbols, mask, strict=True):
        x = x[valid]
        table, sequences = model.table(len(x)).ravel(), all_sequences(model.n_labels, len(x))
        losses.append(-math.log(table @ emission.numpy()[sequences, x.numpy()].prod(1)))
    return losses


def test_loss_equals_brute_force_on_500_random_cases():
    generator = np.random.default_rng(9)
    for _ in range(500):
        model, emission, symbols, mask = random_case(generator)
        scores = unsupervised.generative_scores(emission.log(), symbols, mask)
        found = unsupervised.sequence_cross_entropy(scores, model, mask, reduction="none")
        assert_allclose(found, brute_force(model, emission, symbols, mask), atol=1e-10, rtol=0)
        checked, lengths = loss._checked(scores, model, mask)
        assert_allclose(-loss._forward_log(checked, model, lengths), found, atol=1e-10, rtol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gradient_of_the_loss(order):
    generator = np.random.default_rng(order)
    model = NGram(tuple(generator.dirichlet(np.ones(3), (3,) * k) for k in range(order)))
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    scores = torch.from_numpy(generator.normal(size=(2, 5, 3))).requires_grad_(True)

    def of(reduction):
        return lambda s: unsupervised.sequence_cross_entropy(s, model, mask, reduction)

    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(of(reduction), scores)
    wide = (scores.detach() * 400).requires_grad_(True)  # takes the path that is safe from underflow
    checked, lengths = loss._checked(wide, model, mask)
    assert not loss._forward_scaled(checked, model, lengths)[1].all()
    assert torch.autograd.gradcheck(of("mean"), wide)


def test_gradient_of_both_kinds_of_model():
    generator = np.random.default_rng(10)
    symbols = torch.from_numpy(generator.integers(0, 4, (3, 4)))
    logits = torch.from_numpy(generator.normal(size=(3, 4))).requires_grad_(True)

    def generative(logits):
        return unsupervised.sequence_cross_entropy(unsupervised.generative_scores(logits, symbols), BIGRAM)

    def discriminative(table):
        posteriors = torch.log_softmax(table, -1)[symbols]
        return unsupervised.sequence_cross_entropy(unsupervised.posterior_scores(posteriors), BIGRAM)

    assert torch.autograd.gradcheck(generative, logits)
    assert torch.autograd.gradcheck(discriminative, logits.detach().T.contiguous().requires_grad_(True))


def test_posterior_over_its_own_prior_is_the_generative_model():
    """q(c | x) q(x) / q(c), with q(c) the mean of the posteriors over the batch, sums to one over x."""
    generator = np.random.default_rng(11)
    posteriors = torch.from_numpy(generator.dirichlet(np.ones(3), 4))  # (V, K)
    symbols = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 1]])
    unigram = torch.bincount(symbols.ravel()) / symbols.numel()
    emission = (posteriors * unigram[:, None] / (posteriors.T @ unigram.double())).T
    assert_allclose(emission.sum(1), 1)
    scores = unsupervised.posterior_scores(posteriors.log()[symbols])
    expected = unsupervised.generative_scores(emission.log(), symbols)
    difference = unsupervised.sequence_cross_entropy(scores, BIGRAM, reduction="none")
    difference -= unsupervised.sequence_cross_entropy(expected, BIGRAM, reduction="none")
    assert_allclose(difference, unigram.double().log()[symbols].sum(1), atol=1e-12)


def test_scores_that_underflow_are_exact():
    """The only label that the language model allows is worse by e^-900 at every position."""
    model = NGram(([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]))
    scores = torch.tensor([[[-900.0, 0.0]] * 5], dtype=torch.float64).requires_grad_(True)
    found = unsupervised.sequence_cross_entropy(scores, model)
    assert float(found.detach()) == 4500.0
    found.backward()
    assert_allclose(scores.grad[0], [[-1.0, 0.0]] * 5)


def test_labels_that_are_ruled_out_give_no_nan():
    model = NGram(([0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]]))
    scores = torch.tensor([[[0.0, -math.inf], [-math.inf, -1.0]]], dtype=torch.float64).requires_grad_(True)
    found = unsupervised.sequence_cross_entropy(scores, model)
    assert float(found.detach()) == pytest.approx(math.log(2) + 1)
    found.backward()
    assert torch.isfinite(scores.grad).all()


def test_what_stands_in_masked_positions_does_not_matter():
    scores = torch.from_numpy(np.random.default_rng(12).normal(size=(2, 6, 3)))
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    clean = unsupervised.sequence_cross_entropy(scores, BIGRAM, mask, "none")
    for junk in (math.nan, math.inf, -math.inf, 1e300):
        dirty = scores.masked_fill(~mask[:, :, None], junk).requires_grad_(True)
        found = unsupervised.sequence_cross_entropy(dirty, BIGRAM, mask, "none")
        assert torch.equal(found, clean)
        found.sum().backward()
        assert torch.isfinite(dirty.grad).all() and not dirty.grad[1, 3:].any()
    alone = unsupervised.sequence_cross_entropy(scores[1:, :3], BIGRAM, reduction="none")
    assert float(alone[0]) == pytest.approx(float(clean[1]), abs=1e-12)


def test_long_sequences_neither_overflow_nor_take_long():
    """N = 500, 50 labels: at most ten times a matrix product of the same operation count (measured 3 to 5)."""
    generator = np.random.default_rng(13)
    n_labels, n_positions, batch = 50, 500, 64
    model = NGram((generator.dirichlet(np.ones(n_labels)), generator.dirichlet(np.ones(n_labels), n_labels)))
    scores = torch.log_softmax(torch.from_numpy(3 * generator.normal(size=(batch, n_positions, n_labels))), -1)
    left = torch.from_numpy(generator.normal(size=(batch * n_positions, n_labels)))
    right = model.tables[1]

    def seconds(function):
        start = time.process_time()
        function()
        return time.process_time() - start

    found = unsupervised.sequence_cross_entropy(scores, model, reduction="none")
    assert torch.isfinite(found).all() and found.min() > 100
    pairs = [
        (seconds(lambda: unsupervised.sequence_cross_entropy(scores, model)), seconds(lambda: left @ right))
        for _ in range(7)
    ]
    ours, product = (min(times) for times in zip(*pairs, strict=True))
    assert ours < 10 * product, (ours, product)


def test_float32_and_float64_agree_and_float32_does_not_drift():
    scores = torch.log_softmax(torch.from_numpy(np.random.default_rng(14).normal(size=(4, 400, 3))), -1)
    exact_loss = unsupervised.sequence_cross_entropy(scores, BIGRAM)
    assert float(unsupervised.sequence_cross_entropy(scores.float(), BIGRAM)) == pytest.approx(
        float(exact_loss), rel=1e-6
    )


# Training --------------------------------------------------------------------------------------------------------


def speech(n_sequences=400, n_positions=6, seed=0):
    generator = np.random.default_rng(seed)
    labels = BIGRAM.sample(n_sequences, n_positions, generator)
    return torch.from_numpy(draw(TRUE[labels.ravel()], generator).reshape(labels.shape)), torch.from_numpy(labels)


def test_em_never_raises_the_loss_and_posteriors_sum_to_one():
    symbols, _ = speech()
    starts = training.random_starts(3, 3, 4, np.random.default_rng(0))
    trained = unsupervised.expectation_maximisation(symbols, BIGRAM, starts, 15)
    assert (np.diff(trained.losses, axis=0) < 1e-3).all()  # the pseudo-count may cost a trifle
    posteriors, _ = unsupervised.label_posteriors(unsupervised.generative_scores(trained.best.log(), symbols), BIGRAM)
    assert_allclose(posteriors.sum(-1), 1, atol=1e-10)


def test_first_em_step_from_the_flat_start_is_the_blurred_truth():
    """Spec 6.5: Q1 = W^-1 P^T P O on infinite speech; here all symbol sequences, weighted by their probability."""
    table = BIGRAM.table(3)
    marginal = table.ravel() @ exact.string_emission(TRUE, 3)
    symbols = torch.from_numpy(all_sequences(4, 3))
    flat = torch.full((3, 4), 0.25, dtype=torch.float64)
    posteriors, _ = unsupervised.label_posteriors(unsupervised.generative_scores(flat.log(), symbols), BIGRAM)
    hot = torch.nn.functional.one_hot(symbols, 4).double()
    counts = torch.einsum("s,snc,snx->cx", torch.from_numpy(marginal), posteriors, hot)
    matrix = BIGRAM.matrix(3)
    assert_allclose(counts / counts.sum(1, keepdim=True), matrix.T @ matrix @ TRUE / matrix.sum(0)[:, None], atol=1e-12)


def test_exact_loss_of_the_population_is_the_loss_over_all_sequences():
    models = torch.from_numpy(PRODUCT.reshape(1, -1))
    found = population.speech_distribution(models, torch.from_numpy(TRUE)[None, None])[0, 0]
    scores = unsupervised.generative_scores(torch.from_numpy(TRUE).log(), torch.from_numpy(all_sequences(4, 3)))
    losses = unsupervised.sequence_cross_entropy(scores, from_table(PRODUCT), reduction="none")
    assert_allclose(-found.log(), losses, atol=1e-12)


def test_training_on_a_full_rank_model_removes_the_error_and_on_others_does_not():
    runs = population.train_on_population(["full-rank bigram", "rank-2 product", "i.i.d."], 4, 3, 400, seed=1)
    summary = population.population_summary(runs)
    assert summary.loc["full-rank bigram", "best_mismatch"] < 0.01
    assert summary.loc[["rank-2 product", "i.i.d."], "best_mismatch"].min() > 0.02
    assert summary.loc["full-rank bigram", "bound_used"] < 1
    assert summary.loc["i.i.d.", "best_kl"] < 1e-3, "the speech is fitted all the same"


def test_unsupervised_training_reaches_the_topline_on_a_full_rank_bigram_and_not_where_relabelling_is_free():
    kinds = ["full-rank bigram", "circulant bigram", "i.i.d."]
    against = unsupervised.against_topline(unsupervised.compare_methods(kinds, [0, 1], 1500, 1500, 40, 3))
    assert against.loc["full-rank bigram", "largest"] < 2
    assert against.loc[["circulant bigram", "i.i.d."], "excess"].min() > 5


def test_classifiers_over_their_own_prior_reach_the_topline():
    """The neural form of the loss: the best of the starts by loss, without labels, against paired counts."""
    symbols, labels = speech(1500)
    topline = training.symbol_error(training.supervised_emission(symbols, labels, 3, 4), BIGRAM, symbols, labels)
    posteriors, losses = training.train_posteriors(symbols, BIGRAM, n_symbols=4, n_starts=4, n_steps=150, seed=0)
    assert_allclose(posteriors.sum(-1), 1)
    best = emission_of(posteriors[int(losses.argmin())], symbols)
    assert training.symbol_error(best, BIGRAM, symbols, labels) < topline + 0.02


# Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: NGram(([0.5, 0.4],)), r"sums to 0\.9 after the history \(\), not to one"),
        (lambda: NGram(([0.5, 0.5], [[0.5, 0.5], [0.5, 0.6]])), r"sums to 1\.1 after the history \(1,\)"),
        (lambda: exact.enumerate_models(0.9 * PRODUCT, TRUE, Q), r"language model sums to 0\.9, not to one"),
        (lambda: exact.enumerate_models(PRODUCT, TRUE, 1.1 * Q), "emission of label 0 sums to 1.1"),
        (lambda: exact.enumerate_models(PRODUCT, TRUE[:2], Q), "2 rows, the language model 3 labels"),
        (lambda: exact.enumerate_models(PRODUCT, -TRUE, Q), "probability of -0.7"),
        (lambda: exact.enumerate_models(np.full((9,) * 6, 9.0**-6), np.eye(9), np.eye(9)), "choose smaller ones"),
        (lambda: unsupervised.classification_error_bound(np.full((4, 3), 1 / 3), 0.1), "rank 1, not 3: Condition 2"),
        (lambda: unsupervised.classification_error_bound(np.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]]), 0.1), "rank 2"),
        (lambda: unsupervised.sharp_constant(np.full((4, 3), 1 / 3)), "Condition 2 fails"),
        (lambda: unsupervised.classification_error_bound(np.eye(3) * 0.9, 0.1), "Row 0 .* sums to 0.9"),
        (lambda: unsupervised.classification_error_bound(np.eye(3), -0.1), "marginal_distance is -0.1"),
        (lambda: unsupervised.classification_error_bound(np.eye(3), math.nan), "marginal_distance is nan"),
        (lambda: unsupervised.generative_scores(torch.zeros(3, 4), torch.tensor([[0, 4]])), "unseen symbol 4"),
        (lambda: unsupervised.generative_scores(torch.zeros(3, 4), torch.tensor([[-1]])), "unseen symbol -1"),
        (lambda: estimate_ngram([[0, 3]], 3), "unseen label 3"),
        (lambda: estimate_ngram([[0], []], 3), "Text sequence 1 is empty"),
        (lambda: estimate_ngram([], 3), "no text"),
        (lambda: estimate_ngram([[0, 1]], 2, smoothing=0), "give smoothing above 0"),
        (lambda: unsupervised.sequence_cross_entropy(torch.zeros(2, 0, 3), BIGRAM), "all are empty"),
        (lambda: unsupervised.sequence_cross_entropy(torch.zeros(0, 2, 3), BIGRAM), "no sequence to score"),
        (
            lambda: unsupervised.sequence_cross_entropy(
                torch.zeros(2, 2, 3), BIGRAM, torch.tensor([[True, True], [False, False]])
            ),
            "Sequence 1 of the batch is empty",
        ),
        (
            lambda: unsupervised.sequence_cross_entropy(torch.zeros(1, 2, 3), BIGRAM, torch.tensor([[False, True]])),
            "mask has a hole",
        ),
        (lambda: unsupervised.sequence_cross_entropy(torch.zeros(1, 2, 4), BIGRAM), "3 labels of the language model"),
        (lambda: unsupervised.sequence_cross_entropy(torch.full((1, 2, 3), math.nan), BIGRAM), "NaN or \\+inf"),
        (lambda: unsupervised.sequence_cross_entropy(torch.full((1, 2, 3), -math.inf), BIGRAM), "probability zero"),
        (lambda: unsupervised.posterior_scores(torch.zeros(1, 2, 3)), "sum to 3, not to one"),
        (lambda: unsupervised.posterior_scores(torch.zeros(1, 2, 3), torch.zeros(1, 2) > 0), "all sequences are empty"),
        (lambda: unsupervised.generative_scores(torch.zeros(2, 3), torch.zeros(1, 2)), "whole numbers"),
        (lambda: NGram(([0.5, 0.5], [[0.5, 0.5], [1.0]])), "no array of numbers"),
        (lambda: population.train_on_population(["regular"], 2, 2, 2, 0), "no kind of language model 'regular'"),
        (
            lambda: unsupervised.expectation_maximisation(torch.tensor([[0, 9]]), BIGRAM, torch.ones(1, 3, 4) / 4, 1),
            "unseen symbol 9",
        ),
        (lambda: unsupervised.validate_bound(0, seed=0), "n_instances is 0"),
        (lambda: unsupervised.validate_bound(1, 0, sizes={(4, 2, 3): 1}), "at least as many positions as labels"),
        (lambda: unsupervised.conditioning_sweep([0.0], 1, 0), "variation of the sweep is 0.0"),
        (lambda: unsupervised.conditioning_sweep([1e-12], 1, 0), "none has a matrix of full rank"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_circulant_model_is_what_the_notebook_draws():
    assert_allclose(exact.language_model_matrix(cases.circulant_model()), 1 / 3)
