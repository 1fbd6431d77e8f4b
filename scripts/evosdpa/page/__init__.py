"""The report: one HTML file made from gap.json alone; render.py builds it."""
