"""The offline page of a race: ``write_report(results, path)``."""

from jaxopt_tour.tour.report.page import render, write_report

__all__ = ["render", "write_report"]
