"""Fine-tuning: repeatable, order-free, and it learns."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from cltmlib import finetune, tasks
from cltmlib.audio import pack
from cltmlib.corpora import common_voice
from cltmlib.encoders import Encoder, _padding_invariant
from cltmlib.errors import InputError
from cltmlib.finetune import resolve_device, run_training
from cltmlib.subsets import Prepared
from cltmlib.sweep.plan import Training
from cltmlib.tasks import gender
from cltmlib.tasks.classification import metrics
from cltmlib.testing import common_voice_folder
from tests.test_encoders import EXTRACTOR, tiny_hubert

CONFIG = {"learning_rate": 1e-3, "batch_size": 4, "precision": "float32"}


@pytest.fixture(scope="module")
def encoder():
    return Encoder("tiny", _padding_invariant(tiny_hubert("group")), EXTRACTOR, "tiny@0")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two "genders" that differ in pitch; clips of several lengths."""
    import soundfile

    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    rows = []
    for k in range(48):
        f0_hz = (210 if k % 2 == 0 else 110) * rng.uniform(0.9, 1.1)
        t = np.arange(int(16_000 * rng.uniform(0.5, 0.9))) / 16_000
        x = sum(np.sin(2 * np.pi * f0_hz * h * t) / h for h in range(1, 12)) * 0.1 + 0.01 * rng.standard_normal(len(t))
        soundfile.write(folder / f"{k}.wav", x, 16_000)
        rows.append(
            {
                "utterance_id": f"xx/{k}",
                "path": str(folder / f"{k}.wav"),
                "language": "xx",
                "duration_s": len(t) / 16_000,
            }
        )
    return pack(pd.DataFrame(rows), folder / "store", n_workers=1)


ROWS = {f"xx/{k}": {"language": "xx", "gender": gender.CLASSES[k % 2]} for k in range(48)}


def training(seed=0, n=16, **changes):
    ids = tuple(f"xx/{k}" for k in range(48))
    return Training("gender", ids[:n], {"xx": ids[32:]}, seed, {**CONFIG, **changes}, "xx")


def test_the_same_training_gives_the_same_digits_whatever_ran_before(encoder, store):
    first = run_training(training(), store, ROWS, encoder)
    run_training(training(seed=1), store, ROWS, encoder)
    torch.manual_seed(123)
    assert run_training(training(), store, ROWS, encoder) == first


def test_the_seed_reaches_head_and_order(encoder, store, monkeypatch):
    logits = {}
    plain = finetune.predict

    def keep(*arguments):
        logits[seed] = np.stack(plain(*arguments))
        return list(logits[seed])

    monkeypatch.setattr(finetune, "predict", keep)
    for seed in (0, 1):
        run_training(training(seed), store, ROWS, encoder)
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_training_leaves_the_pretrained_encoder_untouched(encoder, store):
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    run_training(training(), store, ROWS, encoder)
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())


def test_nothing_is_frozen(encoder, store, monkeypatch):
    models = []
    plain = gender.model

    def keep(*arguments):
        models.append(plain(*arguments))
        return models[-1]

    monkeypatch.setattr(gender, "model", keep)
    run_training(training(), store, ROWS, encoder)
    trained = models[0].encoder.state_dict()
    same = [n for n, p in encoder.model.named_parameters() if torch.equal(p, trained[n]) and n != "masked_spec_embed"]
    assert same == []


def test_an_easy_difference_is_learned(encoder, store):
    """32 clips, one epoch: pitch alone tells the classes, the tiny random encoder must find it."""
    result = run_training(training(n=32, batch_size=1), store, ROWS, encoder)["xx"]
    assert result["f1_macro"] > 0.8 and result["n"] == 16


