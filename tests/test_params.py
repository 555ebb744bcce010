"""What the first cell of a notebook accepts, and that the parameter files agree with the notebooks."""

import ast
import json
import pickle
import string
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cltmlib import params, paths
from cltmlib.errors import InputError

NOTEBOOK = "02_gr_cltm"
SMOKE = params.read_profile("smoke", NOTEBOOK)
OWN = {  # values of the parameters that other notebooks have
    "gender_n_samples": [2, 4], "speaker_n_samples": [6, 12], "speakers_per_sample": 0.25, "embedding_layers": 4,
    "trim_db": None, "shared_languages": ["de", "tr"], "gender_batch_size": None, "gender_learning_rate": None,
    **params.read_profile("smoke", "07_asr_cltm"),
    **params.read_profile("smoke", "06_unsupervised_asr"), **params.read_profile("smoke", "04_whisper_weighted_ce"),
    "low_resource_language": "gl",
    **{k: v for k, v in params.read_profile("smoke", "05_potsa_ablations").items() if k in params._SPEECH_LLM},
    "n_steps": 4, "warmup_steps": 1,
}  # fmt: skip
CASES = [(notebook, name) for notebook, names in params.NOTEBOOKS.items() for name in names]


def load(**changes):
    return params.load(NOTEBOOK, {**SMOKE, **changes})


def load_other(notebook, **changes):
    """Load the parameters of any notebook, all right but for the changes."""
    values = {**OWN, **SMOKE}
    return params.load(notebook, {name: values[name] for name in params.NOTEBOOKS[notebook]} | changes)


def papermill_value(text):
    """What ``papermill -p NAME text`` injects."""
    from papermill.cli import _resolve_type

    return _resolve_type(text)


def test_parameters_are_read_only_and_come_back_as_plain_values():
    cfg = load()
    assert cfg.languages == ("de", "ca", "tr") and cfg["n_samples"] == cfg.n_samples == SMOKE["n_samples"]
    assert json.loads(json.dumps(cfg.as_dict())) == cfg.as_dict() == SMOKE
    with pytest.raises(AttributeError, match="read only"):
        cfg.seeds = [3]
    with pytest.raises(AttributeError, match="no parameter 'sedes'"):
        cfg.sedes  # noqa: B018
    copy = pickle.loads(pickle.dumps(cfg))
    assert copy == cfg and copy.hash == cfg.hash and copy.notebook == NOTEBOOK


@given(st.text(string.ascii_letters, min_size=1).filter(lambda name: name not in params.TABLE))
def test_unknown_parameter_is_named(name):
    with pytest.raises(InputError, match=f"Unknown parameter '{name}'"):
        load(**{name: 1})


def test_unknown_parameter_comes_with_the_closest_known():
    for wrong, right in {"seed": "seeds", "Languages": "languages", "learning-rate": "learning_rate"}.items():
        with pytest.raises(InputError, match=f"did you mean '{right}'"):
            load(**{wrong: 1})


