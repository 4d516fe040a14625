"""Downloads from a local server that breaks off, stalls and lies; archives that try to leave their folder."""

import contextlib
import hashlib
import io
import re
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from helpers import __main__ as cli
from helpers.data import fetch as module
from helpers.data.fetch import OFFERS, download, fetch, unpack

BODY = np.random.default_rng(0).bytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = np.random.default_rng(1).bytes(300_000)
QUICK = {"pause": 0.001, "progress": False}
STALLED = 1.0  # seconds: long beside what a busy machine needs for an answer


@pytest.fixture
def server():
    """A server whose n-th answer is given by the n-th function in `.script` (the last one goes on); `.asked` are the ranges."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            here.asked.append(self.headers.get("Range"))
            here.script[min(len(here.asked), len(here.script)) - 1](self)

        def log_message(self, *arguments):
            pass

    here = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.daemon_threads, here.asked, here.script = True, [], [ranged()]
    here.url = f"http://127.0.0.1:{here.server_port}/faces.bin"
    thread = threading.Thread(target=here.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield here
    here.shutdown()
    here.server_close()
    thread.join()


def send(handler, code, headers, body):
    handler.send_response(code)
    for key, value in headers.items():
        handler.send_header(key, value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def ranged(body=BODY, most=None, wait=0.0, claim=None):
    """Answer ranges honestly; after `most` bytes break off, or fall silent for `wait` seconds. `claim` is a false start."""

    def answer(handler):
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(body):
            return send(handler, 416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"}, b"")
        headers = {"Content-Length": str(len(body) - start)}
        if asked:
            headers["Content-Range"] = f"bytes {start if claim is None else claim}-{len(body) - 1}/{len(body)}"
        send(handler, 206 if asked else 200, headers, body[start:][:most])
        time.sleep(wait)

    return answer


def whole(body=BODY, most=None, length=True):
    """Know nothing of ranges."""
    return lambda handler: send(handler, 200, {"Content-Length": str(len(body))} if length else {}, body[:most])


def refuse(code):
    return lambda handler: send(handler, code, {"Content-Length": "0"}, b"")


def test_a_file_comes_whole_and_is_not_asked_for_again(server, tmp_path):
    file = download(server.url, tmp_path / "new" / "faces.bin", SHA.upper(), **QUICK)
    assert file.read_bytes() == BODY and [path.name for path in file.parent.iterdir()] == ["faces.bin"]
    download(server.url, file, SHA, **QUICK)
    assert server.asked == [None]


@pytest.mark.parametrize("wait", [0.0, 3 * STALLED])
def test_a_download_that_breaks_off_or_stalls_goes_on_where_it_stopped(server, tmp_path, wait):
    server.script = [ranged(most=100_000, wait=wait), ranged(most=70_000), ranged()]
    assert download(server.url, tmp_path / "faces.bin", SHA, timeout=STALLED, **QUICK).read_bytes() == BODY
    assert server.asked == [None, "bytes=100000-", "bytes=170000-"]


def test_a_later_call_goes_on_too(server, tmp_path):
    server.script = [ranged(most=100_000), refuse(503)]
    with pytest.raises(ConnectionError, match="answers 503 .*100,000 bytes have come and are kept"):
        download(server.url, tmp_path / "faces.bin", SHA, tries=2, **QUICK)
    assert (tmp_path / "faces.bin.part").read_bytes() == BODY[:100_000] and not (tmp_path / "faces.bin").exists()
    server.script, server.asked[:] = [ranged()], []
    assert download(server.url, tmp_path / "faces.bin", SHA, **QUICK).read_bytes() == BODY
    assert server.asked == ["bytes=100000-"]


@pytest.mark.parametrize("second", [whole(), whole(length=False)])
def test_a_server_without_ranges_sends_it_all_again(server, tmp_path, second):
    server.script = [whole(most=100_000), second]
    assert download(server.url, tmp_path / "faces.bin", SHA, **QUICK).read_bytes() == BODY
    assert server.asked == [None, "bytes=100000-"]


def test_a_server_that_never_gets_further_is_given_up(server, tmp_path):
    server.script = [whole(most=100_000)]
    with pytest.raises(ConnectionError, match="broke off at 100,000 of 300,000 bytes"):
        download(server.url, tmp_path / "faces.bin", SHA, tries=3, **QUICK)
    assert len(server.asked) == 4  # the first one brought something


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(server, tmp_path):
    def trickle(handler):
        send(handler, 200, {"Content-Length": str(len(BODY))}, b"")
        with contextlib.suppress(OSError):  # the other side has hung up
            for i in range(1000):
                handler.wfile.write(BODY[i : i + 1])
                time.sleep(0.02)

    server.script = [trickle]
    with pytest.raises(ConnectionError, match=r"bytes in \d\.\d s are a stalled connection"):
        download(server.url, tmp_path / "faces.bin", SHA, tries=2, timeout=STALLED / 2, **QUICK)
    assert len(server.asked) == 2


def test_busy_servers_get_another_try_and_refusals_do_not(server, tmp_path):
    server.script = [refuse(503), refuse(429), ranged()]
    assert download(server.url, tmp_path / "faces.bin", SHA, **QUICK).read_bytes() == BODY
    server.script, server.asked[:] = [refuse(404)], []
    with pytest.raises(ConnectionError, match="answers 404"):
        download(server.url, tmp_path / "absent.bin", SHA, **QUICK)
    assert len(server.asked) == 1
    server.server_close()
    with pytest.raises(ConnectionError, match="127.0.0.1"):
        download(server.url, tmp_path / "absent.bin", SHA, tries=1, **QUICK)


def test_another_file_is_not_kept(server, tmp_path):
    server.script = [ranged(OTHER)]
    with pytest.raises(ValueError, match=f"sent a file with {hashlib.sha256(OTHER).hexdigest()}, not {SHA}"):
        download(server.url, tmp_path / "faces.bin", SHA, **QUICK)
    assert list(tmp_path.iterdir()) == [] and len(server.asked) == 1


def test_parts_of_two_files_are_thrown_away_and_it_begins_anew(server, tmp_path):
    (tmp_path / "faces.bin.part").write_bytes(OTHER[:100_000])
    assert download(server.url, tmp_path / "faces.bin", SHA, **QUICK).read_bytes() == BODY
    assert server.asked == ["bytes=100000-", None]


@pytest.mark.parametrize("length, asked", [(300_000, ["bytes=300000-"]), (300_001, ["bytes=300001-", None])])
def test_a_part_that_is_complete_or_too_long(server, tmp_path, length, asked):
    (tmp_path / "faces.bin.part").write_bytes((BODY + b"x")[:length])
    assert download(server.url, tmp_path / "faces.bin", SHA, **QUICK).read_bytes() == BODY
    assert server.asked == asked


def test_a_server_that_goes_on_somewhere_else_is_not_believed(server, tmp_path):
    (tmp_path / "faces.bin.part").write_bytes(BODY[:100_000])
    server.script = [ranged(claim=50_000)]
    with pytest.raises(ConnectionError, match="asked to go on at byte 100,000 and sends '50000-"):
        download(server.url, tmp_path / "faces.bin", SHA, tries=2, **QUICK)
    assert (tmp_path / "faces.bin.part").read_bytes() == BODY[:100_000]


def test_a_file_for_which_there_is_no_room_is_not_begun(server, tmp_path):
    server.script = [lambda handler: send(handler, 200, {"Content-Length": str(10**18)}, b"x")]
    with pytest.raises(ValueError, match="1,000,000,000,000,000,000 bytes, and there is room for"):
        download(server.url, tmp_path / "faces.bin", SHA, **QUICK)


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [("file:///etc/hostname", SHA, "expected http"), ("http://x/y", "abc", "64 hexadecimal"), ("http://x/y", "g" * 64, "64 hex")],
)
def test_other_addresses_and_no_checksum_are_refused(tmp_path, url, sha256, message):
    with pytest.raises(ValueError, match=message):
        download(url, tmp_path / "x", sha256)


def tar(*members, kind="w:gz"):
    """An archive of (name, content) pairs, or TarInfo objects."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=kind) as archive:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            content = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def link(name, to, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def zipped(*members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def zip_link():
    info = zipfile.ZipInfo("lfw/link")
    info.external_attr = 0o120777 << 16
    return info


