"""Programs that tests start and that a machine may lack."""

import shutil

import pytest

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
