"""A real nginx, with configurations that the documentation gives."""

import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

from tests.servers import START_SECONDS, wait_for
from tests.sql_servers import free_port

_PAGES: Final = Path(__file__).parents[1] / "docs" / "how-to"

_STREAM_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

_MAIN: Final = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ }}
"""

_HTTP: Final = """
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{site}
}}
"""


def documented(page: str, here: dict[str, str], *, block: int = 0) -> str:
    """Return a configuration of a page, with what is elsewhere in a test replaced.

    Args:
        page: Its name, without the suffix.
        here: What stands there, each at least once, and what to put in its place.
        block: Which of the page's.
    """
    text: str = re.findall(r"```nginx\n(.*?)```", (_PAGES / f"{page}.md").read_text(), re.DOTALL)[
        block
    ]
    for there, instead in here.items():
        assert there in text
        text = text.replace(there, instead)
    return text


class Nginx:
    """An nginx process; it listens when the constructor returns, on a free port.

    Args:
        directory: For its files.
        site: What stands in `http`, with ``PORT`` for the port.
        stream: Beside that, a `stream` of its own, likewise.
    """

    def __init__(self, directory: Path, *, site: str = "", stream: str = "") -> None:
        command = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        assert command is not None, "nginx is missing: apt-get install nginx-light"
        self.port = free_port()
        text = _MAIN.format(directory=directory)
        if site:
            text += _HTTP.format(directory=directory, site=site)
        if stream:
            assert _STREAM_MODULE.exists(), "apt-get install libnginx-mod-stream"
            text = f"load_module {_STREAM_MODULE};\n{text}{stream}"
        configuration = directory / "nginx.conf"
        configuration.write_text(text.replace("PORT", str(self.port)))
        self.log = directory / "nginx.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [command, "-p", str(directory), "-c", str(configuration)], stderr=log
            )
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(START_SECONDS)
