"""Two processors for TensorFlow, as replicas need them."""

from __future__ import annotations

import tensorflow as tf


def pytest_configure() -> None:
    """Before anything has run: TensorFlow asks for that."""
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
