"""Pushing to the Hub: what never goes up, and what is said when it does not get there.

Knows: the Hub's client, Trainer's ways of pushing. Does not know: training, what is in the files.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from hf_distill.hub.faults import fault, reason
from hf_distill.hub.secret import Secret

logger = logging.getLogger(__name__)

KEPT_BACK = ("_*", f"{PREFIX_CHECKPOINT_DIR}-*")
"""What Trainer leaves out of an ``output_dir`` that it pushes; a kept teacher lies in a folder that begins with _."""

PUSHING = ("commit_message", "blocking", "token", "revision", "private")
"""What ``Trainer.push_to_hub`` takes for itself; all else is for the card."""


class PushError(OSError, ValueError):
    """What was to go to the Hub is not there, and lies whole on the disk; the sentence names the next command."""


def again(
    repo_id: str, folder: str | Path, *, kind: str = "model", revision: str | None = None,
    private: bool | None = None, include: Sequence[str] = (), exclude: Sequence[str] = (), into: str = ".",
) -> str:  # fmt: skip
    """Write the command of huggingface_hub that uploads a folder.

    Args:
        repo_id: where to.
        folder: what.
        kind: ``model`` or ``dataset``.
        revision: the branch; None is the main one.
        private: whether the repository is private, if it must be made.
        include: only the files that these patterns match.
        exclude: without the files that these match.
        into: the folder of the repository.

    Example:
        >>> print(again("me/student", "out", exclude=KEPT_BACK))
        hf upload me/student out . --exclude '_*' --exclude 'checkpoint-*'
    """
    words = ["hf", "upload", repo_id, str(folder), into]
    words += [] if kind == "model" else ["--repo-type", kind]
    words += [] if revision is None else ["--revision", revision]
    words += ["--private"] if private else []
    words += [word for pattern in include for word in ("--include", pattern)]
    words += [word for pattern in exclude for word in ("--exclude", pattern)]
    return shlex.join(words)


def check_repository(args: Any) -> None:
    """Make the repository of a run, or say now that it cannot be made, before a teacher is trained for hours.

    Args:
        args: Trainer's; without ``push_to_hub`` nothing is done.

    Raises:
        PushError: the Hub cannot be reached or refused.
    """
    if not args.push_to_hub or args.process_index:
        return
    try:
        HfApi(token=args.hub_token).create_repo(_named(args), private=args.hub_private_repo, exist_ok=True)
    except Exception as error:
        if (why := fault(error)) is None:
            raise
        raise _refused(args, why) from error


def _named(args: Any) -> str:
    return args.hub_model_id or Path(args.output_dir).absolute().name


def _refused(args: Any, why: BaseException) -> PushError:
    return PushError(
        f"the student shall be pushed to {_named(args)}, which cannot be made ({reason(why)}): log in with a token "
        "that may write there (hf auth login), or name another repository with hub_model_id."
    )


class PushMixin:
    """The part of the trainer that pushes: as Trainer, with one sentence where that fails, and without the token."""

    args: Any
    model: Any
    hub_model_id: str | None
    _uploading = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if getattr(self.args, "hub_token", None) is not None:
            self.args.hub_token = Secret(self.args.hub_token)

    @property
    def uploads_checkpoints(self) -> bool:
        """Whether whole checkpoints go up: what resumes a run, but no answers, which are no part of a model."""
        whole = (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)
        return self.args.push_to_hub and self.args.hub_strategy in whole

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository as Trainer does, and the branch ``args.hub_revision``, which Trainer takes for made.

        Args:
            token: as in ``Trainer.init_hf_repo``.
            private: as in ``Trainer.init_hf_repo``.

        Raises:
            PushError: the Hub refused.
            ValueError: the teacher's answers are kept in the folder that is pushed.
        """
        self._check_answers()
        try:
            super().init_hf_repo(token=token, **({} if private is None else {"private": private}))  # 5.23 took it in
            self._make_branch(self.args.hub_revision, token)
        except Exception as error:
            if (why := fault(error)) is None:
                raise
            raise _refused(self.args, why) from error

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Push as ``Trainer.push_to_hub``; all files, card and report are on the disk before anything goes up.

        Args:
            *args: as in ``Trainer.push_to_hub``.
            **kwargs: as in ``Trainer.push_to_hub``.

        Returns:
            As ``Trainer.push_to_hub``.

        Raises:
            PushError: the Hub cannot be reached or refused; the sentence names the command that tries again.
            ValueError: an adapter whose base has no id was to be pushed, and nobody else could load it.
        """
        if (base := self._private_base()) is not None:
            self._keep(kwargs)
            raise ValueError(
                f"the adapter in {self.args.output_dir} was to be pushed, its base is {base}, which nobody else has: "
                "push the base and train on its id, or merge the adapter (merge_and_unload) and push again."
            )
        ready = self._uploading = False
        try:
            if self.hub_model_id is None:
                self.init_hf_repo(token=kwargs.get("token"), private=kwargs.get("private"))
            self._make_branch(kwargs.get("revision"), kwargs.get("token"))
            ready = True
            pushed = super().push_to_hub(*args, **kwargs)
        except Exception as error:
            if (why := fault(error) or (error if self._uploading else None)) is None:
                raise
            if not ready:  # Trainer has not come to saving yet, and the training shall not be lost
                self._keep(kwargs)
            raise PushError(f"the student was not pushed ({reason(why)}): {self._again(kwargs)}") from error
        if hasattr(pushed, "add_done_callback"):
            self._watch(pushed, partial(self._again, kwargs))
        return pushed

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        self._uploading = True  # what Trainer does next; all that fails from here on is the upload

    def _keep(self, asked: dict[str, Any]) -> None:
        """Save what ``Trainer.push_to_hub`` would have saved."""
        self.save_model(_internal_call=True)
        about = {name: value for name, value in asked.items() if name not in PUSHING}
        about.setdefault("model_name", Path(self.args.hub_model_id or self.args.output_dir).name)
        self.create_model_card(**about)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if (base := self._private_base()) is not None:
            logger.warning("The adapter is not pushed on the way: its base is %s, which nobody else has.", base)
            return
        before = self._jobs()
        super()._push_from_checkpoint(checkpoint_folder)
        # The first is the student, the second the whole checkpoint.
        for place, job in enumerate(job for job in self._jobs() if job not in before):
            self._watch(job, partial(self._checkpoint_again, Path(checkpoint_folder)) if place else self._again)

    def _jobs(self) -> list[Any]:
        return list(getattr(getattr(self, "push_in_progress", None), "jobs", ()))

    def _watch(self, job: Any, then: Callable[[], str]) -> None:
        """Let an upload in the background say it when it fails: Trainer only waits for it."""

        def told(job: Any) -> None:
            if not job.cancelled() and (error := job.exception()) is not None:
                why = reason(fault(error) or error)
                logger.warning("A push on the way failed (%s), the run goes on: %s", why, then())

        job.add_done_callback(told)

    def _checkpoint_again(self, folder: Path) -> str:
        if not folder.is_dir():
            return f"{folder} has made room for later ones since (save_total_limit), and the next save pushes again."
        into = "last-checkpoint" if self.args.hub_strategy == HubStrategy.CHECKPOINT else folder.name
        line = again(self.hub_model_id, folder, revision=self.args.hub_revision, into=into)
        return f"the checkpoint is in {folder}, push it with `{line}` unless a later one has replaced it."

    def _again(self, asked: dict[str, Any] | None = None) -> str:
        folder, asked = self.args.output_dir, asked or {}
        command = again(
            self.hub_model_id or _named(self.args), folder, exclude=KEPT_BACK,
            revision=asked.get("revision") or self.args.hub_revision,
            private=asked.get("private") or self.args.hub_private_repo,
        )  # fmt: skip
        return f"all of it is in {folder}, try again with trainer.push_to_hub() or, later, with `{command}`."

    def _make_branch(self, revision: str | None, token: str | None = None) -> None:
        if revision and not revision.startswith("refs/") and self.is_world_process_zero():
            HfApi(token=token or self.args.hub_token).create_branch(self.hub_model_id, branch=revision, exist_ok=True)

    def _private_base(self) -> str | None:
        """What nobody else has under a PEFT adapter; None where there is no adapter, or its base has a name."""
        configs = getattr(self.accelerator.unwrap_model(self.model), "peft_config", None)
        named = [one.base_model_name_or_path for one in configs.values()] if isinstance(configs, dict) else []
        found = (f"the folder {name}" if name else "made here" for name in named if not name or Path(name).is_dir())
        return next(found, None)

    def _check_answers(self) -> None:
        folder, kept = Path(self.args.output_dir).resolve(), getattr(self.args, "teacher_cache", "auto")
        inside = kept not in ("auto", "off") and folder in (answers := Path(kept).resolve()).parents
        if inside and not answers.relative_to(folder).parts[0].startswith("_"):
            raise ValueError(
                f"teacher_cache={kept} lies in output_dir={self.args.output_dir}, all of which is pushed: name a "
                f"folder beside it, or {Path(self.args.output_dir) / '_answers'}."
            )
