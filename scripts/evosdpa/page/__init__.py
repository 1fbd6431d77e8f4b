"""The report: one HTML file made from gap.json alone."""

from evosdpa.page.render import build

__all__ = ["build"]