def test_predictions_do_not_depend_on_the_other_clips_of_the_batch(encoder, store):
    model = gender.model(encoder.fresh_model(), [], CONFIG).eval()
    ids = [f"xx/{k}" for k in range(10)]
    together = finetune.predict(model, ids, store, encoder, "cpu")
    alone = [finetune.predict(model, [u], store, encoder, "cpu")[0] for u in ids]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_divergence_is_an_error_not_a_data_point(encoder, store):
    with pytest.raises(InputError, match="'xx' diverged"):
        run_training(training(learning_rate=1e30), store, ROWS, encoder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_said():
    with pytest.raises(InputError, match="no NVIDIA GPU"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_float16_on_a_gpu_learns_as_well(encoder, store):
    result = run_training(training(n=32, batch_size=1, precision="float16"), store, ROWS, encoder, "cuda")["xx"]
    assert result["f1_macro"] > 0.8


def test_macro_f1_by_hand():
    """Female: tp 2, fp 1, fn 0 -> 0.8; male: tp 1, fp 0, fn 1 -> 2/3."""
    logits = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
    result = metrics(logits, np.array([0, 0, 1, 1]))
    assert result["f1_macro"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert result["accuracy"] == 0.75


def test_always_answering_one_class_scores_a_third():
    result = metrics(np.tile([1.0, 0.0], (10, 1)), np.arange(10) % 2)
    assert result["f1_macro"] == pytest.approx(1 / 3)


def test_a_task_that_is_not_there_is_named():
    for name in ("emotion", "my_tasks.", ".emotion"):
        with pytest.raises(InputError, match=f"no task '{name}'; choose among gender, speaker"):
            tasks.task(name)
    with pytest.raises(InputError, match=r"Task 'no_tasks\.emotion' cannot be imported \(No module named 'no_tasks'\)"):
        tasks.task("no_tasks.emotion")


@pytest.mark.parametrize(
    ("last_line", "message"),
    [
        ("del CHANCE, evaluate", r"lacks CHANCE, evaluate: a task needs VERSION, PERFORMANCE, "),
        ("COLUMNS = 'age'", r"COLUMNS is 'age'; make it a tuple of names"),
        ("import no_such_package", r"cannot be imported \(No module named 'no_such_package'\)"),
    ],
)
def test_a_module_of_ones_own_is_a_task_if_it_has_what_a_task_needs(tmp_path, monkeypatch, last_line, message):
    whole = "from cltmlib.tasks.gender import *\nfrom cltmlib.tasks.gender import model, evaluate\n"
    folder = tmp_path / f"tasks_{abs(hash(last_line))}"  # modules stay in memory: each case has its own
    folder.mkdir()
    (folder / "whole.py").write_text(whole)
    (folder / "part.py").write_text(f"{whole}{last_line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert tasks.task(f"{folder.name}.whole").PERFORMANCE == "f1_macro"
    with pytest.raises(InputError, match=rf"Task '{folder.name}\.part'.* {message}"):
        tasks.task(f"{folder.name}.part")


@pytest.mark.parametrize("name", tasks.NAMES)
def test_every_task_has_what_the_training_loop_reads(name):
    task = tasks.task(name)
    number = task.VERSION[0] if isinstance(task.VERSION, list) else task.VERSION
    assert isinstance(number, int) and isinstance(task.PERFORMANCE, str)
    assert all(isinstance(names, tuple) for names in (task.COLUMNS, task.OPTIONS))
    assert callable(task.model) and callable(task.evaluate)


PARAMS = {
    "encoder": "tiny", "encoder_revision": None, "device": "cpu", "precision": "float16", "learning_rate": 1e-3,
    "batch_size": 4, "embedding_layers": 2,
}  # fmt: skip


def prepared(store, **changes):
    """The clips of the store as the trainings of a study read them."""
    rows = [{"utterance_id": u, **row, "speaker": f"s{u}", **changes.get(u[3:], {})} for u, row in ROWS.items()]
    return Prepared(store, {}, {}, pd.DataFrame(rows).set_index("utterance_id"), pd.DataFrame())


@pytest.fixture
def worker(store, encoder, monkeypatch):
    monkeypatch.setattr(finetune, "_encoder", lambda name, revision: encoder)
    return lambda task="gender", params=None, **changes: finetune.Worker(
        task, prepared(store, **changes), {**PARAMS, **(params or {})}
    )


@pytest.mark.parametrize(
    ("task", "column", "value"),
    [
        ("gender", "gender", None),
        ("gender", "gender", np.nan),
        ("speaker", "speaker", None),
        ("speaker", "gender", None),
    ],
)
def test_a_clip_without_what_the_task_reads_is_named(worker, task, column, value):
    with pytest.raises(InputError, match=f"Clip 'xx/5' has no {column}, which task '{task}' needs; leave it out"):
        worker(task, **{"5": {column: value}})


def test_an_option_that_is_not_given_is_named(worker, monkeypatch):
    monkeypatch.setattr(gender, "OPTIONS", ("margin",))
    with pytest.raises(InputError, match="Task 'gender' wants parameter 'margin', which is not given"):
        worker()
    assert worker(params={"margin": 2}).config(list(ROWS)[:2])["margin"] == 2


@pytest.mark.parametrize("name", ["learning_rate", "device", "task_version", "audio", "labels"])
def test_an_option_with_the_name_of_what_every_training_has_is_refused(worker, monkeypatch, name):
    monkeypatch.setattr(gender, "OPTIONS", (name,))
    with pytest.raises(InputError, match=f"Task 'gender' has an option '{name}', which every training has"):
        worker(params={name: 1e-3} if name in ("audio", "labels", "task_version") else None)


def test_a_clip_without_speaker_is_no_obstacle_to_gender_recognition(worker):
    ids = list(ROWS)[:8]
    assert worker("gender", **{"5": {"speaker": None}}).config(ids) == worker().config(ids)


def test_config_holds_what_decides_a_result_and_nothing_of_other_clips_or_tasks(worker):
    ids = list(ROWS)[:8]
    one = worker().config(ids)
    assert one == worker().config(ids) == worker(**{"9": {"gender": "male"}}).config(ids)
    assert one["precision"] == "float32" and one["device"] == "cpu" and one["task_version"] == gender.VERSION
    assert "embedding_layers" not in one and worker("speaker").config(ids)["embedding_layers"] == 2
    assert worker(params={"embedding_layers": 1}).config(ids) == one
    others = [
        worker(params={"learning_rate": 1e-4}).config(ids),
        worker(params={"batch_size": 1}).config(ids),
        worker(**{"5": {"gender": "female"}}).config(ids),
        worker(**{"5": {"language": "yy"}}).config(ids),
        worker().config(ids[:7]),
        worker().config(ids[::-1]),
    ]
    assert all(other != one for other in others)


def test_config_of_speaker_verification_depends_on_who_speaks(worker):
    ids = list(ROWS)[:8]
    assert worker("speaker").config(ids) != worker("speaker", **{"5": {"speaker": "other"}}).config(ids)
    assert worker("speaker").config(ids) != worker("speaker", {"embedding_layers": 1}).config(ids)


def test_an_encoder_of_another_sampling_rate_is_refused(store, encoder, monkeypatch):
    slow = Wav2Vec2FeatureExtractor(sampling_rate=8_000)
    monkeypatch.setattr(finetune, "_encoder", lambda name, revision: replace(encoder, feature_extractor=slow))
    with pytest.raises(InputError, match=r"'tiny' wants 8000 Hz, but the clips were decoded at 16000 Hz"):
        finetune.Worker("gender", prepared(store), PARAMS)


def test_a_pickled_worker_loads_its_encoder_again_and_gives_the_same(worker):
    one = worker()
    ids = [*training().train, *training().test["xx"]]
    two = pickle.loads(pickle.dumps(one))
    assert two.encoder is None
    assert two(training(**one.config(ids))) == one(training(**one.config(ids)))


def test_learning_curves_are_measured_of_the_tasks_with_sizes_and_kept(encoder, monkeypatch, tmp_path):
    monkeypatch.setattr(finetune, "_encoder", lambda name, revision: encoder)
    root = common_voice_folder(tmp_path / "cv", ["de", "no"], n_speakers=3, n_clips=2, seconds=0.6)
    corpus = common_voice.load(root, ["de", "no"])
    params = {
        **PARAMS, "languages": ("de", "no"), "seeds": (0, 1), "samples_per_speaker": None, "speakers_per_sample": 0.5,
        "max_test_samples": 4, "gender_n_samples": (1, 2), "speaker_n_samples": (4,), "trim_db": None,
        "min_seconds": 0.5, "max_seconds": None, "gender_learning_rate": 1e-4, "gender_batch_size": None,
        "executor": "local", "n_workers": 1,
    }  # fmt: skip
    both = finetune.learning_curves(corpus, params, tmp_path / "runs.sqlite")
    assert {task: curve.means().columns.tolist() for task, curve in both.items()} == {"gender": [1, 2], "speaker": [4]}
    for curve in both.values():
        assert len(curve.curves) == 4 * len(curve.means().columns) and curve.curves["performance"].between(0, 1).all()
        expected = curve.curves.query("language == 'no'").groupby("n_samples")["performance"].mean()
        assert curve.means().loc["no"].tolist() == pytest.approx(expected.tolist())
    monkeypatch.setattr(finetune, "run_training", None)  # all of it is in the store
    alone = finetune.learning_curves(corpus, {**params, "gender_n_samples": ()}, tmp_path / "runs.sqlite")
    assert list(alone) == ["speaker"] and alone["speaker"].curves.equals(both["speaker"].curves)
    same = {**params, "gender_learning_rate": None, "learning_rate": 1e-4, "speaker_n_samples": ()}
    gender_again = finetune.learning_curves(corpus, same, tmp_path / "runs.sqlite")
    assert gender_again["gender"].curves.equals(both["gender"].curves)


def test_a_store_that_changed_under_the_sweep_is_noticed(worker):
    ids = [*training().train, *training().test["xx"]]
    assert worker()(training(**worker().config(ids)))["xx"]["n"] == 16
    with pytest.raises(InputError, match="changed the waveform store"):
        worker()(training(**worker().config(ids) | {"audio": "another"}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_training_on_a_gpu_repeats_itself(encoder, store):
    first, second = (run_training(training(), store, ROWS, encoder, "cuda") for _ in range(2))
    assert first == second
