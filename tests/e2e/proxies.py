"""Real proxies in front of real servers, as `nginx/` sets them up: each on ports and in a folder of its own.

A proxy has what tests use of a `Server`, so whatever runs against a server runs against a proxy in front of it as well.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .servers import HERE, START_LIMIT, Kind, Server, certificate, free_port

FILES = HERE.parent.parent / "nginx"

# What the log of a normal run may not hold; and what it may not even hold when peers or servers go wrong on purpose.
NGINX_ALARM = re.compile(r"\[(?:error|crit|alert|emerg)\]")
NGINX_CRASH = re.compile(r"\[(?:crit|alert|emerg)\]")
HAPROXY_CRASH = re.compile(r"\[ALERT\]")
HAPROXY_ALARM = re.compile(r"\[(?:ALERT|WARNING)\]|is DOWN|has no server| [SPRI][CHDQRT][-A-Z]{2} |/\d+ 50[0234] ")

# What every nginx has around the files of conf.d. Two workers: what they share and what they don't makes a difference.
NGINX_MAIN = """\
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {log} info;
{user}
events {{
    worker_connections 1024;
}}
http {{
    include /etc/nginx/mime.types;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {extra}
    include {folder}/site.conf;
}}
"""


def need(program):
    """Skip the test when a program isn't installed."""
    if not shutil.which(program):
        pytest.skip(f"needs {program} (Debian: apt-get install {program})")


def replace(text, old, new):
    """Replace what must be there."""
    assert old in text, f"the configuration holds no {old!r}"
    return text.replace(old, new)


def with_backends(text, backends):
    """Return a configuration in which the application's addresses are those of real servers.

    Args:
        text: Its application's addresses have the ports 8000 to 8099.
        backends: As many ports of 127.0.0.1, or addresses (``"unix:/run/app.sock"``), in the order of the ports there.
    """
    places = sorted(set(re.findall(r"127\.0\.0\.1:80\d\d\b", text)))
    assert len(places) == len(backends), f"the configuration names {len(places)} servers, {len(backends)} were given"
    addresses = [f"127.0.0.1:{backend}" if isinstance(backend, int) else backend for backend in backends]
    table = dict(zip(places, addresses, strict=True))
    return re.sub(r"127\.0\.0\.1:80\d\d\b", lambda match: table[match[0]], text)


class Proxy(Server):
    """One running proxy: an address with the methods of a `Server`. The servers behind it are the caller's.

    Attributes:
        folder: What is its own: configuration, logs.
    """

    program = ""
    check_option = ""

    def __init__(self, directory, tls, alarm):
        need(self.program)
        self.kind = self.program
        self.row = Kind(None, {}, tls=tls)
        self.alarm = alarm
        self.pool = 0
        self.port = free_port()
        self.folder = Path(directory) / f"{self.program}-{self.port}-{time.monotonic_ns()}"
        self.folder.mkdir()
        self.log = self.folder / "error.log"
        self.log.touch()
        self.pem = certificate(directory) if tls else None
        self.ca = self.pem[0] if tls else None

    def start(self, command):
        """Let the program check its configuration, start it, and return when it takes connections."""
        asked = subprocess.run([*command, self.check_option], capture_output=True, text=True, timeout=START_LIMIT)
        said = asked.stdout + asked.stderr
        assert asked.returncode == 0, said
        assert not re.search(r"\[(?:warn|error|emerg|WARNING|ALERT)", said), said
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self.wait()
        except BaseException:
            self.process.terminate()  # nginx's workers outlive a master that is killed
            self.process.wait()
            raise

    def wait(self):
        """Wait until it takes connections; the servers behind it need not be there.

        Raises:
            AssertionError: When it ended or did not listen in time; holds its log.
        """
        limit = time.monotonic() + START_LIMIT
        while True:
            assert self.process.poll() is None, f"{self.kind} ended with {self.process.returncode}:\n{self.tail()}"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < limit, f"{self.kind} did not listen in {START_LIMIT} s:\n{self.tail()}"
                time.sleep(0.02)


