"""Many experiments: mitigation methods × data sets × biases × seeds, from one file, each done once and kept.

A *problem* is a data set, a bias and a seed, with the network trained on it; a *cell* is a method on a problem. A cell is kept in
a file whose name is the hash of what the plan says of it, so that a run that was killed goes on where it was, and a plan to which
a method or a seed is added computes only what is new.

>>> from helpers import experiments
>>> results = experiments.run(experiments.read_plan("plan.yaml"), "results")  # doctest: +SKIP
>>> experiments.ranks(results).table  # doctest: +SKIP
"""

from helpers.experiments.plan import Plan, Problem, read_plan
from helpers.experiments.running import collect, run
from helpers.experiments.summary import Ranking, over_seeds, ranks, to_markdown

__all__ = ["Plan", "Problem", "Ranking", "collect", "over_seeds", "ranks", "read_plan", "run", "to_markdown"]
