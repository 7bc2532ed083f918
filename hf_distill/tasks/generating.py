"""Generating: a model is given a latent or a spectrogram and makes an image or a wave of it.

Knows: decoders of diffusers, vocoders of transformers, what any other generator returns. Does not know: how latents
came to be, what a term compares, teachers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from accelerate.utils import find_device
from torch import Tensor, nn

from hf_distill.models.decoders import FAMILY, VAEDecoder, is_autoencoder, latent_channels
from hf_distill.models.facts import Facts
from hf_distill.models.outputs import core_of
from hf_distill.signals import HeadSpec, Signals, Sum, Value
from hf_distill.tasks.samples import rows_of
from hf_distill.tasks.task import Task

SAMPLE, TARGET = "sample", "target"
SHOWN = (SAMPLE, "waveform", "waveforms")
"""What outputs call it; the first that is there."""
VOCODERS = {
    "SpeechT5HifiGan": ("spectrogram", "model_in_dim"),
    "FastSpeech2ConformerHifiGan": ("spectrogram", "model_in_dim"),
    "UnivNetModel": ("input_features", "num_mel_bins"),
}
"""Vocoders of transformers -> their spectrogram [B, T, bins], and what their configuration calls the bins."""
NOISE = "noise_sequence"
"""What UnivNet makes its wave of; where it is not given one it draws it, and each model another."""
LOSSES = ("mse", "l1")


class Generating(Task):
    """What a generator makes of a latent: the student's is compared with the teacher's of the same one.

    It is the value ``sample`` [B, C, height * width] of an image, [B, 1, S] of a wave, and counts once a row. Columns
    are called as the forward calls what it reads: ``latents`` of a ``VAEDecoder``, ``spectrogram`` of a vocoder, any
    name of a module of one's own. The supervised loss is the distance from the column ``target``, of real pixels or
    waves; a row of NaN there is taught and not supervised. Latents that nobody has an image of have no such column:
    ``alpha=1``.

    Args:
        loss: the supervised one: ``mse``, as PSNR measures it, diffusers' training of autoencoders has it and
            ``value_mse`` compares two models; or ``l1``, of which blurred edges are less. The mean over a row.
        supervised: whether there may be a target. With False there is none, ``alpha`` is 1, and evaluations of rows
            without one have a loss.

    Raises:
        ValueError: a loss that is not known.

    Reference:
        Jin et al.: Teachers Do More Than Teach, arXiv:2103.03467; Ren et al.: OMGD, arXiv:2108.06908.

    Example:
        >>> batch = {"z": torch.zeros(2, 4), "target": torch.tensor([[1.0, 1.0], [torch.nan, torch.nan]])}
        >>> task = Generating()
        >>> {unit: n.item() for unit, n in task.counts(batch).items()}
        {'rows': 2, 'tokens': 2, 'samples': 2, 'labels': 1}
        >>> task.hard(torch.tensor([[3.0, 1.0], [5.0, 5.0]]), batch)
        Sum(total=tensor(2.), count=tensor(1))
    """

    library: str = "diffusers"
    auto_class: str = "AutoencoderKL"
    pipeline_tag: str = "unconditional-image-generation"
    processor_class: ClassVar[str] = ""
    noun: str = "latents"
    example: ClassVar[str] = ""
    default_objective: ClassVar[str] = "value_mse"
    plain_labels: ClassVar[bool] = False
    label_names: tuple[str, ...] = (TARGET,)
    streams: ClassVar[tuple[str, ...]] = ("vision",)
    heads: ClassVar[tuple[HeadSpec, ...]] = ()
    values: tuple[str, ...] = (SAMPLE,)

    def __init__(self, loss: str = "mse", supervised: bool = True) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss={loss!r} was given to Generating: use {' or '.join(LOSSES)}.")
        self.loss = loss
        if not supervised:
            self.label_names = ()

    @classmethod
    def find_vocoder(cls, model: nn.Module) -> str | None:
        """Return the name of a vocoder's class; None: it is none.

        Args:
            model: any module.
        """
        return next((kind.__name__ for kind in type(core_of(model)).__mro__ if kind.__name__ in VOCODERS), None)

    @classmethod
    def from_model(cls, model: nn.Module) -> Generating | None:
        """Return the task for a decoder or a vocoder, None for any other model; see ``Task.from_model``."""
        core = core_of(model)
        bare = type(core).__name__ in ("Decoder", "DecoderTiny") and type(core).__module__.startswith("diffusers.")
        if not (isinstance(core, VAEDecoder) or is_autoencoder(core) or bare or cls.find_vocoder(core)):
            return None
        task = cls()
        task.infer_from_batch(model, {})
        return task

    def infer_from_batch(self, model: nn.Module, batch: Mapping[str, Any]) -> bool:
        """Learn who loads such a model, for the card; see ``Task.infer_from_batch``."""
        core = core_of(model)
        if isinstance(core, VAEDecoder):
            self.auto_class = type(core.vae).__name__
        elif (name := self.find_vocoder(core)) is not None:
            self.library, self.auto_class, self.pipeline_tag = "transformers", name, "text-to-speech"
            self.noun = "spectrograms"
        elif batch:
            self.library, self.auto_class = type(core).__module__.partition(".")[0], type(core).__name__
        return False

    def labelled_by(self, found: Sequence[str] | None, asked: Sequence[str] | None) -> bool:
        """Keep none that Trainer found by a name, as a class that a generator is told; see ``Task.labelled_by``."""
        return bool(found) and bool(asked)

    def check(self, student: Facts, teacher: Facts) -> None:
        """Refuse a whole autoencoder, which reads images; see ``Task.check``."""
        for who, facts in (("student", student), ("teacher", teacher)):
            if facts.name.startswith(FAMILY):
                raise ValueError(_whole(f"the {who} {facts.name}"))

    def asked(self, needs: frozenset[str]) -> frozenset[str]:
        """Refuse terms on what generators do not show; see ``Task.asked``."""
        kinds = sorted({need.partition(":")[0].partition("@")[0] for need in needs} & {"hidden", "attention", "qkv"})
        if kinds:
            raise ValueError(
                f"the objective compares {' and '.join(kinds)}, which generators do not show: use tap_mse on one of "
                'their modules, such as {"tap_mse": {"path": "vae.decoder.mid_block"}}.'
            )
        return needs

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuse targets that are no numbers, or not one a row; see ``Task.check_batch``."""
        if (target := batch.get(TARGET)) is None:
            return
        good = isinstance(target, Tensor) and target.is_floating_point()
        if not good or not target.ndim or len(target) != rows_of({n: v for n, v in batch.items() if n != TARGET}):
            there = f"{target.dtype} {list(target.shape)}" if isinstance(target, Tensor) else type(target).__name__
            raise ValueError(
                f"the target is {there.removeprefix('torch.')}: Generating takes decimal numbers, for each row an "
                "image [C, height, width] or a wave [S], or NaN."
            )

    def rows(self, batch: Mapping[str, Any]) -> Tensor:
        """Every row counts, bool [B]; see ``Task.rows``."""
        return torch.ones(rows_of(batch), dtype=torch.bool, device=find_device(batch))

    def labels(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Every row whose target is known, bool [B]; see ``Task.labels``."""
        target = batch.get(TARGET)
        return None if target is None else ~target.reshape(len(target), -1).isnan().all(dim=1)

    def mask(self, batch: Mapping[str, Any]) -> Tensor | None:
        """Say that positions are not known before a forward; see ``Task.mask``."""
        return None

    def inputs(
        self, model: nn.Module, fed: dict[str, Any], batch: Mapping[str, Any], teacher: Signals | None = None
    ) -> dict[str, Any]:
        """Refuse latents and spectrograms that the model cannot read, and noise that it would draw itself."""
        core = core_of(model)
        name = type(core).__name__
        if is_autoencoder(core):
            raise ValueError(_whole(name))
        if (wanted := latent_channels(core)) is not None and (latents := fed.get("latents")) is not None:
            if latents.ndim < 3 or latents.shape[1] != wanted:
                raise ValueError(
                    f"latents of the shape {list(latents.shape[1:])} were given to {type(core.vae).__name__}, which "
                    f"decodes {wanted} channels: use latents of its own encoder, or a decoder for these."
                )
        vocoder = self.find_vocoder(core)
        if vocoder is None:
            return fed
        column, bins = VOCODERS[vocoder]
        wanted, heard = getattr(core.config, bins, None), fed.get(column)
        if heard is not None and (heard.ndim != 3 or heard.shape[2] != wanted):
            raise ValueError(
                f"{column} of the shape {list(heard.shape)} was given to {name}, which reads [B, T, {wanted}]: make "
                "spectrograms as its own feature extractor does."
            )
        if vocoder == "UnivNetModel" and NOISE not in fed:
            raise ValueError(
                f"{name} was given no {NOISE}, so that it would draw one, and each model another: let "
                f'LatentCollator draw it (draws={{"{NOISE}": (frames, {core.config.model_in_channels})}}).'
            )
        return fed

    def hard(self, outputs: Any, batch: Mapping[str, Any], shown: Signals | None = None) -> Sum:
        """Sum the distance from the target over rows that have one; see ``Task.hard``."""
        known, made = self.labels(batch), _made(outputs, "the student")
        known = known.to(made.device)
        target, made = batch[TARGET].to(made.device)[known], made[known].float()  # a difference with NaN has none
        if not len(made):
            return Sum(made.sum(), known.sum())
        target = _with_channel(target.float())
        if made.shape != target.shape:
            raise ValueError(
                f"the student made samples of the shape {list(made.shape[1:])}, the target is {list(target.shape[1:])}"
                ": give images or waves of the size that it makes."
            )
        gap = (made - target).flatten(1)
        each = (gap.square() if self.loss == "mse" else gap.abs()).mean(dim=1)
        return Sum(each.sum(), known.sum())

    def signals(self, model: nn.Module, batch: Mapping[str, Any], outputs: Any, captured: Any = None) -> Signals:
        """Read the image or the wave; see ``Task.signals``."""
        made = _made(outputs, "the teacher" if model is None else type(core_of(model)).__name__)
        flat = made.flatten(2)
        every = torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)
        return Signals({}, values={SAMPLE: Value(flat, every, form=tuple(made.shape[2:]))})

    def align(self, student: Signals, teacher: Signals, batch: Mapping[str, Any]) -> Signals:
        """Refuse samples of another size; see ``Task.align``."""
        if (theirs := teacher.values.get(SAMPLE)) is None:
            raise ValueError("the teacher gave no sample: use a teacher that makes an image or a wave.")
        ours = student.values[SAMPLE]
        # What was kept says no more than how many numbers there are.
        same = ours.tensor.shape == theirs.tensor.shape and theirs.form in ((), ours.form)
        if not same:
            shapes = [[*one.tensor.shape[:2], *(one.form or one.tensor.shape[2:])] for one in (theirs, ours)]
            raise ValueError(
                f"the teacher gave a sample of shape {shapes[0]}, the student {shapes[1]}: give the student the "
                "teacher's size (upsampling, hop length) and channels."
            )
        return replace(teacher, values={SAMPLE: theirs})

    def predicted(self, outputs: Any) -> Any:
        """Name a bare tensor, of which Trainer would drop the first row for a loss; see ``Task.predicted``."""
        return {SAMPLE: outputs} if isinstance(outputs, Tensor) else outputs


def _whole(who: str) -> str:
    return f"{who} is a whole autoencoder, which reads images: pass VAEDecoder(model), which reads latents."


def _made(outputs: Any, name: str) -> Tensor:
    """Find what was made in what a model returned: under one of its names, the first of a tuple, or all of it."""
    found = outputs
    if isinstance(outputs, Mapping):
        found = next((outputs[name] for name in SHOWN if outputs.get(name) is not None), None)
    elif isinstance(outputs, (tuple, list)):
        found = outputs[0] if outputs else None
    if not isinstance(found, Tensor) or found.ndim < 2:
        what = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(outputs).__name__}"
        raise ValueError(
            f"a sample was asked of {name}, it returned {what}: Generating needs images [B, C, height, width] or "
            f"waves [B, S], as such, first in a tuple, or under {', '.join(SHOWN)}."
        )
    return _with_channel(found)


def _with_channel(made: Tensor) -> Tensor:
    return made.unsqueeze(1) if made.ndim == 2 else made