@pytest.mark.parametrize("value", [True, {}, [[]], float("nan"), -1, object()], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", params.TABLE)
def test_value_of_a_wrong_type_names_the_parameter(name, value):
    if value == -1 and params.TABLE[name].kind == "text" and not params.TABLE[name].choices:
        pytest.skip("a folder may be called -1")
    notebook = next(notebook for notebook, names in params.NOTEBOOKS.items() if name in names)
    with pytest.raises(InputError, match=f"Parameter '{name}' "):
        load_other(notebook, **{name: value})


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("languages", '["de", "ca"]', ("de", "ca")),
        ("languages", "[no, de]", ("no", "de")),
        ("languages", "['zh-CN', hy-AM]", ("zh-CN", "hy-AM")),
        ("languages", "de, ca", ("de", "ca")),
        ("seeds", "[0, 1]", (0, 1)),
        ("seeds", "3,4", (3, 4)),
        ("seeds", "[7]", (7,)),
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", "1", 1.0),
        ("n_samples", "60", 60),
        ("n_samples", "6e1", None),
        ("n_samples", "60.5", None),
        ("n_samples", "0", None),
        ("n_samples", "True", None),
        ("seeds", "3", None),
        ("seeds", "[a]", None),
        ("languages", "de", None),
        ("languages", "[de, de]", None),
        ("languages", "[de, [ca]]", None),
        ("languages", "[de", None),
        ("languages", "[German, ca]", None),
        ("seeds", "[1, 1]", None),
        ("seeds", "[-1]", None),
        ("max_seconds", "null", "null"),
        ("max_seconds", "None", "null"),
        ("max_seconds", "inf", None),
        ("encoder", "", None),
        ("precision", "fp16", None),
        ("device", "gpu", None),
    ],
)
def test_words_of_the_command_line_have_one_reading(name, text, value):
    for given_value in (text, papermill_value(text)):  # cltm run -p, papermill -p
        if (name, text) == ("n_samples", "6e1") and given_value == 60.0:
            continue  # papermill makes it a number, and a whole one
        if value is None:
            with pytest.raises(InputError, match=f"Parameter '{name}' "):
                load(**{name: given_value})
        else:
            found = load(**{name: given_value})[name]
            assert found == (None if value == "null" else value)
            assert type(found) is not bool and isinstance(found, float) == (name in ("learning_rate",))


@pytest.mark.parametrize(
    "text, value",
    [
        ("[8, 16, 32]", (8, 16, 32)),
        ("[8,16]", (8, 16)),
        ("8, 16", (8, 16)),
        ("8,16", (8, 16)),
        ("[8]", (8,)),
        ("8", (8,)),
        ("[]", ()),
        (" [ ] ", ()),
        ("", ()),
        ("[16, 8]", None),
        ("[8, 8]", None),
        ("[1, 8]", None),
        ("1", None),
        ("[0, 8]", None),
        ("[-8, 8]", None),
        ("[8, 16.5]", None),
        ("[8, a]", None),
        ("[8, [16]]", None),
        ("[8", None),
        ("8 16", None),
        ("auto", None),
        ("null", None),
        ("None", None),
        ("True", None),
    ],
)
def test_sizes_of_the_command_line_have_one_reading(text, value):
    for given_value in (text, papermill_value(text)):  # cltm run -p, papermill -p
        if value is None:
            with pytest.raises(InputError, match="Parameter 'speaker_n_samples' is ") as caught:
                load_other("01_learning_curves", speaker_n_samples=given_value)
            assert "\n" not in str(caught.value)
        else:
            found = load_other("01_learning_curves", speaker_n_samples=given_value).speaker_n_samples
            assert found == value and all(type(size) is int for size in found)


@given(st.lists(st.integers(-2, 40), max_size=5))
def test_sizes_rise_from_the_least_that_makes_sense_or_there_are_none(sizes):
    """One clip per gender tells two classes apart; no speaker verification with a single clip."""
    for name, least in (("gender_n_samples", 1), ("speaker_n_samples", 2)):
        if sizes == sorted(set(sizes)) and all(size >= least for size in sizes):
            cfg = load_other("01_learning_curves", **{name: sizes})
            assert cfg[name] == tuple(sizes) and cfg.as_dict()[name] == sizes
            assert load_other("01_learning_curves", **{name: str(sizes)}).hash == cfg.hash
        else:
            with pytest.raises(InputError, match=rf"Parameter '{name}' is \[.*must be a list of rising whole numbers"):
                load_other("01_learning_curves", **{name: sizes})


@pytest.mark.parametrize("notebook", ["02_gr_cltm", "03_sv_cltm"])
def test_n_samples_is_a_number_or_the_word_auto(notebook):
    assert load_other(notebook, n_samples="auto").n_samples == "auto"
    assert load_other(notebook, n_samples="12").n_samples == load_other(notebook, n_samples=12).n_samples == 12
    assert load_other(notebook, n_samples="auto").hash != load_other(notebook, n_samples=12).hash
    for wrong in ("Auto", "auto ", "automatic", 0, None, "null", ["auto"]):
        with pytest.raises(InputError, match=r"Parameter 'n_samples' is .*number of at least 1 or auto\."):
            load_other(notebook, n_samples=wrong)


