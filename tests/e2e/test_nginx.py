"""Each file of nginx/ is loaded by a real nginx and carries real traffic."""

import http.client
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .servers import ALARM, HERE, Server, free_port, wait_until
from .test_contract_js import LIMIT, TRANSPORTS, arguments

pytestmark = pytest.mark.e2e

CONFIGURATIONS = HERE.parent.parent / "nginx"

MAIN = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log info; {user}
events {{ worker_connections 512; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""


class Proxy:
    """An nginx in front of a server, in a folder of its own."""

    ca = None

    def __init__(self, configuration, directory, backend):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = Path(directory)
        text = (CONFIGURATIONS / configuration).read_text()
        assert "listen 80;" in text
        assert "127.0.0.1:8000" in text
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        (self.directory / "site.conf").write_text(text.replace("127.0.0.1:8000", f"127.0.0.1:{backend}"))
        user = "user root;" if os.geteuid() == 0 else ""
        (self.directory / "nginx.conf").write_text(MAIN.format(directory=directory, user=user))
        command = ["nginx", "-p", str(directory), "-e", f"{directory}/error.log", "-c", f"{directory}/nginx.conf"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_until(self.answers, what="nginx")

    def answers(self):
        assert self.process.poll() is None, self.process.stdout.read()
        try:
            return self.get("/")[0] == 200
        except OSError:
            return False

    def get(self, path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=LIMIT)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    if not shutil.which("nginx"):
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    if not shutil.which("node") or not (HERE / "node_modules" / "socket.io-client").is_dir():
        pytest.skip("needs Node and its packages: run `npm install` in tests/e2e")
    directory = tmp_path_factory.mktemp("nginx")
    server = Server("gunicorn-threads", directory, alarm=ALARM, trusted_proxies=1)
    try:
        proxy = Proxy("single.conf", directory, server.port)
        yield proxy
        proxy.stop()
    finally:
        server.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ["connect_with_auth", "echo", "binary", "rooms", "large", "order"])
def test_javascript_client_through_nginx(proxy, scenario, transport):
    done = subprocess.run(**arguments(proxy, scenario, transport, {}), capture_output=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_origin_of_the_public_address_is_ours(proxy):
    path = "/socket.io/?EIO=4&transport=polling"
    assert proxy.get(path, Origin=proxy.url)[0] == 200
    assert proxy.get(path, Origin="http://evil.example")[0] == 400
    assert proxy.get(path, Origin="http://127.0.0.1:1")[0] == 400
