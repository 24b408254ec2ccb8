"""report.html and curves.png: what a run showed, on one page to send to colleagues."""

from server.report.write import write_report

__all__ = ["write_report"]
