"""Fewer network function evaluations: rows skip networks that they do not need, and what is smooth is extrapolated."""

from deradiff.acceleration.adaptive import Adaptive as Adaptive
from deradiff.acceleration.cells import Budget as Budget
from deradiff.acceleration.policies import Exact as Exact
from deradiff.acceleration.policies import Policy as Policy
from deradiff.acceleration.policies import Reuse as Reuse
from deradiff.acceleration.policies import Weights as Weights
from deradiff.acceleration.runner import PolicyRunner as PolicyRunner
