"""Objectives by name: one table, and ``build``, which reads what users write in YAML, on a command line or in code.

Knows: names, options and weights. Does not know: models, tasks or trainers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hf_distill.objectives.adversarial import Adversarial
from hf_distill.objectives.alpha_beta import AlphaBeta
from hf_distill.objectives.attention import AttentionKL, AttentionMSE
from hf_distill.objectives.boxes import Boxes
from hf_distill.objectives.channel import ChannelKL
from hf_distill.objectives.cka import CKA
from hf_distill.objectives.contrastive import Contrastive
from hf_distill.objectives.correlation import DIST, StandardisedKL
from hf_distill.objectives.ctc_hypotheses import CTCHypotheses
from hf_distill.objectives.decoupled import DKD
from hf_distill.objectives.depth import AffineInvariant, ScaleInvariant
from hf_distill.objectives.distilhubert import DistilHuBERT
from hf_distill.objectives.distillm2 import DistiLLM2
from hf_distill.objectives.guided_ctc import GuidedCTC
from hf_distill.objectives.hidden import HiddenCosine, HiddenMSE
from hf_distill.objectives.logits import JSD, ForwardKL, LogitMSE, ReverseKL, SkewKL, SkewReverseKL, Top1CrossEntropy
from hf_distill.objectives.minilm import MiniLM, MiniLMv1
from hf_distill.objectives.objective import Objective
from hf_distill.objectives.own import import_own
from hf_distill.objectives.pkd import PKD
from hf_distill.objectives.pooled import PooledCosine, PooledMSE
from hf_distill.objectives.relation import RKDAngle, RKDDistance, SimilarityPreserving
from hf_distill.objectives.schedule import Schedule
from hf_distill.objectives.scores import MarginMSE, ScoreKL, SimilarityKL
from hf_distill.objectives.tap import TapMSE
from hf_distill.objectives.term import Term
from hf_distill.objectives.topk_kl import AdaptiveKL, TopKKL
from hf_distill.objectives.uld import ULD
from hf_distill.objectives.values import ValueL1, ValueMSE
from hf_distill.objectives.vectors import VectorCosine, VectorMSE

TERMS: dict[str, type[Term]] = {
    "forward_kl": ForwardKL,
    "reverse_kl": ReverseKL,
    "jsd": JSD,
    "skew_kl": SkewKL,
    "skew_reverse_kl": SkewReverseKL,
    "alpha_beta": AlphaBeta,
    "distillm2": DistiLLM2,
    "logit_mse": LogitMSE,
    "top1_cross_entropy": Top1CrossEntropy,
    "dkd": DKD,
    "dist": DIST,
    "standardised_kl": StandardisedKL,
    "topk_kl": TopKKL,
    "adaptive_kl": AdaptiveKL,
    "uld": ULD,
    "ctc_hypotheses": CTCHypotheses,
    "guided_ctc": GuidedCTC,
    "hidden_mse": HiddenMSE,
    "hidden_cosine": HiddenCosine,
    "distilhubert": DistilHuBERT,
    "pkd": PKD,
    "cka": CKA,
    "channel_kl": ChannelKL,
    "pooled_mse": PooledMSE,
    "pooled_cosine": PooledCosine,
    "rkd_distance": RKDDistance,
    "rkd_angle": RKDAngle,
    "similarity": SimilarityPreserving,
    "similarity_kl": SimilarityKL,
    "contrastive": Contrastive,
    "margin_mse": MarginMSE,
    "score_kl": ScoreKL,
    "adversarial": Adversarial,
    "attention_mse": AttentionMSE,
    "attention_kl": AttentionKL,
    "minilm": MiniLM,
    "minilm_v1": MiniLMv1,
    "value_mse": ValueMSE,
    "boxes": Boxes,
    "value_l1": ValueL1,
    "scale_invariant": ScaleInvariant,
    "affine_invariant": AffineInvariant,
    "vector_mse": VectorMSE,
    "vector_cosine": VectorCosine,
    "tap_mse": TapMSE,
}

__all__ = ["Objective", "Schedule", "Term", "TERMS", "build"]


def build(spec: str | Mapping[str, Any] | Term | Objective) -> Objective:
    """Make an objective from what a user wrote.

    Args:
        spec: a name from ``TERMS``; ``"module:Name"`` for a Term of your own, installed or in a file of the current
            folder; a mapping from names to weights or to options
            (``{"forward_kl": 1.0, "jsd": {"weight": 0.5, "beta": 0.1}}``); a Term; or an Objective. The option
            ``"term"`` names the class where the key is a name of your choice
            (``{"hot": {"term": "forward_kl", "temperature": 8}}``); ``"teacher"`` the one of several teachers that
            it listens to (``{"hidden_mse": {"teacher": "big"}}``). A weight or a temperature may be a mapping, which
            is a ``Schedule`` (``{"hidden_mse": {"weight": {"until": 0.5}}}`` is on in the first half of the run).

    Returns:
        The Objective; an Objective is returned as it is.

    Raises:
        ValueError: an unknown name, a bad weight, or an option that the term does not take.
        TypeError: ``spec`` is something else.

    Example:
        >>> build({"forward_kl": 1.0, "jsd": {"weight": 0.5, "beta": 0.1}}).weights
        {'forward_kl': 1.0, 'jsd': 0.5}
    """
    if isinstance(spec, Objective):
        return spec
    if isinstance(spec, Term):
        known = {cls: name for name, cls in TERMS.items()}
        return Objective({known.get(type(spec), type(spec).__name__): spec})
    if isinstance(spec, str):
        spec = {spec: 1.0}
    if not isinstance(spec, Mapping):
        raise TypeError(
            f"objective={spec!r} is a {type(spec).__name__}: give a name, a mapping, a Term or an Objective."
        )
    terms, weights, teachers, temperatures = {}, {}, {}, {}
    for name, options in spec.items():
        options = dict(options) if isinstance(options, Mapping) else {"weight": options}
        weight = options.pop("weight", 1.0)
        label = name.rpartition(":")[2]
        weights[label] = Schedule.read(weight, f"{label}'s weight") if isinstance(weight, Mapping) else weight
        if isinstance(options.get("temperature"), Mapping):
            temperatures[label] = Schedule.read(options.pop("temperature"), f"{label}'s temperature")
        if (teacher := options.pop("teacher", None)) is not None:
            teachers[label] = teacher
        terms[label] = _term(options.pop("term", name), options)
    return Objective(terms, weights, teachers, temperatures)


def _term(name: str, options: dict[str, Any]) -> Term:
    cls = import_own(name, Term) if ":" in name else TERMS.get(name)
    if cls is None:
        raise ValueError(
            f"objective {name!r} is not known: choose one of {', '.join(TERMS)}, or write 'module:Name' for your own."
        )
    takes = list(inspect.signature(cls).parameters)
    if strangers := sorted(set(options) - set(takes)):
        raise ValueError(f"{name} was given {strangers}: it takes {', '.join(['weight', *takes, 'teacher'])}.")
    return cls(**options)
