"""Fewer network calls: rows that need no network don't go through one, and what is smooth is not computed again."""

from deradiff.reuse.adaptive import Adaptive as Adaptive
from deradiff.reuse.calls import Budget as Budget
from deradiff.reuse.grid import Grid as Grid
from deradiff.reuse.policy import Exact as Exact
from deradiff.reuse.policy import Policy as Policy
from deradiff.reuse.policy import Reuse as Reuse
from deradiff.reuse.policy import Weights as Weights
