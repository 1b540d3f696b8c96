"""Which blocks to replace: costs, evaluation, a model of the loss, proposals, the Pareto set."""
