"""Where a student comes from: its base, its teachers, and what their own cards say of licence and language.

Knows: configurations, the Hub's cache, the metadata of a card. Does not know: training, how a card is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import HTTPError
from yaml import YAMLError

from hf_distill.models.snapshots import commit_of, commits_of
from hf_distill.students.lineage import named, steps_of

LICENCE = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class Origin:
    """A model that a student owes something to.

    Args:
        name: as it may be published: an id, the last name of a folder, or a class.
        hub: whether it came from the Hub.
        revision: the Hub's commit; None: not known.
        licence: what its card says under ``license``, ``license_name``, ``license_link``; empty: not known.
        language: what its card says; None: not known.
    """

    name: str
    hub: bool = False
    revision: str | None = None
    licence: dict[str, str] = field(default_factory=dict)
    language: Any = None

    @property
    def shown(self) -> str:
        """Its name in Markdown, with a link and the revision if it is on the Hub.

        Example:
            >>> Origin("teacher").shown
            '`teacher`'
            >>> Origin("me/teacher", True, "0123456789").shown
            '[`me/teacher`](https://huggingface.co/me/teacher) (revision `01234567`)'
        """
        name = f"[`{self.name}`](https://huggingface.co/{self.name})" if self.hub else f"`{self.name}`"
        return name + (f" (revision `{self.revision[:8]}`)" if self.revision else "")

    @classmethod
    def of(cls, name: str, revision: str | None) -> Origin:
        """Look up what a model's own card says, in its folder or in the Hub's cache.

        Args:
            name: an id, a folder, or the name of a class.
            revision: the Hub's commit, if it is known.

        Example:
            >>> Origin.of("BertModel", None)
            Origin(name='BertModel', hub=False, revision=None, licence={}, language=None)
        """
        hub = bool(revision or commits_of(name))
        data = _metadata(name, hub, revision)
        licence = {key: data[key] for key in LICENCE if isinstance(data.get(key), str)}
        return cls(named(name), hub, revision, licence if "license" in licence else {}, data.get("language") or None)


def _metadata(name: str, hub: bool, revision: str | None) -> dict[str, Any]:
    if not name:  # a model made here; the README of the working folder is not its card
        return {}
    try:
        path = hf_hub_download(name, "README.md", revision=revision) if hub else Path(name) / "README.md"
        return ModelCard.load(path, ignore_metadata_errors=True).data.to_dict() if Path(path).is_file() else {}
    except (HTTPError, OSError, ValueError, YAMLError):  # gated, not cached, without a card, or not to be read
        return {}


def base_of(config: Any) -> Origin | None:
    """Find the checkpoint that a student's weights began as.

    Args:
        config: the student's. A model that was made from a teacher's layers began as this teacher, also when it was
            saved in between; one that took over the kind alone, or the words, began as nothing.

    Returns:
        The nearest on the Hub; else the folder it was loaded from; None where it was made from nothing.

    Example:
        >>> from transformers import BertConfig
        >>> base_of(BertConfig()) is None
        True
        >>> base_of(BertConfig(distillation=[{"step": "keep_layers", "teacher": "me/big", "revision": "ab"}])).name
        'me/big'
    """
    name = getattr(config, "_name_or_path", None) or ""
    revision = (getattr(config, "_commit_hash", None) or commit_of(name)) if name else None  # another one's is left
    own = Origin.of(name, revision)
    if own.hub:
        return own
    base = None
    for step in steps_of(config):
        if step.get("step") == "fresh_student":
            base = None
        elif (earlier := Origin.of(step.get("teacher") or "", step.get("revision"))).hub:
            base = earlier
    return base or (own if name and Path(name).is_dir() else None)


def teachers_of(teacher: Any) -> dict[str, Origin]:
    """Name each of a trainer's teachers.

    Args:
        teacher: one, or several.

    Returns:
        name -> origin; one teacher alone has the name "".
    """
    members = teacher.members or {"": teacher}
    return {name: Origin.of(one.facts.name, one.facts.revision) for name, one in members.items()}


def shared_licence(base: Origin | None, teachers: Iterable[Origin]) -> dict[str, str]:
    """Find the one licence that a student may inherit.

    Args:
        base: what its weights began as.
        teachers: who taught it.

    Returns:
        As ``Origin.licence``; empty where nothing is known, the base's is not, or two differ: nobody's is invented.

    Example:
        >>> one, other = Origin("a", licence={"license": "mit"}), Origin("b", licence={"license": "apache-2.0"})
        >>> shared_licence(one, [one, Origin("c")]), shared_licence(None, [one]), shared_licence(one, [other])
        ({'license': 'mit'}, {'license': 'mit'}, {})
    """
    if base is not None and not base.licence:
        return {}
    known = [one.licence for one in (*([base] if base else []), *teachers) if one.licence]
    return dict(known[0]) if known and all(one == known[0] for one in known) else {}


def shared_language(base: Origin | None, teachers: Iterable[Origin]) -> Any:
    """Find a student's language: its base's, else the one that all teachers share; None: not known.

    Args:
        base: what its weights began as.
        teachers: who taught it.

    Example:
        >>> shared_language(Origin("a", language="zh"), [Origin("b", language=["en", "zh"])])
        'zh'
    """
    if base is not None and base.language:
        return base.language
    spoken = [one.language for one in teachers]
    return spoken[0] if spoken and all(one == spoken[0] for one in spoken) else None


def licences(base: Origin | None, teachers: Iterable[Origin]) -> list[str]:
    """Say each origin's licence, for whoever must decide; those of which nothing can be known are left out.

    Args:
        base: what the student's weights began as.
        teachers: who taught it.

    Example:
        >>> licences(None, [Origin("big", True, "ab", {"license": "mit"}), Origin("BertModel")])
        ['`big`: mit']
    """
    said = {}
    for one in (*([base] if base else []), *teachers):
        if one.licence or one.hub:
            said[f"`{one.name}`"] = " ".join(one.licence.values()) or "not known"
    return [f"{name}: {words}" for name, words in said.items()]


def relation_of(base: Origin | None, adapter: bool) -> tuple[str | None, str | None]:
    """Return the Hub's ``base_model`` and ``base_model_relation``.

    The Hub's words are adapter, finetune, merge and quantized; it has none for a student that was only taught, so a
    teacher is a base only where the student's weights began as its own.

    Args:
        base: what the student's weights began as.
        adapter: whether the student is an adapter on it.

    Example:
        >>> relation_of(Origin("me/big", hub=True), adapter=False), relation_of(Origin("folder"), adapter=True)
        (('me/big', 'finetune'), (None, None))
    """
    if base is None or not base.hub:
        return None, None
    return base.name, "adapter" if adapter else "finetune"
