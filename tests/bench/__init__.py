"""Measurements, never tests: `make bench` and `make acceptance`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
