"""A small Hub on the loopback: enough of its HTTP for huggingface_hub to create, upload to and load from a repository.

Repositories live in memory as ``{id: {path: bytes}}``, other branches than ``main`` as ``{id@branch: ...}``. Every
write must carry the token and be in the token's own namespace; what is refused is refused in the Hub's own words.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import yaml

TOKEN = "hf_local"
COMMIT = "1" * 40  # the only one of main: a client that sees two takes its cache for that of another commit
RESOLVE = "/{repo_id}/resolve/{revision}/{filename}"
LARGE = (".safetensors", ".bin", ".pt", ".pth", ".png", ".parquet")
RELATIONS = ("adapter", "merge", "quantized", "finetune")  # https://huggingface.co/docs/hub/model-cards
LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "other")  # some of them


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.large, self.commits, self.private = {}, {}, [], {}
        self.writes = None  # how many more are answered before the server goes down; None: all

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


def repository(kind, name, revision="main"):
    """Under which name a repository is held: those of data sets have a word more, other branches their name."""
    held = f"datasets/{name}" if kind == "datasets" else name
    return held if revision in ("main", COMMIT) else f"{held}@{revision}"


def commit_of(revision):
    """The only commit of a branch, or the commit itself."""
    known = re.fullmatch("[0-9a-f]{40}", revision)
    return COMMIT if revision == "main" else revision if known else hashlib.sha1(revision.encode()).hexdigest()


def faults(content):
    """What the Hub would not take in a card's metadata."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    data = yaml.safe_load(found[1]) if found else {}
    bases = data.get("base_model")
    for name in bases if isinstance(bases, list) else [bases]:
        if name is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            yield f'"base_model" with value "{name}" is not valid. Use a model id from https://hf.co/models.'
    if data.get("base_model_relation") not in (None, *RELATIONS):
        yield f'"base_model_relation" must be one of {", ".join(RELATIONS)}'
    if data.get("license") not in (None, *LICENSES):
        yield f'"license" must be one of {", ".join(LICENSES)}'
    languages = data.get("language") or []
    for code in [languages] if isinstance(languages, str) else languages:
        if not re.fullmatch(r"[a-z]{2,3}", str(code)):
            yield f'"language" with value "{code}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code.'
    for name in ("tags", "datasets", "metrics"):
        if not all(isinstance(one, str) for one in data.get(name) or []):
            yield f'"{name}" must be an array of strings'
    for model in data.get("model-index") or []:
        for result in model["results"]:
            if not ({"type"} <= result["task"].keys() and {"type", "name"} <= result["dataset"].keys()):
                yield '"model-index[0].results[0].dataset.type" is required'
            if not all({"type", "value"} <= metric.keys() for metric in result["metrics"]):
                yield '"model-index[0].results[0].metrics[0].value" is required'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Say nothing: the tests' output is the tests'."""

    def answer(self, body=b"", status=200, **headers):
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def refuse(self, status, message, code=None, revision="main"):
        """As the Hub says no: a body with the error, the same in a header, and a code where it has one."""
        headers = {
            "X_Error_Message": message,
            "X_Repo_Commit": commit_of(revision),
            **({"X_Error_Code": code} if code else {}),
        }
        self.answer({"error": message}, status, **headers)

    def missing(self, code, revision="main"):
        words = {"RepoNotFound": "Repository not found", "EntryNotFound": "Entry not found"}
        status = 401 if code == "RepoNotFound" and not self.known() else 404
        self.refuse(status, words.get(code, code), code, revision)

    def known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def down(self):
        """Whether the server is gone: it then hangs up without a word."""
        if self.server.writes is None:
            return False
        self.server.writes -= 1
        self.close_connection = self.server.writes < 0
        return self.close_connection

    def do_PUT(self):
        body = self.body()
        if not self.down():
            self.server.large[self.path.rpartition("/")[2]] = body
            self.answer()

    def do_POST(self):
        path, body = unquote(self.path), self.body()
        if self.down():
            return None
        if path == "/api/validate-yaml":
            wrong = list(faults(json.loads(body)["content"]))
            return self.answer({"errors": [{"message": m} for m in wrong], "warnings": []}, 400 if wrong else 200)
        if not self.known():
            return self.refuse(401, "Invalid username or password.")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if found := re.fullmatch(r"/api/(models|datasets)/(.+)/branch/(.+)", path):
            name, branch = repository(found[1], found[2]), repository(found[1], found[2], found[3])
            if branch in self.server.repositories:
                return self.refuse(409, f"Reference already exists: {found[3]}")
            self.server.repositories[branch] = dict(self.server.repositories[name])
            return self.answer({})
        if found := re.fullmatch(r"/api/(?:models|datasets)/(.+)/preupload/.+", path):
            files = json.loads(body)["files"]
            modes = ["lfs" if f["path"].endswith(LARGE) else "regular" for f in files]
            named = zip(files, modes, strict=True)
            return self.answer(
                {"files": [{"path": f["path"], "uploadMode": m, "shouldIgnore": False} for f, m in named]}
            )
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.url}/large/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/commit/(.+)", path):
            return self.commit(found, body)
        return self.missing("NotFound")

    def create(self, asked):
        kind = "dataset" if asked.get("type") == "dataset" else "model"
        owner = asked.get("organization") or "me"
        name = repository(f"{kind}s", f"{owner}/{asked['name']}")
        if owner != "me":
            return self.refuse(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        told = {"url": f"{self.server.url}/{name}", "id": name.removeprefix("datasets/")}
        if name in self.server.repositories:
            return self.answer({"error": f"You already created this {kind} repo: {name}", **told}, 409)
        self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
        self.server.repositories[name] = {}
        return self.answer(told)

    def commit(self, found, body):
        files = self.server.repositories.get(repository(*found.groups()))
        if files is None:
            return self.refuse(404, f"Invalid rev id: {found[3]}", "RevisionNotFound")
        if not found[2].startswith("me/"):
            return self.refuse(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "header":
                self.server.commits.append(value["summary"])
        return self.answer({"commitUrl": f"{self.server.url}/{found[2]}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self):
        path = unquote(self.path).partition("?")[0]
        if path == "/api/whoami-v2":
            if not self.known():
                return self.refuse(401, "Invalid username or password.")
            return self.answer({"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = self.readable("datasets" if found[1] else "models", found[2], found[3])
            if files is None:
                return self.missing("RepoNotFound")
            if found[4] not in files:
                return self.missing("EntryNotFound", found[3])
            content = files[found[4]]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            commit, size = commit_of(found[3]), str(len(content))
            return self.answer(content, ETag=tag, X_Repo_Commit=commit, X_Linked_Etag=tag, X_Linked_Size=size)
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/.*)?", path):
            named = re.match(r"/(?:revision|tree)/([^/]+)", found[3] or "")
            revision = named[1] if named else "main"
            files = self.readable(found[1], found[2], revision)
            if files is None and self.readable(found[1], found[2]) is not None:
                return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            if files is None:
                return self.missing("RepoNotFound")
            listing = [{"type": "file", "path": n, "size": len(c), "oid": COMMIT} for n, c in files.items()]
            if (found[3] or "").startswith("/tree"):
                return self.answer(listing)
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"id": found[2], "sha": commit_of(revision), "siblings": siblings, "tags": []})
        return self.missing("NotFound")

    do_HEAD = do_GET

    def readable(self, kind, name, revision="main"):
        """The files of a repository; a private one is not there for whoever has no token."""
        if self.server.private.get(repository(kind, name)) and not self.known():
            return None
        branches = {held.partition("@")[2] for held in self.server.repositories}
        named = next((b for b in branches if b and commit_of(b) == revision), revision)
        return self.server.repositories.get(repository(kind, name, named))


@contextmanager
def hub():
    """Serve on a free port of the loopback while open."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(server, home):
    """What a process needs to take the local server for the Hub, with a cache of its own."""
    return {
        "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@contextmanager
def reached(server, patch, home, token=TOKEN):
    """Let the client of this very process take the local server for the Hub, which saves starting another one.

    Args:
        server: as ``hub`` gives it.
        patch: pytest's ``monkeypatch``.
        home: of a cache of its own.
        token: what ``HF_TOKEN`` holds.
    """
    from huggingface_hub import HfApi, constants, hf_api
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import hub as client

    with patch.context() as here:
        here.setattr(sys.modules[disable_progress_bars.__module__], "HF_HUB_DISABLE_PROGRESS_BARS", None)
        where = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + RESOLVE,
            "HF_HUB_CACHE": str(home),
        }
        for name, value in {**where, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
            here.setattr(constants, name, value)
        known = {"HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        for name, value in known.items():
            here.setenv(name, value)
        here.setattr(hf_api.api, "endpoint", server.url)
        here.setattr(client, "_hf_api", HfApi(endpoint=server.url))
        yield server
        disable_progress_bars()  # Trainer has put them back
