"""The private side: one shard of data, local training, nothing else."""