def test_auto_is_for_parameters_that_say_so():
    automatic = [name for name, parameter in params.TABLE.items() if parameter.auto]
    assert automatic == ["n_samples"]
    for name in ("batch_size", "max_test_samples", "samples_per_speaker", "n_workers", "learning_rate", "seeds"):
        with pytest.raises(InputError, match=f"Parameter '{name}' "):
            load(**{name: "auto"})
    assert load(device="auto").device == "auto"  # a choice of its own


@pytest.mark.parametrize("notebook, name", CASES)
def test_every_parameter_of_every_notebook_is_needed(notebook, name):
    values = {**OWN, **SMOKE}
    rest = {other: values[other] for other in params.NOTEBOOKS[notebook] if other != name}
    with pytest.raises(InputError, match=f"Parameter '{name}' of notebook {notebook} is missing"):
        params.load(notebook, rest)


def test_parameters_of_another_notebook_are_unknown():
    for notebook, name in (("02_gr_cltm", "speakers_per_sample"), ("03_sv_cltm", "samples_per_speaker")):
        with pytest.raises(InputError, match=f"Unknown parameter '{name}' of notebook {notebook}"):
            load_other(notebook, **{name: 1})


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("shared_languages", "[da, en]", ("da", "en")),
        ("shared_languages", "null", None),
        ("shared_languages", "None", None),
        ("shared_languages", "da", InputError),
        ("shared_languages", "[]", InputError),
        ("shared_languages", "[da, da]", InputError),
        ("speakers_per_sample", "0.0125", 0.0125),
        ("speakers_per_sample", "0", InputError),
        ("speakers_per_sample", "null", InputError),
        ("embedding_layers", "4", 4),
        ("embedding_layers", "0", InputError),
        ("trim_db", "30", 30.0),
        ("trim_db", "null", None),
        ("trim_db", "0", InputError),
    ],
)
def test_parameters_of_speaker_verification_have_one_reading(name, text, value):
    for given_value in (text, papermill_value(text)):
        if value is InputError:
            with pytest.raises(InputError, match=f"Parameter '{name}' "):
                load_other("03_sv_cltm", **{name: given_value})
        else:
            assert load_other("03_sv_cltm", **{name: given_value})[name] == value


def test_bare_no_in_yaml_is_explained():
    with pytest.raises(InputError, match=r"bare no as false.*quotes"):
        load(languages=yaml.safe_load("[de, no]"))


def test_whole_number_is_a_number_but_truth_is_not():
    assert load(learning_rate=1).learning_rate == 1.0 and load(n_samples=4.0).n_samples == 4
    with pytest.raises(InputError, match="'seeds'"):
        load(seeds=[True, 0])


def test_parameters_that_do_not_fit_together_are_refused():
    with pytest.raises(InputError, match="'corpus_dir' is null"):
        load(corpus="common_voice")
    with pytest.raises(InputError, match="'corpus' is 'synthetic'"):
        load(corpus_dir="somewhere")
    with pytest.raises(InputError, match="'min_seconds'"):
        load(min_seconds=2, max_seconds=1)


def test_every_message_is_one_sentence():
    for changes in ({"seedz": 1}, {"seeds": "3"}, {"languages": [False, "de"]}, {"device": "gpu"}, {"corpus_dir": "x"}):
        with pytest.raises(InputError) as caught:
            load(**changes)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_hash_depends_on_every_value():
    hashes = {load().hash, load(n_samples=5).hash, load(seeds=[1, 0]).hash, load(output_dir="elsewhere").hash}
    assert len(hashes) == 4 and load(seeds="[0, 1]").hash == load().hash


def test_only_what_a_parameters_cell_assigns_counts_in_a_notebook():
    namespace = {**SMOKE, "get_ipython": print, "path": "made by a later cell", "_": 1}
    namespace["In"] = ["", "# Parameters\nn_samples = 4\nseeds = [0, 1]", "path = str(1)", "%matplotlib inline"]
    assert params.load(NOTEBOOK, namespace).n_samples == SMOKE["n_samples"]
    namespace["In"].append("sample = 4")
    assert params.load(NOTEBOOK, namespace)  # assigned there, but deleted since
    with pytest.raises(InputError, match="Unknown parameter 'sample'"):
        params.load(NOTEBOOK, {**namespace, "sample": 4})


