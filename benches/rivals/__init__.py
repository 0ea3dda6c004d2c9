"""The rivals' Python interfaces, each in a file that knows how to fill and ask it."""

import os

# Dynamo reads it when it is first imported. Its log of every worker is not what is measured.
os.environ.setdefault("DYN_LOG", "error")
