"""Is transformers' continuous batching faster than ``generate`` for the texts of a teacher?

    python tests/benchmarks/writing.py
    python tests/benchmarks/writing.py --device cuda --dtype bfloat16 --layers 24 --width 1024 --prompts 512

A Qwen2 of random weights continues prompts of 8 to 63 tokens with its most likely token, until one of a few tokens
that end a text or ``--tokens``: so texts are of very different lengths, which is what continuous batching is for. Both
must write the same. Seconds are CPU seconds of one thread, or seconds on a GPU; rounds take turns, and the median
counts. The last line is a ratio.
"""

import argparse
import random
import statistics
import time

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from hf_distill.reports import markdown_table

VOCABULARY, ENDING = 8_000, 200


def padded(model, prompts, config, size):
    """Texts by ``generate``, of ``size`` prompts at once."""
    texts = []
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        long = max(map(len, part))
        ids = torch.tensor([[0] * (long - len(prompt)) + prompt for prompt in part], device=model.device)
        mask = torch.tensor([[0] * (long - len(prompt)) + [1] * len(prompt) for prompt in part], device=model.device)
        made = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, long:].tolist()
        ends = (next((i for i, token in enumerate(text) if token in config.eos_token_id), len(text)) for text in made)
        texts += [text[: end + 1] for text, end in zip(made, ends, strict=True)]
    return texts


def continuous(model, prompts, config):
    """Texts by ``generate_batch``."""
    made = model.generate_batch(prompts, generation_config=config)
    return [one.generated_tokens for _, one in sorted(made.items(), key=lambda item: int(item[0].split("_")[-1]))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    sizes = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=asked.width, intermediate_size=3 * asked.width, pad_token_id=0,
        num_hidden_layers=asked.layers, num_attention_heads=asked.width // 64, num_key_value_heads=asked.width // 64,
    )  # fmt: skip
    model = Qwen2ForCausalLM(sizes).to(asked.device, getattr(torch, asked.dtype)).eval()
    prompts = [random.choices(range(1, VOCABULARY), k=random.randrange(8, 64)) for _ in range(asked.prompts)]
    config = GenerationConfig(
        max_new_tokens=asked.tokens, pad_token_id=0, eos_token_id=random.sample(range(1, VOCABULARY), ENDING)
    )
    ways = {
        "generate, 8 prompts at once": lambda: padded(model, prompts, config, 8),
        "generate, all at once": lambda: padded(model, prompts, config, len(prompts)),
        "generate_batch": lambda: continuous(model, prompts, config),
    }
    clock = time.process_time if asked.device == "cpu" else time.perf_counter
    seconds, texts = {way: [] for way in ways}, {}
    for _ in range(asked.rounds):
        for way, write in ways.items():
            started = clock()
            texts[way] = write()
            seconds[way].append(clock() - started)
    lengths = sorted(map(len, texts["generate, all at once"]))
    print(f"{len(lengths)} texts of {lengths[0]} to {lengths[-1]} tokens, {statistics.mean(lengths):.0f} on average")
    taken = {way: statistics.median(found) for way, found in seconds.items()}
    whole = texts["generate, all at once"]
    same = {way: sum(a == b for a, b in zip(made, whole, strict=True)) for way, made in texts.items()}
    rows = [[way, f"{taken[way]:.1f}", f"{same[way]} of {len(whole)}"] for way in ways]
    print(markdown_table(["", "seconds", "the same texts"], rows))
    print(f"generate_batch / generate, 8 prompts at once: {taken['generate_batch'] / taken[next(iter(ways))]:.2f}")


if __name__ == "__main__":
    main()
