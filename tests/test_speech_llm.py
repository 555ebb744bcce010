"""The speech LLM: what is trained, what the loss counts, what padding must not change; and the paper's shapes."""

import json

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from cltmlib import checkpoints
from cltmlib.errors import InputError
from cltmlib.potsa.alignment import alignment_loss
from cltmlib.potsa.llm import load_llm, tag
from cltmlib.potsa.speech_llm import SpeechLLM
from cltmlib.pretrain import qwen

END = 0


def language_model(**config):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    small |= {"initializer_range": 0.5, "num_hidden_layers": 1}  # large weights, or nothing steers what it writes
    ends = {"eos_token_id": END, "bos_token_id": END, "pad_token_id": END}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=20, **ends, **{**small, **config}))


@pytest.fixture(scope="module")
def model():
    llm = language_model()
    torch.manual_seed(1)
    return SpeechLLM(llm, encoder_width=6, n_queries=3, n_blocks=2, width=8, n_heads=2).eval()


def speech(n_clips=2, n_frames=5, width=6):
    return torch.randn(n_clips, n_frames, width, generator=torch.Generator().manual_seed(2))


LENGTHS, PROMPTS, ANSWERS = torch.tensor([5, 3]), [[1, 2], [3, 2]], [[4, 5, 6], [7]]


def test_the_loss_is_the_mean_over_answers_and_their_end_tokens_alone(model):
    step = model(speech(), LENGTHS, PROMPTS, ANSWERS)
    log_p = []
    for k, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        tokens, _ = model.encode(speech()[k : k + 1, : LENGTHS[k]], LENGTHS[k : k + 1])
        ids = torch.tensor([[*prompt, *answer, END]])
        embedded = torch.cat([tokens, model.llm.get_input_embeddings()(ids)], 1)
        of_clip = model.llm(inputs_embeds=embedded).logits[0].log_softmax(-1)
        start = 3 + len(prompt) - 1  # 3 queries; the last token of the prompt predicts the first of the answer
        log_p += [of_clip[start + i, token] for i, token in enumerate([*answer, END])]
    assert len(log_p) == 6 and step.loss.item() == pytest.approx(-torch.stack(log_p).mean().item(), rel=1e-5)


def test_padding_changes_nothing_whatever_stands_in_it(model):
    hidden = speech()
    hidden[1, 3:] = float("nan")
    longer = torch.cat([hidden, torch.full((2, 4, 6), float("inf"))], 1)
    for one, other in zip(model.encode(hidden, LENGTHS)[1], model.encode(longer, LENGTHS)[1], strict=True):
        torch.testing.assert_close(one, other)
    assert torch.isfinite(model(longer, LENGTHS, PROMPTS, ANSWERS).loss)


def test_tokens_come_from_every_block_and_the_last_are_what_the_llm_reads(model):
    read, tokens = model.encode(speech(), LENGTHS)
    assert [t.shape for t in tokens] == [(2, 3, 8)] * 2 and read.shape == (2, 3, 16)
    torch.testing.assert_close(model.to_llm(tokens[-1]), read)


def test_queries_qformer_and_map_learn_and_the_language_model_stays():
    llm = language_model()
    model = SpeechLLM(llm, 6, n_queries=3, n_blocks=2, width=8, n_heads=2).train()
    before = {name: p.clone() for name, p in llm.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = model(speech(), LENGTHS, PROMPTS, ANSWERS).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0] and not llm.training
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in llm.named_parameters())
    assert not any("llm." in name.split("to_llm")[0] for name in model.state_dict())
    assert all(p.grad is not None for p in model.parameters())


def test_answers_are_greedy(model):
    read, _ = model.encode(speech(), LENGTHS)
    for k, answer in enumerate(model.translate(speech(), LENGTHS, PROMPTS, 6)):
        ids = list(PROMPTS[k])
        while len(ids) < len(PROMPTS[k]) + 6 and END not in ids:
            embedded = torch.cat([read[k : k + 1], model.llm.get_input_embeddings()(torch.tensor([ids]))], 1)
            ids.append(int(model.llm(inputs_embeds=embedded).logits[0, -1].argmax()))
        assert answer == [token for token in ids[2:] if token != END]


def test_answers_do_not_depend_on_the_batch_and_end_at_the_end_token(model):
    together = model.translate(speech(), LENGTHS, PROMPTS, 6)
    alone = [model.translate(speech()[k : k + 1], LENGTHS[k : k + 1], PROMPTS[k : k + 1], 6)[0] for k in range(2)]
    assert together == alone and all(END not in answer and len(answer) <= 6 for answer in together)


