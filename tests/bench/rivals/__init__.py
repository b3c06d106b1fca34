"""What ``python -m tests.bench others`` runs: one script for each tool, and the list of them.

A script is run by its path, with the Python of the tool's own environment, and imports nothing of
this project but ``told``, which stands beside it.
"""
