"""Look: faces of your choice, up to four methods side by side, their scores beneath."""

from __future__ import annotations

import time

import ipywidgets as w

from helpers.explorer import panels
from helpers.explorer.sentences import face, readable, table, text

NONE = "(none)"
FIRST = ("saliency", "grad_cam", "integrated_gradients", NONE)
SOON = 0.6  # seconds
SHOWN = 2  # faces that are ticked at first
WORDS = {
    "deletion": "deletion: score kept while the most relevant pixels go, in 20 steps (lower is better)",
    "pointing_game": "pointing game: share of faces whose most relevant pixel lies on the {}",
    "relevance_mass": "relevance mass: share of the relevance on the {}",
}


class LookTab:
    """Maps are made beside the page, one method after the other, and shown as they come."""

    title = "Look"

    def __init__(self, page):
        self.page, self.number, self._quiet = page, 0, False
        self.kind = w.Dropdown(options=["all"], description="Faces")
        self.more = w.Button(description="Next faces", tooltip="Show other faces of this kind")
        self.faces = w.HBox(layout=w.Layout(flex_flow="row wrap"))
        self.methods = [
            w.Dropdown(options=FIRST, value=name, description=f"Method {number}", layout=w.Layout(width="20em"))
            for number, name in enumerate(FIRST, 1)
        ]
        self.maps, self.scores = w.HTML(), w.HTML()
        chosen = w.HBox([self.kind, self.more]), w.HBox(self.methods, layout=w.Layout(flex_flow="row wrap"))
        self.widget = w.VBox([chosen[0], self.faces, chosen[1], self.maps, self.scores])
        self.rows: list[int] = []
        self.kind.observe(lambda change: self.page.guard(self.turned), "value")
        self.more.on_click(lambda button: self.page.guard(self.next))
        for each in self.methods:
            each.observe(lambda change: self.page.guard(self.update), "value")

    def show(self) -> None:
        """Faces and methods for what is open now."""
        from helpers.attribution import methods

        names = methods().query("backend != 'xplique'")["name"].drop_duplicates().tolist()  # that one starts TensorFlow first
        self._quiet = True
        try:
            for each in self.methods:
                now = each.value
                each.options = [NONE, *names]
                each.value = now
            self.kind.options = ["all", "wrong", "right", *self.page.state.faces.groups]
            self.kind.value = "all"
        finally:
            self._quiet = False
        self.turned()

    def next(self) -> None:
        self.number += 1
        self.fill()

    def turned(self) -> None:
        """Another kind of faces: its first page."""
        if not self._quiet:
            self.number = 0
            self.fill()

    def fill(self) -> None:
        """A page of faces to tick."""
        state = self.page.state
        self.rows = state.rows(self.kind.value, self.number)
        cells = []
        for place, row in enumerate(self.rows):
            tick = w.Checkbox(
                value=place < SHOWN, description=f"face {row}", indent=False, layout=w.Layout(width="9em"),
                tooltip=state.label(row),
            )  # fmt: skip
            tick.observe(lambda change: self.page.guard(self.update), "value")
            cells.append(w.VBox([w.HTML(face(state.image(row), state.label(row))), tick]))
        self.faces.children = cells
        self.update()

    @property
    def ticked(self) -> list[int]:
        return [row for row, cell in zip(self.rows, self.faces.children, strict=True) if cell.children[1].value]

    def update(self) -> None:
        """Make and show the maps of the ticked faces."""
        if self._quiet:
            return
        rows = self.ticked
        names = [name for name in dict.fromkeys(each.value for each in self.methods) if name != NONE]
        if not rows or not names:
            words = "Tick at least one face and choose at least one method." if self.rows else "No face is of this kind."
            self.maps.value = text(words)
            self.scores.value = ""
            return
        self.page.say(f"Explaining {len(rows)} face{'s' * (len(rows) > 1)} by {', '.join(map(readable, names))} …")
        self.page.jobs.run("look", lambda: self.explain(rows, names), self.done)

    def explain(self, rows: list[int], names: list[str]) -> tuple[str, str, str]:
        """The panel, the table of scores and a sentence; a method that does not work for this model says why."""
        state, able, failed, shown = self.page.state, [], [], time.monotonic()
        images = state.faces[rows][0]
        labels = [f"face {row}, for {state.faces.classes[state.predicted[row]]}" for row in rows]
        for name in names:
            try:
                state.maps(rows, name)
                able.append(name)
            except ValueError as error:
                failed.append(f"{readable(name)} is left out: {error}")
            self.page.jobs.check("look")
            maps = {name: state.maps(rows, name) for name in able}
            last = name == names[-1]
            if able and (last or time.monotonic() - shown > SOON):  # what takes longer has something to see meanwhile
                drawn = self.maps.value = panels.methods(images, labels, maps)
                shown = time.monotonic()
        if not able:
            self.maps.value = self.scores.value = ""
            raise ValueError("; ".join(failed))
        said = " ".join(f"{words[:1].upper()}{words[1:]}." for words in failed)
        return drawn, score_table(state, rows, able), said or f"{len(rows)} by {len(able)} maps are shown, with their scores."

    def done(self, found: tuple[str, str, str]) -> None:
        self.maps.value, self.scores.value, said = found
        self.page.say(said)


def score_table(state, rows: list[int], names: list[str]) -> str:
    """The scores of the methods as a table, and what each column means."""
    import pandas as pd

    scores = state.scores(rows, names)
    shown = pd.DataFrame({"method": [readable(name) for name in scores.index]})
    for column in scores.columns:
        shown[readable(column)] = ["–" if value != value else f"{value:.2f}" for value in scores[column]]
    target = readable(state.faces.target)
    notes = "; ".join(WORDS[column].format(f"pixels of {target}") for column in scores.columns)
    few = f"Means over {len(rows)} face{'s' * (len(rows) > 1)}: an impression, not a ranking. "
    return table(shown, "Scores of the maps shown") + text(few + notes[:1].upper() + notes[1:] + ".")
