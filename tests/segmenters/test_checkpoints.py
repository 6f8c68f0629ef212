"""Downloads from a server on this machine that cuts, lies and stalls."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alignsam_sb3.segmenters import checkpoints, load_segmenter
from alignsam_sb3.segmenters.checkpoints import Checkpoint, main, obtain

CONTENT = bytes(range(256)) * 400
SIZE = len(CONTENT)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    asked: list[str] = []
    broken = True

    def do_GET(self):
        self.asked.append(self.path)
        trouble = self.path.split("/")[1] if self.broken else "good"
        if trouble == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if trouble == "stall":
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            time.sleep(2)
        else:
            told = {"cut": CONTENT[:5000], "lie": CONTENT[::-1]}.get(trouble, CONTENT)
            self.wfile.write(told)

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Adds a checkpoint that a server on this machine offers, with the given trouble."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("ALIGNSAM_CACHE", str(tmp_path))
    monkeypatch.delenv("ALIGNSAM_OFFLINE", raising=False)
    monkeypatch.setattr(checkpoints, "TIMEOUT", 0.3)
    monkeypatch.setattr(Server, "broken", True)
    Server.asked.clear()

    def offer(trouble="good", sha256=DIGEST, size=SIZE, licence="MIT"):
        url = f"http://127.0.0.1:{server.server_port}/{trouble}/weights.pt"
        monkeypatch.setitem(checkpoints.CHECKPOINTS, "test", Checkpoint("test", url, size, sha256, licence, "here"))
        return tmp_path / "checkpoints" / "weights.pt"

    yield offer
    server.shutdown()


def test_a_download_is_checked_kept_and_not_repeated(served, capsys):
    path = served()
    assert main(["download", "test"]) == 0
    assert "--segmenter test" in capsys.readouterr().out
    assert path.read_bytes() == CONTENT
    assert obtain("test") == path
    assert Server.asked == ["/good/weights.pt"]
    assert main(["list"]) == 0
    line = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("test"))
    assert "yes" in line
    assert DIGEST[:12] in line
    assert main(["verify", str(path)]) == 0
    assert "is test (here, MIT)" in capsys.readouterr().out


@pytest.mark.parametrize("trouble", ["cut", "stall", "missing"])
@pytest.mark.parametrize("known", [True, False])
def test_a_broken_download_leaves_nothing_and_the_next_starts_anew(served, monkeypatch, trouble, known):
    path = served(trouble, DIGEST if known else None)
    with pytest.raises(ConnectionError, match=r"Run it again, or bring the file to .*weights\.pt"):
        obtain("test")
    assert not list(path.parent.glob("*"))
    monkeypatch.setattr(Server, "broken", False)
    assert obtain("test").read_bytes() == CONTENT


def test_a_server_that_lies_is_refused(served, capsys):
    path = served("lie")
    assert main(["download", "test"]) == 1
    assert "is not the known checkpoint 'test'" in capsys.readouterr().err
    assert not path.exists()


def test_an_unpublished_hash_is_remembered(served, monkeypatch, caplog):
    path = served("good", None, None)
    obtain("test")
    assert DIGEST in caplog.text
    path.unlink()
    served("lie", None, None)
    with pytest.raises(ValueError, match=f"Expected sha256 {DIGEST}"):
        obtain("test")
    path.write_bytes(b"somebody changed it")
    with pytest.raises(ValueError, match="delete it and run again"):
        obtain("test")


def test_a_file_that_was_damaged_later_is_refused(served, capsys):
    path = served()
    obtain("test")
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(ValueError, match="has sha256"):
        obtain("test")
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"102399 bytes, not the 102400"):
        obtain("test")
    assert main(["verify", str(path)]) == 1
    assert "is named like test but its sha256 is" in capsys.readouterr().err


def test_offline_downloads_nothing(served, monkeypatch):
    path = served()
    monkeypatch.setenv("ALIGNSAM_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"ALIGNSAM_OFFLINE forbids downloads: copy http.*weights\.pt there"):
        obtain("test")
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert obtain("test") == path
    assert not Server.asked


def test_a_licence_that_forbids_commerce_is_printed(served, capsys):
    served(licence="Some licence: NON-COMMERCIAL use only")
    obtain("test")
    assert "NON-COMMERCIAL" in capsys.readouterr().err


def test_errors_name_what_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ALIGNSAM_CACHE", str(tmp_path))
    monkeypatch.setenv("ALIGNSAM_OFFLINE", "1")
    assert main(["download", "mobilesam"]) == 1
    assert "did you mean 'mobile_sam'" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "nosuch")]) == 1
    (tmp_path / "strange").write_bytes(b"?")
    assert main(["verify", str(tmp_path / "strange")]) == 1
    assert "is no known checkpoint" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"write mobile_sam:/path/to/mobile_sam\.pt"):
        load_segmenter("mobile_sam", "cpu")


def test_the_table_is_complete():
    for c in checkpoints.CHECKPOINTS.values():
        assert c.url.startswith("https://")
        assert c.licence
        assert c.sha256 is None or len(c.sha256) == 64
