"""For which architectures of transformers can a student be made of some of its teacher's layers?

    python tests/benchmarks/students.py                # every class of six tasks
    python tests/benchmarks/students.py --only t5,bart # some of them
    python tests/benchmarks/students.py --task image   # the tasks whose name holds a word

Every class of AutoModelForSequenceClassification, AutoModelForCausalLM, AutoModelForSeq2SeqLM and of the classes for
image classification, object detection and semantic segmentation is built tiny, four layers deep, or two and three
layers a stage. All of its layers, taken out and put back, must give exactly its logits; then half of them must run, be
saved, and be loaded with no missing or unexpected weight and equal logits. What cannot be built from the sizes below
is "not run", which says nothing about it; "refused" is one sentence of ours. The last line is the share.

Of the classes of images it is also asked whether half of their width can be cut, and is then run, saved and loaded;
and those that can are named.
"""

import argparse
import tempfile
import warnings
from collections import Counter

import torch
import transformers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)
from transformers.models.auto import modeling_auto

from hf_distill.students import keep_layers, shrink_width
from hf_distill.students.anatomy import Sizes
from hf_distill.students.depth import find_stacks, parts

TASKS = {
    "sequence classification": (
        AutoModelForSequenceClassification, modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    ),
    "causal LM": (AutoModelForCausalLM, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "seq2seq LM": (AutoModelForSeq2SeqLM, modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "image classification": (
        AutoModelForImageClassification, modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    ),
    "object detection in images": (
        AutoModelForObjectDetection, modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
    ),
    "segmentation of images": (
        AutoModelForSemanticSegmentation, modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
    ),
}  # fmt: skip
PICTURES = (AutoModelForImageClassification, AutoModelForObjectDetection, AutoModelForSemanticSegmentation)
DEPTH = 4
WIDTHS = {
    "vocab_size": 40, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embedding_size": 32, "emb_dim": 32,
    "num_attention_heads": 4, "n_heads": 4, "n_head": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "intermediate_size": 64, "d_ff": 64, "hidden_dim": 64,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "ffn_dim": 64, "d_kv": 8, "d_inner": 64, "pad_token_id": 0,
    "eos_token_id": 3, "bos_token_id": 2, "num_experts": 2, "num_local_experts": 2,
    "n_routed_experts": 2, "moe_intermediate_size": 16, "max_position_embeddings": 64, "state_size": 8,
    "pooler_hidden_size": 32, "num_experts_per_tok": 1, "decoder_start_token_id": 2, "kv_lora_rank": 8,
    "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "n_group": 1, "topk_group": 1,
    "n_shared_experts": 1, "shared_expert_intermediate_size": 16, "mlp_dim": 64, "moe_num_experts": 2, "moe_k": 1,
    "expert_ffn_size": 16,
}  # fmt: skip
DEPTHS = (
    "num_hidden_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers", "num_layers", "num_blocks",
    "num_decoder_layers", "num_encoder_layers",
)  # fmt: skip
STAGES = ("depths", "depth", "stage_num_blocks", "n_attn_blocks")
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 10, 11, 12, 3]])


def shaped(name, constructed):
    """A tiny configuration, by its constructor where that takes our sizes, else by setting them afterwards."""
    kind = CONFIG_MAPPING[name]
    config = kind()
    own = config.to_dict()
    sizes = {key: value for key, value in WIDTHS.items() if key in own or key == "decoder_start_token_id"}
    depths = dict.fromkeys((key for key in DEPTHS if key in own), DEPTH)
    if constructed:  # lists of layer types are then derived for the new depth
        return kind(**sizes, **depths)
    before = getattr(config, "num_hidden_layers", None)
    for key, value in {**sizes, **depths}.items():
        setattr(config, key, value)
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == before and len(value) > DEPTH:
            setattr(config, key, value[:DEPTH])
    return config


def pictured(name, constructed):
    """The same of a model of images: the stages keep their widths, and whatever encodes them is as deep as they."""
    kind = CONFIG_MAPPING[name]
    given = {}
    if name in ("detr", "conditional_detr", "dab-detr", "deformable_detr", "table-transformer"):
        shown = ["stage2", "stage3", "stage4"] if name == "deformable_detr" else ["stage4"]
        given["backbone_config"] = CONFIG_MAPPING["resnet"](out_features=shown, depths=[1, 1, 1, 1])
    config = kind(**given)
    own = config.to_dict()
    if constructed and not any(isinstance(own.get(key), (list, tuple)) for key in STAGES):
        config = kind(**given, **small(own))
    config.architectures = []
    for _, part in parts(config):
        own, stages = part.to_dict(), [key for key in STAGES if isinstance(part.to_dict().get(key), (list, tuple))]
        for key, value in ({} if stages or (part is config and constructed) else small(own)).items():
            setattr(part, key, value)
        for key in stages:
            setattr(part, key, [min(old + 1, new) for old, new in zip(own[key], [2, 3, 3, 2, 2, 2, 2], strict=False)])
    return config


def small(own):
    sizes = {**WIDTHS, **dict.fromkeys(DEPTHS, DEPTH)}
    return {key: value for key, value in sizes.items() if isinstance(own.get(key), int)}


