"""Suites: libraries of public benchmarks, each of which scores one kind of model."""

from hf_distill.experiments.suites.lm_eval import LmEval
from hf_distill.experiments.suites.mteb import Mteb
from hf_distill.experiments.suites.suite import Asked, Figure, Suite

SUITES: tuple[type[Suite], ...] = (LmEval, Mteb)

__all__ = ["SUITES", "Asked", "Figure", "LmEval", "Mteb", "Suite"]
