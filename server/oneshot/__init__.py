"""Finished models, combined once."""
