"""Masked prediction learns, and what is kept with the repository is what the recipe says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cltmlib import checkpoints, encoders
from cltmlib.pretrain import hubert
from cltmlib.pretrain.hubert import Recipe, masked_prediction, mfcc_features, stand_in_config, units_of
from cltmlib.testing import common_voice_folder, sine_utterance
from tests.test_encoders import EXTRACTOR, tiny_hubert

STAND_IN = checkpoints.STAND_INS / "mini-hubert"
TINY = Recipe(n_steps=(40, 10), n_units=(8, 6), batch_size=4, crop_seconds=0.6, n_masks=1, warmup_steps=5)


@pytest.fixture(scope="module")
def waveforms():
    """Clips that jump between a few tones, so that a masked frame can be guessed from its neighbours."""
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(24):
        tones = rng.choice([200, 500, 1100, 2300], size=3)
        t = np.arange(8000) / 16_000
        clip = np.concatenate([0.3 * np.sin(2 * np.pi * tone * t) for tone in tones])
        clips.append(((clip + 0.01 * rng.standard_normal(len(clip))) * 20_000).astype(np.int16))
    return clips


def test_units_line_up_with_the_frames_of_the_encoder(waveforms):
    model = encoders._padding_invariant(hubert.HubertModel(stand_in_config()))
    n_frames = int(model._get_feat_extract_output_lengths(torch.tensor(len(waveforms[0]))))
    assert abs(len(mfcc_features(waveforms[0])) - n_frames) <= 1


def test_masked_prediction_beats_the_unigram_entropy(waveforms):
    """The criterion by which a first recipe for this corpus was found to have learned nothing."""
    recipe = replace(TINY, n_steps=(150, 0))
    torch.manual_seed(0)
    model = hubert.HubertModel(stand_in_config())
    units = units_of(waveforms, mfcc_features, 8, 0)
    log = masked_prediction(model, waveforms, units, 8, recipe, 150)
    assert log[-1]["masked_loss"] < 0.8 * log[-1]["unigram_entropy"]
    assert log[-1]["masked_accuracy"] > 1.5 * log[-1]["majority"]


def test_the_saved_model_loads_as_an_encoder_with_its_recipe(waveforms, tmp_path):
    log = hubert.pretrain(waveforms, tmp_path / "model", TINY, {"languages": ["xx"]})
    assert [row["n_units"] for row in log] == [8, 6]
    encoder = encoders.load_encoder(str(tmp_path / "model"))
    batch = encoders.collate([sine_utterance(0.5)], encoder.feature_extractor)
    hidden = encoders.encode(encoder.model, batch)[0].last_hidden_state
    assert hidden.dtype == torch.float32 and bool(torch.isfinite(hidden).all())
    assert json.loads((tmp_path / "model" / "recipe.json").read_text())["corpus"] == {"languages": ["xx"]}


def test_saving_leaves_masking_on(waveforms, tmp_path):
    """The saved configuration switches it off; once it was shared, and a second iteration saw everything."""
    model = hubert.HubertModel(stand_in_config())
    hubert._save(model, tmp_path, TINY, {}, [])
    assert model.config.apply_spec_augment
    assert not json.loads((tmp_path / "config.json").read_text())["apply_spec_augment"]
    units = units_of(waveforms, mfcc_features, 8, 0)
    model.config.apply_spec_augment = False
    with pytest.raises(ValueError, match="nothing would be masked"):
        masked_prediction(model, waveforms, units, 8, TINY, 1)


def test_what_is_masked_cannot_be_seen(waveforms):
    """Other audio under a long mask must not reach the frames that predict it."""
    model = hubert.HubertModel(stand_in_config()).eval()
    clip = hubert.normalise(waveforms[0])
    other = clip.copy()
    other[8_000:12_000] = np.random.default_rng(1).standard_normal(4_000)
    n_frames = int(model._get_feat_extract_output_lengths(torch.tensor(len(clip))))
    mask = torch.zeros(1, n_frames, dtype=torch.bool)
    mask[:, 8_000 // 320 - 4 : 12_000 // 320 + 4] = True
    plain = model.feature_extractor.conv_layers[0]
    plain.layer_norm = torch.nn.Identity()  # its statistics over time would carry the change everywhere
    with torch.inference_mode():
        one, two = (model(torch.from_numpy(x)[None], mask_time_indices=mask).last_hidden_state for x in (clip, other))
    torch.testing.assert_close(one, two)


def test_the_same_recipe_gives_the_same_weights(waveforms, tmp_path):
    for name in ("one", "two"):
        hubert.pretrain(waveforms, tmp_path / name, replace(TINY, n_steps=(5, 0)), {})
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_the_stand_in_kept_here_was_made_by_this_recipe_on_this_corpus():
    kept = json.loads((STAND_IN / "recipe.json").read_text())
    assert kept["recipe"] == json.loads(json.dumps(hubert.asdict(Recipe())))
    assert kept["corpus"] == json.loads(json.dumps(hubert.pretraining_corpus()))
    for n_units, n_steps in zip(Recipe().n_units, Recipe().n_steps, strict=True):
        if not n_steps:
            continue
        last = [row for row in kept["log"] if row["n_units"] == n_units][-1]
        assert last["step"] == n_steps and last["masked_loss"] < 0.9 * last["unigram_entropy"]


def test_what_it_buys_is_a_learning_curve_of_every_encoder(tmp_path):
    root = common_voice_folder(tmp_path / "cv", ["de", "no"], n_speakers=2, n_clips=2, seconds=0.6)
    tiny_hubert("group").save_pretrained(tmp_path / "hubert")
    EXTRACTOR.save_pretrained(tmp_path / "hubert")
    params = {
        "corpus": "common_voice", "corpus_dir": str(root), "languages": ["de", "no"], "seeds": [0, 1],
        "samples_per_speaker": None, "max_test_samples": 2, "min_seconds": 0.5, "max_seconds": None,
        "encoder_revision": None, "device": "cpu", "precision": "float32", "batch_size": 2, "learning_rate": 1e-3,
        "n_workers": 1,
    }  # fmt: skip
    names = [str(tmp_path / "hubert"), f"random:{tmp_path / 'hubert'}"]
    table = hubert.what_it_buys(params, names, [1, 2])
    assert list(table.columns) == ["encoder", "n_samples", "f1_macro", "standard_error"]
    assert list(zip(table["encoder"], table["n_samples"], strict=True)) == [(e, n) for e in names for n in (1, 2)]
    assert table["f1_macro"].between(0, 1).all() and table["standard_error"].ge(0).all()
    one = hubert.what_it_buys({**params, "seeds": [0]}, names[:1], [1])
    assert list(one["f1_macro"].between(0, 1)) == [True] and one["standard_error"].isna().all()  # of a single seed


def test_the_stand_ins_stay_small():
    assert sum(path.stat().st_size for path in checkpoints.STAND_INS.rglob("*")) < 20e6
