"""The script for Ray of docs/scaling.md, in an environment of its own, beside `dunno predict`."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import csv, parquet

from service.cli import main
from service.offline.engines import load_local
from service.settings import Settings

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
PYTHON = ROOT / ".venv-ray" / "bin" / "python"
SCRIPT = ROOT / "docs/examples/ray_predict.py"
BAD_PH = 98.75
TOLERANCE = 1e-6
"""Of probabilities: rows run in other batches, which some processors add up in another order."""

Rows = dict[tuple[str, int], dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def _environment() -> None:
    if not PYTHON.exists() and "DUNNO_CHECK" not in os.environ:
        pytest.skip("`make check` installs Ray")


def bottles(rows: int, first_bad: int, step: int) -> pa.Table:
    """Return wines around the golden ones, each `step`-th of which cannot be read."""
    rng = np.random.default_rng(rows)
    golden = np.load(MODELS / "wine/1/golden.npz")["rows"]
    values = np.resize(golden, (rows, golden.shape[1])) * rng.uniform(0.7, 1.3, (rows, 1))
    names = load_local("wine", Settings(models=MODELS)).features
    values[first_bad::step, names.index("pH")] = BAD_PH
    table = pa.table(dict(zip(names, values.astype(np.float64).T, strict=True)))
    # Names that verdicts have as well, as tables for training do.
    return table.append_column("row", pa.array(range(rows))).append_column(
        "label", pa.array(["?"] * rows)
    )


def written(folder: Path, form: str) -> Path:
    """Write two files, of the second of which no row can be read."""
    folder.mkdir()
    for name, table in (("cellar", bottles(3000, 5, 7)), ("spoilt", bottles(1500, 0, 1))):
        whole = table.append_column("cellar", pa.array([f"0{name}"] * len(table)))
        path = folder / f"{name}.{form}"
        if form == "csv":
            csv.write_csv(whole, path)
            path.write_text(path.read_text().replace(f",{BAD_PH:g},", ",n/a,"))
        else:
            parquet.write_table(whole, path, row_group_size=700)
    return folder


def by_ray(form: str, rows: Path, verdicts: Path) -> Rows:
    words = ["wine", str(rows), str(verdicts), "--models", str(MODELS), "--format", form]
    # Sockets have short names; and Ray writes a token into the home of whoever starts it.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        environment = os.environ | {"RAY_TMPDIR": folder, "HOME": folder}
        done = subprocess.run(  # noqa: S603  our own script
            [PYTHON, SCRIPT, *words],
            env=environment,
            capture_output=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = parquet.read_table(verdicts).to_pylist()
    return {(row.pop("cellar"), int(row.pop("row"))): row for row in found}


def by_command(rows: Path, verdicts: Path) -> Rows:
    words = ["predict", "wine", rows, "--models", MODELS, "--output", verdicts]
    CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    found = parquet.read_table(verdicts).to_pylist()
    return {(f"0{Path(row.pop('file')).stem}", row.pop("row")): row for row in found}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_every_row_gets_the_verdict_of_the_command(tmp_path: Path, form: str) -> None:
    rows = written(tmp_path / "rows", form)

    found = by_ray(form, rows, tmp_path / "verdicts")
    expected = by_command(rows, tmp_path / "verdicts.parquet")

    assert len(found) == 4500
    assert found.keys() == expected.keys()
    assert {row["verdict"] for row in found.values()} == {"answer", "dont_know", None}
    assert {row["input_label"] for row in found.values()} == {"?"}
    for key, row in found.items():
        for name, value in expected[key].items():
            if name == "error":
                assert (row[name] is None) == (value is None)
                assert value is None or value.endswith(row[name])
            else:
                is_number = isinstance(value, float)
                assert row[name] == (pytest.approx(value, abs=TOLERANCE) if is_number else value)
