"""Attacks on a running server: an enrolled client that lies, and strangers at the open port."""