GOOD = ("lfw/Ann/Ann_0001.jpg", b"picture")


@pytest.mark.parametrize("content", [tar(GOOD), tar(GOOD, kind="w"), tar(GOOD, kind="w:xz"), zipped(GOOD, ("__MACOSX/x", b""))])
def test_an_archive_is_unpacked_whole(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert unpack(tmp_path / "a", tmp_path / "out") == ["lfw"]
    assert [path.read_bytes() for path in (tmp_path / "out").rglob("*.jpg")] == [b"picture"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lfw"]
    with pytest.raises(ValueError, match="has lfw already"):
        unpack(tmp_path / "a", tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        tar(GOOD, ("../evil.jpg", b"x")),
        tar(GOOD, ("lfw/../../evil.jpg", b"x")),
        tar(GOOD, link("lfw/out", "../.."), ("lfw/out/evil.jpg", b"x")),
        tar(GOOD, link("lfw/out", "/etc")),
        tar(GOOD, link("lfw/out", "../../evil.jpg", tarfile.LNKTYPE)),
        tar(GOOD, link("lfw/device", "", tarfile.CHRTYPE)),
        zipped(GOOD, ("../evil.jpg", b"x")),
        zipped(GOOD, ("lfw/../../evil.jpg", b"x")),
        zipped(GOOD, ("/evil.jpg", b"x")),
        zipped(GOOD, ("..\\evil.jpg", b"x")),
        zipped(GOOD, ("C:/evil.jpg", b"x")),
        zipped(GOOD, (zip_link(), "/etc")),
        tar(GOOD, ("lfw/b.jpg", BODY))[:-2000],
        zipped(GOOD, ("lfw/b.jpg", BODY)).replace(BODY[:50], bytes(50)),
        tar(GOOD, ("lfw", b"a file where a folder is")),
        tar((GOOD[0].split("/")[0], b"x"), GOOD),
        tar(("x" * 300, b"x")),
        tar(link("lfw/pipe", "", tarfile.FIFOTYPE)),
        tar(),
        zipped(),
        zipped(("__MACOSX/x", b"")),
        zipped(GOOD, (GOOD[0] + "/inside", b"x")),
        zipped(("x" * 300, b"x")),
        zipped(GOOD).replace(b"\0\0\0\0lfw", b"\1\0\0\0lfw"),
        b"7z\xbc\xaf\x27\x1c" + bytes(30),
        b"<html>please log in</html>",
        b"\x1f\x8b",
        b"no archive",
        b"",
    ],
    ids=lambda _: "archive",  # the bytes hold the time, and two processes that share the tests have to name them alike
)
def test_an_archive_that_leaves_its_folder_or_is_damaged_leaves_nothing(tmp_path, content):
    inner = tmp_path / "deep" / "out"
    inner.mkdir(parents=True)
    (inner / "a.tgz").write_bytes(content)
    with pytest.raises(ValueError, match="a.tgz"):
        unpack(inner / "a.tgz", inner)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.tgz"]
    assert [path.name for path in inner.iterdir()] == ["a.tgz"]


def test_what_is_no_archive_is_said_in_one_line(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>please log in</html>")
    with pytest.raises(ValueError, match="a.zip: is neither a zip nor a tar archive") as caught:
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_rights_that_would_shut_out_their_owner_are_not_taken_over(tmp_path):
    folder, file = tarfile.TarInfo("lfw"), tarfile.TarInfo("lfw/a.jpg")
    folder.type, folder.mode, file.mode = tarfile.DIRTYPE, 0, 0
    (tmp_path / "a.tar").write_bytes(tar(folder, file, kind="w"))
    unpack(tmp_path / "a.tar", tmp_path / "out")
    for path in ("lfw", "lfw/a.jpg"):
        assert (tmp_path / "out" / path).stat().st_mode & 0o600 == 0o600


def test_an_absolute_path_in_a_tar_stays_inside(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar((f"{tmp_path}/evil.jpg", b"x"), kind="w"))
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "evil.jpg").exists()


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped(("zeros", bytes(10_000))))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("", (), {"free": 9_999}))
    with pytest.raises(ValueError, match="unpacked it takes 10,000 bytes, and there is room for 9,999"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.fixture
def offered(server, monkeypatch):
    """LFW's offer with the local server's files and their checksums."""
    packed = tar(("lfw/Ann/Ann_0001.jpg", b"picture"))
    server.script = [lambda handler: ranged(packed if handler.path.endswith("tgz") else b"1\t0\n")(handler)]
    base = server.url.rpartition("/")[0]
    files = (
        module.File("lfw.tgz", f"{base}/lfw.tgz", hashlib.sha256(packed).hexdigest(), "lfw"),
        module.File("pairs.txt", f"{base}/pairs.txt", hashlib.sha256(b"1\t0\n").hexdigest(), "pairs.txt"),
    )
    monkeypatch.setitem(OFFERS, "lfw", module.Offer("page", "terms", "Then put the attributes at {root}.", files))
    return packed


def test_the_licence_is_told_first_and_nothing_is_fetched_unless_it_is_accepted(server, offered, tmp_path, capsys):
    assert cli.main(["fetch", "lfw", "--root", str(tmp_path / "new")]) == 2
    out = capsys.readouterr().out
    assert "Licence: terms." in out and "--accept-licence" in out and server.asked == [] and list(tmp_path.iterdir()) == []
    assert cli.main(["fetch", "LFW", "--root", str(tmp_path / "new"), "--accept-licence"]) == 0
    out = capsys.readouterr().out
    assert out.index("Licence: terms.") < out.index("Unpacked lfw") and f"attributes at {tmp_path / 'new'}" in out
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"new/lfw/Ann/Ann_0001.jpg", "new/pairs.txt"}
    assert cli.main(["fetch", "lfw", "--root", str(tmp_path / "new"), "--accept-licence"]) == 0
    assert "there already" in capsys.readouterr().out and len(server.asked) == 2


