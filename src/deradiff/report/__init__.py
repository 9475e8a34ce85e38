"""A sweep's results as one page that needs nothing but a browser."""

from deradiff.report.page import write_report as write_report
