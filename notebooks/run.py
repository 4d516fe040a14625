"""Execute the course: every notebook in order to .ipynb and .html, the report, a table of how it went.

    python notebooks/run.py [--profile quick|full] [--out build] [--only 03] [--parameters name=value] [--jobs 2]

The first lessons draw the faces and train the model that the others take from the cache; the others run side by side.

A notebook that fails is written up to its failing cell, named in the table, and the next one is run
all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MAKERS = ("01", "02")  # these lessons fill the cache
CORES = os.cpu_count() or 1
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")  # of PyTorch and of TensorFlow


@dataclass(frozen=True)
class Outcome:
    """How one notebook (or the report) went; `error` is empty if it went well."""

    name: str
    seconds: float
    error: str = ""


def main(argv: list[str] | None = None) -> int:
    """Run the course; 0 if all went well, 1 if something failed, 2 for wrong arguments, 130 after Ctrl-C."""
    arguments = parse(argv)
    try:
        chosen = select(notebooks(arguments.notebooks), arguments.only)
        parameters = {"profile": arguments.profile, **dict(map(assignment, arguments.parameters))}
    except ValueError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    started = time.perf_counter()
    try:
        outcomes = course(
            chosen, arguments.out, parameters, with_report=arguments.report and not arguments.only, jobs=arguments.jobs
        )
    except KeyboardInterrupt:
        print("\nInterrupted. What was finished is in", arguments.out, file=sys.stderr)
        return 130
    print(table(outcomes, time.perf_counter() - started))
    return int(any(outcome.error for outcome in outcomes))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py", description="Execute the notebooks of the course in order."
    )
    parser.add_argument(
        "--profile",
        choices=["quick", "full"],
        default="quick",
        help="quick: minutes on 2 cores; full: larger data",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "build",
        help="folder for notebooks/ and report.html (default: build)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NN",
        help="run only the notebook of this number; repeatable",
    )
    parser.add_argument(
        "--parameters", "-p", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="further notebook parameters, such as dataset=folder data_root=photos; a value may be JSON",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=int, default=min(2, CORES), metavar="N",
        help="notebooks side by side, once the first ones have filled the cache (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--no-report", dest="report", action="store_false", help="leave out report.html")
    parser.add_argument("--notebooks", type=Path, default=HERE, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def notebooks(folder: Path) -> list[Path]:
    """The lessons of a folder (NN_name.ipynb) in order."""
    found = sorted(path for path in folder.glob("*.ipynb") if re.match(r"\d\d_", path.name))
    if not found:
        raise ValueError(f"no notebook of the form NN_name.ipynb in {folder}")
    return found


def select(found: list[Path], only: list[str]) -> list[Path]:
    """Those whose number or name begins with one of `only`; all if it is empty."""
    for wanted in only:
        if not any(path.stem.startswith(wanted) for path in found):
            raise ValueError(
                f"--only {wanted}: no such notebook; there are {', '.join(path.stem for path in found)}"
            )
    return [path for path in found if not only or path.stem.startswith(tuple(only))]


def assignment(text: str) -> tuple[str, object]:
    """ "name=value" as a pair; the value is read as JSON where it is JSON, else it is text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--parameters {text}: expected NAME=VALUE")
    with contextlib.suppress(json.JSONDecodeError):
        return name, json.loads(value)
    return name, value


def course(chosen: list[Path], out: Path, parameters: dict, *, with_report: bool, jobs: int = 1) -> list[Outcome]:
    """Execute, convert, and report; every step is tried whatever happened to the ones before."""
    from tqdm import tqdm

    logging.getLogger("papermill").setLevel(logging.ERROR)
    folder = out.resolve() / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    steps = {path.stem: lambda path=path: lesson(path, folder, parameters) for path in chosen}
    if with_report:
        steps["report"] = lambda: report(out.resolve() / "report.html", parameters["profile"])
    alone = [name for name in steps if name.startswith(MAKERS)] or [next(iter(steps))]
    # The later lessons take longer: begun first, they leave no core idle at the end.
    together = [name for name in reversed(steps) if name not in alone]
    done: dict[str, Outcome] = {}
    with this_python_as_kernel(), tqdm(total=len(steps), unit="notebook", file=sys.stderr, dynamic_ncols=True) as bar:

        def told(outcome: Outcome) -> None:
            done[outcome.name] = outcome
            bar.set_description(outcome.name)
            bar.update()
            if outcome.error:
                bar.write(f"{outcome.name} failed: {outcome.error}", file=sys.stderr)

        for name in alone:
            told(timed(name, steps[name]))
        with sharing_cores(jobs), ThreadPoolExecutor(max(1, jobs)) as pool:
            waiting = [pool.submit(timed, name, steps[name]) for name in together]
            try:
                for each in as_completed(waiting):
                    told(each.result())
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                end_children()  # the threads notice, and clean up after themselves
                raise
    return [done[name] for name in steps]


