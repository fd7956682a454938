"""Verdicts on tables of any size by Ray Data: CSV or Parquet in, Parquet out, on all cores.

    python ray_predict.py wine bottles/ verdicts/

Each row keeps its own columns and gets those of `dunno predict --output`; the order is any.
"""

import argparse
import os
from pathlib import Path

import pyarrow as pa
import ray
from pyarrow import csv
from ray.data import SaveMode, TaskPoolStrategy

from service.offline.arrow import verdicts_beside, worker_model


def verdicts(table: pa.Table, model: str, models: Path, column: str | None) -> pa.Table:
    """Runs in Ray's workers: each is a process of one core, and loads the model once."""
    return verdicts_beside(table, worker_model(model, models), column)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="of the catalogue")
parser.add_argument("rows", help="a file or a folder")
parser.add_argument("verdicts", help="a folder that is not there yet")
parser.add_argument("--models", type=Path, default="models", help="folder on every machine")
parser.add_argument("--workers", type=int, help="at most; all cores unless told")
parser.add_argument("--column", help="holds texts or pictures; none: features by their names")
parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
parser.add_argument("--delimiter", default=",", help="of CSV")
given = parser.parse_args()

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
ray.init(include_dashboard=False)
if given.format == "parquet":
    rows = ray.data.read_parquet(given.rows)
else:
    # All cells as text: what is no number is an error of its row, and leading zeros stay.
    text = csv.ConvertOptions(default_column_type=pa.string())
    rows = ray.data.read_csv(
        given.rows, parse_options=csv.ParseOptions(delimiter=given.delimiter), convert_options=text
    )
rows.map_batches(
    verdicts,
    fn_args=(given.model, given.models.resolve(), given.column),
    batch_format="pyarrow",
    batch_size=1024,
    compute=TaskPoolStrategy(given.workers),
).write_parquet(given.verdicts, mode=SaveMode.ERROR)
