"""The services of training, one module for each noun: coins, datasets, runs, bundles, estimates."""
