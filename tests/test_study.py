"""The console command on a throw-away repository with a notebook that trains nothing."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from dummy_training import make_plan, train

from cltmlib import cltm, common_space, params, planning, study, sweep
from cltmlib.__main__ import main
from cltmlib.errors import InputError
from cltmlib.subsets import ByClass, BySpeaker, Prepared
from cltmlib.testing import utterance_rows

ROOT = Path(__file__).parents[1]
CELLS = [
    "import json, os, sys, time\nfrom cltmlib.params import load\ncfg = load('02_gr_cltm', globals())",
    "from cltmlib import paths\nfolder = paths.output_folder(cfg.output_dir)",
    "told = {'python': sys.executable, 'progress': os.environ['CLTM_PROGRESS'], 'seeds': cfg.seeds}",
    "(folder / 'told.json').write_text(json.dumps(told))",
    "from cltmlib.errors import InputError",
    "if cfg.n_samples == 13:\n    raise InputError('Thirteen clips bring no luck.')",
    "if cfg.n_samples == 14:\n    1 / 0",
    "if cfg.n_samples == 15:\n    time.sleep(600)",
]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one notebook, whose parameters cell is the smoke profile, entered."""
    repository = tmp_path / "repository"
    (repository / "notebooks").mkdir(parents=True)
    (repository / "pyproject.toml").write_text("")
    for profile in ("smoke", "paper"):
        (repository / "params" / profile).mkdir(parents=True)
        source = ROOT / "params" / profile / "02_gr_cltm.yaml"
        (repository / "params" / profile / source.name).write_text(source.read_text())
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    values = study.parameters.read_profile("smoke", "02_gr_cltm")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    cells.insert(0, nbformat.v4.new_code_cell(lines, metadata={"tags": ["parameters"]}))
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, repository / "notebooks" / "02_gr_cltm.ipynb")
    return repository


def files(repository):
    folder = repository / "outputs" / "smoke" / "02_gr_cltm"
    return {path.name for path in folder.glob("*") if not path.name.startswith(".")} if folder.is_dir() else set()


def test_run_executes_with_profile_overrides_and_this_python(repository, capsys):
    assert main(["run", "--profile", "smoke", "--notebook", "02", "-p", "seeds", "[4, 5]"]) == 0
    assert files(repository) == {"executed.ipynb", "told.json"}
    told = json.loads((repository / "outputs/smoke/02_gr_cltm/told.json").read_text())
    assert told["seeds"] == [4, 5]
    assert told["python"] == sys.executable
    out, err = capsys.readouterr()
    assert "02_gr_cltm (smoke) finished" in out and "outputs/smoke/02_gr_cltm" in out and err == ""
    assert "CLTM_PROGRESS" not in os.environ
    main(["list"])
    assert "finished 2" in capsys.readouterr().out