def timed(name: str, step: Callable[[], str]) -> Outcome:
    """Run one step, which gives its error or an empty text."""
    started = time.perf_counter()
    error = step()
    return Outcome(name, time.perf_counter() - started, error)


def end_children() -> None:
    """End the processes that this one has started: kernels do not hear of a Ctrl-C."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@contextlib.contextmanager
def sharing_cores(jobs: int):
    """Kernels that start inside the block take their share of the cores: with more threads than cores they would wait
    for each other most of the time. Whoever has set one of the `THREADS` is left alone."""
    ours = [name for name in THREADS if name not in os.environ] if jobs > 1 else []
    os.environ.update(dict.fromkeys(ours, str(max(1, CORES // jobs))))
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def lesson(path: Path, folder: Path, parameters: dict) -> str:
    """Execute one notebook into `folder` and convert it; the error as one line, or an empty text."""
    import papermill

    target = folder / path.name
    part = folder / f".{path.stem}.part.ipynb"
    error = ""
    try:
        try:
            with warnings.catch_warnings():
                # papermill on parameters that a notebook does not have, nbformat on cell ids
                warnings.simplefilter("ignore")
                papermill.execute_notebook(
                    path, part, parameters=parameters, kernel_name="python3", language="python",
                    cwd=path.parent, progress_bar=False, start_timeout=180,
                )  # fmt: skip
        except papermill.PapermillExecutionError as failure:
            error = f"cell [{failure.exec_count}]: {one_line(failure.ename, failure.evalue)}"
        except Exception as failure:  # a dead kernel, a notebook that is no JSON: the course goes on
            error = one_line(type(failure).__name__, str(failure))
        if part.exists():
            os.replace(part, target)
            try:
                convert(target)
            except Exception as failure:
                error = error or "HTML: " + one_line(type(failure).__name__, str(failure))
    finally:
        part.unlink(missing_ok=True)
    return error


def convert(path: Path) -> None:
    """Write the executed notebook beside itself as HTML."""
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter().from_filename(str(path))
    part = path.with_name(f".{path.stem}.part.html")
    try:
        part.write_text(html, encoding="utf-8")
        os.replace(part, path.with_suffix(".html"))
    finally:
        part.unlink(missing_ok=True)


def report(path: Path, profile: str) -> str:
    """The report on the course's own model, made by a process of its own; the error as one line, or an empty text."""
    code = "import sys; from helpers.report import default_report; default_report(sys.argv[1], profile=sys.argv[2])"
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    made = subprocess.run(
        [sys.executable, "-c", code, str(path), profile],
        capture_output=True, text=True, errors="replace", env={**os.environ, "PYTHONPATH": search, "MPLBACKEND": "agg"},
    )  # fmt: skip
    if made.returncode == 0:
        return ""
    last = (made.stderr.strip().splitlines() or [f"exit code {made.returncode}"])[-1]
    return one_line(*last.split(": ", 1)) if ": " in last else one_line(last, "")


@contextlib.contextmanager
def this_python_as_kernel():
    """Make the kernel named python3 the Python that runs this file, whatever kernels are installed."""
    from ipykernel.kernelspec import get_kernel_dict

    environment = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
    }
    specification = {**get_kernel_dict(), "env": environment}
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory(prefix="candor-kernel-") as folder:
        kernel = Path(folder) / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")
        # JUPYTER_PATH comes before the user's and the environment's own kernels
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


def one_line(kind: str, message: str, width: int = 160) -> str:
    """An exception as one line without terminal colours, shortened to `width` characters."""
    message = re.sub(r"\x1b\[[0-9;]*m", "", f"{kind}: {message}".strip())
    message = " ".join(message.split()).removesuffix(":")
    return message if len(message) <= width else message[: width - 1] + "…"


def table(outcomes: list[Outcome], seconds: float) -> str:
    """Notebook, seconds, and ok or the error, in aligned columns; `seconds` are those of all together."""
    width = max(map(len, ["notebook", *(outcome.name for outcome in outcomes)]))
    lines = ["", f"{'notebook':<{width}}  seconds  result"]
    lines += [f"{done.name:<{width}}  {done.seconds:>7.1f}  {done.error or 'ok'}" for done in outcomes]
    failed = sum(bool(done.error) for done in outcomes)
    lines.append(
        f"{'all':<{width}}  {seconds:>7.1f}  " + (f"{failed} of {len(outcomes)} failed" if failed else "ok")
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
