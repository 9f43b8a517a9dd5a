import os
from pathlib import Path
from wsgiref.util import FileWrapper

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import NotFound
from werkzeug.test import Client
from werkzeug.wrappers import Request

from flask_realtime.io.static import BLOCK, Body, Found, StaticFiles, content_type

SECRET = b"outside of the root"
INSIDE = b"inside"


def no_headers(name):
    return None


class ClosingClient(Client):
    """Reads the whole answer and closes it, as a server does."""

    def open(self, *args, **options):
        return super().open(*args, buffered=True, **options)


def client(rules, **environ):
    """Return a client of a WSGI application that serves these rules and answers everything else itself with 404."""
    files = StaticFiles(rules)

    def application(given_environ, start_response):
        given_environ.update(environ)
        body = files.wsgi(given_environ, start_response)
        return NotFound("not ours")(given_environ, start_response) if body is None else body

    return ClosingClient(application)


@pytest.fixture
def site(tmp_path):
    """A directory `public` with files, beside one with a secret."""
    public = tmp_path / "public"
    (public / "css").mkdir(parents=True)
    (public / "index.html").write_text("<p>index</p>")
    (public / "app.js").write_text("let a = 1")
    (public / "css" / "style.css").write_text("p {}")
    (public / "css" / "index.html").write_text("<p>css</p>")
    (public / "image.gif").write_bytes(b"GIF89a")
    (public / "grüße.txt").write_text("hello", encoding="utf-8")
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "public-not").mkdir()
    (tmp_path / "public-not" / "secret.txt").write_bytes(SECRET)
    return tmp_path


@pytest.fixture
def public(site):
    return client({"/static": str(site / "public")})


# Rules


def test_a_url_maps_to_a_file(site):
    response = client({"/": str(site / "public/index.html")}).get("/")
    assert response.status_code == 200
    assert response.data == b"<p>index</p>"
    assert response.content_type == "text/html; charset=utf-8"
    assert response.content_length == 12


def test_relative_filenames_start_at_the_current_directory(site, monkeypatch):
    monkeypatch.chdir(site)
    assert client({"/a": "public/app.js"}).get("/a").data == b"let a = 1"
    assert client({"/static": "./public"}).get("/static/app.js").data == b"let a = 1"


def test_a_content_type_can_be_given(site):
    rules = {"/": {"filename": str(site / "public/index.html"), "content_type": "text/plain"}}
    assert client(rules).get("/").content_type == "text/plain"


def test_a_dict_without_content_type_gets_the_type_of_its_name(site):
    assert client({"/": {"filename": str(site / "public/app.js")}}).get("/").content_type.startswith("text/javascript")


