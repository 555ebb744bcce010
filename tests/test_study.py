"""The console command on a throw-away repository with a notebook that trains nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from dummy_training import make_plan, train

from cltmlib import study, sweep
from cltmlib.__main__ import main
from cltmlib.errors import InputError

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
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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


def test_plan_counts_trainings_and_says_what_it_goes_by(repository, capsys):
    assert main(["plan"]) == 0
    out = capsys.readouterr().out
    assert str(10 * (54 + 54 + 54 * 53 // 2)) in out.splitlines()[1].split()
    assert "an estimate" in out and "54 D_i" in out

    plan = make_plan(["de", "ca"], [0])
    with sweep.RunStore(repository / "outputs" / "smoke" / "runs.sqlite") as store:
        for training in plan.trainings:
            gender = type(training)("gender", training.train, training.test, 0)
            store.add(gender, train(gender), 3600.0, "2026-01-01T00:00:00+00:00")
    assert main(["plan", "--profile", "smoke"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[:5] == ["02_gr_cltm", "18", "5", "~18.0", "h"]
    assert "measured on 5" in out
    main(["list"])
    assert capsys.readouterr().out.splitlines()[-1].split()[-3:] == ["5", "-", "-"]


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
