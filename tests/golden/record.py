"""Record the answers to `cases.py` again; the commit explains each difference.

python tests/golden/record.py
"""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    os.environ["DUNNO_RECORD"] = "1"
    sys.exit(pytest.main(["-q", str(Path(__file__).with_name("test_golden.py"))]))