@pytest.mark.parametrize("url", ["/static", "/static/"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_rule_can_map_a_directory(site, url, slash):
    served = client({url: str(site / "public") + slash})
    assert served.get("/static/app.js").data == b"let a = 1"
    assert served.get("/static/css/style.css").data == b"p {}"
    assert served.get("/static/").data == b"<p>index</p>"
    assert served.get("/static/css/").data == b"<p>css</p>"
    assert served.get("/static/none.js").status_code == 404
    assert served.get("/static/css").status_code == 404
    assert served.get("/statics/app.js").status_code == 404


def test_the_root_url_can_map_a_directory(site):
    served = client({"/": str(site / "public")})
    assert served.get("/").data == b"<p>index</p>"
    assert served.get("/css/style.css").data == b"p {}"


def test_a_directory_without_a_slash_is_not_served_unless_its_rule_has_one(site):
    assert client({"/static": str(site / "public")}).get("/static").status_code == 404
    assert client({"/static": str(site / "public") + "/"}).get("/static").data == b"<p>index</p>"


def test_the_empty_rule_names_the_default_file(site):
    served = client({"/static": str(site / "public"), "": "image.gif"})
    response = served.get("/static/")
    assert (response.data, response.content_type) == (b"GIF89a", "image/gif")
    assert served.get("/static/css/").status_code == 404


def test_the_default_file_can_have_a_content_type(site):
    rules = {"/static": str(site / "public"), "": {"filename": "image.gif", "content_type": "text/plain"}}
    assert client(rules).get("/static/").content_type == "text/plain"
    assert client(rules).get("/static/app.js").content_type.startswith("text/javascript")


def test_the_empty_rule_is_no_rule_for_other_urls(site):
    served = client({"": str(site / "public/index.html"), "/static": str(site / "public")})
    assert served.get("/").status_code == 404
    assert served.get("/app.js").status_code == 404


def test_a_directory_rule_can_give_all_its_files_a_content_type(site):
    rules = {"/static": {"filename": str(site / "public"), "content_type": "text/plain"}}
    assert client(rules).get("/static/app.js").content_type == "text/plain"


def test_an_exact_rule_comes_before_a_directory(site):
    rules = {"/static": str(site / "public"), "/static/app.js": str(site / "public/css/style.css")}
    assert client(rules).get("/static/app.js").data == b"p {}"


def test_the_longest_parent_decides(site):
    rules = {"/": str(site), "/static": str(site / "public"), "/static/css": str(site / "public-not")}
    served = client(rules)
    assert served.get("/static/app.js").data == b"let a = 1"
    assert served.get("/static/css/style.css").status_code == 404
    assert served.get("/static/css/secret.txt").status_code == 200
    assert served.get("/public/app.js").status_code == 200


def test_a_file_rule_has_nothing_below_it(site):
    served = client({"/page": str(site / "public/index.html")})
    assert served.get("/page/").status_code == 404
    assert served.get("/page/x").status_code == 404


def test_names_outside_of_ascii_are_found(public):
    assert public.get("/static/grüße.txt").data == b"hello"


def test_an_empty_path_is_the_root(site):
    assert StaticFiles({"/": str(site / "public/index.html")}).find("") is not None


@pytest.mark.parametrize("target", [None, 7, {}, {"content_type": "text/plain"}, ["a.html"]])
def test_a_rule_that_names_no_file_is_refused(target):
    with pytest.raises(ValueError, match=r"'/x'.*filename"):
        StaticFiles({"/x": target})


def test_paths_are_accepted_for_filenames(site):
    assert client({"/static": site / "public"}).get("/static/app.js").status_code == 200


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_only_regular_files_are_served(site, public):
    os.mkfifo(site / "public" / "pipe")
    assert public.get("/static/pipe").status_code == 404


# Content types


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.css", "text/css; charset=utf-8"),
        ("a.gif", "image/gif"),
        ("a.html", "text/html; charset=utf-8"),
        ("a.jpg", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.map", "application/json"),
        ("a.png", "image/png"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.svg", "image/svg+xml"),
        ("a.ico", "image/x-icon"),
        ("a.woff2", "font/woff2"),
        ("a.webp", "image/webp"),
        ("a.wasm", "application/wasm"),
        ("a.xml", "text/xml"),
        ("A.HTML", "text/html; charset=utf-8"),
        ("a.unknown", "application/octet-stream"),
        ("a.tar.gz", "application/octet-stream"),
        ("html", "application/octet-stream"),
        (".html", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_content_type(name, expected):
    assert content_type(name) == expected


# Nothing from outside


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret.txt",
        "/static/css/../../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%2fsecret.txt",
        "/static/%252e%252e/secret.txt",
        "/static/..\\secret.txt",
        "/static/..%5csecret.txt",
        "/static/../public-not/secret.txt",
        "/static/.../secret.txt",
        "/static//secret.txt",
        "/static/./../secret.txt",
        "/static/app.js%00",
        "/static/%00",
        "/static/app.js%00/../../secret.txt",
        "/static/..",
        "/static/../",
        "/static/.",
        "/static/%c0%ae%c0%ae/secret.txt",
        "/static/%ff",
        "/static/" + "a/" * 20_000,
        "/static/" + "a" * 20_000,
        "/" * 50_000,
    ],
)
def test_t83_static_files_do_not_leave_their_directory(public, path):
    response = public.get(path)
    assert response.status_code == 404
    assert SECRET not in response.data


def test_t83_absolute_paths_are_refused(site, public):
    assert public.get("/static/" + str(site / "secret.txt")).status_code == 404
    assert public.get("/static" + str(site / "secret.txt")).status_code == 404


def test_dots_that_stay_inside_are_followed(public):
    assert public.get("/static/css/../app.js").data == b"let a = 1"


def test_a_symlink_that_leads_out_is_not_followed(site, public):
    (site / "public" / "file.txt").symlink_to(site / "secret.txt")
    (site / "public" / "up").symlink_to(site)
    (site / "public" / "css" / "near").symlink_to("../../public-not")
    (site / "public" / "loop").symlink_to("loop")
    for path in ("file.txt", "up/secret.txt", "css/near/secret.txt", "loop", "loop/x"):
        assert public.get("/static/" + path).status_code == 404, path


def test_a_symlinked_default_file_that_leads_out_is_not_followed(site):
    (site / "public" / "default").symlink_to(site / "secret.txt")
    assert client({"/static": str(site / "public"), "": "default"}).get("/static/").status_code == 404


def test_a_symlink_that_stays_inside_is_followed(site, public):
    (site / "public" / "latest.js").symlink_to("app.js")
    (site / "public" / "theme").symlink_to("css")
    response = public.get("/static/latest.js")
    assert (response.data, response.content_type) == (b"let a = 1", "text/javascript; charset=utf-8")
    assert public.get("/static/theme/style.css").data == b"p {}"


def test_the_mapped_directory_may_be_a_symlink_itself(site):
    (site / "current").symlink_to("public")
    assert client({"/static": str(site / "current")}).get("/static/app.js").data == b"let a = 1"


def test_characters_that_no_file_can_have_are_not_found(site):
    files = StaticFiles({"/static": str(site / "public")})
    assert files.find("/static/\ud800") is None


@pytest.fixture(scope="module")
def maze(tmp_path_factory):
    """Two directories, equal but for what their files hold, and links from the one that is served to the other."""
    top = tmp_path_factory.mktemp("maze")
    for root, data in (("in", INSIDE), ("out", SECRET)):
        (top / root / "a" / "b").mkdir(parents=True)
        for place in ("a", "a/b", "."):
            for name in ("x", "index.html", "..x"):
                (top / root / place / name).write_bytes(data)
    (top / "x").write_bytes(SECRET)
    (top / "in" / "link").symlink_to("../out")
    (top / "in" / "a" / "link").symlink_to("../../out/x")
    return top


PIECES = [
    "/", "//", "..", ".", "a", "b", "x", "link", "in", "out", "..x", "s", "\\", "..\\", "\0", "%2e", "%2f", "%2e%2e/",
    "%252e", "%5c", "\uff0e", "~", " ", ";", "index.html",
]  # fmt: skip


@given(pieces=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=12), absolute=st.booleans())
def test_no_path_returns_bytes_from_outside(maze, pieces, absolute):
    rules = {"/s": str(maze / "in"), "/s/a/": str(maze / "in" / "a"), "/": str(maze / "in")}
    files = StaticFiles(rules)
    for prefix in ("/s/", "/s", "/s/a/", "/", ""):
        path = prefix + (str(maze / "out") if absolute else "") + "".join(pieces)
        found = files.find(path)
        if found is not None:
            assert Path(found.filename).resolve().is_relative_to(maze / "in")
            body = files.respond(found, "GET", no_headers).body
            assert b"".join(body) == INSIDE
            body.close()


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_no_url_returns_bytes_from_outside(maze, pieces):
    served = client({"/s": str(maze / "in")})
    path = "/s/" + "".join(pieces)
    environ = Request.from_values("/").environ
    # Both as a server decodes it once and as a client writes it.
    environ["PATH_INFO"] = path.encode("utf-8", "replace").decode("latin-1")
    for response in (served.open(environ), served.get(path.replace("?", "").replace("#", ""))):
        assert response.status_code in (200, 404)
        assert response.status_code == 404 or response.data == INSIDE


# Methods and conditions


def test_head_answers_the_headers_of_get(public):
    get, head = public.get("/static/app.js"), public.head("/static/app.js")
    assert head.status_code == 200
    assert head.data == b""
    assert dict(head.headers) == dict(get.headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_405(public, method):
    response = public.open("/static/app.js", method=method)
    assert response.status_code == 405
    assert sorted(response.allow) == ["GET", "HEAD"]
    assert b"let a" not in response.data


def test_other_methods_on_other_urls_are_not_ours(public):
    assert public.post("/static/none").status_code == 404


def test_an_etag_matches_until_the_file_changes(site, public):
    first = public.get("/static/app.js")
    etag = first.headers["ETag"]
    assert etag.startswith('"') and etag.endswith('"')
    again = public.get("/static/app.js", headers={"If-None-Match": etag})
    assert again.status_code == 304
    assert again.data == b""
    assert again.headers["ETag"] == etag
    assert "Content-Type" not in again.headers and "Content-Length" not in again.headers
    file = site / "public" / "app.js"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))  # same size, and the same second
    changed = public.get("/static/app.js", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


@pytest.mark.parametrize(
    ("template", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ('"a", {}', 304),
        ('"a", W/{}, "b"', 304),
        ("*", 304),
        ('"a"', 200),
        ('"a", "b"', 200),
        ("", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match(public, template, status, method):
    etag = public.get("/static/app.js").headers["ETag"]
    headers = {"If-None-Match": template.format(etag)}
    assert public.open("/static/app.js", method=method, headers=headers).status_code == status


def test_if_modified_since(site, public):
    os.utime(site / "public" / "app.js", (1_000_000_000, 1_000_000_000.7))
    response = public.get("/static/app.js")
    assert response.headers["Last-Modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"

    def status(since):
        return public.get("/static/app.js", headers={"If-Modified-Since": since}).status_code

    assert status("Sun, 09 Sep 2001 01:46:40 GMT") == 304
    assert status("Sun, 09 Sep 2001 01:46:41 GMT") == 304
    assert status("Sun, 09 Sep 2001 01:46:39 GMT") == 200
    assert status("yesterday") == 200


def test_if_none_match_overrules_if_modified_since(public):
    first = public.get("/static/app.js")
    headers = {"If-None-Match": '"other"', "If-Modified-Since": first.headers["Last-Modified"]}
    assert public.get("/static/app.js", headers=headers).status_code == 200


def test_browsers_ask_before_they_use_a_kept_file(public):
    assert public.get("/static/app.js").headers["Cache-Control"] == "no-cache"


# Ranges


@pytest.mark.parametrize(
    ("header", "status", "data", "content_range"),
    [
        ("bytes=0-2", 206, b"let", "bytes 0-2/9"),
        ("bytes=4-", 206, b"a = 1", "bytes 4-8/9"),
        ("bytes=-1", 206, b"1", "bytes 8-8/9"),
        ("bytes=-100", 206, b"let a = 1", "bytes 0-8/9"),
        ("bytes=4-100", 206, b"a = 1", "bytes 4-8/9"),
        ("bytes=9-", 416, None, "bytes */9"),
        ("bytes=100-200", 416, None, "bytes */9"),
        ("bytes=0-1,3-4", 200, b"let a = 1", None),
        ("lines=0-1", 200, b"let a = 1", None),
        ("bytes=2-1", 200, b"let a = 1", None),
        ("nonsense", 200, b"let a = 1", None),
    ],
)
def test_range(public, header, status, data, content_range):
    response = public.get("/static/app.js", headers={"Range": header})
    assert response.status_code == status
    assert response.headers.get("Content-Range") == content_range
    if data is not None:
        assert response.data == data
        assert response.content_length == len(data)


def test_if_range_gives_the_whole_when_the_file_has_changed(public):
    first = public.get("/static/app.js")
    for condition, status in (
        (first.headers["ETag"], 206),
        ('"other"', 200),
        (first.headers["Last-Modified"], 206),
        ("Sun, 09 Sep 2001 01:46:40 GMT", 200),
    ):
        headers = {"Range": "bytes=0-2", "If-Range": condition}
        assert public.get("/static/app.js", headers=headers).status_code == status, condition


def test_head_ignores_ranges(public):
    response = public.head("/static/app.js", headers={"Range": "bytes=0-2"})
    assert (response.status_code, response.content_length) == (200, 9)


# Files


def test_a_large_file_is_read_in_blocks(site):
    data = os.urandom(3 * BLOCK + 5)
    (site / "public" / "large.bin").write_bytes(data)
    files = StaticFiles({"/static": str(site / "public")})
    found = files.find("/static/large.bin")
    assert found == Found(os.path.realpath(site / "public/large.bin"), "application/octet-stream")
    body = files.respond(found, "GET", no_headers).body
    blocks = list(body)
    assert [len(block) for block in blocks] == [BLOCK, BLOCK, BLOCK, 5]
    assert b"".join(blocks) == data
    body.close()


def test_a_range_over_several_blocks_is_exact(site, public):
    data = os.urandom(3 * BLOCK)
    (site / "public" / "large.bin").write_bytes(data)
    response = public.get("/static/large.bin", headers={"Range": f"bytes=10-{2 * BLOCK + 9}"})
    assert response.data == data[10 : 2 * BLOCK + 10]


def test_a_file_that_grows_or_shrinks_meanwhile_does_not_exceed_its_length(site):
    files = StaticFiles({"/static": str(site / "public")})
    for now in (b"let a = 1, b = 2", b"let"):
        response = files.respond(files.find("/static/app.js"), "GET", no_headers)
        length = int(dict(response.headers)["Content-Length"])
        (site / "public" / "app.js").write_bytes(now)
        data = b"".join(response.body)
        response.body.close()
        assert len(data) == min(length, len(now))


def test_an_empty_file_is_served(site, public):
    (site / "public" / "empty.css").write_bytes(b"")
    response = public.get("/static/empty.css")
    assert (response.status_code, response.data, response.content_length) == (200, b"", 0)


def test_a_file_that_is_gone_after_all_is_404(site, caplog):
    files = StaticFiles({"/static": str(site / "public")})
    found = files.find("/static/app.js")
    (site / "public" / "app.js").unlink()
    response = files.respond(found, "GET", no_headers)
    assert response.status == "404 NOT FOUND"
    assert b"".join(response.body) == b"404 NOT FOUND"
    assert "app.js" in caplog.text


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", {}), ("HEAD", {}), ("GET", {"If-None-Match": "*"}), ("GET", {"Range": "bytes=99-"}), ("POST", {})],
)
def test_every_answer_leaves_no_file_open_once_closed(site, method, headers):
    files = StaticFiles({"/static": str(site / "public")})
    body = files.respond(files.find("/static/app.js"), method, headers.get).body
    next(iter(body), None)
    body.close()
    assert body.file is None or body.file.closed


def test_a_file_is_closed_when_its_answer_fails(site, monkeypatch):
    files = StaticFiles({"/static": str(site / "public")})
    opened = []

    def header(name):
        raise RuntimeError("the server's headers can't be read")

    def keep(*args):
        opened.append(open(*args))  # noqa: SIM115 - whether it gets closed is the question
        return opened[-1]

    monkeypatch.setattr("flask_realtime.io.static.open", keep, raising=False)
    with pytest.raises(RuntimeError):
        files.respond(files.find("/static/app.js"), "GET", header)
    assert opened[0].closed


def test_the_servers_file_wrapper_is_used_for_whole_files(public, site):
    wrapped = []

    def wrapper(file, size):
        wrapped.append(size)
        return FileWrapper(file, size)

    served = client({"/static": str(site / "public")}, **{"wsgi.file_wrapper": wrapper})
    assert served.get("/static/app.js").data == b"let a = 1"
    assert wrapped == [BLOCK]
    assert served.get("/static/app.js", headers={"Range": "bytes=0-2"}).data == b"let"
    assert served.head("/static/app.js").data == b""
    assert served.get("/static/app.js", headers={"If-None-Match": "*"}).status_code == 304
    assert wrapped == [BLOCK]


def test_a_body_of_nothing_is_empty():
    body = Body()
    assert list(body) == []
    body.close()
