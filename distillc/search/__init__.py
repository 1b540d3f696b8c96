"""Which blocks to replace: prices, evaluation, a model of the loss, proposals, the Pareto set."""
