"""Rollouts: training samples whose answers the student or the teacher writes, in training only."""

from hf_distill.rollouts.settings import Rollout, RolloutArguments, rollout_of

__all__ = ["Rollout", "RolloutArguments", "rollout_of"]
