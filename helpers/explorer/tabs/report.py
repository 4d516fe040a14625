"""Report: what was found, to take along."""

from __future__ import annotations

import base64
import html
import mimetypes
import secrets
import tempfile
from pathlib import Path

import ipywidgets as w

from helpers.explorer.sentences import text

INLINE = 2 * 2**20  # bytes of a file that a link may hold itself, where no server hands files out


class ReportTab:
    """Files are written into a folder of this visit alone, whose name nobody can guess, and linked from the page."""

    title = "Report"

    def __init__(self, page):
        self.page = page
        self.make = w.Button(description="Make the report", button_style="primary", layout=w.Layout(width="14em"))
        self.csv = w.Button(description="Table of the audit", layout=w.Layout(width="14em"))
        self.model = w.Dropdown(options=["Vanilla"], description="Model")
        self.save = w.Button(description="Model as a file", layout=w.Layout(width="14em"))
        self.note, self.links = w.HTML(), w.HTML()
        self.widget = w.VBox([self.note, w.HBox([self.make, self.csv]), w.HBox([self.model, self.save]), self.links])
        self.found: dict[str, str] = {}
        self._folder: Path | None = None
        self.make.on_click(lambda button: self.write("report", lambda state, folder: state.report(folder)))
        self.csv.on_click(lambda button: self.write("table", self.threshold_table))
        self.save.on_click(lambda button: self.write("model", lambda state, folder: state.save(folder, self.model.value)))

    def show(self) -> None:
        self.found, self.links.value = {}, ""
        self.note.value = text(
            "The report is one HTML page with its figures inside; the methods at hand under Fix appear in it; "
            "with it comes the model's card. "
            "A model comes as a zip of its weights (.safetensors) and its description (.json), as helpers.models.load reads them."
        )
        self.come()

    def come(self) -> None:
        """The models that can be taken along now."""
        now = self.model.value
        fixes = self.page.state.fixes
        self.model.options = ["Vanilla", *(name for name in fixes if name != "Vanilla" and fixes[name].model is not None)]
        if now in self.model.options:
            self.model.value = now

    def threshold_table(self, state, folder: Path) -> Path:
        audit = next(each for each in self.page.tabs if each.title == "Audit")
        return state.table(folder, audit.threshold.value)

    def write(self, kind: str, work) -> None:
        """Make a file beside the page, then link it."""
        if self.page.state is None or self.page.state.opened is None:
            self.page.say("Nothing is open yet; press Open first.")
            return
        state, folder = self.page.state, self.folder()
        self.page.say(f"Writing the {kind} …" + (" It takes a minute or so." if kind == "report" else ""))
        self.page.jobs.run(kind, lambda: work(state, folder), lambda path: self.done(kind, path))

    def done(self, kind: str, path: Path) -> None:
        """Link what was made; with the report comes the model's card."""
        if kind == "report":
            self.link("card", path.with_suffix(".card.md"))
        self.link(kind, path)

    def folder(self) -> Path:
        if self._folder is None and self.page.downloads is None:
            self._folder = Path(tempfile.mkdtemp(prefix="candor-"))
        elif self._folder is None:
            self._folder = Path(self.page.downloads) / secrets.token_urlsafe(16)
            self._folder.mkdir(parents=True)
        return self._folder

    def link(self, kind: str, path: Path) -> None:
        """A link to a file; where no server hands it out the link holds it, or names its place if it is large."""
        size = path.stat().st_size
        words = f"{path.name} ({size / 2**20:.1f} MB)" if size > 2**19 else f"{path.name} ({-(-size // 1024)} kB)"
        if self.page.downloads is not None:
            where = f"voila/files/downloads/{path.parent.name}/{path.name}"
        elif size <= INLINE:
            kind_of = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            where = f"data:{kind_of};base64,{base64.b64encode(path.read_bytes()).decode()}"
        else:
            where = path.as_uri()
        self.found[kind] = f'<li><a href="{html.escape(where)}" download="{html.escape(path.name)}">{html.escape(words)}</a></li>'
        self.links.value = f"<h3>Downloads</h3><ul>{''.join(self.found.values())}</ul>"
        self.page.say(f"{path.name} is ready under Downloads.")
