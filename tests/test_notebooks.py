"""Every notebook, run with a profile's parameters and judged by the files it writes; and what wrong input does."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml

from cltmlib.corpora.languages import families
from cltmlib.testing import break_clip, common_voice_folder

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "02_gr_cltm.ipynb"
REAL_MINI = ROOT.parent / "shared" / "corpora" / "real-mini"
SMOKE = yaml.safe_load((ROOT / "params" / "smoke" / "02_gr_cltm.yaml").read_text())
SMALLEST = {"seeds": [0], "n_samples": 2, "max_test_samples": 4, "max_seconds": 0.6, "min_seconds": 0.3}

FIGURES = ("cltm", "self_gain", "published_gr_mhubert")
TABLES = (
    "cltm cltm_bootstrap_standard_error cltm_signs cltm_standard_error corpus diagnostics dropped performance "
    "self_gain skipped stability table_1"
).split()


# Notebook -> figures and tables (besides those of the figures) of a smoke run, as in `FIGURES` and `TABLES` for 02.
OTHERS = {
    "01_learning_curves": (
        [f"{what}_{task}" for what in ("curves", "panels", "interval") for task in ("gender", "speaker")],
        "corpus dropped intervals_gender intervals_speaker skipped_gender skipped_speaker",
    ),
    "03_sv_cltm": (
        "cltm distance_and_transfer embedding_map published_sv_mhubert self_gain speaker_against_language".split(),
        "centroid_distances cltm_bootstrap_standard_error cltm_lower cltm_sign_p cltm_signs cltm_standard_error "
        "cltm_upper corpus diagnostics donor_sets donors dropped equal_error_rate language_bias language_cost "
        "performance performance_centred sign_stability skipped stability table_2",
    ),
    "04_whisper_weighted_ce": (
        ["forgetting", "steps", "wer"],
        "beside_the_paper checkpoints clips corpus forgetting_by_language left_out rates test_set_intervals "
        "transcripts weighting_effects",
    ),
    "05_potsa_ablations": (
        ["encoder_space", "layers", "recall_and_overlap", "transport"],
        "alignment alignment_summary bleu clips corpus encoder_alignment left_out losses table_1 table_2 translations "
        "zero_shot_gain",
    ),
    "06_unsupervised_asr": (
        "bound conditioning conditions methods sample_sizes speech training".split(),
        "against_topline constants corpus counterexamples objectives objectives_summary phone_error_rates phones "
        "population sample_size_errors skipped speech_facts symbol_errors tightness violations",
    ),
    "07_asr_cltm": (
        "cltm curves published_asr_mhubert resource_gains self_gain three_tasks".split(),
        "centroid_distances cltm_lower cltm_signs cltm_standard_error cltm_upper comparisons "
        "comparisons_by_metric corpus diagnostics dropped error_rates frozen_and_tuned performance similarity skipped",
    ),
}


def cltm_run(*words, profile="smoke", notebook="02", cwd=ROOT):
    command = [sys.executable, "-m", "cltmlib", "run", "--profile", profile, "--notebook", notebook, *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)


def p(**values):
    return [
        word
        for key, value in values.items()
        for word in ("-p", key, value if isinstance(value, str) else json.dumps(value))
    ]


def n_stored(store):
    with sqlite3.connect(store) as connection:
        return connection.execute("select count(*), max(finished) from trainings").fetchone()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    done = cltm_run(*p(output_dir=str(folder)))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_smoke_writes_every_figure_and_table(smoke):
    for name in FIGURES:
        for ending, least in (("png", 1000), ("pdf", 1000), ("csv", 20)):
            assert (smoke / f"{name}.{ending}").stat().st_size > least, f"{name}.{ending}"
    for name in TABLES:
        assert (smoke / f"{name}.csv").is_file(), name
    assert not list(smoke.glob("*.part")) and not (smoke / "failed.ipynb").exists()


def test_the_tables_hold_what_the_plan_says(smoke):
    n, n_seeds = len(SMOKE["languages"]), len(SMOKE["seeds"])
    performance = pd.read_csv(smoke / "performance.csv", keep_default_na=False)
    assert len(performance) == n_seeds * n * (n + 1) and performance["performance"].between(0, 1).all()
    matrix = pd.read_csv(smoke / "cltm.csv", index_col=0)
    gains = pd.read_csv(smoke / "self_gain.csv", index_col=0)["self_gain"]
    assert matrix.index.tolist() == matrix.columns.tolist() == SMOKE["languages"]
    for language in SMOKE["languages"]:
        row = matrix.loc[language]
        assert np.isfinite(row).all() == (gains[language] > 0) and (row.isna().all() or row[language] == 1)
    assert n_stored(smoke / "runs.sqlite")[0] == n_seeds * (2 * n + n * (n - 1) // 2)


def test_run_json_tells_how_to_repeat_the_run_and_nothing_of_the_machine(smoke):
    record = json.loads((smoke / "run.json").read_text())
    assert record["params"]["n_samples"] == SMOKE["n_samples"]
    assert record["encoder_fingerprint"].startswith("sha256:")
    assert {"code", "versions", "start", "end", "params_hash", "seeds", "used_device"} <= record.keys()
    assert str(ROOT) not in json.dumps(record)


def test_running_again_repeats_no_training_and_writes_the_same_bytes(smoke):
    names = [f"{name}.csv" for name in TABLES] + [f"{name}.{e}" for name in FIGURES for e in ("png", "pdf")]
    before = {name: (smoke / name).read_bytes() for name in names}
    stored = n_stored(smoke / "runs.sqlite")
    done = cltm_run(*p(output_dir=str(smoke)))
    assert done.returncode == 0, done.stderr
    assert n_stored(smoke / "runs.sqlite") == stored
    assert {name: (smoke / name).read_bytes() for name in names} == before


def test_another_number_of_workers_gives_the_same_tables(smoke, tmp_path):
    done = cltm_run(*p(output_dir=str(tmp_path / "out"), n_workers=2, languages=list(reversed(SMOKE["languages"]))))
    assert done.returncode == 0, done.stderr
    key = ["target", "donor", "seed"]
    one, two = (
        pd.read_csv(folder / "performance.csv", keep_default_na=False).sort_values(key).reset_index(drop=True)
        for folder in (smoke, tmp_path / "out")
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_the_committed_notebook_keeps_its_compared_outputs_and_no_other():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        marked = [cell for cell in cells if "NBVAL_CHECK_OUTPUT" in cell.source]
        assert len(marked) >= 4 and all(cell.outputs for cell in marked), path.name
        assert sum(bool(re.search(r"\d", str(cell.outputs))) for cell in marked) >= 4, "numbers are compared"
        assert not any(cell.outputs for cell in cells if cell not in marked), path.name
        assert all(cell.execution_count for cell in cells), f"{path.name} was never run"


def test_no_cell_of_a_notebook_defines_functions_or_loops_over_data():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            assert cell.cell_type != "code" or not re.search(r"^\s*(def|class|while|for) ", cell.source, re.M), (
                cell.source
            )


@pytest.fixture(scope="module")
def other_smoke(tmp_path_factory):
    """Name of another notebook -> folder of its smoke run, made when first asked for; side by side as in outputs/."""
    folder = tmp_path_factory.mktemp("others")

    def run(name):
        if not (folder / name).is_dir():
            done = cltm_run(*p(output_dir=str(folder / name)), notebook=name)
            assert done.returncode == 0, done.stdout + done.stderr
        return folder / name

    return run


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_notebooks_write_every_figure_and_table(other_smoke, name):
    folder, (drawn, tables) = other_smoke(name), OTHERS[name]
    for figure in drawn:
        for ending in ("png", "pdf", "csv"):
            assert (folder / f"{figure}.{ending}").stat().st_size > 20, f"{figure}.{ending}"
    for table in tables.split():
        assert (folder / f"{table}.csv").is_file(), table
    assert str(ROOT) not in (folder / "run.json").read_text()


def test_learning_curves_hold_every_point_and_choose_one_of_them(other_smoke):
    folder = other_smoke("01_learning_curves")
    smoke = yaml.safe_load((ROOT / "params" / "smoke" / "01_learning_curves.yaml").read_text())
    chosen = json.loads((folder / "dynamic_interval.json").read_text())["tasks"]
    for task in ("gender", "speaker"):
        sizes = smoke[f"{task}_n_samples"]
        curves = pd.read_csv(folder / f"curves_{task}.csv")
        assert len(curves) == len(smoke["languages"]) * len(smoke["seeds"]) * len(sizes)
        assert curves["performance"].between(0, 1).all()
        assert chosen[task]["n"] == sizes[0] and chosen[task]["two_n"] == sizes[1]


def test_verification_tables_hold_what_the_plan_says(other_smoke):
    folder = other_smoke("03_sv_cltm")
    smoke = yaml.safe_load((ROOT / "params" / "smoke" / "03_sv_cltm.yaml").read_text())
    n, n_seeds, n_shared = len(smoke["languages"]), len(smoke["seeds"]), len(smoke["shared_languages"])
    for table in ("performance", "performance_centred", "equal_error_rate"):
        performance = pd.read_csv(folder / f"{table}.csv", keep_default_na=False)
        assert len(performance) == n_seeds * n * (n + 1) and performance["performance"].between(0, 1).all()
    assert n_stored(folder / "runs.sqlite")[0] == n_seeds * (2 * n + n * (n - 1) // 2 + 1 + n_shared)
    mismatch = pd.read_csv(folder / "speaker_against_language.csv", index_col=[0, 1])
    assert len(mismatch) == (1 + n_shared) * (n_shared + 1)  # models x conditions


def test_recognition_tables_hold_what_the_plan_says(other_smoke):
    folder = other_smoke("07_asr_cltm")
    smoke = yaml.safe_load((ROOT / "params" / "smoke" / "07_asr_cltm.yaml").read_text())
    n, n_seeds, sizes = len(smoke["languages"]), len(smoke["seeds"]), smoke["recognition_n_samples"]
    performance = pd.read_csv(folder / "performance.csv", keep_default_na=False)
    assert len(performance) == n_seeds * n * (n + 1) and (performance["performance"] <= 1).all()
    rates = pd.read_csv(folder / "error_rates.csv")
    assert len(rates) == 4 * n_seeds * (2 * n + 1) and (rates["rate"] >= 0).all()  # 4N of the one rich language
    gains = pd.read_csv(folder / "resource_gains.csv")
    assert set(gains["own"]) == set(gains["given"]) == set(sizes)
    assert len(gains) == 2 * n_seeds * (n * (n - 1) // 2 + 2)
    assert n_stored(folder / "runs.sqlite")[0] == n_seeds * (2 * n + n * (n - 1) // 2 + 1 + 2 + 1)
    record = json.loads((folder / "run.json").read_text())
    assert "lower case" in record["normaliser"] and len(record["answer"].splitlines()) == 9
    modes = pd.read_csv(folder / "frozen_and_tuned.csv")
    assert set(modes["metric"]) == set(rates["metric"]) == {"wer", "cer", "wer_ngram", "cer_ngram"}


def test_the_mini_profile_of_recognition_covers_what_it_promises():
    mini = yaml.safe_load((ROOT / "params" / "mini" / "07_asr_cltm.yaml").read_text())
    assert len(mini["languages"]) >= 6 and len(mini["seeds"]) >= 2 and len(mini["recognition_n_samples"]) >= 3


def test_auto_takes_the_interval_that_notebook_01_chose_or_says_why_not(other_smoke):
    curves = other_smoke("01_learning_curves")
    chosen = json.loads((curves / "dynamic_interval.json").read_text())["tasks"]["gender"]
    done = cltm_run(*p(n_samples="auto", output_dir=str(curves.parent / "02_gr_cltm")))
    if chosen["is_valid"]:
        assert done.returncode == 0, done.stderr
        run = nbformat.read(curves.parent / "02_gr_cltm" / "executed.ipynb", as_version=4)
        assert f"N = {chosen['n']} clips" in str(run.cells)
    else:
        assert done.returncode == 1 and "is valid" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(not REAL_MINI.is_dir(), reason="the developers' set of real speech is not beside this checkout")
@pytest.mark.parametrize("name", [name for name in OTHERS if name[:2] != "05"])  # no parallel sentences there
def test_the_other_notebooks_run_on_real_speech_by_parameters_alone(tmp_path, name):
    values = {"languages": ["am", "en", "ko"], "seeds": [0, 1], "max_test_samples": 8}
    if name == "03_sv_cltm":
        values["shared_languages"] = ["da", "en"]
    elif name == "06_unsupervised_asr":
        values = {"language": "en", "seeds": [0, 1], "max_seconds": 20.0}
    elif name == "07_asr_cltm":
        values |= {"languages": ["pl", "en", "ko"], "low_resource_languages": ["pl"], "high_resource_languages": ["en"]}
        values |= {"max_seconds": 10.0, "ngram_order": None}  # the search is slow where nothing was learnt
    elif name == "04_whisper_weighted_ce":
        values = {"languages": ["da", "en"], "low_resource_language": "pl", "seeds": [0, 1]}
    words = p(corpus="common_voice", corpus_dir=str(REAL_MINI), output_dir=str(tmp_path), **values)
    done = cltm_run(*words, notebook=name)
    assert done.returncode == 0, done.stdout + done.stderr
    for figure in OTHERS[name][0]:  # two self-gains must be positive for the first, which so few clips need not give
        assert figure == "distance_and_transfer" or (tmp_path / f"{figure}.png").stat().st_size > 1000, figure


def test_a_language_without_trials_is_named(tmp_path):
    folder = common_voice_folder(tmp_path / "cv", ("de", "ca"))
    test = pd.read_csv(folder / "ca" / "test.tsv", sep="\t")
    test[test["gender"] != test["gender"].iloc[0]].to_csv(folder / "ca" / "test.tsv", sep="\t", index=False)
    values = {"corpus": "common_voice", "corpus_dir": str(folder), "languages": ["de", "ca"], "shared_languages": None}
    done = cltm_run(*p(output_dir=str(tmp_path / "out"), **values, n_samples=4, speakers_per_sample=0.5), notebook="03")
    assert done.returncode == 1 and "'ca'" in done.stderr and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) <= 2, done.stderr


def papermill(output, *words, cwd=ROOT):
    command = [
        sys.executable,
        "-m",
        "papermill",
        "--no-progress-bar",
        "-k",
        "python3",
        str(NOTEBOOK),
        str(output),
        *words,
    ]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)


@pytest.mark.skipif(not REAL_MINI.is_dir(), reason="the developers' set of real speech is not beside this checkout")
def test_plain_papermill_runs_on_real_speech(tmp_path):
    languages = '["de", "pl", "ko"]'
    words = p(corpus="common_voice", corpus_dir=str(REAL_MINI), languages=languages, output_dir=str(tmp_path / "out"))
    done = papermill(tmp_path / "out.ipynb", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    matrix = pd.read_csv(tmp_path / "out" / "cltm.csv", index_col=0)
    gains = pd.read_csv(tmp_path / "out" / "self_gain.csv", index_col=0)["self_gain"]
    assert (np.isfinite(matrix).all(axis=1) == (gains > 0)).all()
    assert (tmp_path / "out" / "cltm.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A small release folder: two languages, enough for N = 2."""
    return common_voice_folder(tmp_path_factory.mktemp("cv"), ("de", "ca"))


