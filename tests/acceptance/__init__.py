"""Proofs that take long: `make acceptance`."""
