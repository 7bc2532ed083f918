"""A folder of answers on the Hub, as a data set.

Knows: the Hub's client, which files belong to a store. Does not know: what is in them, tokens.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from hf_distill.cache.store import DATA, HEADER
from hf_distill.hub.faults import fault, reason
from hf_distill.hub.push import PushError, again

HUB = "hf://datasets/"
"""What comes before the id of a data set, where a folder could stand as well."""

FILES, HIDDEN = [HEADER, "README.md", f"{DATA}/*.parquet"], "**/.*"


def push(folder: str | Path, repo_id: str, private: bool | None = None) -> str:
    """Upload a folder of answers.

    Args:
        folder: a store.
        repo_id: ``name/data-set``; it is made if it is not there.
        private: as in ``HfApi.create_repo``.

    Returns:
        Where it is.

    Raises:
        PushError: the Hub cannot be reached or refused; the sentence names the command that tries again.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, repo_type="dataset", allow_patterns=FILES,
            ignore_patterns=[HIDDEN], commit_message="Add a teacher's answers",
        )  # fmt: skip
    except Exception as error:
        if (why := fault(error)) is None:
            raise
        command = again(repo_id, folder, kind="dataset", private=private, include=FILES, exclude=[HIDDEN])
        raise PushError(
            f"the answers were not pushed to {repo_id} ({reason(why)}): all of them are in {folder}, try again with "
            f"`{command}`."
        ) from error
    return str(url)


def pulled(spec: str) -> Path:
    """Return the folder of a store, downloaded if it is one on the Hub.

    Args:
        spec: a folder, or ``hf://datasets/name/data-set``, with ``@revision`` behind it if need be.

    Raises:
        ValueError: the data set on the Hub holds no answers.
    """
    if not spec.startswith(HUB):
        return Path(spec)
    name, _, revision = spec.removeprefix(HUB).partition("@")
    folder = Path(snapshot_download(name, repo_type="dataset", revision=revision or None, allow_patterns=FILES))
    if not (folder / HEADER).is_file():
        raise ValueError(f"the data set {name} has no {HEADER}, it holds no teacher's answers: name another one.")
    return folder
