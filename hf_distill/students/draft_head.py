"""Draft heads for speculative decoding: one layer that reads what its teacher saw, and writes some tokens ahead of it.

Knows: a teacher's embeddings and head, in which order states and tokens are read. Does not know:
losses, tasks, batches beside their tokens, how a text is written with a draft's help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.utils import ModelOutput

from hf_distill.models.outputs import core_of
from hf_distill.models.texts import cache_word
from hf_distill.students.draft_layout import ARCHITECTURE, FAMILIES, shaped, usual_layers
from hf_distill.students.lineage import record

STATES = ("low_states", "middle_states", "high_states")
"""The arguments of a draft's forward that its teacher fills."""
SHARE = 0.1
"""By what a fusion begins to multiply the last state. The layer and the head see each state normalised, so it is the
same to them; but beside one of full size what a new layer adds hardly counts for hundreds of steps."""


@dataclass
class DraftOutput(ModelOutput):
    """What a draft says of each position.

    Args:
        logits: [B, T, V], of the token behind each position, where the teacher's states are read.
        further_logits: the same of each later token of a draft, where its own states are read.
    """

    logits: Tensor | None = None
    further_logits: tuple[Tensor, ...] | None = None


class DraftLayer(nn.Module):
    """A Llama layer that attends by a token beside a state, and adds to the state.

    Args:
        config: the draft's.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.self_attn = LlamaAttention(config, layer_idx=0)
        for name in ("q_proj", "k_proj", "v_proj"):
            plain = getattr(self.self_attn, name)
            setattr(self.self_attn, name, nn.Linear(2 * width, plain.out_features, bias=plain.bias is not None))
        self.mlp = LlamaMLP(config)
        self.input_layernorm, self.hidden_norm, self.post_attention_layernorm = (
            LlamaRMSNorm(width, eps=config.rms_norm_eps) for _ in range(3)
        )

    def forward(self, tokens: Tensor, states: Tensor, places: Any, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Return the states of the next pass, [B, T, H].

        Args:
            tokens: embeddings [B, T, H].
            states: what was known before each of them [B, T, H].
            places: cosine and sine of the positions.
            mask: what may be attended to, 0 or the lowest number, [B, 1, T, keys].
            cache: of earlier keys, to which these are added.
        """
        both = torch.cat((self.input_layernorm(tokens), self.hidden_norm(states)), dim=-1)
        states = states + self.self_attn(both, places, mask, **{cache_word(self.self_attn.forward): cache})[0]
        return states + self.mlp(self.post_attention_layernorm(states))


