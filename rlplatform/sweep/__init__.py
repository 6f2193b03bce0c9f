"""Hyper-parameter sweeps: what is searched, the book that is kept, the trials on Ray Tune, and the winner on held-out seeds."""
