"""Fixtures and settings for all tests."""

import os

from hypothesis import HealthCheck, settings

# Before torch is loaded: with spinning threads, two processes on two cores slow each other
# thirtyfold (docs/decisions.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker is a core's share of the tests; also the servers that it starts.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no fault of the program.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
