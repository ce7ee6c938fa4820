"""A stand-in of the hub on loopback: the part of its HTTP API that huggingface_hub uses to create, commit and read."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_of_the_stand_in"
LFS_SUFFIXES = (".safetensors", ".png")


@dataclass
class Repository:
    """Its commits, the oldest first, each with all files; `private` as it was created."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str) -> str:
        last = list(self.commits.values())[-1] if self.commits else {}
        oid = hashlib.sha1(f"{message} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = {**last, **files}
        self.messages.append(message)
        return oid

    def resolve(self, revision: str) -> str | None:
        if revision == "main":
            return list(self.commits)[-1]
        return revision if revision in self.commits else None


@dataclass
class Hub:
    """The stand-in's address and state; `requests` lists method and path of all that was asked."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: bytes | dict, *, status: int = 200, **headers: str) -> None:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json" if isinstance(body, dict) else "application/octet-stream")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def fail(self, status: int, code: str) -> None:
        self.answer({"error": code}, status=status, X_Error_Code=code, X_Error_Message=code)

    def body(self) -> bytes:
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def do_GET(self) -> None:
        self.body()
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        repository = self.hub.repositories.get(match[1]) if match else None
        if match is None or repository is None:
            return self.fail(404, "RepoNotFound")
        if match[1] in self.hub.gated:
            return self.fail(403, "GatedRepo")
        commit = repository.resolve(unquote(match[2]))
        if commit is None:
            return self.fail(404, "RevisionNotFound")
        data = repository.commits[commit].get(match[3])
        if data is None:
            return self.answer(
                {}, status=404, X_Error_Code="EntryNotFound", X_Error_Message="none", X_Repo_Commit=commit
            )
        digest = hashlib.sha256(data).hexdigest()
        size = str(len(data))
        return self.answer(data, ETag=f'"{digest}"', X_Repo_Commit=commit, X_Linked_Size=size)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and not self.path.endswith("validate-yaml"):
            return self.fail(401, "Unauthorized")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                return self.answer({"url": f"{self.hub.endpoint}/{name}"}, status=409)
            private = asked.get("private") is True or asked.get("visibility") == "private"
            self.hub.repositories[name] = Repository(private)
            self.hub.repositories[name].commit({".gitattributes": b""}, "initial commit")
            return self.answer({"url": f"{self.hub.endpoint}/{name}", "id": name})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path.partition("?")[0]):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": modes})
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**asked, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}}}
                for asked in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            repository = self.hub.repositories[match[1]]
            message, files = "", {}
            for line in body.splitlines():
                step = json.loads(line)
                value = step["value"]
                if step["key"] == "header":
                    message = value["summary"]
                elif step["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif step["key"] == "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
            oid = repository.commit(files, message)
            return self.answer(
                {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{match[1]}/commit/{oid}"}
            )
        return self.fail(404, "RepoNotFound")

    def do_PUT(self) -> None:
        data = self.body()
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(data).hexdigest() != oid:
            return self.fail(400, "BadRequest")
        self.hub.objects[oid] = data
        return self.answer(b"")


@contextmanager
def served_hub() -> Iterator[Hub]:
    """Serve an empty hub on a free port of loopback."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
