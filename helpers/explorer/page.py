"""The page: what is chosen above, the tabs below, and one line that says what happens."""

from __future__ import annotations

import html
import json
import os

import ipywidgets as w

from .jobs import Jobs
from .sentences import sentence
from .tabs.audit import AuditTab
from .tabs.fix import FixTab
from .tabs.look import LookTab
from .tabs.report import ReportTab
from .tabs.what_if import WhatIfTab

SETTINGS = "CANDOR_EXPLORER"  # environment variable by which `serve` tells the page what to open: JSON
DATA = ("illustrated", "orl", "celeba", "fairface", "utkface", "lfw", "bfw")


class Page:
    """One visitor's page.

    Nothing heavy is imported before the page is drawn: it appears first and opens its data then, in a thread.

    Parameters
    ----------
    root : the folder that paths of data and models lie in
    downloads : a folder that the server hands out as `voila/files/downloads/…`; None: links hold the files themselves
    **choice : fields of `helpers.explorer.choice.Choice`
    """

    def __init__(self, root: str = ".", downloads: str | None = None, **choice):
        self.root, self.downloads, self.state = root, downloads, None
        self.line = w.HTML()
        self.line.add_class("candor-status")
        self.jobs = Jobs(self.say)
        wide, narrow = {"description_width": "initial"}, w.Layout(width="6em")
        self.data = w.Combobox(
            value=choice.get("data") or "", options=DATA, description="Data", style=wide, ensure_option=False,
            placeholder="the model's own", continuous_update=False, layout=w.Layout(width="15em"),
        )  # fmt: skip
        self.model = w.Text(
            value=choice.get("model") or "", description="Model", style=wide, continuous_update=False,
            placeholder="a file; empty: one trained on the data", layout=w.Layout(width="23em"),
        )  # fmt: skip
        self.target = w.Text(
            value=choice.get("target") or "", description="Target", style=wide, placeholder="the data's own",
            continuous_update=False, layout=w.Layout(width="14em"),
        )  # fmt: skip
        self.open = w.Button(description="Open", button_style="primary", tooltip="Open the chosen data and model", layout=narrow)
        self.stop = w.Button(description="Cancel", tooltip="Stop opening", disabled=True, layout=narrow)
        self.protected = w.Dropdown(options=[], description="Protected attribute", style=wide, disabled=True)
        self.tabs = [tab(self) for tab in (AuditTab, LookTab, WhatIfTab, FixTab, ReportTab)]
        self.tab = w.Tab([each.widget for each in self.tabs], titles=[each.title for each in self.tabs])
        chosen = w.HBox([self.data, self.model, self.target, self.open, self.stop, self.protected])
        chosen.layout.flex_flow = "row wrap"
        heading = w.HTML("<h1>Candor: look at a face classifier</h1>")
        self.widget = w.VBox([heading, chosen, self.line, self.tab])
        self.widget.add_class("candor-page")
        self._shown: set[int] = set()
        self._quiet = False
        self._fixed = {name: choice[name] for name in ("image_size", "seed") if name in choice}
        self._protected = choice.get("protected") or ""
        self.open.on_click(lambda button: self.start())
        self.stop.on_click(lambda button: self.jobs.cancel("open"))
        self.protected.observe(lambda change: self.guard(self.regroup), "value")
        self.tab.observe(lambda change: self.guard(self.show), "selected_index")

    def say(self, words: str) -> None:
        """Put a sentence into the one line that a screen reader is told of."""
        self.line.value = f"<p>{html.escape(words)}</p>"

    def guard(self, act) -> None:
        """Do something at once; what goes wrong becomes a sentence."""
        try:
            act()
        except Exception as error:
            self.say(sentence(error))

    def start(self) -> None:
        """Open what is chosen, beside the page."""
        named = filter(None, [self.data.value.strip(), self.model.value.strip()])
        words = f"Opening {' with '.join(named) or 'the drawn faces'} …"
        self.say(f"{words} A network that was never trained here is trained first, which takes minutes.")
        self.open.disabled, self.stop.disabled = True, False
        self.jobs.run("open", self.read, self.opened, self.ended)

    def read(self):
        """In a thread: the imports, the faces, the predictions."""
        from .choice import Choice
        from .state import State

        state = self.state or State(self.root)
        # The name of a column of the data before need not exist in these.
        protected, self._protected = self._protected, ""
        state.open(Choice(self.data.value, self.model.value, self.target.value.strip(), protected, **self._fixed))
        return state

    def opened(self, state) -> None:
        """Show what was opened."""
        self.state = state
        choice = state.now.choice
        self._quiet = True
        try:
            self.protected.options = state.columns
            self.protected.value = choice.protected
        finally:
            self._quiet = False
        self.data.value, self.target.value, self.protected.disabled = choice.data, choice.target, False
        self._shown.clear()
        self.show()
        classes = " and ".join(state.faces.classes)
        said = f"{len(state.faces):,} faces of {state.faces.name} are open; the model tells {classes} apart."
        self.say(f"{said} {state.now.note}".strip())

    def ended(self) -> None:
        self.open.disabled, self.stop.disabled = False, True

    def regroup(self) -> None:
        """Compare the groups of another column."""
        if self._quiet or self.state is None or self.protected.value is None:
            return
        self.state.relabel(self.protected.value)
        self._shown.clear()
        self.show()
        self.say(f"Groups are now made by {self.protected.value}: {', '.join(self.state.faces.groups)}.")

    def show(self) -> None:
        """Fill the tab that is looked at, if it has not been since something changed."""
        number = self.tab.selected_index or 0
        if self.state is not None and self.state.opened is not None and number not in self._shown:
            self._shown.add(number)
            self.tabs[number].show()
        elif hasattr(self.tabs[number], "come") and self.state is not None:
            self.tabs[number].come()


def from_environment() -> Page:
    """The page that `serve` was asked for: settings come as JSON in `CANDOR_EXPLORER`."""
    page = Page(**json.loads(os.environ.get(SETTINGS, "{}")))
    page.start()
    return page
