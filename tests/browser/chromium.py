"""What tests in a browser share: Chromium without a window, a server to visit, and waiting for what a page shows.

Needs Chromium and its driver: `apt-get install chromium chromium-driver`, and `pip install selenium`. Where one is missing, a
test file that imports this one is skipped, and the sentence says what to install.
"""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time

import psutil
import pytest

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium, to try pages in a browser")
if not (BROWSER and DRIVER):
    pytest.skip("apt-get install chromium chromium-driver, to try pages in a browser", allow_module_level=True)

from selenium.webdriver.common.by import By  # noqa: E402, F401
from selenium.webdriver.common.keys import Keys  # noqa: E402, F401

PATIENCE = 240  # seconds: a loaded machine is slow, not wrong
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,1600",
)  # fmt: skip


@contextlib.contextmanager
def browser(profile):
    """A browser whose profile is the folder `profile`, and which notes what it asks for and what fails."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.page_load_strategy = "none"  # each test waits for what it needs, and a page may go on loading
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@contextlib.contextmanager
def served(command, log, ready, **options):
    """The process of a server, once it has written the words `ready` into the file `log`; it and its children are ended."""
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **options)

    def listens():
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}: {log.read_text(encoding='utf-8')[-1500:]}")
        return ready in log.read_text(encoding="utf-8")

    try:
        wait(listens, "the server listens")
        yield process
    finally:
        left = [process, *children(process)]
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                child.kill()


def port():
    """A port that is free: any one, since the first of a range is what another process's test takes at the same moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(process):
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait(condition, words, seconds=PATIENCE):
    """Until `condition()` holds; its value."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(Exception):  # elements come and go while the page is drawn
            if found := condition():
                return found
        time.sleep(0.1)
    pytest.fail(f"waited {seconds} s until {words}")


def asked_for(driver):
    """The addresses that the browser has asked for since this was last called."""
    told = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    plain = [each["params"]["request"]["url"] for each in told if each["method"] == "Network.requestWillBeSent"]
    return plain + [each["params"]["url"] for each in told if each["method"] == "Network.webSocketCreated"]


def elsewhere(urls, home):
    """Those addresses that are neither below `home`, an address such as http://127.0.0.1:8888/, nor the page's own."""
    own = (home, home.replace("http", "ws", 1), "data:", "blob:", "chrome")
    return [url for url in urls if not url.startswith(own)]
