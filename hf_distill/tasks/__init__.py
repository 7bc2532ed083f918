"""Tasks: how to read a model's outputs for one kind of problem. ``Task.of(model)`` finds the one that fits."""

from hf_distill.tasks.audio_classification import AudioClassification
from hf_distill.tasks.audio_features import AudioFeatures
from hf_distill.tasks.candidates import CandidateCollator
from hf_distill.tasks.ctc import CTC
from hf_distill.tasks.denoising import Denoising
from hf_distill.tasks.depth_estimation import DepthEstimation
from hf_distill.tasks.drafting import Drafting
from hf_distill.tasks.generating import Generating
from hf_distill.tasks.image_classification import ImageClassification
from hf_distill.tasks.image_text import ImageText
from hf_distill.tasks.image_text_to_text import ImageTextToText, ImageTextToTextSeq2Seq
from hf_distill.tasks.language_modeling import CausalLM, Seq2SeqLM
from hf_distill.tasks.masked_language_modeling import MaskedLM
from hf_distill.tasks.multiple_choice import MultipleChoice
from hf_distill.tasks.object_detection import ObjectDetection
from hf_distill.tasks.question_answering import QuestionAnswering
from hf_distill.tasks.semantic_segmentation import SemanticSegmentation
from hf_distill.tasks.sentence_embedding import SentenceEmbedding
from hf_distill.tasks.sequence_classification import SequenceClassification
from hf_distill.tasks.speech_seq2seq import SpeechSeq2Seq
from hf_distill.tasks.task import Task
from hf_distill.tasks.token_classification import TokenClassification

TASKS: tuple[type[Task], ...] = (
    Drafting, AudioClassification, CTC, SpeechSeq2Seq, ObjectDetection, SemanticSegmentation, DepthEstimation,
    ImageClassification, SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice, MaskedLM,
    ImageTextToText, ImageTextToTextSeq2Seq, CausalLM, Seq2SeqLM, AudioFeatures, ImageText, SentenceEmbedding,
    Denoising, Generating,
)  # fmt: skip
"""In the order in which they are tried: some classes are in several mappings of transformers."""
Task.known = TASKS

__all__ = [
    "CTC",
    "TASKS",
    "AudioClassification",
    "AudioFeatures",
    "CandidateCollator",
    "CausalLM",
    "Denoising",
    "DepthEstimation",
    "Drafting",
    "Generating",
    "ImageClassification",
    "ImageText",
    "ImageTextToText",
    "ImageTextToTextSeq2Seq",
    "MaskedLM",
    "MultipleChoice",
    "ObjectDetection",
    "QuestionAnswering",
    "Seq2SeqLM",
    "SemanticSegmentation",
    "SentenceEmbedding",
    "SequenceClassification",
    "SpeechSeq2Seq",
    "Task",
    "TokenClassification",
]