def test_kernel_finds_what_papermill_only_warns_about(tmp_path):
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    lines = "\n".join(f"{name} = {value!r}" for name, value in SMOKE.items())
    load_cell = (
        "import sys; sys.path.insert(0, ROOT)\nfrom cltmlib.params import load\ncfg = load('02_gr_cltm', globals())"
    )
    cells = [
        nbformat.v4.new_code_cell(lines, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(load_cell.replace("ROOT", repr(str(paths.root())))),
        nbformat.v4.new_code_cell("cfg.seeds, cfg.languages"),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "in.ipynb")

    def execute(**given_values):
        return papermill.execute_notebook(
            tmp_path / "in.ipynb", tmp_path / "out.ipynb", given_values, progress_bar=False, kernel_name="python3"
        )

    done = execute(seeds="[4, 5]", languages='["no", "de"]')
    assert done.cells[-1].outputs[0].data["text/plain"] == "((4, 5), ('no', 'de'))"
    with pytest.raises(PapermillExecutionError) as caught:
        execute(speakers=3)
    assert caught.value.ename == "InputError" and caught.value.evalue.startswith("Unknown parameter 'speakers'")


def test_run_json_tells_the_run_and_nothing_of_the_machine(tmp_path):
    cfg = load(output_dir=str(paths.root() / "outputs" / "here"), encoder=str(tmp_path / "encoder"))
    params.write_run_json(tmp_path / "new" / "run.json", cfg, device="cpu", corpus=paths.root() / "corpus")
    text = (tmp_path / "new" / "run.json").read_text()
    record = json.loads(text)
    assert str(paths.root()) not in text and str(tmp_path) not in text
    assert record["params"]["output_dir"] == "outputs/here" and record["params"]["encoder"] == ".../encoder"
    assert record["params_hash"] == cfg.hash and record["seeds"] == [0, 1] and record["corpus"] == "corpus"
    assert record["start"] <= record["end"] and set(record["code"]) == {"commit", "dirty"}
    assert record["versions"]["python"] == sys.version.split()[0] and record["versions"]["torch"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.json"]


def test_run_json_knows_commit_and_changes(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], check=True)
    version = params._code_version()
    assert len(version["commit"]) == 40 and version["dirty"] is False
    (tmp_path / "pyproject.toml").write_text("changed")
    assert params._code_version() == {**version, "dirty": True}


def profiles_of(notebook):
    return sorted(path.parent.name for path in (paths.root() / "params").glob(f"*/{notebook}.yaml"))


@pytest.mark.parametrize("notebook", params.NOTEBOOKS)
def test_profiles_have_the_same_keys_and_valid_values(notebook):
    assert set(profiles_of(notebook)) == set(params.PROFILES)
    for profile in params.PROFILES:
        values = params.read_profile(profile, notebook)
        assert list(values) == list(params.read_profile("smoke", notebook))
        assert set(values) == set(params.NOTEBOOKS[notebook])
        # Nothing was left to coercion, and the cell that papermill injects has what the file says.
        assert params.resolve(notebook, values).as_dict() == values
        assert values["output_dir"] == f"outputs/{profile}/{notebook}"


def test_paper_profile_has_the_published_languages_in_their_order():
    import csv

    file = paths.root() / "cltmlib" / "cltm" / "reference" / "families.csv"
    codes = [row["code"] for row in csv.DictReader(file.open(encoding="utf-8"))]
    assert params.read_profile("paper", NOTEBOOK)["languages"] == codes


@pytest.mark.parametrize("path", sorted((paths.root() / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_parameters_cell_of_the_notebook_is_the_smoke_profile(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    source = "".join(tagged[0]["source"])
    assert params._literal_assignments(source), "the parameters cell must hold nothing but name = literal"
    found = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(source).body}
    assert found == params.read_profile("smoke", path.stem)
