"""Nginx with the very file that the deployment document gives, but for its addresses and its certificate."""

import re
import subprocess
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

from tests.services.ports import free_port
from tests.services.programs import find_program

DOCUMENT = Path(__file__).parents[2] / "docs" / "deployment.md"
GIVE_UP_SECONDS = 30
TRIES = 5
AROUND = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{documented}
}}
"""


def documented_file():
    """Return nginx's file as the document has it."""
    (block,) = re.findall(
        r"^    map \$http_upgrade.*?^    }\n(?!\n?    )", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    return textwrap.dedent(block)


def replaced(text, **changes):
    """Return the text with each of these once in it, and then replaced."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"the documented file has not once {old!r}:\n{text}"
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(folder, behind, certificates):
    """Run nginx before a server's port; gives its own port."""
    program = find_program(["nginx"], "nginx-light", folders=["/usr/sbin"])
    folder.mkdir(exist_ok=True)
    for _ in range(TRIES):
        port = free_port()
        documented = replaced(
            documented_file(),
            **{
                "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
                "listen [::]:443 ssl;": "",
                "/etc/ssl/certs/learning.pem": str(certificates.chain),
                "/etc/ssl/private/learning.key": str(certificates.key),
                "http://127.0.0.1:8000;": f"http://127.0.0.1:{behind};",
            },
        )
        file, log = folder / "nginx.conf", folder / "nginx.log"
        file.write_text(AROUND.format(folder=folder, documented=documented))
        with log.open("w") as output:
            process = subprocess.Popen([program, "-p", folder, "-c", file], stdout=output, stderr=output)
        try:
            if _is_ready(process, folder):
                yield port
                return
        finally:
            process.terminate()
            process.wait(GIVE_UP_SECONDS)
    raise AssertionError(f"nginx did not start in {TRIES} tries:\n{log.read_text()}")


def _is_ready(process, folder):
    """Wait until its workers are there; false when it ended, which it does when another one has the port."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while process.poll() is None:
        if "start worker process" in (folder / "nginx.log").read_text():
            return True
        assert time.monotonic() < deadline, (folder / "nginx.log").read_text()
        time.sleep(0.02)
    return False
