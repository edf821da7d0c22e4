"""Fixtures and settings for all tests."""

import os

# Before torch is loaded: with spinning threads, two processes on two cores slow each other
# thirtyfold (docs/decisions.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
