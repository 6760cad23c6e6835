"""Training one coin: recipes, the network, the training loop, its resume checkpoint."""
