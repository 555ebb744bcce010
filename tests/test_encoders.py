"""Batching must not change what a clip's encoder output is."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from cltmlib.encoders import (
    Batch,
    ValidGroupNorm,
    _padding_invariant,
    collate,
    encode,
    load_encoder,
    masked_mean,
)
from cltmlib.errors import InputError
from cltmlib.tasks.classification import Classifier

EXTRACTOR = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)  # as mHuBERT-147 ships it


def tiny_hubert(norm: str, stable: bool = False) -> HubertModel:
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        do_stable_layer_norm=stable,
    )
    return HubertModel(config).eval()


def clips(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(np.float32) * 0.1 for n in lengths]


def largest_difference(model: HubertModel, waveforms) -> float:
    """Between each clip's hidden states in one padded batch and alone, over valid frames and all layers."""
    with torch.inference_mode():
        together, mask = encode(model, collate(waveforms, EXTRACTOR), output_hidden_states=True)
        worst = 0.0
        for k, waveform in enumerate(waveforms):
            alone, _ = encode(model, collate([waveform], EXTRACTOR), output_hidden_states=True)
            n = int(mask[k].sum())
            assert alone.last_hidden_state.shape[1] == n
            for layer_together, layer_alone in zip(together.hidden_states, alone.hidden_states, strict=True):
                worst = max(worst, float((layer_together[k, :n] - layer_alone[0]).abs().max()))
    return worst


@pytest.mark.parametrize(("norm", "stable"), [("group", False), ("layer", False), ("layer", True)])
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(400, 24_000), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_a_padded_batch_gives_each_clip_the_output_it_has_alone(norm, stable, lengths, seed):
    assert largest_difference(_padding_invariant(tiny_hubert(norm, stable)), clips(lengths, seed)) < 1e-5


def test_without_the_valid_frame_statistics_padding_does_change_the_output():
    """The test above can fail: the plain model in the same batch is far off."""
    model = _padding_invariant(tiny_hubert("group"))
    plain = tiny_hubert("group")
    batch = collate(clips([4_000, 24_000]), EXTRACTOR)
    attention_mask = torch.arange(24_000) < batch.n_samples[:, None]
    with torch.inference_mode():
        right = encode(model, batch)[0].last_hidden_state[0, :12]
        wrong = plain(batch.input_values, attention_mask=attention_mask.long()).last_hidden_state[0, :12]
    assert float((right - wrong).abs().max()) > 0.1


def test_mhubert_147_shapes_are_padding_invariant_in_both_feature_norms():
    """The published architecture (12 layers of 768, 7 convolutions of 512) with random weights: its rounding."""
    for norm in ("group", "layer"):
        torch.manual_seed(1)
        model = _padding_invariant(HubertModel(HubertConfig(feat_extract_norm=norm, num_hidden_layers=12)).eval())
        assert largest_difference(model, clips([8_000, 16_000, 5_123])) < 1e-5


def test_gradients_are_padding_invariant():
    model = _padding_invariant(tiny_hubert("group"))
    waveforms = clips([5_000, 16_000])

    def gradients(batches):
        fresh = copy.deepcopy(model)
        for batch in batches:
            output, mask = encode(fresh, batch)
            masked_mean(output.last_hidden_state, mask).square().sum().backward()
        return {name: p.grad for name, p in fresh.named_parameters() if p.grad is not None}

    together = gradients([collate(waveforms, EXTRACTOR)])
    alone = gradients([collate([waveform], EXTRACTOR) for waveform in waveforms])
    assert together.keys() == alone.keys() and together
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, alone[name], atol=1e-4, rtol=1e-3, msg=name)


def test_the_state_dict_keeps_the_names_and_values_of_the_published_model():
    plain, invariant = tiny_hubert("group"), _padding_invariant(tiny_hubert("group"))
    assert isinstance(invariant.feature_extractor.conv_layers[0].layer_norm, ValidGroupNorm)
    assert plain.state_dict().keys() == invariant.state_dict().keys()


def test_clips_of_one_length_take_the_plain_path():
    model, plain = _padding_invariant(tiny_hubert("group")), tiny_hubert("group")
    batch = collate(clips([8_000, 8_000]), EXTRACTOR)
    with torch.inference_mode():
        output, mask = encode(model, batch)
        torch.testing.assert_close(
            output.last_hidden_state, plain(batch.input_values).last_hidden_state, atol=0, rtol=0
        )
    assert bool(mask.all())


def test_waveforms_are_normalised_over_their_own_samples():
    batch = collate([np.linspace(0, 3, 800, dtype=np.float32), np.ones(1600, np.float32) * 5], EXTRACTOR)
    first = batch.input_values[0, :800]
    assert abs(float(first.mean())) < 1e-5 and abs(float(first.std(correction=0)) - 1) < 1e-3
    assert batch.n_samples.tolist() == [800, 1600]
    assert float(batch.input_values[0, 800:].abs().max()) == 0