def test_a_link_of_ones_own_needs_its_checksum(server, offered, tmp_path, capsys):
    url = server.url.replace("faces.bin", "UTK%20Face.tgz")
    base = ["fetch", "utkface", "--root", str(tmp_path), "--accept-licence"]
    assert cli.main([*base, "--url", url]) == 2 and "give both" in capsys.readouterr().err
    assert cli.main([*base, "--url", url, "--sha256", SHA]) == 2
    err = capsys.readouterr().err
    assert f"not {SHA}" in err and "Traceback" not in err and list(tmp_path.iterdir()) == []
    assert cli.main([*base, "--url", url, "--sha256", hashlib.sha256(offered).hexdigest()]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["lfw"]


@pytest.mark.parametrize("name", sorted(OFFERS))
def test_every_offer_says_where_and_what_and_what_it_downloads_has_a_checksum(name, tmp_path):
    said = []
    fetched = fetch(name, tmp_path, say=said.append)
    text = "\n".join(said)
    assert not fetched and OFFERS[name].page in text and OFFERS[name].licence in text
    assert OFFERS[name].files or str(tmp_path) in text
    for file in OFFERS[name].files:
        assert file.url.startswith("https://") and len(file.sha256) == 64


def link_of_ones_own(url):
    return ["utkface", "--accept-licence", "--url", url, "--sha256", SHA]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["celebb"], "Did you mean 'celeba'?"),
        (["celeba", "--url", "http://x/", "--sha256", SHA], "does not end in the name of a file"),
        (["celeba", "--url", "http://x/a/%2e%2e", "--sha256", SHA], "does not end in the name of a file"),
        (["celeba", "--root", __file__], "is a file; give a folder"),
        (["lfw", "--accept-licence", "--root", f"{__file__}/lfw"], "root: the folder .* cannot be made .Not a directory"),
        (["lfw", "--accept-licence", "--root", "x" * 300], "root: the folder x+ cannot be made .File name too long"),
        (link_of_ones_own("http:///x.zip"), "url: expected http"),
        (link_of_ones_own("http://localhost:abc/x.zip"), "url: .* is no address"),
        (link_of_ones_own("http://localhost:99999/x.zip"), "url: .* is no address .Port out of range"),
        (link_of_ones_own("http://[::1/x.zip"), "Invalid IPv6"),
        (link_of_ones_own("http://localhost/a b.zip"), "url: .*write them as %20"),
        (link_of_ones_own("http://localhost/ü.zip"), "url: .*write them as %20"),
        (link_of_ones_own("http://localhost/a%00.zip"), "does not end in the name of a file"),
        (link_of_ones_own("http://localhost/" + "x" * 300), "url: the name of its file has more than 240 bytes"),
        (link_of_ones_own("http://me:secret@localhost/x.zip"), "url: names and passwords in an address are not sent"),
    ],
)
def test_wrong_input_gives_one_message(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path / "cache"))
    assert cli.main(["fetch", *arguments]) == 2
    err = capsys.readouterr().err
    assert (message in err or re.search(message, err)) and "Traceback" not in err and "secret" not in err


def test_the_checksums_are_those_that_scikit_learn_publishes():
    from sklearn.datasets import _lfw

    published = {each.filename: each.checksum for each in (_lfw.ARCHIVE, *_lfw.TARGETS)}
    assert {file.name: file.sha256 for file in OFFERS["lfw"].files}.items() <= published.items()
