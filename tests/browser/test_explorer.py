"""The explorer as a visitor uses it, in Chromium without a window (about a minute); pictures of each tab go to build/explorer."""

import contextlib
import json
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.browser import chromium
from tests.browser.chromium import By, Keys, asked_for, browser, children, elsewhere, served, wait
from tests.explorer.small import small_model

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURES = REPOSITORY / "build" / "explorer"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The explorer, served from a folder with a small model; yields its address and its process."""
    root = tmp_path_factory.mktemp("visited")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANDOR_CACHE", str(root / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        small_model(root)
        port = chromium.port()
        command = [sys.executable, "-m", "helpers", "app", "--no-browser", "--port", str(port), "--data-root", str(root)]
        command += ["--model", "small.safetensors"]
        with served(command, root / "log.txt", "The explorer is at", cwd=REPOSITORY) as process:
            yield f"http://127.0.0.1:{port}/", process


@pytest.fixture(scope="module")
def visitor(server, tmp_path_factory):
    """A browser with the page open and its faces read."""
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        visit(driver, server[0])
        yield driver


def visit(driver, address):
    driver.get(address)
    wait(lambda: "are open" in said(driver), "faces are open")


def said(driver):
    return driver.find_element(By.CSS_SELECTOR, ".candor-status").text


def control(driver, label):
    """What a label is the label of, where it is visible."""
    for each in driver.find_elements(By.TAG_NAME, "label"):
        if each.text.strip() == label and each.is_displayed():
            return driver.find_element(By.ID, each.get_attribute("for"))
    raise LookupError(label)


def button(driver, words):
    buttons = driver.find_elements(By.TAG_NAME, "button")
    return next(each for each in buttons if each.text.strip() == words and each.is_displayed())


def tab(driver, words):
    next(each for each in driver.find_elements(By.CSS_SELECTOR, "[role=tab]") if each.text.strip() == words).click()


def visible_text(driver):
    return driver.find_element(By.CSS_SELECTOR, ".candor-page").text


def alts(driver):
    return [each.get_attribute("alt") for each in driver.find_elements(By.TAG_NAME, "img") if each.is_displayed()]


def choose(driver, label, value):
    from selenium.webdriver.support.ui import Select

    Select(control(driver, label)).select_by_visible_text(value)


def photograph(driver, name):
    PICTURES.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(PICTURES / f"{name}.png"))


def test_the_page_loads_nothing_from_elsewhere_and_nothing_fails(visitor, server):
    urls = asked_for(visitor)
    assert urls and not elsewhere(urls, server[0])
    errors = [entry for entry in visitor.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors


def test_a_screen_reader_is_told_what_there_is(visitor):
    assert visitor.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    line = visitor.find_element(By.CSS_SELECTOR, ".candor-status")
    assert line.get_attribute("aria-live") == "polite" and line.get_attribute("role") == "status"
    for name in ("Audit", "Look", "What if", "Fix", "Report"):
        tab(visitor, name)
        time.sleep(0.5)
        for each in visitor.find_elements(By.CSS_SELECTOR, "input, select, button, [role=slider], [role=textbox]"):
            if each.is_displayed():
                assert each.accessible_name, (name, each.get_attribute("outerHTML"))
    assert all(alts(visitor))
    tab(visitor, "Audit")


def test_tabs_are_reached_by_the_keyboard(visitor):
    first = visitor.find_element(By.CSS_SELECTOR, "[role=tab][aria-selected=true]")
    visitor.execute_script("arguments[0].focus()", first)
    visitor.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    visitor.switch_to.active_element.send_keys(Keys.ENTER)
    wait(lambda: visitor.find_element(By.CSS_SELECTOR, "[role=tab][aria-selected=true]").text == "Look", "Look is selected", 10)
    tab(visitor, "Audit")


def test_the_slider_moves_every_gap(visitor):
    wait(lambda: "Rates by group at the threshold 0.50" in visible_text(visitor), "the audit is there")
    before = next(alt for alt in alts(visitor) if alt.startswith("Gaps between groups"))
    handle = visitor.find_element(By.CSS_SELECTOR, ".noUi-handle")
    for _ in range(5):
        handle.send_keys(Keys.PAGE_UP)
    caption = wait(lambda: re.search(r"at the threshold (0\.[6-9]\d|1\.00)", visible_text(visitor)), "the threshold has moved")
    wait(lambda: next(alt for alt in alts(visitor) if alt.startswith("Gaps")) != before, f"gaps at {caption[1]} are shown")
    photograph(visitor, "audit")
    button(visitor, "Back to 0.5").click()
    wait(lambda: "Rates by group at the threshold 0.50" in visible_text(visitor), "the threshold is back")
    assert next(alt for alt in alts(visitor) if alt.startswith("Gaps between groups")) == before


def test_methods_stand_side_by_side_with_their_scores(visitor):
    tab(visitor, "Look")
    wait(lambda: "2 by 3 maps are shown" in said(visitor), "first maps are shown")
    choose(visitor, "Method 4", "gradient_input")
    wait(lambda: "2 by 4 maps are shown" in said(visitor), "a fourth method is shown")
    for name in ("saliency", "grad cam", "integrated gradients", "gradient input"):
        assert sum(alt.startswith(f"{name} of face ") for alt in alts(visitor)) == 2
    table = next(each for each in visitor.find_elements(By.TAG_NAME, "table") if "Scores of the maps" in each.text)
    assert "pointing game" in table.text and len(table.find_elements(By.CSS_SELECTOR, "tbody tr")) == 4
    ticks = [each for each in visitor.find_elements(By.CSS_SELECTOR, "input[type=checkbox]") if each.is_displayed()]
    assert len(ticks) == 8 and sum(tick.is_selected() for tick in ticks) == 2
    ticks[4].send_keys(Keys.SPACE)
    wait(lambda: "3 by 4 maps are shown" in said(visitor), "a third face is shown")
    photograph(visitor, "look")


def test_the_face_is_redrawn_and_score_and_map_follow(visitor):
    tab(visitor, "What if")
    pictures = lambda: [each.get_attribute("src") for each in visitor.find_elements(By.CSS_SELECTOR, "figure img")]
    wait(lambda: len(pictures()) == 2, "the face is shown beside itself")
    assert pictures()[0] == pictures()[1]  # nothing has been changed yet
    box = control(visitor, "glasses")
    now = box.find_element(By.CSS_SELECTOR, "option:checked").text
    choose(visitor, "glasses", {"yes": "no", "no": "yes"}[now])
    wait(lambda: pictures()[0] != pictures()[1], "the picture is another one")
    assert re.search(r"gives (not )?smiling \d+% as it was and \d+% now", said(visitor))
    assert any(alt.endswith("now minus as it was") for alt in alts(visitor))
    photograph(visitor, "what-if")
    button(visitor, "As it was").click()
    wait(lambda: pictures()[0] == pictures()[1], "the face is as it was")


def test_methods_run_and_one_is_compared(visitor):
    tab(visitor, "Fix")
    wait(lambda: "Methods are fitted on" in visible_text(visitor), "the tab is filled")
    button(visitor, "Run").click()
    wait(lambda: "beside the model as it was" in said(visitor), "the first method is compared")
    assert any("Balanced accuracy and equalized-odds gap of each model: Vanilla" in alt for alt in alts(visitor))
    toggle = button(visitor, "DFR")
    toggle.send_keys(Keys.ENTER)
    wait(lambda: "DFR against the model as it was" in visible_text(visitor), "DFR is compared")
    wait(lambda: "DFR beside" in said(visitor), "its maps are there")
    assert button(visitor, "DFR").get_attribute("aria-pressed") == "true"
    assert any(alt.endswith("DFR minus Vanilla") for alt in alts(visitor))
    photograph(visitor, "fix")


def test_what_was_found_can_be_taken_along(visitor, server):
    tab(visitor, "Report")
    files = {"Table of the audit": "audit.csv", "Model as a file": "model-Vanilla.zip", "Make the report": "report.html"}
    for words, name in files.items():
        button(visitor, words).click()
        wait(lambda name=name: f"{name} is ready" in said(visitor), f"{name} is written", 300)
    photograph(visitor, "report")
    links = {each.text.split()[0]: each.get_attribute("href") for each in visitor.find_elements(By.CSS_SELECTOR, "a[download]")}
    content = {name: urllib.request.urlopen(link).read() for name, link in links.items()}
    assert content["audit.csv"].startswith(b"group,statistic,value") and content["model-Vanilla.zip"].startswith(b"PK")
    assert b"equalized-odds gap" in content["report.html"] and b"## Intended use" in content["report.card.md"]
    for path in ("explorer.ipynb", "downloads/", "downloads/../../jupyter/kernels/python3/kernel.json"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server[0]}voila/files/{path}")


def test_a_wrong_path_is_a_sentence_and_what_was_open_stays(visitor):
    tab(visitor, "Audit")
    box = control(visitor, "Model")
    for wrong, words in {"nowhere.onnx": "there is no 'nowhere.onnx'", "../../etc/passwd": "lies outside the folder"}.items():
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(wrong, Keys.TAB)
        button(visitor, "Open").click()
        wait(lambda words=words: words in said(visitor), f"it is said that {words}")
    assert "Rates by group at the threshold 0.50" in visible_text(visitor)
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys("small.safetensors", Keys.TAB)
    button(visitor, "Open").click()
    wait(lambda: "are open" in said(visitor), "it is open again")


def test_groups_by_another_attribute(visitor):
    choose(visitor, "Protected attribute", "facial_hair")
    wait(lambda: "Groups are now made by facial_hair" in said(visitor), "groups are others")
    assert "not facial_hair (" in visible_text(visitor)


def kernel(driver):
    return json.loads(driver.find_element(By.ID, "jupyter-config-data").get_attribute("textContent"))["kernelId"]


def runs(server, number):
    """Whether a kernel's process is there."""
    for each in children(server[1]):
        with contextlib.suppress(psutil.NoSuchProcess):
            if number in " ".join(each.cmdline()):
                return True
    return False


