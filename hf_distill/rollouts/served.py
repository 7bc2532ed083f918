"""A server that writes for the teacher, faster than ``generate`` does: vLLM's.

Knows: two routes of its OpenAI-compatible server, ``/v1/models`` and ``/v1/completions``. Does not know: rows,
batches, where texts are kept, what the student does.

Tokens are sent and tokens come back, never characters: a text that is tokenized again may have other tokens. The
server is a process of its own, so it may stand on other cards and have another torch than the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor
from transformers import GenerationConfig

from hf_distill.rollouts.padding import Row

KEY = "VLLM_API_KEY"
"""The variable that holds the server's key, as for ``vllm serve``; it is sent and never shown."""

UNKNOWN = ("no_repeat_ngram_size", "bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens")
"""What a teacher's ``generation_config`` may ask for and the server does not do."""


class Served:
    """The texts that ``vllm serve TEACHER`` writes, each the most likely one token by token.

    Args:
        url: where it listens, such as ``http://localhost:8000``.
        teacher: the teacher's path or name; it chooses where the server serves several models.

    Raises:
        ValueError: nobody answers there, or it serves several models and none of that name.

    Example:
        >>> Served("http://localhost:9", "teachers/qwen")
        Traceback (most recent call last):
        ...
        ValueError: http://localhost:9 was to write for the teacher and does not answer ([Errno 111] \
Connection refused): start it with `vllm serve teachers/qwen`, or leave `server` out of rollout.
    """

    def __init__(self, url: str, teacher: str) -> None:
        self.url, self.teacher = url.rstrip("/").removesuffix("/v1"), teacher
        models = {model["id"]: model for model in self._ask("GET", "/v1/models")["data"]}
        if len(models) != 1 and teacher not in models:
            raise ValueError(
                f"{self.url} serves {', '.join(map(repr, models)) or 'no model'}, and the teacher is {teacher!r}: "
                "serve it, under this name if it is one of several."
            )
        self.model = teacher if teacher in models else next(iter(models))
        self.reads: int | None = models[self.model].get("max_model_len")

    def write(self, prompts: Sequence[Row], config: GenerationConfig) -> list[Tensor]:
        """Let the server continue prompts, all at once: it batches them itself.

        Args:
            prompts: column -> tokens [n].
            config: how the teacher writes.

        Returns:
            For each prompt the tokens [m] that follow it, the first end-of-sequence token included.

        Raises:
            ValueError: the server cannot write so, does not read as much, or did not say which tokens it wrote.
        """
        self.check(config, max(len(prompt["input_ids"]) for prompt in prompts))
        ends = config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        asked = {
            "model": self.model,
            "prompt": [prompt["input_ids"].tolist() for prompt in prompts],
            "max_tokens": config.max_new_tokens,
            "temperature": 0,
            "repetition_penalty": config.repetition_penalty or 1.0,
            "stop_token_ids": ends,
            "return_token_ids": True,
        }
        choices = sorted(self._ask("POST", "/v1/completions", asked)["choices"], key=lambda choice: choice["index"])
        if len(choices) != len(prompts) or any(choice.get("token_ids") is None for choice in choices):
            raise ValueError(
                f"{self.url} was asked for the tokens of {len(prompts)} texts and did not give them "
                "(`return_token_ids`): serve the teacher with vLLM 0.10.2 or newer."
            )
        return [self._whole(choice, ends) for choice in choices]

    def check(self, config: GenerationConfig, longest: int = 0) -> None:
        """Refuse what the server would do otherwise than the teacher.

        Args:
            config: how the teacher writes.
            longest: the tokens of the longest prompt.

        Raises:
            ValueError: in one sentence.
        """
        if (config.num_beams or 1) > 1:
            raise ValueError(
                f"the teacher was to write with num_beams={config.num_beams}, and {self.url} takes the most likely "
                "token at each place: set num_beams to 1, or leave `server` out of rollout."
            )
        for name in UNKNOWN:
            if getattr(config, name, None):
                raise ValueError(
                    f"the teacher's generation_config asks for {name}={getattr(config, name)!r}, which {self.url} "
                    "does not do: take it out of the configuration, or leave `server` out of rollout."
                )
        if self.reads is not None and longest + config.max_new_tokens > self.reads:
            raise ValueError(
                f"rollout may make a prompt of {longest} tokens and a text of max_new_tokens={config.max_new_tokens}, "
                f"{self.url} reads {self.reads} (max_model_len): raise --max-model-len, or lower max_new_tokens."
            )

    @staticmethod
    def _whole(choice: dict[str, Any], ends: Sequence[int]) -> Tensor:
        """The tokens of a text up to its first end; one that stopped is given its end where the server left it out."""
        tokens = list(choice["token_ids"])
        last = next((place for place, token in enumerate(tokens) if token in ends), None)
        if last is None and choice.get("finish_reason") == "stop" and ends:
            tokens.append(choice["stop_reason"] if isinstance(choice.get("stop_reason"), int) else ends[0])
        return torch.tensor(tokens if last is None else tokens[: last + 1], dtype=torch.int64)

    def _ask(self, method: str, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            # Without a limit of time: a text takes as long as it takes.
            with urlopen(Request(self.url + route, data, headers, method=method)) as answer:
                return json.load(answer)
        except HTTPError as error:
            with error:
                problem = f"answers {error.code} ({error.read(200).decode(errors='replace').strip() or error.reason})"
            problem += f"; its key is read from {KEY}" if error.code in (401, 403) else ""
        except (OSError, HTTPException, ValueError) as error:
            problem = f"does not answer ({getattr(error, 'reason', error)})"
        raise ValueError(
            f"{self.url} was to write for the teacher and {problem}: start it with `vllm serve {self.teacher}`, or "
            "leave `server` out of rollout."
        )
