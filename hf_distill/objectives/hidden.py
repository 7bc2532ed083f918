"""Terms that compare hidden states, layer by layer.

Knows: hidden states, which positions count, widths. Does not know: tasks, heads, how a model is wrapped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_distill.models.facts import Facts
from hf_distill.objectives.layers import Layers, paired, read_layers
from hf_distill.objectives.maps import grid_at, on_one_grid
from hf_distill.objectives.phi_s import PhiS
from hf_distill.objectives.streams import StreamTerm
from hf_distill.objectives.token_weights import sum_over
from hf_distill.objectives.unit_vectors import unit_vectors
from hf_distill.signals import Signals, Stream, Sum


class HiddenTerm(StreamTerm):
    """What the terms below share: pairs of layers, projections where they are needed, and no padding.

    A subclass implements ``compare``: two float32 hidden states [B, T, H] and which positions count in, what they
    cost out; or ``cost``, if it trains more than a projection for each pair. The mean is taken over the pairs.

    Args:
        layers: ``"uniform"`` (by relative depth, embeddings to embeddings), ``"lineage"`` (each copy of a layer with
            that layer), ``"last"``, ``"skip"``, ``"thirds"``, or student layer -> teacher layer, or to several; layer
            0 is the embedding output, -1 the last layer. A layer that learns from several has a projection for each,
            whatever the widths. See ``layers.AUTOMATIC``.
        stream: the sequence of positions that is compared, such as ``"encoder"`` of an encoder-decoder; None: the
            task's main one. See ``StreamTerm``.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[str] = "tokens"
    name: ClassVar[str]
    projects: ClassVar[bool] = True
    usual: ClassVar[str | None] = "uniform"  # the layers where none are named; None: the two last

    def __init__(self, layers: Layers | None = None, stream: str | None = None) -> None:
        super().__init__(stream)
        self.layers = read_layers(self.usual if layers is None else layers, self.name)
        self.pairs: list[tuple[int, int]] = []
        self.projections = nn.ModuleDict()
        self.standardise: PhiS | None = None  # of the terms that offer it

    def build(self, student: Facts, teacher: Facts) -> None:
        """Pair the layers, and make a projection for each pair where the widths differ; see ``Term.build``."""
        student, teacher = student.stream(self.other), teacher.stream(self.other)
        for owner, facts in (("student", student), ("teacher", teacher)):
            if facts.hidden_size is None or facts.num_layers is None:
                raise ValueError(
                    f"{self.name} compares hidden states, the {owner} {facts.name} has no config that gives its "
                    "hidden_size and num_hidden_layers: use a transformers model, or a term that compares logits."
                )
        self.pairs, self.projections = paired(self.layers, student, teacher, self.name), nn.ModuleDict()
        pupils = Counter(ours for ours, _ in self.pairs)  # one state cannot be several others
        for ours, theirs in self.pairs:
            if self.projects and (pupils[ours] > 1 or student.width(ours) != teacher.width(theirs)):
                projection = nn.Linear(student.width(ours), teacher.width(theirs), bias=False)
                if (
                    places := student.places(teacher)
                ) is not None:  # it was cut from the teacher: back to where it was
                    with torch.no_grad():
                        projection.weight.zero_()[list(places), range(len(places))] = 1.0
                self.projections[f"{ours}_{theirs}"] = projection
        if self.standardise is not None:
            taught = sorted({theirs for _, theirs in self.pairs})
            if len(taught) > 1:
                raise ValueError(
                    f"{self.name} was given statistics of one layer, and it compares the teacher's {taught}: name one "
                    f"in layers, or write several terms, each with its own."
                )
            self.standardise.check(teacher.width(taught[0]), self.name)

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Compare one pair of layers.

        Args:
            student: float32 [B, T, H], projected if need be; zero where nothing counts.
            teacher: float32 [B, T, H], zero where nothing counts.
            counted: bool [B, T], the positions that are not padding.

        Returns:
            A scalar, added over what ``unit`` counts.
        """

    def cost(self, pair: str, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Project the student where this pair needs it, and compare.

        Args:
            pair: the pair's name among what is trained, ``"<student layer>_<teacher layer>"``.
            student: what ``reduced`` makes of the student's layer.
            teacher: what ``reduced`` makes of the teacher's layer, float32.
            counted: bool [B, T], the positions that are not padding.

        Returns:
            A scalar; see ``compare``.
        """
        return self.compare(self.projected(pair, student), self.standardised(teacher, counted), counted)

    def standardised(self, teacher: Tensor, counted: Tensor) -> Tensor:
        """Bring the teacher to its own scale, where statistics of it were given; zero where nothing counts.

        Args:
            teacher: what ``reduced`` makes of the teacher's layer, float32.
            counted: bool [B, T], the positions that are not padding.
        """
        if self.standardise is None:
            return teacher
        there = counted if teacher.ndim == 3 else counted.any(dim=1)
        return self.standardise(teacher).masked_fill(~there.unsqueeze(-1), 0)

    def projected(self, pair: str, student: Tensor) -> Tensor:
        """Bring a student's layer to the teacher's width, where it has another.

        Args:
            pair: the pair's name; see ``cost``.
            student: [..., width of the student], any floating dtype.

        Returns:
            float32 [..., width of the teacher].
        """
        if pair in self.projections:
            projection = self.projections[pair]
            student = projection(student.to(projection.weight.dtype))
        return student.float()

    def reduced(self, state: Tensor, counted: Tensor) -> Tensor:
        """Keep of a layer what is compared: here all of it.

        Args:
            state: [B, T, H], zero where nothing counts.
            counted: bool [B, T], the positions that are not padding.
        """
        return state

    def added(self, total: Tensor, counted: Tensor, mask: Tensor | None) -> Sum:
        """Count what ``compare`` adds over: here positions, see ``sum_over``.

        Args:
            total: what one pair of layers costs.
            counted: bool [B, T], the positions that are not padding.
            mask: as in ``Signals``.
        """
        return sum_over(counted, total, mask)

    def forward(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Sum:
        """Add over the positions that are not padding; see ``Term.forward``."""
        total, student, teacher = 0.0, student.stream(self.other), teacher.stream(self.other)
        for ours, theirs in self.pairs:
            shown = layer_of(student, ours, "student")
            wanted = layer_of(teacher, theirs, "teacher").to(shown.device)
            unknown = student.mask is None and teacher.mask is None  # as of images, which each model cuts its own way
            if unknown and self.by_position and shown.ndim == wanted.ndim == 3:
                grids = grid_at(student, ours), grid_at(teacher, theirs)
                shown, wanted = on_one_grid(shown, wanted, self.name, grids)
            counted = counted_in(student.mask, shown)
            apart = not self.by_position and (unknown or teacher.mask is not None)
            if shown.ndim != 3 or counted.shape != shown.shape[:-1]:
                known = "the batch does not say of how many" if student.mask is None else list(counted.shape)
                raise ValueError(
                    f"the student shows hidden states of shape {list(shown.shape)} for positions {known}: "
                    f"{self.name} needs [B, T, H] over the positions of the batch; use tap_mse, or a term on logits."
                )
            there = counted_in(teacher.mask, wanted) if apart else counted
            if there.shape != wanted.shape[:-1]:
                raise ValueError(
                    f"the student shows hidden states for {list(shown.shape[:-1])} positions, the teacher for "
                    f"{list(wanted.shape[:-1])}: {self.name} needs one tokenizer for both; use a term on logits."
                )
            # Padding becomes zero on both sides, before the projection: not-a-number times a zero gradient is not
            # zero. Unlike a selection this waits for no device.
            sides = ((shown, counted), (wanted.float(), there))
            sides = [self.reduced(one.masked_fill(~text.unsqueeze(-1), 0), text) for one, text in sides]
            cost, count = self.added(self.cost(f"{ours}_{theirs}", *sides, counted), counted, student.mask)
            total = total + cost
        return Sum(total / len(self.pairs), count)

    def extra_repr(self) -> str:
        """Show the pairs in ``print(term)``."""
        return f"pairs={self.pairs or self.layers}{super().extra_repr()}"


class HiddenMSE(HiddenTerm):
    """Mean squared difference of hidden states; where the widths differ the student's are projected first.

    For the pairs of layers (s, t), with a trained matrix W_st where the two widths differ or s learns from several
    layers, and none where not: the mean over pairs of ``|| W_st h_s - h_t ||**2 / width of the teacher``, added over
    tokens. The projections are trained with the student and are in no published student.

    Args:
        layers: which layers learn from which, ``"uniform"`` by default; see ``HiddenTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.
        standardise: statistics of the teacher's layer, or the file where they are; it then has mean 0 and variance 1
            as every other teacher has. See ``PhiS``.

    Raises:
        ValueError: layers that cannot be read, or more than one of the teacher where statistics of it were given.

    Reference:
        Romero et al.: FitNets, arXiv:1412.6550, equation 3; Jiao et al.: TinyBERT, arXiv:1909.10351, equations 8, 9.

    Example:
        >>> term = HiddenMSE(layers={1: 2})
        >>> term.build(Facts(hidden_size=4, num_layers=1), Facts(hidden_size=6, num_layers=2))
        >>> term.projections["1_2"].weight.shape
        torch.Size([6, 4])
    """

    citation: ClassVar[str] = "Romero et al.: FitNets: Hints for Thin Deep Nets, arXiv:1412.6550"
    name: ClassVar[str] = "hidden_mse"

    def __init__(
        self, layers: Layers | None = None, stream: str | None = None, standardise: PhiS | str | Path | None = None
    ) -> None:
        super().__init__(layers, stream)
        self.standardise = PhiS.read(standardise)

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return the squared difference, divided by the width; see ``HiddenTerm.compare``."""
        return F.mse_loss(student, teacher, reduction="sum") / teacher.shape[-1]


class HiddenCosine(HiddenTerm):
    """One minus the cosine of hidden states: their direction counts, their length does not.

    The mean over the pairs of layers of ``1 - cos(W_st h_s, h_t)``, added over tokens.

    Args:
        layers: which layers learn from which, ``"uniform"`` by default; see ``HiddenTerm``.
        stream: which sequence of positions; see ``HiddenTerm``.

    Raises:
        ValueError: layers that cannot be read.

    Reference:
        Sanh et al.: DistilBERT, arXiv:1910.01108, section 3 (L_cos).

    Example:
        >>> real, states = torch.ones(1, 2, dtype=torch.bool), (torch.ones(1, 2, 4), torch.ones(1, 2, 4))
        >>> term, same = HiddenCosine(), Signals({}, hidden=states, mask=real)
        >>> term.build(Facts(hidden_size=4, num_layers=1), Facts(hidden_size=4, num_layers=1))
        >>> [round(float(number), 6) for number in term(same, same, {})]
        [0.0, 2.0]
    """

    citation: ClassVar[str] = "Sanh, Debut, Chaumond, Wolf: DistilBERT, arXiv:1910.01108"
    name: ClassVar[str] = "hidden_cosine"

    def compare(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        """Return one minus the cosine; see ``HiddenTerm.compare``."""
        return ((1.0 - (unit_vectors(student) * unit_vectors(teacher)).sum(dim=-1)) * counted).sum()


def counted_in(mask: Tensor | None, state: Tensor) -> Tensor:
    """Say which positions of a layer count.

    Args:
        mask: as in ``Signals``; None: all.
        state: [B, T, H].

    Returns:
        bool [B, T], where the layer is.

    Example:
        >>> counted_in(None, torch.ones(1, 2, 4))
        tensor([[True, True]])
    """
    return torch.ones_like(state[..., 0], dtype=torch.bool) if mask is None else mask.to(state.device)


def layer_of(signals: Signals | Stream, layer: int, owner: str) -> Tensor:
    """Return a hidden state that a model showed.

    Args:
        signals: what it showed.
        layer: its number; 0 is the embedding output.
        owner: how a message names the model.

    Returns:
        [B, T, H].

    Raises:
        ValueError: it did not show so many.

    Example:
        >>> layer_of(Signals({}, (torch.ones(1, 2, 4),)), 0, "student").shape
        torch.Size([1, 2, 4])
    """
    if layer >= len(signals.hidden):
        raise ValueError(
            f"layer {layer} of the {owner} was asked for, it showed {len(signals.hidden)} hidden states: use a model "
            "that returns them all (output_hidden_states=True), or name another layer."
        )
    return signals.hidden[layer]
