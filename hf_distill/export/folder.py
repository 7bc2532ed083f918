"""What lies beside exported weights: the tokenizer or processor, the configuration, a card, and what was measured.

Knows: files, cards. Does not know: how weights are written, how models are measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from hf_distill.export.format import Format
from hf_distill.export.plan import Plan
from hf_distill.models.texts import IDS, MASK
from hf_distill.tasks import CausalLM, SentenceEmbedding, Task

REPORT = "export.json"
ONE_PASS = (
    "One pass over a text, without a cache: the logits of all its tokens. To write long texts, keep to "
    "transformers, or export with optimum-cli, which exports the cache too."
)
FROM_TEXT = """tokenizer = Tokenizer.from_file("tokenizer.json")
texts = ["A text of yours.", "Another one, which is longer."]
tokenizer.enable_truncation({length})
tokenizer.enable_padding()
rows = tokenizer.encode_batch(texts)
batch = {{
{columns}
}}

"""
COLUMNS = {IDS: "ids", MASK: MASK, "token_type_ids": "type_ids"}
RUN = {
    "onnxruntime": """session = onnxruntime.InferenceSession("model.onnx")
outputs = dict(zip([one.name for one in session.get_outputs()], session.run(None, batch)))
""",
    "openvino": """# In float32 as it was checked; where there is AMX, OpenVINO would take bfloat16.
model = openvino.Core().compile_model("openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
outputs = {one.get_any_name(): value for one, value in model(batch).items()}
""",
}


def processor_of(folder: Path, task: Task) -> Any:
    """Load what makes a model's columns; None where there is nothing beside it.

    Args:
        folder: of the model.
        task: how it is read.
    """
    kinds = dict.fromkeys((task.processor_class, "AutoProcessor", "AutoTokenizer"))
    for kind in filter(None, kinds):
        try:
            return getattr(transformers, kind).from_pretrained(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError):  # what each version raises
            continue
    return None


def complete(folder: Path, format: type[Format], model: nn.Module, plan: Plan, processor: Any) -> None:
    """Put beside the weights what they are used with.

    Args:
        folder: with the weights.
        format: in which.
        model: of which.
        plan: what of it.
        processor: of the model; None: there is none.
    """
    if not (folder / "config.json").is_file():  # one that says how it is quantised stays
        model.config.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    text = (
        f"# {model.config.architectures[0] if model.config.architectures else type(model).__name__} as {format.name}"
    )
    (folder / "README.md").write_text(f"{text}\n\n{how_to_run(format, model, plan)}", encoding="utf-8")


def how_to_run(format: type[Format], model: nn.Module, plan: Plan) -> str:
    """Say how an export is used, in Markdown.

    Args:
        format: of the export.
        model: of which it is.
        plan: what of it.
    """
    said = [(format.__doc__ or "").splitlines()[0], f"It is read by {format.reads}."]
    if isinstance(plan.task, CausalLM):
        said.append(ONE_PASS)
    if format.reads not in RUN:
        code = (
            f'from transformers import {plan.task.auto_class}\n\nmodel = {plan.task.auto_class}.from_pretrained(".")\n'
        )
        return "\n".join(said) + f"\n\n```python\n{code}```\n"
    takes = ", ".join(f"`{name}` {_shape(plan, name)}" for name in plan.example)
    said.append(f"It takes {takes} and returns {', '.join(f'`{name}`' for name in plan.outputs)}.")
    code, imports = RUN[format.reads], f"import {format.reads}\n"
    if IDS not in plan.example:
        code = "batch = ...  # a column a name, as the processor beside it makes them\n\n" + code
    else:
        imports = f"import numpy as np\n{imports}from tokenizers import Tokenizer\n"
        columns = "\n".join(f'    "{name}": np.array([row.{COLUMNS[name]} for row in rows]),' for name in plan.example)
        length = getattr(model.config, "max_position_embeddings", None) or 512
        code = FROM_TEXT.format(length=length, columns=columns) + code
    if isinstance(plan.task, SentenceEmbedding):
        code += (
            'mask = batch["attention_mask"][..., None]\n'
            'vectors = (outputs["last_hidden_state"] * mask).sum(1) / mask.sum(1)  # the mean of the tokens\n'
        )
    else:
        code += f'print({", ".join(f"""outputs["{name}"].shape""" for name in plan.outputs)})\n'
    return "\n".join(said) + f"\n\n```python\n{imports}\n{code}```\n"


def note(folder: Path, found: Mapping[str, Any], table: str, said: str) -> None:
    """Write what was measured beside an export: ``export.json``, and the table into its card.

    Args:
        folder: of the export.
        found: for the file.
        table: in Markdown; empty: nothing was measured.
        said: what is to be known of it.
    """
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (folder / REPORT).write_text(text, encoding="utf-8")
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(f"\n## What was measured\n\n{table}{table and chr(10) * 2}{said}\n")


def _shape(plan: Plan, name: str) -> str:
    sizes = (plan.free[name].get(axis, str(size)) for axis, size in enumerate(plan.example[name].shape))
    return f"[{', '.join(sizes)}]"