def on_release(folder, output, **changes):
    return cltm_run(
        *p(
            corpus="common_voice",
            corpus_dir=str(folder),
            languages=["de", "ca"],
            output_dir=str(output),
            **{**SMALLEST, **changes},
        )
    )


def test_a_common_voice_folder_runs_from_start_to_end_and_a_broken_clip_is_replaced(release, tmp_path):
    copy = tmp_path / "cv"
    shutil.copytree(release, copy)
    train = pd.read_csv(copy / "de" / "train.tsv", sep="\t")
    for clip in train.groupby("client_id")["path"].first():  # one of the three clips of every speaker
        break_clip(copy / "de" / "clips" / clip, "corrupt")
    done = on_release(copy, tmp_path / "out", n_samples=4)
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = pd.read_csv(tmp_path / "out" / "skipped.csv")
    assert len(skipped) > 0 and set(skipped["language"]) == {"de"}
    assert (pd.read_csv(tmp_path / "out" / "cltm.csv", index_col=0).index == ["de", "ca"]).all()


def test_the_paper_profile_runs_on_a_small_release(release, tmp_path):
    """The paper's own values but for size and encoder: batches of one, float16 asked for, uncapped test sets."""
    small = {"languages": ["de", "ca"], "n_samples": 2, "seeds": [0], "encoder": "mini-hubert"}
    done = cltm_run(*p(corpus_dir=str(release), output_dir=str(tmp_path), **small), profile="paper")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(pd.read_csv(tmp_path / "performance.csv")) == 6 and (tmp_path / "cltm.pdf").is_file()


