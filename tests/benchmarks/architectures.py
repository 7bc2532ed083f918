"""For which sequence classifiers of transformers is the task's hard loss the model's own?

    python tests/benchmarks/architectures.py

Every class of AutoModelForSequenceClassification is built tiny and given the same batch, for one class and for several
classes a sample. The task replaces the model's loss by a sum that can be divided once, so the two means must be equal.
What cannot be built from the sizes below is "not run", which says nothing about it. The last line is the share.
"""

import warnings

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES

from hf_distill.tasks import Task

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embedding_size": 32, "emb_dim": 32,
    "num_hidden_layers": 2, "n_layers": 2, "n_layer": 2, "encoder_layers": 2, "decoder_layers": 2, "num_layers": 2,
    "num_attention_heads": 4, "n_heads": 4, "n_head": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "intermediate_size": 64, "d_ff": 64, "hidden_dim": 64,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "ffn_dim": 64, "d_kv": 8, "d_inner": 64, "pad_token_id": 0,
    "eos_token_id": 3, "bos_token_id": 2, "decoder_start_token_id": 2, "num_experts": 2, "num_local_experts": 2,
    "n_routed_experts": 2, "moe_intermediate_size": 16, "max_position_embeddings": 64, "state_size": 8,
    "pooler_hidden_size": 32,
}  # fmt: skip


def tiny(name, problem):
    config = CONFIG_MAPPING[name]()
    for key, value in SIZES.items():
        if hasattr(config, key):
            setattr(config, key, value)
    for key in ("layer_types", "block_types"):
        if getattr(config, key, None):
            setattr(config, key, getattr(config, key)[:2])
    config.num_labels, config.problem_type = 3, problem
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForSequenceClassification.from_config(config).parameters())
    if size > 20e6:
        raise ValueError(f"still {size / 1e6:.0f} M parameters")
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


def verdict(name):
    ids = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 11, 12, 3], [2, 13, 14, 15, 16, 3]])
    labels = {
        "single_label_classification": torch.tensor([0, 2, 1]),
        "multi_label_classification": torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]]),
    }
    for problem, wanted in labels.items():
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": wanted}
        try:
            model = tiny(name, problem)
            with torch.no_grad():
                outputs = model(**batch)
        except Exception as error:
            return f"not run: {(str(error).splitlines() or [type(error).__name__])[0][:90]}"
        task = Task.of(model)
        if task.own_loss:
            return "left to the model"
        if not torch.allclose(task.hard(outputs, batch).mean(), outputs.loss.float(), rtol=1e-4):
            return f"DIFFERENT for {problem}: {task.hard(outputs, batch).mean():.5f} against {outputs.loss:.5f}"
    return "equal"


def main():
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    found = {name: verdict(name) for name in sorted(NAMES)}
    for name, said in found.items():
        if said != "equal":
            print(f"{name:30} {said}")
    ran = [said for said in found.values() if not said.startswith("not run")]
    print(f"{sum(said == 'equal' for said in ran)} of {len(ran)} that ran are equal ({len(found)} in all)")


if __name__ == "__main__":
    main()
