"""How soon the explorer is there, and how soon it answers, on the course's own problem in Chromium without a window.

    python benchmarks/explorer.py [--rounds 5] [--chromium chromium] [--driver chromedriver]

Predictions and the network come from the cache, as they do on every visit but the first. "First paint" is from asking for the
address, the moment that the server says it is up, until the page's heading and tabs are there; then for a visitor whom a kernel
awaits that has had time to open its faces. An answer is from the key or click until the page shows the new picture or number:
seconds as a visitor waits, median and largest of the rounds, and seconds of processor of the kernels, which hang less on what
else the machine does.
Writes benchmarks/results/explorer.csv and explorer.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from helpers.explorer.serve import free_port
from helpers.files import whole

RESULTS = Path(__file__).resolve().parent / "results"
REPOSITORY = RESULTS.parents[1]
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,1600",
)  # fmt: skip


class Visit:
    """A browser, and how long it waits for things."""

    def __init__(self, driver, address: str, server):
        self.driver, self.address, self.server = driver, address, server

    def wait(self, condition, seconds: float = 300) -> float:
        """Seconds until a condition holds."""
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            with contextlib.suppress(Exception):  # elements come and go while the page is drawn
                if condition():
                    return time.perf_counter() - began
            time.sleep(0.01)
        raise TimeoutError(self.text)

    @property
    def text(self) -> str:
        return self.driver.execute_script("return document.querySelector('.candor-page').innerText")

    @property
    def said(self) -> str:
        return self.driver.execute_script("return document.querySelector('.candor-status').innerText")

    def sources(self, selector: str = ".candor-page img") -> list[int]:
        """The pictures that can be seen now, a number for each: to fetch them each time would take longer than to draw them."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent).map(e => {"
            "let sum = 0; for (let i = 0; i < e.src.length; i++) { sum = (sum * 31 + e.src.charCodeAt(i)) | 0; } return sum; })",
            selector,
        )

    def control(self, label: str):
        labels = [each for each in self.driver.find_elements(By.TAG_NAME, "label") if each.text.strip() == label]
        return self.driver.find_element(By.ID, next(each for each in labels if each.is_displayed()).get_attribute("for"))

    def tab(self, words: str) -> None:
        tabs = self.driver.find_elements(By.CSS_SELECTOR, "[role=tab]")
        next(each for each in tabs if each.text.strip() == words).click()

    def busy(self) -> float:
        """Seconds of processor that all kernels have taken."""
        total = 0.0
        for each in psutil.Process(self.server.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # one has ended meanwhile
                total += sum(each.cpu_times()[:2]) * ("ipykernel_launcher" in " ".join(each.cmdline()))
        return total

    def memory(self) -> float:
        """Megabytes of the kernel that has taken most."""
        kernels = psutil.Process(self.server.pid).children(recursive=True)
        return max(each.memory_info().rss for each in kernels) / 2**20

    def answer(self, act, shown) -> tuple[float, float]:
        """Seconds from doing something until something is shown, and seconds of processor."""
        before, began = self.busy(), time.perf_counter()
        act()
        self.wait(shown)
        return time.perf_counter() - began, self.busy() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--driver", default=shutil.which("chromedriver"))
    args = parser.parse_args()
    port = free_port("127.0.0.1", None)
    rows = []
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log.txt", "w", encoding="utf-8") as log:
        options = webdriver.ChromeOptions()
        options.binary_location = args.chromium
        for flag in (*FLAGS, f"--user-data-dir={folder}/profile"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(args.driver))
        began = time.perf_counter()
        command = [sys.executable, "-m", "helpers", "app", "--no-browser", "--port", str(port)]
        server = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        visit = Visit(driver, f"http://127.0.0.1:{port}/", server)
        try:
            while "The explorer is at" not in (Path(folder) / "log.txt").read_text(encoding="utf-8"):
                time.sleep(0.05)
            rows.append(("server is up after its command", [(time.perf_counter() - began, float("nan"))]))
            rows += paints(visit)
            ready = visit.memory()
            rows += answers(visit, args.rounds)
            memory = visit.memory()
        finally:
            driver.quit()
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    write(rows, ready, memory)


def paints(visit: Visit) -> list[tuple]:
    """First paint at once after the server listens, until its faces are open; then once a warm kernel waits."""
    found = []
    for words, pause in (("at once", 0), ("with time to get ready", 45)):
        time.sleep(pause)
        began = time.perf_counter()
        visit.driver.get(visit.address)
        visit.wait(lambda: "Report" in visit.text)
        painted = time.perf_counter() - began
        visit.wait(lambda: "are open" in visit.said and visit.sources())
        found.append((f"first paint, {words}", [(painted, float("nan"))]))
        found.append((f"first audit shown, {words}", [(time.perf_counter() - began, float("nan"))]))
    return found


def answers(visit: Visit, rounds: int) -> list[tuple]:
    """Each kind of change, `rounds` times."""
    found = []

    def measured(name: str, change) -> None:
        times = []
        for number in range(rounds + 1):
            times.append(change(number))
            visit.wait(lambda: "…" not in visit.said)
            time.sleep(0.5)
        found.append((name, times[1:]))  # the first imports what is needed

    def differs(selector: str = ".candor-page img"):
        before = visit.sources(selector)
        return lambda: (now := visit.sources(selector)) and now != before and len(now) == len(before)

    handle = visit.driver.find_element(By.CSS_SELECTOR, ".noUi-handle")
    key = itertools.cycle((Keys.PAGE_UP, Keys.PAGE_UP, Keys.PAGE_DOWN))
    measured("threshold moved, gaps and rates", lambda number: visit.answer(lambda: handle.send_keys(next(key)), differs()))
    groups = itertools.cycle(("facial_hair", "glasses"))

    def chosen(label: str, values):
        box = Select(visit.control(label))
        return lambda number: visit.answer(lambda: box.select_by_visible_text(next(values)), differs())

    measured("other protected attribute, audit", chosen("Protected attribute", groups))
    visit.tab("Look")
    visit.wait(lambda: "maps are shown" in visit.said)
    ticks = [each for each in visit.driver.find_elements(By.CSS_SELECTOR, "input[type=checkbox]") if each.is_displayed()]
    count = lambda number: f"{2 if number % 2 else 3} by 3 maps are shown"  # the third of three to eight faces comes and goes

    def tick(number: int) -> tuple[float, float]:
        return visit.answer(ticks[2 + number // 2 % 6].click, lambda: count(number) in visit.said)

    measured("a face more or less, three methods and scores", tick)
    visit.tab("What if")
    visit.wait(lambda: len(visit.sources("figure img")) == 2)
    value = itertools.cycle(("cool", "neutral", "warm"))
    measured("face redrawn, score and maps", chosen("clothing", value))
    visit.tab("Fix")
    time.sleep(2)
    if "At hand" not in visit.text:
        buttons = visit.driver.find_elements(By.TAG_NAME, "button")
        next(each for each in buttons if each.text == "Run" and each.is_displayed()).click()
    visit.wait(lambda: "beside the model" in visit.said)
    toggles = [each.text for each in visit.driver.find_elements(By.CSS_SELECTOR, ".widget-toggle-buttons button")]
    name = itertools.cycle([*toggles[1:], toggles[0]])

    def compare(number: int) -> tuple[float, float]:
        method = next(name)
        press = next(each for each in visit.driver.find_elements(By.TAG_NAME, "button") if each.text == method)
        return visit.answer(press.click, lambda: f"{method} beside" in visit.said)

    measured("another mitigated model compared, maps included", compare)
    return found


def write(rows: list[tuple], ready: float, memory: float) -> None:
    table = pd.DataFrame(
        [
            (name, pd.Series([wall for wall, _ in times]).median(), max(wall for wall, _ in times),
             pd.Series([busy for _, busy in times]).median(), len(times))
            for name, times in rows
        ],
        columns=["what", "seconds", "largest", "processor_seconds", "n"],
    ).round(2)  # fmt: skip
    with whole(RESULTS / "explorer.csv") as part:
        table.to_csv(part, index=False)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    text = f"{__doc__}\n{table.to_string(index=False)}\n\n{os.cpu_count()} cores; load of the machine during the run: {load}; "
    text += f"a kernel takes {ready:.0f} MB with its faces open, {memory:.0f} MB in the end\n"
    with whole(RESULTS / "explorer.txt") as part:
        part.write_text(text, encoding="utf-8")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
