"""Reports: the results of one or two runs as a self-contained html page."""

from deradiff.report.page import write_report as write_report
