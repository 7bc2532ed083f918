"""Knowledge distillation for the Hugging Face Trainer: one teacher, one objective, the same TrainingArguments.

Knows: the public names, each imported when it is first used. Does not know: anything else.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "DistillationTrainer": "trainer",
    "Seq2SeqDistillationTrainer": "integrations.seq2seq",
    "DistillationMixin": "trainer",
    "DistillationArguments": "arguments",
    "DistillationTrainingArguments": "arguments",
    "Seq2SeqDistillationTrainingArguments": "arguments",
    "train_together": "together",
    "Term": "objectives",
    "Objective": "objectives",
    "PhiS": "objectives.phi_s",
    "Task": "tasks",
    "SequenceClassification": "tasks",
    "ImageClassification": "tasks",
    "ImageText": "tasks",
    "CausalLM": "tasks",
    "Seq2SeqLM": "tasks",
    "TokenClassification": "tasks",
    "QuestionAnswering": "tasks",
    "MultipleChoice": "tasks",
    "MaskedLM": "tasks",
    "SemanticSegmentation": "tasks",
    "ObjectDetection": "tasks",
    "DepthEstimation": "tasks",
    "Denoising": "tasks",
    "Drafting": "tasks",
    "Generating": "tasks",
    "AudioClassification": "tasks",
    "AudioFeatures": "tasks",
    "CTC": "tasks",
    "SpeechSeq2Seq": "tasks",
    "ImageTextToText": "tasks",
    "ImageTextToTextSeq2Seq": "tasks",
    "SentenceEmbedding": "tasks",
    "CandidateCollator": "tasks",
    "Teacher": "teachers",
    "LiveTeacher": "teachers",
    "AdapterOffTeacher": "teachers",
    "CachedTeacher": "cache.teacher",
    "ColumnTeacher": "teachers",
    "EMATeacher": "teachers",
    "StudentEMA": "training.student_ema",
    "FunctionTeacher": "teachers",
    "Several": "teachers",
    "TwoTokenizers": "tasks.alignment.two_tokenizers",
    "AugmentingCollator": "augmentation",
    "ImageCollator": "augmentation.image_collator",
    "ImageTextCollator": "augmentation.image_text_collator",
    "BoxCollator": "augmentation.box_collator",
    "SpeechCollator": "augmentation.speech_collator",
    "DenoisingCollator": "augmentation.denoising_collator",
    "LatentCollator": "augmentation.latent_collator",
    "latent_rows": "augmentation.latent_collator",
    "VAEDecoder": "models.decoders",
    "encode_latents": "models.decoders",
    "Rollout": "rollouts",
    "Signals": "signals",
    "Head": "signals",
    "Value": "signals",
    "Sum": "signals",
    "Facts": "models.facts",
    "DenseLogits": "signals",
    "TopKLogits": "models.topk_logits",
    "keep_layers": "students",
    "cut_unet": "students",
    "shrink_width": "students",
    "fit_budget": "students",
    "prune_2_4": "students",
    "prune_magnitude": "students",
    "fresh_student": "students",
    "trim_vocabulary": "students",
    "lineage": "students",
    "StudentQuantization": "students.quantization",
    "DraftHead": "students",
    "speculate": "students",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hf_distill' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hf_distill.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