def test_two_visitors_do_not_disturb_each_other_and_one_who_leaves_takes_a_kernel_along(visitor, server):
    mine, first = visitor.current_window_handle, kernel(visitor)
    visitor.switch_to.new_window("tab")
    try:
        visit(visitor, server[0])
        assert control(visitor, "Protected attribute").find_element(By.CSS_SELECTOR, "option:checked").text == "glasses"
        visitor.find_element(By.CSS_SELECTOR, ".noUi-handle").send_keys(Keys.HOME)
        wait(lambda: "at the threshold 0.00" in visible_text(visitor), "the other visitor's threshold has moved")
        second = kernel(visitor)
        assert first != second and runs(server, first) and runs(server, second)
        visitor.get("about:blank")
        wait(lambda: not runs(server, second), "the kernel of the visitor who left has ended")
    finally:
        visitor.close()
        visitor.switch_to.window(mine)
    assert "at the threshold 0.50" in visible_text(visitor) and "not facial_hair (" in visible_text(visitor)
    assert runs(server, first)


def test_a_lost_kernel_is_said_and_no_silence(visitor, server):
    request = urllib.request.Request(f"{server[0]}voila/api/shutdown/{kernel(visitor)}", method="POST")
    assert urllib.request.urlopen(request).status == 204
    alert = wait(lambda: visitor.find_element(By.CSS_SELECTOR, "[role=alert]").text, "it is said")
    assert alert == "This visit has ended; reload the page to begin anew. What was finished is kept."
    visit(visitor, server[0])
