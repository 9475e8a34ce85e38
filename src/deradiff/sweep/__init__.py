"""Sweeps of lam: plan, run, journal."""

from deradiff.sweep.journal import Journal as Journal
from deradiff.sweep.plan import Cell as Cell
from deradiff.sweep.plan import Plan as Plan
