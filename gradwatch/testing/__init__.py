"""Scenarios: real and broken training runs, for the demo and for tests."""