def test_the_mini_profile_runs_on_two_of_its_languages(tmp_path):
    small = {"languages": ["ca", "sw"], "speakers_per_language": 40, "seeds": [0], "max_test_samples": 10}
    done = cltm_run(*p(output_dir=str(tmp_path), **small), profile="mini")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(pd.read_csv(tmp_path / "performance.csv")) == 6 and (tmp_path / "cltm.pdf").is_file()


def test_the_mini_profiles_of_the_curves_and_the_matrices_are_of_one_corpus():
    names = ("01_learning_curves", "02_gr_cltm", "03_sv_cltm")
    minis = [yaml.safe_load((ROOT / "params" / "mini" / f"{name}.yaml").read_text()) for name in names]
    for key in ("speakers_per_language", "utterances_per_speaker", "corpus_seed", "encoder", "max_seconds"):
        assert len({mini[key] for mini in minis}) == 1, key
    curves, gender, speaker = minis
    assert set(curves["languages"]) == set(speaker["languages"]) <= set(gender["languages"])
    assert {curves["batch_size"], curves["learning_rate"]} == {speaker["batch_size"], speaker["learning_rate"]}
    assert curves["gender_batch_size"] == gender["batch_size"]
    assert curves["gender_learning_rate"] == gender["learning_rate"]
    assert gender["n_samples"] in curves["gender_n_samples"] and speaker["n_samples"] in curves["speaker_n_samples"]


