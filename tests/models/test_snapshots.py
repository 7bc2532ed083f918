"""The commit of a model, from the layout of the Hub's cache."""

from huggingface_hub import constants

from hf_distill.models.snapshots import commit_of, commits_of


def test_one_commit_is_known_of_two_nobody_knows_which(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    snapshots = tmp_path / "hub" / "models--me--big" / "snapshots"
    (snapshots / "aaaa").mkdir(parents=True)
    assert commit_of("me/big") == "aaaa"
    assert commits_of("me/small") == []
    (snapshots / "bbbb").mkdir()
    assert commits_of("me/big") == ["aaaa", "bbbb"]
    assert commit_of("me/big") is None
    (tmp_path / "me" / "big").mkdir(parents=True)  # a folder goes before an id, as in from_pretrained
    assert commits_of("me/big") == []
