"""The README's example of a task outside the library: what stands there runs, and is short."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from cltmlib import finetune, sweep
from cltmlib.cltm import TransferMatrix
from cltmlib.testing import common_voice_folder, read_tsv, write_tsv

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```$", README.split("## Adding a task")[1].split("\n## ")[0], re.M | re.S)


def tell_ages(release):
    """Women are in their twenties, men in their fourties, but for one who does not tell."""
    for tsv in release.glob("*/*.tsv"):
        table = read_tsv(tsv)
        table["age"] = table["gender"].map({"female_feminine": "twenties", "male_masculine": "fourties"})
        table.loc[table["client_id"] == table["client_id"].max(), "age"] = ""
        write_tsv(tsv, table)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the example and a small release."""
    (tmp_path / "my_tasks").mkdir()
    (tmp_path / "my_tasks" / "age.py").write_text(EXAMPLE, encoding="utf-8")
    tell_ages(common_voice_folder(tmp_path / "release", ["de", "no"], n_speakers=5))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_tasks", "my_tasks.age"):
        sys.modules.pop(name, None)


def test_a_new_task_takes_less_than_60_lines():
    assert len(EXAMPLE.splitlines()) < 60


def run_example():
    """What ``python -m my_tasks.age smoke release de no`` leaves in its variables."""
    sys.modules.pop("my_tasks.age", None)
    return runpy.run_module("my_tasks.age", run_name="__main__")


@pytest.mark.filterwarnings("ignore:Self-gain not positive")  # 8 clips teach nothing
def test_the_example_of_the_readme_gives_a_transfer_matrix(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["age.py", "smoke", "release", "de", "no"])
    first = run_example()
    matrix, data = first["matrix"], first["data"]
    assert isinstance(matrix, TransferMatrix)
    assert list(matrix.values.index) == list(matrix.values.columns) == ["de", "no"] and matrix.n_seeds == 2
    assert capsys.readouterr().out == f"{matrix.values.round(2)}\n"
    groups = data.utterances["age_group"]
    assert (
        groups.notna().all() and (groups == data.utterances["gender"].map({"female": "younger", "male": "older"})).all()
    )
    for parts in data.subsets[0].values():
        assert [groups[list(part)].value_counts().to_dict() for part in parts] == [{"younger": 4, "older": 4}] * 2
    with sweep.RunStore.read("age/runs.sqlite") as store:
        assert len(store) == len(first["plan"].trainings) == 10
    table = sweep.performance_table(first["plan"], first["results"], "f1_macro")
    assert len(table) == 2 * (2 + 2 * 2) and table["performance"].between(0, 1).all()
    monkeypatch.setattr(finetune, "run_training", None)  # all of it is in the store
    assert run_example()["results"] == first["results"]
