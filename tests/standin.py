"""A small server that speaks as much of the Hub's protocol as pushing and pulling a policy needs."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


class Hub(ThreadingHTTPServer):
    """Repositories in memory: ``files[repo][path]`` are bytes."""

    def __init__(self):
        self.files, self.large, self.refuse = {}, {}, False
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def commit(self, repo):
        return hashlib.sha1(repr(sorted(self.files[repo].items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, content=b"", status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        hub, path, body = self.server, urlparse(self.path).path, self.body()
        if hub.refuse:
            return self.answer({"error": "who are you?"}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            hub.files.setdefault(repo, {})
            return self.answer({"url": f"{hub.endpoint}/{repo}"})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{hub.endpoint}/lfs/{o['oid']}"}}} for o in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            repo = "/".join(path.split("/")[3:5])
            for line in body.splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    hub.files[repo][said["value"]["path"]] = base64.b64decode(said["value"]["content"])
                elif said["key"] == "lfsFile":
                    hub.files[repo][said["value"]["path"]] = hub.large[said["value"]["oid"]]
            sha = hub.commit(repo)
            return self.answer({"commitUrl": f"{hub.endpoint}/{repo}/commit/{sha}", "commitOid": sha, "success": True})
        return self.answer({"error": f"not known here: {path}"}, 501)

    def do_PUT(self):
        self.server.large[self.path.split("/")[-1]] = self.body()
        self.answer()

    def do_GET(self):
        hub, path = self.server, unquote(urlparse(self.path).path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo = "/".join(parts[2:4])
            if repo not in hub.files:
                return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            if "tree" in parts:
                digests = {name: hashlib.sha1(content).hexdigest() for name, content in hub.files[repo].items()}
                sizes = {name: len(content) for name, content in hub.files[repo].items()}
                return self.answer([{"type": "file", "path": n, "oid": o, "size": sizes[n]} for n, o in digests.items()])
            siblings = [{"rfilename": name} for name in hub.files[repo]]
            return self.answer({"id": repo, "sha": hub.commit(repo), "siblings": siblings})
        if "resolve" in parts:
            repo, name = "/".join(parts[:2]), "/".join(parts[4:])
            content = hub.files[repo][name]
            digest = hashlib.sha256(content).hexdigest()
            return self.answer(content, ETag=f'"{digest}"', X_Repo_Commit=hub.commit(repo))
        return self.answer({"error": f"not known here: {path}"}, 404)

    do_HEAD = do_GET
