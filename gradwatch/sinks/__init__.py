"""Out: where records go, one third-party package each."""
