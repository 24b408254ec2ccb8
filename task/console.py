"""rich's console, for output whose reader may leave."""

import rich.console


class Console(rich.console.Console):
    """A console that falls silent when its pipe is closed, as by `head`; rich's own ends the process or the thread."""

    def on_broken_pipe(self) -> None:
        """Show nothing from now on: what the command is about are its files."""
        self.quiet = True
