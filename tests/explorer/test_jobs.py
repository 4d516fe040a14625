"""Work beside the page, sentences and ports (about 3 s)."""

import socket
import threading
import time

import pandas as pd
import pytest

from helpers.__main__ import main
from helpers.explorer.jobs import Jobs
from helpers.explorer.sentences import sentence, table
from helpers.explorer.serve import environment, free_port, is_local


def test_a_newer_job_takes_the_place_of_an_older_one():
    said, found, gate = [], [], threading.Event()
    jobs = Jobs(said.append)
    jobs.run("look", lambda: gate.wait(5), lambda result: found.append("old"))
    old = jobs._latest["look"]
    jobs.run("look", lambda: "new", found.append)
    jobs.wait("look", 5)
    gate.set()
    old.join(5)
    assert found == ["new"] and said == []


def test_a_cancelled_job_says_so_and_ends(monkeypatch):
    said, ended = [], []
    jobs = Jobs(said.append)

    def long():
        while True:
            time.sleep(0.01)

    jobs.run("fix", long, lambda result: pytest.fail("it was cancelled"), lambda: ended.append(1))
    assert jobs.running("fix") and jobs.cancel("fix")
    jobs.wait("fix", 10)
    assert not jobs.running("fix") and ended == [1] and said == ["Cancelled. What was finished before is kept."]
    assert not jobs.cancel("fix")


def test_a_failing_job_becomes_a_sentence():
    said = []
    jobs = Jobs(said.append)

    def fail():
        raise ValueError("data: no such thing")

    jobs.run("open", fail, print)
    jobs.wait("open", 5)
    assert said == ["Data: no such thing."]


def test_foreseen_errors_speak_for_themselves_and_others_say_that_they_were_not_foreseen():
    assert sentence(ValueError("--data: photos\n does not exist")) == "Data: photos does not exist."
    assert sentence(TypeError("x")).startswith("Something unexpected went wrong (TypeError: x)")


def test_a_table_is_escaped_and_says_which_cells_are_headings():
    made = table(pd.DataFrame({"group": ["<b>"], "rate": ["0.5"]}), "Rates & gaps")
    assert '<th scope="row">&lt;b&gt;</th>' in made and "<caption>Rates &amp; gaps</caption>" in made
    assert made.count('scope="col"') == 2


def test_a_port_in_use_is_said_in_a_sentence(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port: {port} is in use on 127.0.0.1"):
            free_port("127.0.0.1", port)
        assert main(["app", "--port", str(port), "--no-browser"]) == 2
    assert f"--port: {port} is in use" in capsys.readouterr().err
    assert free_port("127.0.0.1", port) == port


def test_a_folder_that_is_not_there_or_an_address_of_another_machine(tmp_path, capsys):
    assert main(["app", "--data-root", str(tmp_path / "nowhere"), "--no-browser"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="cannot listen on 192.0.2.1"):
        free_port("192.0.2.1", 8866)


def test_the_environment_of_kernels_is_taken_back(tmp_path, monkeypatch):
    import os

    monkeypatch.setenv("JUPYTER_PATH", "kept")
    before = dict(os.environ)
    with environment(tmp_path, tmp_path, {"data": "orl"}):
        assert os.environ["JUPYTER_PATH"].endswith(os.pathsep + "kept") and '"data": "orl"' in os.environ["CANDOR_EXPLORER"]
    assert dict(os.environ) == before


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False)])
def test_only_this_machines_own_addresses_are_local(host, local):
    assert is_local(host) is local
