"""One model each, found by file name: a new recipe is a new file here and nothing else."""
