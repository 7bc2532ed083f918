"""Reports: did the teacher help, by how much, and what did it cost?"""

from __future__ import annotations

import importlib
from typing import Any

from hf_distill.reports.classes import ClassChange, class_changes, class_table
from hf_distill.reports.detection import AveragePrecision, Boxes, ap_shares, average_precision
from hf_distill.reports.fidelity import GapClosed, agreement, gap_closed
from hf_distill.reports.frames import blank_share, collapse, on_blank_plateau
from hf_distill.reports.intervals import Interval, mean_interval, ratio_interval, ratio_shares, share_interval
from hf_distill.reports.plot import plot_comparison
from hf_distill.reports.plot_boxes import plot_boxes
from hf_distill.reports.plot_classes import plot_classes
from hf_distill.reports.plot_losses import plot_losses
from hf_distill.reports.plot_reliability import plot_reliability
from hf_distill.reports.probabilities import Calibration, calibration, mean_kl
from hf_distill.reports.retrieval import class_vectors, pair_hits, recall_metrics, zero_shot_logits
from hf_distill.reports.segmentation import class_ious, iou_shares, pixel_counts, segmentation_scores
from hf_distill.reports.side_by_side import latencies, throughputs, waits
from hf_distill.reports.spans import f1_shares, span_counts, span_scores, spans_of
from hf_distill.reports.speed import Latency, latency, machine, real_time_factor, size_of, throughput
from hf_distill.reports.table import markdown_table
from hf_distill.reports.transcripts import chosen_frames, wer_metrics
from hf_distill.reports.verdict import NoDrop, Requirement, unmet, verdict
from hf_distill.reports.wer import character_edits, error_rate, error_rate_interval, error_shares, word_edits

__all__ = [
    "AveragePrecision",
    "Boxes",
    "Calibration",
    "ClassChange",
    "ClassificationMetric",
    "GapClosed",
    "Interval",
    "Latency",
    "NoDrop",
    "Requirement",
    "SpanMetric",
    "agreement",
    "ap_shares",
    "average_precision",
    "blank_share",
    "calibration",
    "character_edits",
    "chosen_frames",
    "class_changes",
    "class_ious",
    "class_table",
    "class_vectors",
    "collapse",
    "error_rate",
    "error_rate_interval",
    "error_shares",
    "f1_shares",
    "gap_closed",
    "iou_shares",
    "latencies",
    "latency",
    "machine",
    "markdown_table",
    "mean_interval",
    "mean_kl",
    "on_blank_plateau",
    "pair_hits",
    "pixel_counts",
    "plot_boxes",
    "plot_classes",
    "plot_comparison",
    "plot_losses",
    "plot_reliability",
    "ratio_interval",
    "ratio_shares",
    "real_time_factor",
    "recall_metrics",
    "segmentation_scores",
    "share_interval",
    "size_of",
    "span_counts",
    "span_scores",
    "spans_of",
    "throughput",
    "throughputs",
    "unmet",
    "verdict",
    "waits",
    "wer_metrics",
    "word_edits",
    "zero_shot_logits",
]


def __getattr__(name: str) -> Any:
    if name not in ("ClassificationMetric", "SpanMetric"):
        raise AttributeError(f"module 'hf_distill.reports' has no attribute {name!r}")
    return getattr(importlib.import_module("hf_distill.reports.metrics"), name)
