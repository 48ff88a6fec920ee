"""The service's side: reads `state.json` files, never Keras or TensorFlow."""
