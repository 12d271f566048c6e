import threading
import time
import zipfile
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO

import pytest
from rich.console import Console

from core_models.data import download
from core_models.data.sources import File, FileSet, NoSourceError, Places, locate
from core_models.errors import UserError

CONTENT = {"a.bin": b"first file" * 1000, "b.bin": b"second file"}
DIGESTS = {name: md5(content).hexdigest() for name, content in CONTENT.items()}


def wanted(*mirrors, package=None):
    return FileSet("things", tuple(File(name, digest) for name, digest in DIGESTS.items()), mirrors, package)


def write(folder, content=CONTENT):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def places(tmp_path):
    return Places(cache=tmp_path / "cache", progress=False)


@pytest.fixture
def server(tmp_path):
    """An HTTP server on this machine alone; gives its address and the folder it serves."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/", folder
        httpd.shutdown()
        thread.join()


def wheel(folder, content):
    """Makes a wheel `tinyset 1.0` that carries files, and code that must never run."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "tinyset-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tinyset/__init__.py", "raise SystemExit('the package was imported')")
        for path, data in content.items():
            archive.writestr(path, data)
        archive.writestr("tinyset-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinyset\nVersion: 1.0\n")
        archive.writestr(
            "tinyset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tinyset-1.0.dist-info/RECORD", "")


def test_the_root_comes_before_the_cache_and_neither_asks_the_network(tmp_path, places, monkeypatch):
    write(places.cache / "things")
    assert locate(wanted("http://127.0.0.1:9/"), places).source == "the cache"
    write(tmp_path / "data" / "things")
    monkeypatch.setenv("GENAPPS_DATA", str(tmp_path / "data"))
    found = locate(wanted("http://127.0.0.1:9/"), places)
    assert found.source == "$GENAPPS_DATA/things"
    assert found.content == CONTENT


def test_a_damaged_file_in_the_cache_is_named_and_left_alone(places):
    write(places.cache / "things", CONTENT | {"b.bin": b"other"})
    with pytest.raises(UserError, match=f"b.bin: expected md5 {DIGESTS['b.bin']}, found {md5(b'other').hexdigest()}"):
        locate(wanted(), places)
    assert (places.cache / "things" / "b.bin").read_bytes() == b"other"


def test_a_root_that_is_no_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAPPS_DATA", str(tmp_path / "typo"))
    with pytest.raises(UserError, match=r"expected \$GENAPPS_DATA to name a folder"):
        locate(wanted(), Places())


def test_a_mirror_fills_the_cache_with_what_is_missing(places, server, capsys):
    address, folder = server
    write(folder)
    write(places.cache / "things", {"a.bin": CONTENT["a.bin"]})
    noisy = Places(cache=places.cache)
    found = locate(wanted(address), noisy)
    assert found.content == CONTENT
    assert found.source == f"the cache and {address}"
    assert capsys.readouterr().err == f"downloading {address}b.bin\n"  # one plain line, not on a terminal
    assert sorted(path.name for path in (places.cache / "things").iterdir()) == sorted(CONTENT)
    write(folder, dict.fromkeys(CONTENT, b""))
    assert locate(wanted(address), places).source == "the cache"


def test_the_bar_of_a_terminal_reaches_the_files_size(places, server, monkeypatch):
    address, folder = server
    write(folder)
    bars = []

    class Kept(download.Progress):
        def __init__(self, *columns, **options):
            super().__init__(*columns, **options)
            bars.append(self)

    monkeypatch.setattr(download, "Console", lambda stderr: Console(file=StringIO(), force_terminal=True))
    monkeypatch.setattr(download, "Progress", Kept)
    locate(wanted(address), Places(cache=places.cache))
    assert [(bar.tasks[0].completed, bar.tasks[0].total) for bar in bars] == [
        (len(c), len(c)) for c in CONTENT.values()
    ]


def test_another_file_from_a_mirror_never_reaches_the_cache(places, server):
    address, folder = server
    write(folder, {"a.bin": b"<html>sign in</html>"})
    with pytest.raises(NoSourceError, match=f"a.bin gave another file: expected md5 {DIGESTS['a.bin']}, found"):
        locate(wanted(address), places)
    assert list((places.cache / "things").iterdir()) == []


def test_the_next_mirror_is_asked_when_one_fails(tmp_path, places, server):
    address, _ = server  # serves nothing: 404
    second = write(tmp_path / "second")
    found = locate(wanted(address, second.as_uri() + "/"), places)
    assert found.content == CONTENT
    assert found.source == second.as_uri() + "/"


def test_with_no_source_one_line_names_files_reasons_and_places(places):
    with pytest.raises(NoSourceError) as caught:
        locate(wanted("http://127.0.0.1:9/"), places)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "a.bin, b.bin",
        "refused",
        "get them from http://127.0.0.1:9/",
        f"put them into {places.cache / 'things'}",
    ):
        assert part in message


def test_downloading_can_be_switched_off(tmp_path, places):
    mirror = write(tmp_path / "mirror").as_uri() + "/"
    with pytest.raises(NoSourceError, match="downloading is switched off"):
        locate(wanted(mirror), Places(cache=places.cache, download=False))
    assert not places.cache.exists()


def test_a_host_that_never_answers_is_given_up_on(places, monkeypatch):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.05)
    hung = threading.Event()

    def never(*args, **options):
        hung.wait(5)
        raise OSError("much later")

    monkeypatch.setattr(download.urllib.request, "urlopen", never)
    start = time.monotonic()
    with pytest.raises(NoSourceError, match=r"no answer within 0.05 s"):
        locate(wanted("http://127.0.0.1:9/"), places)
    assert time.monotonic() - start < 2
    hung.set()


def test_a_connection_that_breaks_off_is_a_fault_of_the_source_not_of_the_disk(places, monkeypatch):
    class Broken:
        def __init__(self):
            self.headers = {}

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def read(self, size):
            raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(download, "_open", lambda url: Broken())
    with pytest.raises(NoSourceError, match=r"a.bin broke off: reset by peer"):
        locate(wanted("http://127.0.0.1:9/"), places)
    assert list((places.cache / "things").iterdir()) == []


def test_a_package_gives_its_files_by_digest_and_is_never_imported(tmp_path, places, monkeypatch):
    carried = {"tinyset/old/a.bin": b"another a.bin", "tinyset/new/a.bin": CONTENT["a.bin"], "b.bin": CONTENT["b.bin"]}
    wheel(tmp_path / "wheels", carried)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    found = locate(wanted("http://127.0.0.1:9/", package="tinyset==1.0"), places)
    assert found.content == CONTENT
    assert found.source == "the package tinyset==1.0, opened as an archive"
    assert locate(wanted(), places).source == "the cache"


def test_a_package_that_is_absent_or_lacks_a_file_is_a_reason(tmp_path, places, monkeypatch):
    with pytest.raises(
        NoSourceError, match=r"pip could not fetch it .*No matching distribution found for tinyset==1.0"
    ):
        locate(wanted(package="tinyset==1.0"), places)
    wheel(tmp_path / "wheels", {"a.bin": CONTENT["a.bin"], "b.bin": b"another"})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with pytest.raises(NoSourceError, match=r"holds no b.bin with the known digest"):
        locate(wanted(package="tinyset==1.0"), places)
    assert not (places.cache / "things").exists()  # all of them or none


def test_a_source_distribution_is_not_unpacked(tmp_path, places, monkeypatch):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "tinyset-1.0.tar.gz").write_bytes(b"would run setup.py")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    with pytest.raises(NoSourceError, match="No matching distribution"):
        locate(wanted(package="tinyset==1.0"), places)