def test_the_mini_profile_covers_what_it_promises():
    mini = yaml.safe_load((ROOT / "params" / "mini" / "02_gr_cltm.yaml").read_text())
    assert len(mini["languages"]) >= 8 and len(set(families(mini["languages"]).values())) >= 6
    assert len(mini["seeds"]) >= 3


@pytest.mark.parametrize(
    ("break_it", "changes", "message"),
    [
        (lambda folder: shutil.rmtree(folder), {}, "cv"),
        (lambda folder: shutil.rmtree(folder / "ca"), {}, "'ca'"),
        (
            lambda folder: (folder / "de" / "train.tsv").write_text(
                (folder / "de" / "train.tsv").read_text().replace("gender", "sex", 1)
            ),
            {},
            "gender",
        ),
        (lambda folder: None, {"n_samples": 500}, "too little data for n_samples=500"),
    ],
    ids=["missing folder", "missing locale", "no gender column", "too few speakers"],
)
def test_bad_input_gets_one_sentence(release, tmp_path, break_it, changes, message):
    copy = tmp_path / "cv"
    shutil.copytree(release, copy)
    break_it(copy)
    done = on_release(copy, tmp_path / "out", **changes)
    assert done.returncode in (1, 2) and message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) <= 2, done.stderr


def test_an_unknown_parameter_stops_before_anything_starts(tmp_path):
    done = cltm_run("-p", "n_smaples", "3", *p(output_dir=str(tmp_path / "out")))
    assert done.returncode == 2 and "n_smaples" in done.stderr and "n_samples" in done.stderr
    assert not (tmp_path / "out").exists()


def test_plain_papermill_with_an_unknown_parameter_stops_at_the_first_cell(tmp_path):
    done = papermill(tmp_path / "out.ipynb", "-p", "n_smaples", "3")
    assert done.returncode != 0 and "Unknown parameter 'n_smaples'" in done.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert "n_smaples = 3" in cells[1].source
    assert not any(cell.execution_count for cell in cells[4:])


def test_two_runs_on_one_store_do_not_mix(smoke):
    from cltmlib.sweep import RunStore

    with RunStore(smoke / "runs.sqlite"):
        done = cltm_run(*p(output_dir=str(smoke)))
    assert (
        done.returncode == 1 and "Another run is using the run store" in done.stderr and "Traceback" not in done.stderr
    )
