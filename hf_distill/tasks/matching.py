"""Which query of a teacher belongs to which of a student: the assignment that costs least.

Knows: probabilities and boxes of two sets of queries. Does not know: tasks, models, terms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_distill.models.boxes import corners, generalized_iou

CLASS, DISTANCE, OVERLAP = 1.0, 5.0, 2.0
"""What a common class, the distance of two boxes and their overlap weigh against each other, as in DETR."""
BACKGROUND = 0.1
"""What a query weighs in which nothing is seen, where one that is sure of an object weighs 1; as in DETR."""


def most_confident(confidence: Tensor, queries: int) -> Tensor:
    """Choose as many queries as another model has.

    Args:
        confidence: [B, Q], how sure each is that it sees an object.
        queries: how many to return; where that is more than Q, the least confident one stands for those that lack.

    Returns:
        int64 [B, queries].

    Example:
        >>> sure = torch.tensor([[0.1, 0.9, 0.5]])
        >>> most_confident(sure, 2), most_confident(sure, 4), most_confident(sure, 3)
        (tensor([[1, 2]]), tensor([[0, 1, 2, 0]]), tensor([[0, 1, 2]]))
    """
    there = confidence.shape[1]
    if queries < there:
        return confidence.topk(queries, dim=1).indices
    order = torch.arange(there, device=confidence.device).expand(len(confidence), -1)
    least = confidence.argmin(dim=1, keepdim=True).expand(-1, queries - there)
    return torch.cat((order, least), dim=1)


def assigned(student: Tensor, teacher: Tensor, boxes: tuple[Tensor, Tensor] | None, confidence: Tensor) -> Tensor:
    """Give each query of a student one of its teacher's, so that together they cost least.

    A teacher's query that sees nothing may be anybody's: what a pair costs is weighed by its confidence.

    Args:
        student: probabilities of the classes [B, Q, C].
        teacher: the same, [B, Q, C].
        boxes: center, width and height [B, Q, 4] of both; None: only classes are known.
        confidence: [B, Q], how sure the teacher's queries are.

    Returns:
        int64 [B, Q]: for each query of the student its partner among the teacher's.

    Raises:
        ImportError: scipy is not installed.

    Reference:
        Carion et al.: DETR, arXiv:2005.12872, equation 1, between two models in place of a model and labels;
        Chang et al.: DETRDistill, arXiv:2211.10156, section 3.1.

    Example:
        >>> theirs = torch.tensor([[[0.9, 0.0], [0.0, 0.8]]])
        >>> assigned(theirs.flip(1), theirs, None, theirs.amax(-1))
        tensor([[1, 0]])
    """
    solve = assignment()
    with torch.no_grad():
        cost = -CLASS * torch.bmm(student.float(), teacher.float().transpose(1, 2))
        if boxes is not None:
            ours, theirs = (one.float() for one in boxes)
            apart = torch.cdist(ours, theirs, p=1)
            over = generalized_iou(corners(ours).unsqueeze(2), corners(theirs).unsqueeze(1))
            cost = cost + DISTANCE * apart - OVERLAP * over
        cost = cost * (confidence.float().unsqueeze(1) + 1e-2)
        # A student that diverged shall be told so by its loss, not by the solver.
        cost = torch.nan_to_num(cost, nan=1e4, posinf=1e4, neginf=-1e4).cpu()
    found = [torch.as_tensor(solve(one.numpy())[1], dtype=torch.int64) for one in cost]
    return torch.stack(found).to(student.device)


def assignment():
    """Return the solver of scipy.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError('detectors match their queries with scipy: pip install "hf_distill[vision]".') from error
    return linear_sum_assignment
