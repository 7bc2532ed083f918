"""For which models of transformers is the task's hard loss the model's own?

    python tests/benchmarks/architectures.py [task ...]

Every class of the auto mappings is built tiny and given the same batch without padding. The task replaces the model's
loss by a sum that can be divided once, so its mean must be the model's own loss. Models without a head have no loss:
for these it is asked whether the task is found and one hidden state a token is shown. What cannot be built from the
sizes below is "not run", which says nothing about it. The last line of each task is the share. Of language models it
is also asked whether their head can be taken apart, so that large logits are never whole; then what enters the head,
the head and what comes after it must give the model's own logits to 1e-4 of their largest.
"""

import sys
import warnings

import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from hf_distill.models.head import logit_transform
from hf_distill.models.hooks import capture
from hf_distill.tasks import TASKS, Task

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
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 11, 12, 3], [2, 13, 14, 15, 16, 3]])
TOKENS = torch.tensor([[-100, 0, 2, -100, 1, -100], [-100] * 6, [-100, 1, 1, 1, 0, -100]])
TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
CHOICES = {name: torch.stack((value, value.flip(0)), dim=1) for name, value in TEXT.items()}
MAPPINGS = {
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "AutoModelForMultipleChoice": "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "AutoModel": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",  # the text models among all of AutoModel's
}
BATCHES = {
    "AutoModelForSequenceClassification": [
        ("single_label_classification", {**TEXT, "labels": torch.tensor([0, 2, 1])}),
        ("multi_label_classification", {**TEXT, "labels": torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]])}),
    ],
    "AutoModelForTokenClassification": [(None, {**TEXT, "labels": TOKENS})],
    "AutoModelForQuestionAnswering": [
        (None, {**TEXT, "start_positions": torch.tensor([1, 0, 2]), "end_positions": torch.tensor([4, 0, 3])})
    ],
    "AutoModelForMultipleChoice": [(None, {**CHOICES, "labels": torch.tensor([0, 1, 1])})],
    "AutoModelForCausalLM": [(None, {**TEXT, "labels": IDS})],
    "AutoModelForSeq2SeqLM": [(None, {**TEXT, "labels": IDS})],
    "AutoModelForMaskedLM": [(None, {**TEXT, "labels": TOKENS})],
    "AutoModel": [(None, TEXT)],
}


def tiny(auto, name, problem):
    config, auto = CONFIG_MAPPING[name](), getattr(transformers, auto)
    for key, value in SIZES.items():
        if hasattr(config, key):
            setattr(config, key, value)
    for key in ("layer_types", "block_types"):
        if getattr(config, key, None):
            setattr(config, key, getattr(config, key)[:2])
    if auto is transformers.AutoModelForSequenceClassification or auto is transformers.AutoModelForTokenClassification:
        config.num_labels, config.problem_type = 3, problem
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(config).parameters())
    if size > 20e6:
        raise ValueError(f"still {size / 1e6:.0f} M parameters")
    torch.manual_seed(0)
    return auto.from_config(config).eval()


def verdict(kind, name):
    auto = kind.auto_class
    for problem, batch in BATCHES[auto]:
        try:
            model = tiny(auto, name, problem)
            with torch.no_grad():
                outputs = model(**batch, **({} if kind.label_names else {"output_hidden_states": True}))
        except Exception as error:
            return f"not run: {(str(error).splitlines() or [type(error).__name__])[0][:90]}"
        task = Task.find(model, taught=True)
        if type(task) is not kind:
            return f"read as {type(task).__name__}"
        if task.own_loss:
            return "left to the model"
        try:
            if not kind.label_names:
                shown = task.signals(model, batch, outputs).hidden
                return "equal" if shown and all(s.shape[:2] == IDS.shape for s in shown) else "NO hidden states"
            mean = task.hard(outputs, batch).mean()
        except Exception as error:
            return f"REFUSED: {(str(error).splitlines() or [type(error).__name__])[0][:150]}"
        if not torch.allclose(mean, outputs.loss.float(), rtol=1e-4):
            return f"DIFFERENT{f' for {problem}' if problem else ''}: {mean:.5f} against {outputs.loss:.5f}"
    if kind.linear:
        return apart(model, {k: v for k, v in batch.items() if k != "labels"}, task, batch, outputs.logits)
    return "equal"


def apart(model, fed, task, batch, whole):
    if logit_transform(model) is None:
        return "equal, WHOLE: its head cannot be taken apart"
    with torch.no_grad(), capture(model, {"linear"}) as captured:
        model(**task.inputs(model, fed, batch))
    found = captured.linear[0].chunk(0, whole.shape[:-1].numel()).view_as(whole)
    near = (found - whole).abs().max() <= 1e-4 * whole.abs().max()
    return "equal" if near else f"equal, WRONG in one pass by {(found - whole).abs().max():.2g}"


def main():
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    for kind in TASKS:
        if sys.argv[1:] and kind.__name__ not in sys.argv[1:]:
            continue
        found = {n: verdict(kind, n) for n in sorted(getattr(modeling_auto, MAPPINGS[kind.auto_class]))}
        for name, said in found.items():
            if said != "equal":
                print(f"{kind.__name__:24} {name:30} {said}")
        ran = [said for said in found.values() if not said.startswith("not run")]
        equal = sum(said.startswith("equal") for said in ran)
        heads = f", {sum(said == 'equal' for said in ran)} of these in one pass" if kind.linear else ""
        print(f"{kind.__name__}: {equal} of {len(ran)} that ran are equal ({len(found)} in all){heads}", flush=True)


if __name__ == "__main__":
    main()
