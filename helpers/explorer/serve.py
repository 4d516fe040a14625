"""Serving the explorer with Voilà: one kernel a visitor, a spare one warm, nothing loaded from elsewhere."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

from .page import SETTINGS

HERE = Path(__file__).resolve().parent
FIRST_PORT, PORTS = 8866, 50
PING = 30_000  # milliseconds
IDLE = 1800  # seconds after which the kernel of a visitor who has left without saying so is ended


def serve(
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    data_root: str | Path = ".",
    browser: bool = True,
    pool: int = 1,
    say: Callable[[str], None] = print,
    **choice: object,
) -> None:
    """Serve the explorer until Ctrl-C.

    Parameters
    ----------
    host : address to listen on; everyone who reaches another one than this machine's can use the page
    port : None for the first free one from 8866
    data_root : the folder that paths of data and models lie in
    browser : open one
    pool : pages kept ready for the next visitors, each a kernel of over 1 GB with its faces open
    say : called with the address once the server listens and, with a pool, a page is ready
    **choice : fields of `helpers.explorer.choice.Choice`: what the page opens with

    Raises
    ------
    ValueError : the port is in use, or the host is no address of this machine.  FileNotFoundError : no `data_root`.
    """
    root = Path(data_root).expanduser().resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"--data-root: there is no folder {str(data_root)!r}")
    port = free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="candor-explorer-") as folder, environment(Path(folder), root, choice):
        server = application(Path(folder), host, port, browser, pool, say)
        server.start()


def free_port(host: str, port: int | None) -> int:
    """The port asked for, or the first free one."""
    for candidate in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except (OSError, OverflowError) as error:
                if getattr(error, "errno", None) == errno.EADDRINUSE:
                    continue
                raise ValueError(f"--host or --port: cannot listen on {host}, port {candidate} ({error})") from error
        return candidate
    if port is None:
        raise ValueError(f"--port: none of {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free; name another")
    raise ValueError(f"--port: {port} is in use on {host}, perhaps by another explorer; name another, or none for a free one")


@contextlib.contextmanager
def environment(folder: Path, root: Path, choice: dict) -> Iterator[None]:
    """What kernels are told: this Python, this checkout, the template, and what to open."""
    from ipykernel.kernelspec import get_kernel_dict

    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(get_kernel_dict(extra_arguments=["--log-level=ERROR"])), encoding="utf-8")
    (folder / "page" / "downloads").mkdir(parents=True)
    shutil.copy(HERE / "explorer.ipynb", folder / "page" / "explorer.ipynb")
    settings = {"root": str(root), "downloads": str(folder / "page" / "downloads"), **choice}
    before = {name: os.environ.get(name) for name in ("JUPYTER_PATH", "PYTHONPATH", "MPLBACKEND", "TQDM_DISABLE", SETTINGS)}
    join = lambda name, *parts: os.pathsep.join(filter(None, [*map(str, parts), before[name]]))
    os.environ |= {
        "JUPYTER_PATH": join("JUPYTER_PATH", folder / "jupyter", HERE / "share"),
        "PYTHONPATH": join("PYTHONPATH", HERE.parents[1]),
        "MPLBACKEND": "agg",
        "TQDM_DISABLE": "1",  # bars are for terminals; the page says how far it is
        SETTINGS: json.dumps(settings),
    }
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def application(folder: Path, host: str, port: int, browser: bool, pool: int, say: Callable[[str], None]):
    """Voilà, configured and not yet started."""
    from tornado.ioloop import IOLoop
    from traitlets.config import Config
    from voila.app import Voila

    class Explorer(Voila):
        def listen(self) -> None:
            IOLoop.current().add_callback(self.announce)
            super().listen()

        async def announce(self) -> None:
            """Say the address, and open the browser, once a kernel is warm: whoever comes before waits for it to start."""
            for kernels in list(getattr(self.kernel_manager, "_pools", {}).values()):
                with contextlib.suppress(Exception):  # one that fails fails again for the visitor, who is told
                    await (await kernels[0])["task"]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
            say(f"The explorer is at {address} (Ctrl-C ends it).")
            if browser:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    voila = {
        "ip": host, "port": port, "port_retries": 0, "open_browser": False, "root_dir": str(folder / "page"),
        "config_file_paths": [], "log_level": logging.ERROR, "connection_dir_root": str(folder),
        # On this machine's own address only its own names are answered: other sites' pages cannot reach in through one of theirs.
        # A page that is closed says goodbye without a cookie's token, which would be refused; whoever does not know the number of
        # its kernel, which nobody can guess, cannot say it in its place.
        "tornado_settings": {
            "allow_remote_access": not is_local(host), "disable_check_xsrf": True,
            "ws_ping_interval": PING, "ws_ping_timeout": PING,
        },
    }  # fmt: skip
    page = {
        "template": "candor", "allow_template_override": "NO", "allow_theme_override": "NO", "show_tracebacks": False,
        "preheat_kernel": pool > 0, "default_pool_size": pool, "file_allowlist": [r"downloads/.*"],
    }  # fmt: skip
    kernels = {"cull_idle_timeout": IDLE, "cull_interval": 60, "cull_connected": False}
    configuration = Config({"Voila": voila, "VoilaConfiguration": page, "MappingKernelManager": kernels})
    server = Explorer(config=configuration)
    server.initialize([str(folder / "page" / "explorer.ipynb")])
    return server


def is_local(host: str) -> bool:
    """Whether a host is this machine's own loopback address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