def test_alignment_reaches_the_queries_and_not_what_follows_its_layer():
    model = SpeechLLM(language_model(), 6, n_queries=3, n_blocks=2, width=8, n_heads=2)
    _, tokens = model.encode(speech(), LENGTHS)
    sides = zip(*(layer.chunk(2) for layer in tokens), strict=True)
    alignment_loss(*sides, layers=[0]).backward()
    layers = model.qformer.encoder.layer
    assert model.queries.grad.abs().sum() > 0 and any(p.grad is not None for p in layers[0].parameters())
    assert all(p.grad is None for p in (*layers[1].parameters(), *model.to_llm.parameters()))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"lengths": torch.tensor([5, 0])}, "Clip 1 of the batch has no frame"),
        ({"hidden": speech().index_fill(0, torch.tensor([1]), float("nan"))}, "Features of clip 1 .* not finite"),
        ({"answers": [[1], []]}, "An answer has no token"),
    ],
)
def test_bad_input_is_one_sentence(model, change, said):
    given = {"hidden": speech(), "lengths": LENGTHS, "prompts": PROMPTS, "answers": ANSWERS, **change}
    with pytest.raises(InputError, match=said):
        model(**given)


def test_one_training_step_on_the_shapes_of_the_paper():
    """Whisper large-v3's 1500 frames of 1280, 8 blocks of width 768 with 80 queries, a language model 3584 wide."""
    heads = {"num_attention_heads": 28, "num_key_value_heads": 4, "initializer_range": 0.02}
    llm = language_model(hidden_size=3584, intermediate_size=3584, **heads)
    model = SpeechLLM(llm, 1280).train()
    hidden, lengths = torch.randn(2, 1500, 1280), torch.tensor([1500, 600])
    step = model(hidden, lengths, [[1]] * 2, [[2, 3], [4]])
    assert [t.shape for t in step.tokens] == [(2, 80, 768)] * 8
    source, target = zip(*(layer.chunk(2) for layer in step.tokens), strict=True)
    (step.loss + 10 * alignment_loss(source, target, layers=[3])).backward()
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    before = model.queries.detach().clone()
    optimiser.step()
    assert torch.isfinite(model.queries).all() and not torch.equal(before, model.queries)


# The language model ----------------------------------------------------------------------------------------------


TINY = qwen.Recipe(n_steps=30, width=16, n_layers=1, n_heads=2, batch_size=8, warmup_steps=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    texts = qwen.documents(qwen.domain("train")[:6], TINY.languages)
    llm = qwen.stand_in(TINY, [before + answer for before, answer in texts])
    log = qwen.train(llm, texts, TINY)
    assert log[-1]["step"] == 30 and log[-1]["loss"] < 6
    llm.model.save_pretrained(folder)
    llm.tokenizer.save_pretrained(folder)
    return folder


def test_the_domain_is_read_without_dev_and_test():
    train, dev, test = (set(qwen.domain(split)) for split in ("train", "dev", "test"))
    assert len(train | dev | test) == len(train) + len(dev) + len(test) == 1274
    texts = qwen.documents([("count", 47, "length-kilometer")], ("en", "zh-CN"))
    assert texts[1] == ("forty-seven kilometers<|zh|>", "四十七公里") and len(texts) == 4


def test_tags_are_one_token_and_any_text_can_be_written(folder):
    llm = load_llm(str(folder))
    assert tag("zh-CN") == "<|zh|>" and len(llm.prompt("zh-CN")) == len(llm.prompt("en")) == 1
    answers = ["四十七 ñ к", "a"]
    assert (
        llm.texts([[*llm.prompt("en"), *llm.tokens(text), llm.model.config.eos_token_id] for text in answers])
        == answers
    )
    assert not any(p.requires_grad for p in llm.model.parameters()) and llm.fingerprint.startswith("sha256:")


@pytest.mark.parametrize(
    "name, said",
    [
        ("mini-nothing", "neither a stand-in"),
        ("mini-hubert", "'hubert' model; this study needs a 'qwen2' one"),
        ("random:{folder}", "frozen language model with random weights"),
    ],
)
def test_another_language_model_is_one_sentence(folder, name, said):
    with pytest.raises(InputError, match=said):
        load_llm(name.format(folder=folder))


def test_a_language_model_without_weights_is_refused(folder, tmp_path):
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="no readable weights"):
        load_llm(str(tmp_path))


def test_a_stand_in_is_made_with_its_recipe_and_the_same_again(tmp_path, monkeypatch):
    plans = qwen.domain("train")[:3]
    monkeypatch.setattr(qwen, "domain", lambda split: plans)
    digests = []
    for name in ("one", "two"):
        exact = qwen.make_stand_in(tmp_path / name, TINY)
        assert set(exact) == {"en to en", "en to zh-CN", "zh-CN to en", "zh-CN to zh-CN"}
        digests.append(load_llm(str(tmp_path / name)).fingerprint)
    record = json.loads((tmp_path / "one" / "recipe.json").read_text())
    assert record["recipe"]["n_steps"] == 30 and record["n_texts"] == 12 and digests[0] == digests[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"], "no half model is left"


def test_the_stand_in_translates_unseen_sentences():
    llm = load_llm("mini-qwen")
    unseen = [text for text in qwen.documents(qwen.domain("dev")[::8], ("en", "zh-CN")) if tag("zh-CN") in text[0]]
    assert qwen.exact_answers(llm, unseen) > 0.9
    size = sum(path.stat().st_size for path in (checkpoints.STAND_INS / "mini-qwen").iterdir())
    assert size < 2e6
