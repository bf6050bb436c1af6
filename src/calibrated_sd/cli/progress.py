"""How far a command has come."""

from __future__ import annotations

from calibrated_sd.cli.console import console


class Progress:
    """A progress bar on a terminal; elsewhere one plain line per tenth of the work.

    Args:
        what: what is counted, e.g. ``"completions"``.
        total: how many there will be.
    """

    def __init__(self, what: str, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.what = what
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task(what, total=total)
        self.shown = -1

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` are finished."""
        self.bar.update(self.task, completed=done)
        if not console.is_terminal and (tenth := 10 * done // max(total, 1)) > self.shown:
            self.shown = tenth
            console.print(f"{self.what} {done}/{total}", highlight=False)
