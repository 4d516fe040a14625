"""Fix: mitigation methods on the Pareto plot, and any of them before and after."""

from __future__ import annotations

import ipywidgets as w

from helpers.explorer import panels
from helpers.explorer.sentences import interval, picture, readable, sentence, table, text

QUICK = ("LEACE", "PCLARC", "INLP", "DFR", "NT", "GT", "ROC")  # about one pass over the faces; all others train
FIRST = ("LEACE", "DFR", "GT")
FACES = 2
MAP = "saliency"


class FixTab:
    """Methods run beside the page; each appears as it comes and is kept, so that a closed page loses none."""

    title = "Fix"

    def __init__(self, page):
        self.page, self._quiet = page, False
        self.methods = w.SelectMultiple(
            options=QUICK, value=FIRST, rows=7, description="Methods", layout=w.Layout(width="22em"),
            tooltip="Several: hold Ctrl, or Shift with the arrow keys",
        )  # fmt: skip
        self.run = w.Button(description="Run", button_style="primary", tooltip="Fit the chosen methods on the validation faces")
        self.stop = w.Button(description="Cancel", tooltip="Stop; methods that are finished are kept", disabled=True)
        self.bar = w.IntProgress(min=0, max=1, description="Progress", style={"description_width": "initial"})
        self.note = w.HTML()
        self.plot, self.compare, self.table, self.maps = w.HTML(), w.ToggleButtons(options=[]), w.HTML(), w.HTML()
        self.compare.description, self.compare.style.description_width = "Compare", "initial"
        self.compare.layout.display = "none"
        side = w.VBox([w.HBox([self.run, self.stop]), self.bar, self.note])
        top = w.HBox([self.methods, side], layout=w.Layout(flex_flow="row wrap"))
        below = w.HBox([self.plot, self.table], layout=w.Layout(flex_flow="row wrap"))
        self.widget = w.VBox([top, self.compare, below, self.maps])
        self.run.on_click(lambda button: self.page.guard(self.start))
        self.stop.on_click(lambda button: self.page.jobs.cancel("fix"))
        self.compare.observe(lambda change: self.page.guard(self.compared), "value")

    def show(self) -> None:
        """What is at hand for what is open, an earlier visit's results included."""
        from helpers.debiasing.method import METHODS

        state = self.page.state
        rest = [name for name in METHODS if name not in QUICK]
        self.methods.options = [*((name, name) for name in QUICK), *((f"{name} (trains: minutes)", name) for name in rest)]
        self.methods.value = FIRST
        at_hand = state.kept_fixes()
        self.note.value = text(
            f"Methods are fitted on {len(state.now.fit):,} faces of the validation split and judged on the {len(state.faces):,} "
            "that the other tabs show." + (f" At hand from before: {', '.join(at_hand)}." if at_hand else "")
        )
        self.compare.options, self.plot.value, self.table.value, self.maps.value = [], "", "", ""
        self.compare.layout.display = "none"
        if at_hand:
            self.work(at_hand)

    def start(self) -> None:
        """Run what is selected and not at hand."""
        if not self.methods.value:
            raise ValueError("methods: none is selected; select at least one, several with Ctrl")
        if self.page.jobs.running("fix"):
            raise ValueError("methods: a run is under way; cancel it first, or wait for it")
        self.page.say(f"Running {', '.join(self.methods.value)} …")
        self.work(list(self.methods.value))

    def work(self, methods: list[str]) -> None:
        state, opened = self.page.state, self.page.state.now
        self.bar.max, self.bar.value = len(methods), 0
        self.run.disabled, self.stop.disabled = True, False

        def told(result) -> None:
            if state.opened is not opened:
                return
            self.bar.value += 1
            self.drawn(None)
            self.page.say(f"{result.method}: {result.error or 'is there'} ({self.bar.value} of {len(methods)}).")

        self.page.jobs.run("fix", lambda: state.fix(methods, told), self.drawn, self.ended)

    def ended(self) -> None:
        self.run.disabled, self.stop.disabled = False, True

    def drawn(self, results) -> None:
        """The plot of what is there, and a button for each model."""
        from helpers.debiasing.result import to_frame
        from helpers.plots.debiasing import pareto

        state = self.page.state
        able = [name for name, result in state.fixes.items() if result.model is not None]
        frame = to_frame({name: state.fixes[name] for name in able})
        self.plot.value = picture(lambda: pareto(frame), dpi=70)
        others = able[1:]
        now = self.compare.value
        self._quiet = True
        try:
            self.compare.options = others
            self.compare.value = now if now in others else None
        finally:
            self._quiet = False
        self.compare.layout.display = "" if others else "none"
        if results is not None:
            self.bar.value = self.bar.max
            failed = [f"{name} failed: {result.error}" for name, result in state.fixes.items() if result.error]
            self.page.say(f"{len(others)} models are at hand; choose one under Compare. {'. '.join(failed)}".strip())
            if self.compare.value is None and others:
                self.compare.value = others[0]

    def compared(self) -> None:
        """Before and after for the method whose button was pressed."""
        if self._quiet or self.compare.value is None:
            return
        method = self.compare.value
        self.table.value = change_table(self.page.state.fixes[method])
        self.page.jobs.run("compare", lambda: self.before_after(method), self.mapped)

    def before_after(self, method: str) -> str:
        """Maps of the model as it was and of the mitigated one, on faces that the model as it was gets wrong."""
        state = self.page.state
        rows = state.rows("wrong", count=FACES) or state.rows(count=FACES)
        try:
            maps = [state.maps(rows, MAP, name) for name in ("Vanilla", method)]
        except (ValueError, TypeError) as error:
            return text(f"No maps after {method}. {sentence(error)}")
        images = state.faces[rows][0]
        labels = [f"face {row}, for {state.faces.classes[state.predicted[row]]}" for row in rows]
        return panels.change(labels, *maps, ("Vanilla", method), images)

    def mapped(self, drawn: str) -> None:
        self.maps.value = drawn
        self.page.say(f"{self.compare.value} beside the model as it was: decisions in the table, maps beneath.")


def change_table(result) -> str:
    """Accuracy and gap after, with their changes, and each group's true and false positive rate with its verdict."""
    import pandas as pd

    audit, rows = result.audit, []
    after = {
        "balanced_accuracy": interval(audit.value("balanced_accuracy"), *audit.interval("balanced_accuracy")),
        "equalized_odds": interval(audit.gap("equalized_odds"), *audit.gap_interval("equalized_odds")),
    }
    for name, words in zip(after, ("balanced accuracy", "equalized-odds gap"), strict=True):
        rows.append((words, after[name], signed(*result.get_change(name)), ""))
    groups = result.comparison.by_group.rename(columns={"class": "label"})
    for row in groups[groups["statistic"].isin(("true_positive_rate", "false_positive_rate"))].itertuples():
        label = f" ({row.label})" if getattr(row, "label", "") else ""
        words = f"{row.group}: {readable(row.statistic)}{label}"
        rows.append((words, f"{row.second:.3f}", signed(row.change, row.low, row.high), row.verdict))
    shown = pd.DataFrame(rows, columns=["number", "after", "change", "verdict"])
    return table(shown, f"{result.method} against the model as it was") + text(result.note)


def signed(change: float, low: float, high: float) -> str:
    """A change with its interval, or a dash."""
    return f"{change:+.3f} [{low:+.3f}, {high:+.3f}]" if change == change else "–"