class Nginx(Proxy):
    """An nginx with one of the files of `nginx/`.

    Args:
        directory: Where its folder and the certificate go.
        backends: See `with_backends`.
        configuration: Name of the file.
        tls: Whether to make a file that listens for http listen for https instead; ``tls.conf`` always does.
        extra: Lines for the ``http`` block.
        changes: What else to replace in the file, as a dict. Servers that take larger messages than by default need
            a larger ``client_max_body_size``.
        alarm: Pattern that must not be found in the error log at the end.
        behind: Kind of the server behind it, where tests ask for it.

    Attributes:
        plain_port: Where ``tls.conf`` listens for http.
    """

    program = "nginx"
    check_option = "-t"

    def __init__(
        self,
        directory,
        backends,
        configuration="single.conf",
        tls=False,
        *,
        extra="",
        changes=None,
        alarm=NGINX_ALARM,
        behind=None,
    ):
        text = with_backends((FILES / configuration).read_text(), backends)
        has_tls = "listen 443 ssl" in text
        super().__init__(directory, tls or has_tls, alarm)
        self.kind = behind or self.kind
        if has_tls:
            self.plain_port = free_port()
            text = replace(text, "listen 80;", f"listen 127.0.0.1:{self.plain_port};")
            text = replace(text, "listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl")
            for name, path in zip(("ssl_certificate", "ssl_certificate_key"), self.pem, strict=True):
                text, count = re.subn(rf"\b{name} \S+;", f"{name} {path};", text)
                assert count == 1
        elif tls:
            certificates = f"ssl_certificate {self.pem[0]}; ssl_certificate_key {self.pem[1]};"
            text = replace(text, "listen 80;", f"listen 127.0.0.1:{self.port} ssl; {certificates}")
        else:
            text = replace(text, "listen 80;", f"listen 127.0.0.1:{self.port};")
        for old, new in (changes or {}).items():
            text = replace(text, old, new)
        (self.folder / "site.conf").write_text(text)
        # As root it would become another user, who may not enter these folders.
        user = "user root;" if os.geteuid() == 0 else ""
        main = self.folder / "nginx.conf"
        main.write_text(NGINX_MAIN.format(folder=self.folder, log=self.log, user=user, extra=extra))
        self.start(["nginx", "-p", str(self.folder), "-e", str(self.log), "-c", str(main)])


class HAProxy(Proxy):
    """A HAProxy with `nginx/haproxy.cfg`.

    Args:
        directory: Where its folder goes.
        backends: See `with_backends`.
        alarm: Pattern that must not be found in the log at the end.
    """

    program = "haproxy"
    exit_codes = (-signal.SIGTERM,)
    check_option = "-c"

    def __init__(self, directory, backends, *, alarm=HAPROXY_ALARM):
        text = with_backends((FILES / "haproxy.cfg").read_text(), backends)
        super().__init__(directory, False, alarm)
        path = self.folder / "haproxy.cfg"
        path.write_text(re.sub(r"bind :80\n", f"bind 127.0.0.1:{self.port}\n", text))
        self.start(["haproxy", "-db", "-f", str(path)])


@contextlib.contextmanager
def cluster(kind, directory, count, **options):
    """Run several servers of a kind, which end in good order afterwards unless the test ended them before.

    Args:
        kind: As `Server`.
        directory: As `Server`.
        count: How many.
        **options: As `Server`; a callable is called with the number of the server.
    """
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(count):
            own = {name: value(number) if callable(value) else value for name, value in options.items()}
            servers.append(Server(kind, directory, trusted_proxies=1, **own))
            stack.callback(end, servers, number)
        yield servers


def end(servers, number):
    """Stop one of a cluster's servers, unless it is gone."""
    if servers[number].process.poll() is None:
        servers[number].stop()


def kill(server):
    """End a server as a crash does, and close its sockets with it."""
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(START_LIMIT)