def test_a_clip_shorter_than_the_receptive_field_is_refused():
    model = _padding_invariant(tiny_hubert("group"))
    with pytest.raises(InputError, match="300 samples is too short"):
        encode(model, Batch(torch.zeros(1, 300), torch.tensor([300])))


def test_the_head_is_a_linear_map_of_the_mean_over_valid_frames():
    model = Classifier(_padding_invariant(tiny_hubert("group")), ("female", "male"), "gender").eval()
    batch = collate(clips([5_000, 9_000]), EXTRACTOR)
    with torch.inference_mode():
        output, mask = encode(model.encoder, batch)
        frames = output.last_hidden_state[0, : int(mask[0].sum())]
        torch.testing.assert_close(model(batch)[0], model.head(frames.mean(0)), atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_mean_cross_entropy_of_the_class_named_in_the_row():
    model = Classifier(_padding_invariant(tiny_hubert("group")), ("x", "y", "z"), "accent").eval()
    batch = collate(clips([5_000, 9_000]), EXTRACTOR)
    with torch.inference_mode():
        logits = model.predict(batch).double().numpy()
        loss = float(model.loss(batch, [{"accent": "z"}, {"accent": "x", "gender": "male"}]))
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert loss == pytest.approx(-(np.log(share[0, 2]) + np.log(share[1, 0])) / 2, abs=1e-5)


def test_an_encoder_saved_in_the_hub_format_loads_from_its_folder_with_a_fingerprint_of_its_weights(tmp_path):
    tiny_hubert("group").save_pretrained(tmp_path / "hubert")
    EXTRACTOR.save_pretrained(tmp_path / "hubert")
    encoder = load_encoder(str(tmp_path / "hubert"))
    assert encoder.sample_rate_hz == 16_000
    other = tiny_hubert("group")
    with torch.no_grad():
        other.encoder.layer_norm.weight.mul_(2)
    other.save_pretrained(tmp_path / "hubert")
    assert load_encoder(str(tmp_path / "hubert")).fingerprint != encoder.fingerprint


def test_random_prefix_draws_new_weights_from_the_seed(tmp_path):
    tiny_hubert("group").save_pretrained(tmp_path / "hubert")
    EXTRACTOR.save_pretrained(tmp_path / "hubert")
    encoder = load_encoder(f"random:{tmp_path / 'hubert'}")
    weights = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        weights.append(encoder.fresh_model().feature_projection.projection.weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], encoder.model.feature_projection.projection.weight)


def test_an_encoder_that_is_nowhere_is_named_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no-such-encoder"):
        load_encoder("no-such-encoder")


def test_an_encoder_of_another_kind_is_refused(tmp_path):
    from transformers import Wav2Vec2Config

    Wav2Vec2Config().save_pretrained(tmp_path)
    EXTRACTOR.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="wav2vec2"):
        load_encoder(str(tmp_path))


def hub_cache(folder, commit, model):
    """What the Hub's client keeps of one repository, as `huggingface_hub` lays it out."""
    repository = folder / "models--owner--hubert"
    snapshot = repository / "snapshots" / commit
    model.save_pretrained(snapshot)
    EXTRACTOR.save_pretrained(snapshot)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)


def test_a_model_of_the_hub_loads_by_name_and_its_commit_is_in_the_fingerprint(tmp_path):
    """From the client's cache, offline, in a process that sees no other; the branch is resolved to its commit."""
    import os
    import subprocess
    import sys

    hub_cache(tmp_path, "a" * 40, tiny_hubert("group"))
    hub_cache(tmp_path, "b" * 40, tiny_hubert("group"))
    code = (
        "from cltmlib.encoders import load_encoder\n"
        f"for revision in (None, {'a' * 40!r}):\n"
        "    encoder = load_encoder('owner/hubert', revision)\n"
        "    print(encoder.fingerprint, encoder.revision)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    expected = [f"owner/hubert@{c * 40} {c * 40}" for c in "ba"]
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("damage", ["missing layer", "truncated", "other names"])
def test_incomplete_weights_are_refused_instead_of_filled_with_random_numbers(tmp_path, damage):
    from safetensors.torch import load_file, save_file

    tiny_hubert("group").save_pretrained(tmp_path)
    EXTRACTOR.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "missing layer":
        save_file({k: v for k, v in weights.items() if "layers.1." not in k}, file, {"format": "pt"})
    else:
        save_file({f"foo.{k}": v for k, v in weights.items()}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks \d+ of its weights|no readable weights"):
        load_encoder(str(tmp_path))


def test_the_fingerprint_is_that_of_settings_and_weights_alone(tmp_path):
    for name in ("one", "two"):
        tiny_hubert("group").save_pretrained(tmp_path / name)
        EXTRACTOR.save_pretrained(tmp_path / name)
    (tmp_path / "two" / "recipe.json").write_text("{}")
    one, two = (load_encoder(str(tmp_path / name)).fingerprint for name in ("one", "two"))
    assert one == two
