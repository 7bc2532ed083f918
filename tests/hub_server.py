"""A small Hub on the loopback: enough of its HTTP for huggingface_hub to create, upload to and load from a repository.

Repositories live in memory as ``{id: {path: bytes}}``. Every write must carry the token.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_local"
COMMIT = "1" * 40  # the only one: a client that sees two takes its cache for that of another commit


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.large, self.commits, self.private = {}, {}, [], {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


def repository(kind, name):
    """Under which name a repository is held: those of data sets have a word more."""
    return f"datasets/{name}" if kind == "datasets" else name


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

    def missing(self, what):
        self.answer({"error": what}, 404, X_Error_Code=what, X_Repo_Commit=COMMIT)

    def do_PUT(self):
        self.server.large[self.path.rpartition("/")[2]] = self.body()
        self.answer()

    def do_POST(self):
        path, body = unquote(self.path), self.body()
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid token"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            kind = "datasets/" if asked.get("type") == "dataset" else ""
            name = f"{kind}{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
            status = 409 if name in self.server.repositories else 200
            self.server.repositories.setdefault(name, {})
            return self.answer({"url": f"{self.server.url}/{name}", "id": name.removeprefix("datasets/")}, status)
        if found := re.fullmatch(r"/api/(?:models|datasets)/(.+)/preupload/.+", path):
            files = json.loads(body)["files"]
            modes = [
                "lfs" if f["path"].endswith((".safetensors", ".bin", ".png", ".parquet")) else "regular" for f in files
            ]
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
        if found := re.fullmatch(r"/api/(models|datasets)/(.+)/commit/.+", path):
            files = self.server.repositories[repository(found[1], found[2])]
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]]
                elif line["key"] == "header":
                    self.server.commits.append(value["summary"])
            return self.answer({"commitUrl": f"{self.server.url}/{found[2]}/commit/{COMMIT}", "commitOid": COMMIT})
        return self.missing("NotFound")

    def do_GET(self):
        path = unquote(self.path).partition("?")[0]
        if path == "/api/whoami-v2":
            return self.answer({"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})
        if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            files = self.server.repositories.get(found[1])
            if files is None:
                return self.missing("RepoNotFound")
            if found[2] not in files:
                return self.missing("EntryNotFound")
            content = files[found[2]]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(
                content, ETag=tag, X_Repo_Commit=COMMIT, X_Linked_Etag=tag, X_Linked_Size=str(len(content))
            )
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/.*)?", path):
            files = self.server.repositories.get(repository(found[1], found[2]))
            if files is None:
                return self.missing("RepoNotFound")
            listing = [{"type": "file", "path": n, "size": len(c), "oid": COMMIT} for n, c in files.items()]
            if (found[3] or "").startswith("/tree"):
                return self.answer(listing)
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"id": found[2], "sha": COMMIT, "siblings": siblings, "tags": []})
        return self.missing("NotFound")

    do_HEAD = do_GET


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
