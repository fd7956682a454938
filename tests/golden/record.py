"""Records the answers to `cases.py` anew: a difference is a decision, which its commit explains.

python tests/golden/record.py
"""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    os.environ["DUNNO_RECORD"] = "1"
    sys.exit(pytest.main(["-q", str(Path(__file__).with_name("test_golden.py"))]))
