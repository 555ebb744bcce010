"""Plans, keys, the store and the executors, with trainings that compute nothing."""

import dataclasses
import json
import os
import random
import sys
from pathlib import Path

import dummy_training
import pytest
from dummy_training import make_plan, train
from hypothesis import given, settings
from hypothesis import strategies as st

from cltmlib import sweep
from cltmlib.errors import InputError

LANGUAGES = st.lists(st.sampled_from("ca de es hu ka nl pl ru sw tr".split()), min_size=2, max_size=6, unique=True)
SEEDS = st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True)


@given(LANGUAGES, SEEDS)
def test_plan_has_2n_plus_n_over_2_pairs_per_seed(languages, seeds):
    plan, n = make_plan(languages, seeds), len(languages)
    assert len(plan.trainings) == len(seeds) * (2 * n + n * (n - 1) // 2)
    assert len(plan.cells) == len(seeds) * n * (n + 1)
    assert len({training.key for training in plan.trainings}) == len(plan.trainings)


@given(LANGUAGES, SEEDS)
def test_order_of_languages_changes_no_key(languages, seeds):
    forward, backward = make_plan(languages, seeds), make_plan(languages, seeds, reverse=True)
    assert {t.key for t in forward.trainings} == {t.key for t in backward.trainings}


@given(LANGUAGES)
def test_pair_is_one_training_evaluated_on_both(languages):
    cells = {(cell.target, cell.donor): cell.training for cell in make_plan(languages, [5]).cells}
    for i, j in cells:
        if j not in ("", i):
            assert cells[i, j] is cells[j, i]
            assert set(cells[i, j].test) == {i, j}
            assert cells[i, j].train == tuple(sorted(cells[i, ""].train + cells[j, ""].train))


@given(st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_key_survives_json_and_order_of_the_config(config):
    training = make_plan(["de", "ca"], [0], config).trainings[0]
    shuffled = json.loads(json.dumps(dict(reversed(config.items()))))
    assert dataclasses.replace(training, config=shuffled).key == training.key


@pytest.mark.parametrize(
    "change",
    [
        {"task": "speaker"},
        {"train": ("de-0-1",)},
        {"train": ("de-0-2", "de-0-1")},
        {"test": {"de": ("de-test-0",)}},
        {"test": {"ca": ("de-test-0", "de-test-1", "de-test-2")}},
        {"seed": 1},
        {"config": {"learning_rate": 1e-5}},
    ],
    ids=str,
)
def test_every_ingredient_changes_the_key(change):
    training = make_plan(["de", "ca"], [0], {"learning_rate": 1e-4}).trainings[0]
    assert dataclasses.replace(training, **change).key != training.key


def test_label_is_not_part_of_the_key():
    training = make_plan(["de", "ca"], [0]).trainings[0]
    assert dataclasses.replace(training, label="other").key == training.key


def test_config_may_depend_on_the_clips_of_a_training():
    plan = make_plan(["de", "ca"], [0], lambda ids: {"clips": sorted(ids)})
    pair = next(t for t in plan.trainings if t.label == "de+ca seed 0")
    assert pair.config["clips"] == sorted([*pair.train, *pair.test["de"], *pair.test["ca"]])


CURVES = {  # sets[seed][language][n]; the D_i of 2 clips is that of make_plan
    seed: {i: {n: [f"{i}-{seed}-{k}" for k in range(n, 0, -1)] for n in (1, 2, 4)} for i in ("de", "ca", "tr")}
    for seed in (0, 1)
}
TESTS = {i: [f"{i}-test-{n}" for n in range(3)] for i in ("de", "ca", "tr")}


def test_a_learning_curve_has_one_training_per_seed_language_and_size():
    points = sweep.curve_plan("dummy", CURVES, TESTS, {})
    assert [(p.seed, p.language, p.n_samples) for p in points] == [
        (seed, i, n) for seed in (0, 1) for i in ("de", "ca", "tr") for n in (1, 2, 4)
    ]
    assert len({p.training.key for p in points}) == len(points) == 18
    for point in points:
        training = point.training
        assert training.task == "dummy" and training.seed == point.seed
        assert training.train == tuple(sorted(CURVES[point.seed][point.language][point.n_samples]))
        assert training.test == {point.language: tuple(sorted(TESTS[point.language]))}
        assert training.label == f"{point.language} N={point.n_samples} seed {point.seed}"


@pytest.mark.parametrize("config", [{"learning_rate": 1e-4}, lambda ids: {"clips": list(ids)}])
def test_points_whose_clips_are_those_of_the_matrix_are_its_trainings(config):
    """D_i at N and, where the shares are equal, D_i + D'_i at 2N: what one notebook trained, the next one finds."""
    plan = make_plan(["tr", "de", "ca"], [0, 1], config)
    points = sweep.curve_plan("dummy", CURVES, {i: ids[::-1] for i, ids in TESTS.items()}, config)
    cells = {(c.target, c.donor, c.seed): c.training.key for c in plan.cells}
    for point in points:
        donor = {2: "", 4: point.language}.get(point.n_samples)
        expected = cells.get((point.language, donor, point.seed))
        assert point.training.key == expected if expected else point.training.key not in cells.values()


@pytest.mark.parametrize("change", ["task", "clips", "tests", "seed", "config"])
def test_a_point_that_differs_from_the_matrix_in_anything_is_another_training(change):
    sets = {1 if change == "seed" else 0: {"de": {2: ["de-0-1", "de-0-9" if change == "clips" else "de-0-2"]}}}
    tests = {"de": TESTS["de"][: 2 if change == "tests" else 3]}
    config = {"learning_rate": 1e-5} if change == "config" else {}
    (point,) = sweep.curve_plan("other" if change == "task" else "dummy", sets, tests, config)
    assert point.training.key not in {t.key for t in make_plan(["de", "ca"], [0]).trainings}


def test_the_table_of_curves_has_a_row_per_point_as_the_dynamic_interval_takes_it(tmp_path):
    from cltmlib.cltm import dynamic_interval

    points = sweep.curve_plan("dummy", CURVES, TESTS, {})
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        results = sweep.run([p.training for p in points], train, store, n_workers=1)
    table = sweep.curve_table(points, results, "f1")
    assert list(table.columns) == ["language", "n_samples", "seed", "performance"] and len(table) == 18
    for row in table.itertuples():
        clips = tuple(sorted(CURVES[row.seed][row.language][row.n_samples]))
        assert row.performance == dummy_training.f1(clips, row.seed, row.language)
    assert dynamic_interval(table).n in (1, 2)
    assert list(sweep.curve_table([], {}, "f1").columns) == list(table.columns)


@settings(max_examples=20, deadline=None)
@given(shuffle=st.randoms(use_true_random=False), done=st.integers(0, 11))
def test_results_are_independent_of_order_and_of_what_was_finished(tmp_path_factory, shuffle, done):
    plan = make_plan(["de", "ca", "tr"], [3])
    trainings = plan.trainings
    shuffle.shuffle(trainings)
    with sweep.RunStore(tmp_path_factory.mktemp("store") / "runs.sqlite") as store:
        sweep.run(trainings[:done], train, store, n_workers=1)
        table = sweep.performance_table(plan, sweep.run(trainings, train, store, n_workers=1), "f1")
    assert list(table.target[:5]) == ["de"] * 4 + ["ca"] and list(table.donor[:4]) == ["", "de", "ca", "tr"]
    cells = {(c.target, c.donor): c.training for c in plan.cells}
    for row in table.itertuples():
        expected = dummy_training.f1(cells[row.target, row.donor].train, 3, row.target)
        assert row.performance == expected


def test_workers_and_one_process_give_the_same_results(tmp_path):
    plan = make_plan(["de", "ca", "tr"], [0])
    with sweep.RunStore(tmp_path / "one.sqlite") as store:
        one = sweep.run(plan.trainings, train, store, n_workers=1)
    with sweep.RunStore(tmp_path / "two.sqlite") as store:
        two = sweep.run(random.sample(plan.trainings, len(plan.trainings)), train, store, n_workers=3)
    assert one == two


def test_duplicates_are_trained_once(tmp_path):
    log = tmp_path / "log"
    trainings = make_plan(["de", "ca"], [0], {"log": str(log)}).trainings
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        results = sweep.run(trainings + trainings, train, store, n_workers=1)
        assert len(store) == len(results) == 5
    assert len(log.read_text().splitlines()) == 5


@pytest.mark.parametrize("n_workers", [1, 2])
def test_trainings_compute_on_one_thread(tmp_path, n_workers):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        results = sweep.run(make_plan(["de", "ca"], [0]).trainings, dummy_training.threads, store, n_workers=n_workers)
    assert {result["threads"] for result in results.values()} == {1}
    assert torch.get_num_threads() == before


@given(st.floats(allow_nan=False), st.integers(), st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=25, deadline=None)
def test_store_gives_back_exactly_what_was_added(tmp_path_factory, number, whole, text):
    training = make_plan(["de", "ca"], [0]).trainings[0]
    path = tmp_path_factory.mktemp("store") / "runs.sqlite"
    with sweep.RunStore(path) as store:
        result = {"number": number, "list": [whole], text: None}
        assert store.add(training, result, 1.5, "2026-01-01T00:00:00+00:00") == result
    store = sweep.RunStore.read(path)
    assert store.finished([training.key, "unknown"]) == {training.key: result}
    assert store.durations("dummy") == [1.5] and store.durations("speaker") == []
    store.close()


def test_sweep_runs_in_processes_from_a_notebook(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{root / 'tests'}")
    source = f"""
import dummy_training, torch
from cltmlib import sweep
with sweep.RunStore({str(tmp_path / "runs.sqlite")!r}) as store:
    results = sweep.run(dummy_training.make_plan(["de", "ca"], [0]).trainings, dummy_training.train, store, n_workers=2)
len(results)"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs  # no bar, no warning
    assert output.data["text/plain"] == "5"


def test_progress_is_told_to_the_study(tmp_path, monkeypatch):
    monkeypatch.setenv("CLTM_PROGRESS", str(tmp_path / "progress.json"))
    trainings = make_plan(["de", "ca"], [0]).trainings
    with sweep.RunStore(tmp_path / "runs.sqlite") as store:
        sweep.run(trainings[:2], train, store, n_workers=1)
        told = json.loads((tmp_path / "progress.json").read_text())
        assert (told["done"], told["total"], told["seconds_left"]) == (2, 2, 0)
        sweep.run(trainings, train, store, n_workers=1)
    assert json.loads((tmp_path / "progress.json").read_text())["done"] == 5
    assert [path.name for path in tmp_path.glob("progress*")] == ["progress.json"]


def test_missing_ray_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with sweep.RunStore(tmp_path / "runs.sqlite") as store, pytest.raises(InputError, match=r"cltmlib\[ray\]"):
        sweep.run(make_plan(["de", "ca"], [0]).trainings, train, store, executor="ray")


def test_ray_gives_the_results_of_local_and_passes_refusals_on(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="optional extra 'ray' is not installed")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    trainings = make_plan(["de", "ca"], [0]).trainings
    refused = make_plan(["de", "ca"], [1], {"fail": "ca seed 1"}).trainings
    with sweep.RunStore(tmp_path / "refused.sqlite") as store, pytest.raises(InputError, match="cannot be done: mend"):
        sweep.run(refused, train, store, executor="ray", n_workers=2)
    lost = make_plan(["de", "ca"], [2], {"die": "ca seed 2"}).trainings
    with sweep.RunStore(tmp_path / "lost.sqlite") as store, pytest.raises(InputError, match="Ray lost the training"):
        sweep.run(lost, train, store, executor="ray", n_workers=2)
    with sweep.RunStore(tmp_path / "ray.sqlite") as store:
        ray = sweep.run(trainings, train, store, executor="ray", n_workers=2)
    with sweep.RunStore(tmp_path / "local.sqlite") as store:
        assert ray == sweep.run(trainings, train, store, n_workers=1)


def test_unknown_executor_is_one_sentence(tmp_path):
    with sweep.RunStore(tmp_path / "runs.sqlite") as store, pytest.raises(InputError, match="local or ray"):
        sweep.run(make_plan(["de", "ca"], [0]).trainings, train, store, executor="slurm")