def test_error_of_the_user_in_a_notebook_is_one_sentence(repository, capsys):
    assert main(["run", "--profile", "smoke", "-p", "n_samples", "13"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Thirteen clips bring no luck." and len(lines) == 2 and "failed.ipynb" in lines[1]
    assert files(repository) == {"failed.ipynb", "told.json"}
    assert main(["run", "--profile", "smoke"]) == 0
    assert files(repository) == {"executed.ipynb", "told.json"}


def test_any_other_error_names_notebook_and_cell_without_a_traceback(repository, capsys):
    assert main(["run", "--profile", "smoke", "-p", "n_samples", "14"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "02_gr_cltm failed in cell [9] with ZeroDivisionError: division by zero" in lines[0]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["-p", "seedz", "[0]"], "did you mean 'seeds'?"),
        (["-p", "n_samples", "many"], "Parameter 'n_samples' is 'many'"),
        (["-p", "corpus", "common_voice"], "'corpus_dir' is null"),
        (["--profile", "maxi"], "params/maxi/02_gr_cltm.yaml"),
        (["--notebook", "09"], "no notebook '09'"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_bad_input_is_one_sentence_before_anything_starts(repository, capsys, words, sentence):
    words = words if "--profile" in words else ["--profile", "smoke", *words]
    assert main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert sentence in err and len(err.splitlines()) == 1 and out == ""
    assert not (repository / "outputs").exists()


def start(*words):
    command = [sys.executable, "-m", "cltmlib", "run", "--profile", "smoke", *words]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores Ctrl-C, and
    try:  # so would its children
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, heard)


def test_second_run_at_the_same_time_is_refused_and_ctrl_c_says_how_to_resume(repository, capsys):
    first = start("-p", "n_samples", "15")
    told = repository / "outputs/smoke/02_gr_cltm/told.json"
    end = time.monotonic() + 60
    while not told.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    assert main(["run", "--profile", "smoke"]) == 1
    assert "already running" in capsys.readouterr().err
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert err.strip() == "Stopped. Run the same command again to go on: finished trainings are kept."
    assert files(repository) == {"failed.ipynb", "told.json"}


@pytest.fixture
def three_notebooks(repository):
    """The repository with two more notebooks, which can be planned but not run."""
    for name in set(study.parameters.NOTEBOOKS) - {"02_gr_cltm"}:
        (repository / "notebooks" / f"{name}.ipynb").touch()
        for profile in ("smoke", "paper"):
            source = ROOT / "params" / profile / f"{name}.yaml"
            (repository / "params" / profile / source.name).write_text(source.read_text())
    return repository


def planned(capsys, *words):
    """What ``cltm plan`` prints: {notebook: its columns}, and the notes in one line."""
    assert main(["plan", *words]) == 0
    out = capsys.readouterr().out
    table, _, notes = out.partition("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[0]: row[1:] for row in rows}, " ".join(notes.split())


def test_plan_counts_trainings_and_says_what_it_goes_by(repository, capsys):
    rows, notes = planned(capsys)
    assert rows["02_gr_cltm"][:2] == [str(10 * (54 + 54 + 54 * 53 // 2)), "0"]
    assert "an estimate" in notes and "54 D_i" in notes

    plan = make_plan(["de", "ca"], [0])
    with sweep.RunStore(repository / "outputs" / "smoke" / "runs.sqlite") as store:
        for training in plan.trainings:
            gender = type(training)("gender", training.train, training.test, 0)
            store.add(gender, train(gender), 3600.0, "2026-01-01T00:00:00+00:00")
    rows, notes = planned(capsys, "--profile", "smoke")
    assert rows["02_gr_cltm"][:4] == ["18", "5", "~18.0", "h"]
    assert "measured on 5" in notes
    main(["list"])
    assert capsys.readouterr().out.splitlines()[-1].split()[-3:] == ["5", "-", "-"]


def test_every_notebook_has_a_plan(three_notebooks, capsys):
    rows, notes = planned(capsys, "--profile", "paper")
    assert list(rows) == list(study.parameters.NOTEBOOKS)
    n_pairs = math.comb(44, 2)
    assert [row[:2] for row in rows.values()] == [
        [str(10 * 44 * (5 + 5)), "0"],
        [str(10 * (54 + 54 + math.comb(54, 2))), "0"],
        [str(10 * (44 + 44 + n_pairs + 1)), "0"],
        ["34", "0"],
        ["24", "0"],
        ["2410", "-"],
        [str(5 * (9 + 9 + math.comb(9, 2) + 3 + 2 * 3 * 2 + 2)), "0"],
    ]
    assert "01_learning_curves: 10 seeds x 44 languages x 10 sizes." in notes
    assert "03_sv_cltm: 10 seeds x (44 D_i + 44 D_i+D'_i + 946 pairs), 1000 clips in D_i + 10 of all" in notes


def test_n_samples_are_clips_per_gender_in_02_and_all_clips_in_03(three_notebooks, capsys):
    notes = {name: planned(capsys, "--notebook", name, "-p", "n_samples", "50")[1] for name in ("02", "03")}
    assert ", 100 clips in D_i" in notes["02"] and ", 50 clips in D_i" in notes["03"]


def test_auto_without_a_chosen_interval_is_a_note_and_the_other_plans_stand(three_notebooks, capsys):
    profile = three_notebooks / "params" / "smoke" / "03_sv_cltm.yaml"
    profile.write_text(profile.read_text().replace("n_samples: 12", 'n_samples: "auto"'))
    rows, notes = planned(capsys, "--profile", "smoke")
    assert rows["03_sv_cltm"] == ["-"] * 4 and rows["02_gr_cltm"][0] == "18"
    assert "03_sv_cltm: Parameter 'n_samples' is auto, but there is no outputs/smoke/01_learning_curves/" in notes
    assert "run notebook 01_learning_curves first, or give a number." in notes


def test_auto_plans_with_the_interval_of_the_task(three_notebooks, capsys):
    chosen = {
        task: SimpleNamespace(n=n, two_n=2 * n, score=2.0, is_valid=True)
        for task, n in (("gender", 7), ("speaker", 31))
    }
    curves = study.configure("smoke", "01_learning_curves")
    cltm.save_chosen(curves.output_dir, curves, chosen)
    for number, n_clips in (("02", 14), ("03", 31)):
        rows, notes = planned(capsys, "--profile", "smoke", "--notebook", number, "-p", "n_samples", "auto")
        assert f", {n_clips} clips in D_i" in notes
        assert next(iter(rows.values()))[0] == {"02": "18", "03": "24"}[number]


TINY = {
    "languages": ["de", "tr", "ca"],
    "seeds": [4, 7],
    "max_test_samples": 6,  # per gender; the corpus below has 24
    "speakers_per_sample": 0.5,
    "gender_n_samples": [1, 2, 4],
    "speaker_n_samples": [4, 8],
}
CORPUS = utterance_rows(TINY["languages"], n_speakers=6, n_clips=4)
DESIGNS = {"gender": ByClass(None, 6), "speaker": BySpeaker(0.5, 6)}


def tiny(notebook, **others):
    values = study.parameters.read_profile("smoke", notebook)
    return params.resolve(notebook, {**values, **{k: v for k, v in TINY.items() if k in values}, **others})


def amount(trainings):
    """Number of trainings, clips trained on and clips evaluated, one after the other."""
    n_trained = sum(len(training.train) for training in trainings)
    n_evaluated = sum(len(ids) for training in trainings for ids in training.test.values())
    # Verification embeds the training clips too, for the mean of their language.
    return len(trainings), n_trained, n_evaluated + sum(len(t.train) for t in trainings if t.task == "speaker")


def n_clips(trainings):
    """Different clips of each task: these are decoded, each task with its own trimming."""
    clips = {(t.task, u) for t in trainings for ids in (t.train, *t.test.values()) for u in ids}
    return len(clips)


def matrix_of(task, n_samples):
    subsets = DESIGNS[task].subsets(CORPUS, TINY["languages"], n_samples, TINY["seeds"])
    tests = DESIGNS[task].tests(CORPUS, TINY["languages"])
    return subsets, tests, sweep.cltm_plan(task, subsets, tests, TINY["seeds"], {}).trainings


def test_planned_work_of_the_gender_matrix_is_that_of_its_trainings():
    work = planning._WORK["02_gr_cltm"](tiny("02_gr_cltm", n_samples=2))
    _, _, trainings = matrix_of("gender", 2)
    assert (work.n_trainings, work.n_trained, work.n_evaluated) == amount(trainings)
    assert work.n_trainings == 18 and work.tasks == ("gender",) and n_clips(trainings) <= work.n_decoded


@pytest.mark.parametrize("languages", [["de", "tr"], ["ca", "sw", "de"], ["sw", "pl"], None])
def test_planned_work_of_the_verification_matrix_includes_the_common_and_the_shared_models(languages):
    work = planning._WORK["03_sv_cltm"](tiny("03_sv_cltm", n_samples=4, shared_languages=languages))
    subsets, tests, trainings = matrix_of("speaker", 4)
    shared = utterance_rows(languages or [], n_speakers=3, n_clips=2, splits=["test"])  # 12 clips of each language
    shared["utterance_id"] = shared["utterance_id"].str.replace("/", "/shared-")
    rows = pd.concat([CORPUS, shared]).set_index("utterance_id")
    data = Prepared(None, subsets, tests, rows, pd.DataFrame())
    extra = common_space.plan(data, shared["utterance_id"], TINY["seeds"], lambda ids: {})
    trainings = [*trainings, *extra.values()]
    assert len({training.key for training in trainings}) == len(trainings)
    assert (work.n_trainings, work.n_trained, work.n_evaluated) == amount(trainings)
    assert work.tasks == ("speaker",) and n_clips(trainings) <= work.n_decoded


@pytest.mark.parametrize("left_out", [None, "gender", "speaker"])
def test_planned_work_of_the_learning_curves_is_that_of_their_trainings(left_out):
    others = {f"{left_out}_n_samples": []} if left_out else {}
    work = planning._WORK["01_learning_curves"](tiny("01_learning_curves", **others))
    points = []
    for task, design in DESIGNS.items():
        if task != left_out:
            sets = design.curves(CORPUS, TINY["languages"], TINY[f"{task}_n_samples"], TINY["seeds"])
            points += sweep.curve_plan(task, sets, design.tests(CORPUS, TINY["languages"]), {})
    trainings = [point.training for point in points]
    assert (work.n_trainings, work.n_trained, work.n_evaluated) == amount(trainings)
    assert work.tasks == tuple(task for task in DESIGNS if task != left_out)
    assert n_clips(trainings) <= work.n_decoded


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599.6, "59 min 59 s"), (7200, "2.0 h"), (172800, "2.0 days")],
)
def test_a_time_is_told_in_the_unit_a_person_would_use(seconds, text):
    assert planning.duration(seconds) == text


def test_a_plan_is_made_without_loading_torch(repository):
    lines = [
        "import sys",
        "from cltmlib.__main__ import main",
        "main(['plan', '--profile', 'smoke'])",
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "02_gr_cltm" in done.stdout and done.stdout.splitlines()[-1] == "set()"


def test_list_of_a_notebook_tells_its_parameters(repository, capsys):
    assert main(["list", "--notebook", "02"]) == 0
    out = capsys.readouterr().out
    for name in study.parameters.NOTEBOOKS["02_gr_cltm"]:
        assert f"\n  {name} " in out
    assert max(map(len, out.splitlines())) < 80


def test_help_fits_a_terminal_and_starts_quickly(monkeypatch):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    for words in ([], ["run"], ["plan"], ["list"]):
        command = [sys.executable, "-X", "importtime", "-m", "cltmlib", *words, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert max(map(len, done.stdout.splitlines())) <= 80
        imported = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines()}
        assert not imported & {"torch", "pandas", "numpy", "papermill", "transformers", "yaml"}


def test_outside_a_repository_is_one_sentence(monkeypatch, tmp_path):
    from cltmlib import paths

    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site-packages" / "cltmlib" / "paths.py"))
    with pytest.raises(InputError, match="change into your clone"):
        paths._root_from(tmp_path)


def test_run_store_is_shared_by_the_notebooks_of_a_profile(repository):
    from cltmlib import paths

    assert paths.store_file("outputs/mini/02_gr_cltm") == repository / "outputs" / "mini" / "runs.sqlite"
    assert paths.store_file(repository.parent / "mine") == repository.parent / "mine" / "runs.sqlite"
