"""Fine-tuning: repeatable, order-free, and it learns."""

import numpy as np
import pandas as pd
import pytest
import torch

from cltmlib import finetune, tasks
from cltmlib.audio import pack
from cltmlib.encoders import Encoder, _padding_invariant
from cltmlib.errors import InputError
from cltmlib.finetune import resolve_device, run_training
from cltmlib.sweep.plan import Training
from cltmlib.tasks import gender
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


LABELS = {f"xx/{k}": k % 2 for k in range(48)}


def training(seed=0, n=16, **changes):
    ids = tuple(f"xx/{k}" for k in range(48))
    return Training("gender", ids[:n], {"xx": ids[32:]}, seed, {**CONFIG, **changes}, "xx")


def test_the_same_training_gives_the_same_digits_whatever_ran_before(encoder, store):
    first = run_training(training(), store, LABELS, encoder)
    run_training(training(seed=1), store, LABELS, encoder)
    torch.manual_seed(123)
    assert run_training(training(), store, LABELS, encoder) == first


def test_the_seed_reaches_head_and_order(encoder, store, monkeypatch):
    logits = {}
    plain = finetune.predict

    def keep(*arguments):
        logits[seed] = plain(*arguments)
        return logits[seed]

    monkeypatch.setattr(finetune, "predict", keep)
    for seed in (0, 1):
        run_training(training(seed), store, LABELS, encoder)
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_training_leaves_the_pretrained_encoder_untouched(encoder, store):
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    run_training(training(), store, LABELS, encoder)
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())


def test_nothing_is_frozen(encoder, store, monkeypatch):
    models = []
    plain = finetune.PooledClassifier

    def keep(*arguments):
        models.append(plain(*arguments))
        return models[-1]

    monkeypatch.setattr(finetune, "PooledClassifier", keep)
    run_training(training(), store, LABELS, encoder)
    trained = models[0].encoder.state_dict()
    same = [n for n, p in encoder.model.named_parameters() if torch.equal(p, trained[n]) and n != "masked_spec_embed"]
    assert same == []


def test_an_easy_difference_is_learned(encoder, store):
    """32 clips, one epoch: pitch alone tells the classes, the tiny random encoder must find it."""
    result = run_training(training(n=32, batch_size=1), store, LABELS, encoder)["xx"]
    assert result["f1_macro"] > 0.8 and result["n"] == 16


def test_predictions_do_not_depend_on_the_other_clips_of_the_batch(encoder, store):
    model = finetune.PooledClassifier(encoder.fresh_model(), 2).eval()
    ids = [f"xx/{k}" for k in range(10)]
    together = finetune.predict(model, ids, store, encoder, "cpu")
    alone = np.concatenate([finetune.predict(model, [u], store, encoder, "cpu") for u in ids])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_divergence_is_an_error_not_a_data_point(encoder, store):
    with pytest.raises(InputError, match="'xx' diverged"):
        run_training(training(learning_rate=1e30), store, LABELS, encoder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_said():
    with pytest.raises(InputError, match="no NVIDIA GPU"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_float16_on_a_gpu_learns_as_well(encoder, store):
    result = run_training(training(n=32, batch_size=1, precision="float16"), store, LABELS, encoder, "cuda")["xx"]
    assert result["f1_macro"] > 0.8


def test_macro_f1_by_hand():
    """Female: tp 2, fp 1, fn 0 -> 0.8; male: tp 1, fp 0, fn 1 -> 2/3."""
    logits = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
    result = gender.metrics(logits, np.array([0, 0, 1, 1]))
    assert result["f1_macro"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert result["accuracy"] == 0.75


def test_always_answering_one_class_scores_a_third():
    result = gender.metrics(np.tile([1.0, 0.0], (10, 1)), np.arange(10) % 2)
    assert result["f1_macro"] == pytest.approx(1 / 3)


def test_a_row_without_gender_and_a_task_that_is_not_there_are_named():
    with pytest.raises(InputError, match="'u1'"):
        gender.label({"utterance_id": "u1", "gender": None})
    with pytest.raises(InputError, match="no task 'emotion'"):
        tasks.task("emotion")


def test_a_store_that_changed_under_the_sweep_is_noticed(store, encoder, monkeypatch):
    worker = finetune.Worker.__new__(finetune.Worker)
    worker.encoder, worker.device, worker._store, worker._labels = encoder, "cpu", store, LABELS
    ids = [*training().train, *training().test["xx"]]
    assert worker(training(audio=store.digest(ids)))["xx"]["n"] == 16
    with pytest.raises(InputError, match="changed the waveform store"):
        worker(training(audio="another"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_training_on_a_gpu_repeats_itself(encoder, store):
    first, second = (run_training(training(), store, LABELS, encoder, "cuda") for _ in range(2))
    assert first == second