class DraftHead(PreTrainedModel):
    """A student that always reads its teacher: at position t the token at t, and the teacher's states of t - 1.

    It predicts the token at t + 1, of which the teacher has said nothing by then. What is read are the states that
    enter three of the teacher's layers; one matrix makes one state of them, at the beginning a tenth of the last. A
    draft of several tokens goes on from its own states: ``forward`` does so ``config.unrolled`` times, and each later
    pass attends to the first one's keys of all positions but its last, as when a text is written.

    Embeddings, head and last norm are the teacher's and stay as they are. Nothing is predicted at the first token of
    a text, before which there is no state. Teachers are Llama, Mistral, Qwen2 and Qwen3.

    Args:
        config: as ``from_teacher`` makes it, or as it was saved.

    Reference:
        Li et al.: EAGLE-3, arXiv:2503.01840.

    Example:
        >>> from transformers import LlamaForCausalLM
        >>> sizes = dict(hidden_size=8, intermediate_size=16, num_attention_heads=2, vocab_size=16)
        >>> teacher = LlamaForCausalLM(LlamaConfig(num_hidden_layers=8, **sizes))
        >>> draft = DraftHead.from_teacher(teacher, unrolled=2)
        >>> draft.reads_teacher
        {'low_states': 'hidden[2]', 'middle_states': 'hidden[4]', 'high_states': 'hidden[5]'}
        >>> states = teacher(torch.ones(1, 5).long(), output_hidden_states=True).hidden_states
        >>> shown = draft(torch.ones(1, 5).long(), *(states[layer] for layer in draft.config.reads_layers))
        >>> shown.logits.shape, len(shown.further_logits)
        (torch.Size([1, 5, 16]), 1)
    """

    config_class = LlamaConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _no_split_modules = ("DraftLayer",)

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.fc = nn.Linear(len(STATES) * config.hidden_size, config.hidden_size, bias=False)
        self.midlayer = DraftLayer(config)
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rotary = LlamaRotaryEmbedding(config)
        self.post_init()
        self._freeze()

    @classmethod
    def from_teacher(
        cls, teacher: PreTrainedModel, layers: Sequence[int] | None = None, unrolled: int = 3
    ) -> DraftHead:
        """Make a draft head.

        Args:
            teacher: a causal language model; it is not changed.
            layers: three numbers of its layers, from 0: the states that enter them are read. Default: those that
                servers read, (2, n // 2, n - 3), or of a teacher with fewer than seven layers three that it has.
            unrolled: how many tokens of a draft are learned, the first included.

        Raises:
            ValueError: in one sentence.
        """
        teacher = core_of(teacher)
        config, head = getattr(teacher, "config", None), getattr(teacher, "lm_head", None)
        if getattr(config, "model_type", None) not in FAMILIES or head is None:
            raise ValueError(
                f"a draft head was asked for {type(teacher).__name__}, servers load those of {', '.join(FAMILIES)} "
                "with a head over the vocabulary: take such a teacher."
            )
        depth, usual = config.num_hidden_layers, usual_layers(config.num_hidden_layers)
        layers = list(usual if layers is None else layers)
        if len(layers) != len(STATES) or not all(0 <= layer < depth for layer in layers):
            raise ValueError(
                f"layers={layers} were given, a draft head reads what enters three of the teacher's {depth}: give "
                f"three numbers from 0 to {depth - 1}."
            )
        if unrolled < 1:
            raise ValueError(f"unrolled={unrolled} was given: give 1 for the first token of a draft alone, or more.")
        draft = cls(shaped(config, layers, unrolled)).to(teacher.dtype)
        width = config.hidden_size
        with torch.no_grad():
            draft.fc.weight.zero_()
            draft.fc.weight[:, -width:] = SHARE * torch.eye(width)
            theirs = (teacher.get_input_embeddings(), teacher.model.norm, head)
            for own, part in zip(draft._of_the_teacher, theirs, strict=True):
                own.weight.copy_(part.weight)
        record(draft, teacher, "draft_head", layers=layers, unrolled=unrolled)
        return draft.to(teacher.device)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load what ``save_pretrained`` wrote; what is the teacher's stays as it is."""
        found = super().from_pretrained(*args, **kwargs)
        (found[0] if isinstance(found, tuple) else found)._freeze()
        return found

    def _freeze(self) -> None:
        for part in self._of_the_teacher:
            part.requires_grad_(False)

    @property
    def _of_the_teacher(self) -> tuple[nn.Module, ...]:
        return self.embed_tokens, self.norm, self.lm_head

    @property
    def reads_teacher(self) -> dict[str, str]:
        """What its forward is given of the teacher; see ``TeacherReading``."""
        return {name: f"hidden[{layer}]" for name, layer in zip(STATES, self.config.reads_layers, strict=True)}

    @property
    def drafts(self) -> int:
        """How many tokens of a draft are learned; its task asks for it."""
        return self.config.unrolled

    def forward(
        self,
        input_ids: Tensor,
        low_states: Tensor,
        middle_states: Tensor,
        high_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> DraftOutput:
        """Predict the token behind each position, after as many tokens of a draft as are unrolled.

        Args:
            input_ids: [B, T].
            low_states: of the teacher [B, T, H], as the two behind it.
            middle_states: from a layer further up.
            high_states: from the uppermost one that is read.
            attention_mask: [B, T]; None: nothing is padding.

        Returns:
            Logits [B, T, V] of each pass. Those of the first position, and of later passes of as many more, say
            nothing.
        """
        read = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        real = (read[:, 1:] * read[:, :-1]).bool()  # a token whose state of before is no padding
        tokens = self.embed_tokens(input_ids[:, 1:])
        states = self.fused(low_states, middle_states, high_states)[:, :-1].to(tokens.dtype)
        place = torch.arange(real.shape[1], device=real.device)
        before = place[:, None] - place[None]
        cache, shown = DynamicCache(), []
        for number in range(self.config.unrolled):
            # Of the teacher-fed pass all keys but those of the tokens drafted since, of each later pass the one whose
            # token was drafted in it; itself each token sees always, so that padding has something to look at.
            first = (before >= number) & real[:, None] if number else (before >= 0) & real[:, None] | (before == 0)
            later = [(before == number - one).expand_as(first) for one in range(1, number + 1)]
            states = self.step(tokens, states, place[None], torch.cat((first, *later), dim=-1)[:, None], cache)
            shown.append(F.pad(self.lm_head(self.norm(states)), (0, 0, 1, 0)))
            states = F.pad(states[:, :-1], (0, 0, 1, 0))
        return DraftOutput(shown[0], tuple(shown[1:]) or None)

    def fused(self, *states: Tensor) -> Tensor:
        """Make one state of the teacher's three, [B, T, H] each."""
        return self.fc(torch.cat([one.to(self.fc.weight.dtype) for one in states], dim=-1))

    def step(self, tokens: Tensor, states: Tensor, places: Tensor, seen: Tensor, cache: DynamicCache) -> Tensor:
        """Run the layer once.

        Args:
            tokens: embeddings [B, T, H].
            states: [B, T, H], the teacher's (see ``fused``) or those of the last pass.
            places: positions [1, T].
            seen: bool [B, 1, T, keys], which keys each token attends to, those that are kept first.
            cache: what is kept of earlier passes; these keys are added.

        Returns:
            Its states [B, T, H]: the head reads them behind the norm, the next pass as they are.
        """
        mask = torch.zeros(seen.shape, dtype=tokens.dtype, device=tokens.device)
        mask = mask.masked_fill(~seen, torch.finfo(tokens.dtype).min)
        return self.midlayer(tokens, states, self.rotary(tokens, places), mask, cache)

    def get_input_embeddings(self) -> nn.Module:
        """Return the teacher's embeddings."""
        return self.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """Return the teacher's head."""
        return self.lm_head

    def generate(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse to write: without a teacher there is nothing to read."""
        raise ValueError(
            "a draft head was asked to write, which reads its teacher's states at every token: write with both, "
            "hf_distill.speculate(teacher, draft, ids)."
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward; without the teacher's states refuse in a sentence."""
        given = [*args[1 : 1 + len(STATES)], *(kwargs.get(name) for name in STATES[max(0, len(args) - 1) :])]
        if any(one is None for one in given):
            raise ValueError(
                f"a draft head was called without its teacher's states: give {', '.join(self.reads_teacher.values())}"
                f" of the teacher as {', '.join(STATES)}, or write with hf_distill.speculate(teacher, draft, ids)."
            )
        return super().__call__(*args, **kwargs)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save as servers load it: under the name by which they know this layout."""
        # Servers with transformers 4 look for it here, and would take 10,000 without a word where it is missing.
        self.config.rope_theta = self.config.rope_parameters["rope_theta"]
        # Transformers writes the name of this class, which no server has, into the configuration that it saves.
        mine, self.__class__ = self.__class__, type(ARCHITECTURE, (type(self),), {})
        try:
            super().save_pretrained(*args, **kwargs)
        finally:
            self.__class__ = mine
