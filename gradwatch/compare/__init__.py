"""Two recorded runs side by side, and where they part.

Must not import keras or tensorflow.
"""