def tiny(auto, name):
    error = None
    for constructed in (True, False):
        try:
            config = (pictured if auto in PICTURES else shaped)(name, constructed)
            config.num_labels = 3
            with torch.device("meta"):
                size = sum(p.numel() for p in auto.from_config(config).parameters())
            if size > 70e6:
                raise ValueError(f"still {size / 1e6:.0f} M parameters")
            torch.manual_seed(0)
            model = auto.from_config(config).eval()
            answers(model)
        except Exception as raised:
            error = error or raised
        else:
            return model
    raise error


def answers(model):
    torch.manual_seed(0)  # some draw while they answer
    if model.main_input_name == "pixel_values":
        with torch.no_grad():
            return model(**picture(model)).logits
    more = {"decoder_input_ids": IDS.flip(1)} if model.config.is_encoder_decoder else {}
    if type(model).__name__.endswith("SequenceClassification"):
        more = {}  # theirs shift the inputs
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **more).logits


def picture(model):
    known = [part for _, part in parts(model.config)]
    size = next((part.image_size for part in known if getattr(part, "image_size", None) is not None), 224)
    channels = next((part.num_channels for part in known if getattr(part, "num_channels", None) is not None), 3)
    return {"pixel_values": torch.randn(1, channels, *((size, size) if isinstance(size, int) else tuple(size)[-2:]))}


def verdict(auto, name):
    try:
        teacher = tiny(auto, name)
    except Exception as error:
        return f"not run: {said(error)}"
    wanted = answers(teacher)
    try:
        whole = keep_layers(teacher, None)
    except ValueError as error:
        return f"refused: {said(error, 300)}"
    except Exception as error:
        return f"FAILED to be made: {type(error).__name__} {said(error)}"
    if not torch.equal(answers(whole.eval()), wanted):
        return "DIFFERENT with all layers"
    try:
        student, how = keep_layers(teacher, half(teacher)).eval(), "half"
    except ValueError as error:
        try:
            student, how = (
                keep_layers(teacher, half(teacher), preset="lowest").eval(),
                f"only the lowest half ({said(error, 260)})",
            )
        except ValueError:
            return f"whole, no half: {said(error, 300)}"
    try:
        given = answers(student)
        with tempfile.TemporaryDirectory() as folder:
            student.save_pretrained(folder)
            loaded, info = type(student).from_pretrained(folder, output_loading_info=True)
    except Exception as error:
        return f"whole, half FAILED: {type(error).__name__} {said(error)}"
    if info["missing_keys"] or info["unexpected_keys"]:
        return f"whole, half FAILED: missing {info['missing_keys']}, unexpected {info['unexpected_keys']}"
    return how if same(student, loaded.eval(), given) else "whole, half DIFFERENT after loading"


def same(student, loaded, given):
    """Whether a student was loaded as it is; of images two copies of a convolution may differ in the last digit."""
    saved = loaded.state_dict()
    equal = all(torch.equal(saved[key], value) for key, value in student.state_dict().items())
    close = torch.allclose if student.main_input_name == "pixel_values" else torch.equal
    return equal and close(answers(loaded), given)


def narrowed(auto, name):
    """Whether half of the width of a model of images can be cut; what is not built or refused is not."""
    try:
        teacher = tiny(auto, name)
        size = Sizes.of(teacher)
        inside = None if size.inner == "mlp_ratio" else size.intermediate_size // 2
        student = shrink_width(
            teacher, size.hidden_size // 2, size.num_heads // 2, inside, batches=[picture(teacher)]
        ).eval()
    except Exception as error:
        return f"not run: {said(error)}" if not isinstance(error, ValueError) else f"refused: {said(error, 300)}"
    with tempfile.TemporaryDirectory() as folder:
        student.save_pretrained(folder)
        loaded, info = type(student).from_pretrained(folder, output_loading_info=True)
    fine = not info["missing_keys"] and not info["unexpected_keys"]
    return "narrow" if fine and same(student, loaded.eval(), answers(student)) else "DIFFERENT after loading"


def half(model):
    stacks = find_stacks(model)
    staged = [stack for stack in stacks if stack.stage is not None]
    return max(len(staged), sum(stack.depth for stack in staged) // 2) if staged else stacks[0].depth // 2


def said(error, most=120):
    return " ".join(str(error).split())[:most] or type(error).__name__


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--task", default="")
    args = parser.parse_args()
    only = set(filter(None, args.only.split(",")))
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    shares = []
    for task, (auto, names) in TASKS.items():
        if args.task not in task:
            continue
        found = {name: verdict(auto, name) for name in sorted(names) if not only or name in only}
        for name, what in found.items():
            if what != "half" or only:
                print(f"{task:24} {name:24} {what}", flush=True)
        kinds = Counter(what.replace(",", " ").split()[0] for what in found.values())
        ran = len(found) - kinds["not"]
        whole = kinds["half"] + kinds["only"] + kinds["whole"]
        shares.append(
            f"{task}: {whole} of {ran} exact with all layers, {kinds['half'] + kinds['only']} with half "
            f"({len(found)} in all)"
        )
        if auto in PICTURES:
            print(f"{task}, half of the layers: {', '.join(name for name, what in found.items() if what == 'half')}")
            width = {name: narrowed(auto, name) for name in found}
            for name, what in width.items():
                if what != "narrow" and (only or "DIFFERENT" in what):
                    print(f"{task:24} {name:24} width {what}")
            print(f"{task}, half of the width: {', '.join(name for name, what in width.items() if what == 'narrow')}")
    print("; ".join(shares))


if __name__ == "__main__":
    main()
