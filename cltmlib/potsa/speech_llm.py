"""The speech LLM: learned queries read the frozen speech encoder, a frozen language model reads the queries.

Paper (arXiv 2511.09232): Q-Former of 8 blocks with 80 queries over Whisper large-v3's encoder, a linear map into
Qwen2.5-7B. Only queries, Q-Former and linear map are trained. As in SLAM-LLM, which the authors build on, a layer norm
follows the linear map.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Blip2QFormerConfig, Blip2QFormerModel, PreTrainedModel

from cltmlib.errors import InputError

IGNORED = -100


class Step(NamedTuple):
    """What a training step needs.

    Attributes:
        loss: mean cross-entropy of the answers' tokens, a scalar.
        tokens: query tokens after each block of the Q-Former, each (batch, query, width): what alignment acts on.
    """

    loss: Tensor
    tokens: tuple[Tensor, ...]


class SpeechLLM(nn.Module):
    """Queries, Q-Former and linear map (trained) before a causal language model (frozen).

    Args:
        llm: such as `Qwen2ForCausalLM`; its weights take no gradient and it stays in evaluation mode.
        encoder_width: width of the speech encoder's output, 1280 for Whisper large-v3.
        n_queries: query tokens.
        n_blocks: blocks of the Q-Former.
        width: of the Q-Former.
        n_heads: attention heads of the Q-Former.
        dropout: of the Q-Former. Choice: 0, for dropout would be noise in the alignment of two utterances.
        cross_attention_frequency: every how many blocks the queries look at the speech. Choice: 1, so that candidate
            layers for alignment do not differ in kind; Blip-2 and SLAM-LLM have 2.
    """

    def __init__(
        self,
        llm: PreTrainedModel,
        encoder_width: int,
        n_queries: int = 80,
        n_blocks: int = 8,
        width: int = 768,
        n_heads: int = 12,
        dropout: float = 0.0,
        cross_attention_frequency: int = 1,
    ):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, n_queries, width))
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=width,
                num_hidden_layers=n_blocks,
                num_attention_heads=n_heads,
                intermediate_size=4 * width,
                encoder_hidden_size=encoder_width,
                cross_attention_frequency=cross_attention_frequency,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        )
        self.to_llm = nn.Sequential(
            nn.Linear(width, llm.config.hidden_size), nn.LayerNorm(llm.config.hidden_size, eps=1e-5)
        )
        self._llm = [llm.eval().requires_grad_(False)]  # in a list: neither trained, saved nor moved with this module

    @property
    def llm(self) -> PreTrainedModel:
        return self._llm[0]

    def encode(self, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Speech tokens for the language model, and the query tokens after each block.

        Args:
            hidden: encoder output, float, (batch, frame, encoder_width).
            lengths: valid frames of each clip, (batch,).

        Returns:
            (batch, query, LLM width), and ``n_blocks`` tensors (batch, query, width).

        Raises:
            InputError: a clip has no valid frame, or a valid frame is not finite.
        """
        mask = torch.arange(hidden.shape[1], device=hidden.device) < lengths.to(hidden.device)[:, None]
        if not mask.any(1).all():
            raise InputError(f"Clip {int((~mask.any(1)).int().argmax())} of the batch has no frame: leave it out.")
        hidden = hidden.masked_fill(~mask[:, :, None], 0)
        if not hidden.isfinite().all():
            wrong = int((~hidden.isfinite().all(2).all(1)).int().argmax())
            raise InputError(f"Features of clip {wrong} of the batch are not finite: check its audio.")
        output = self.qformer(
            query_embeds=self.queries.expand(len(hidden), -1, -1),
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask.long(),
            output_hidden_states=True,
        )
        return self.to_llm(output.last_hidden_state), tuple(output.hidden_states[1:])

    def forward(
        self, hidden: Tensor, lengths: Tensor, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> Step:
        """Loss of the answers after speech and prompt.

        Args:
            hidden, lengths: as in `encode`.
            prompts: token ids of each clip's prompt, such as the tag of the target language.
            answers: token ids of each clip's translation; the end token is added.

        Raises:
            InputError: as `encode`; an answer is empty.
        """
        if any(not len(answer) for answer in answers):
            raise InputError("An answer has no token: leave its clip out.")
        speech, tokens = self.encode(hidden, lengths)
        end = self.llm.config.eos_token_id
        rows = [([*prompt, *answer, end], len(prompt)) for prompt, answer in zip(prompts, answers, strict=True)]
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), longest), end)
        labels = torch.full((len(rows), longest), IGNORED)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for k, (row, n_prompt) in enumerate(rows):
            ids[k, : len(row)] = torch.tensor(row)
            labels[k, n_prompt : len(row)] = torch.tensor(row[n_prompt:])
            mask[k, : len(row)] = 1
        ids, labels, mask = ids.to(speech.device), labels.to(speech.device), mask.to(speech.device)
        embedded = torch.cat([speech.to(self.llm.dtype), self.llm.get_input_embeddings()(ids)], 1)
        mask = torch.cat([mask.new_ones(speech.shape[:2]), mask], 1)
        logits = self.llm(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
        predicted = logits[:, speech.shape[1] - 1 : -1].float()  # the position before each text token
        return Step(cross_entropy(predicted.flatten(0, 1), labels.flatten(), ignore_index=IGNORED), tokens)

    @torch.no_grad()
    def translate(
        self, hidden: Tensor, lengths: Tensor, prompts: Sequence[Sequence[int]], max_tokens: int
    ) -> list[list[int]]:
        """Greedy answers as token ids, without the end token.

        Args:
            hidden, lengths: as in `encode`.
            prompts: of equal length.
            max_tokens: at which an answer is cut.
        """
        speech, _ = self.encode(hidden, lengths)
        ids = torch.tensor([list(prompt) for prompt in prompts], device=speech.device)
        embedded = torch.cat([speech.to(self.llm.dtype), self.llm.get_input_embeddings()(ids)], 1)
        end = self.llm.config.eos_token_id
        written = self.llm.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long, device=speech.device),
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=end,
        )
        return [row[: row.index(end)] if end in row else row for row in written.tolist()]
