"""Real data to begin with, from the package index, and the classifier trained of it."""
