"""Ray Data: records through a function of each, into Parquet."""

import os
import sys

from benchmarks.functions import CORES, RECORDS
from benchmarks.reporting import comparable, parquet_rows, report

if __name__ == "__main__":
    kind, out, *sources = sys.argv[1:]
    import ray

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    if kind == "csv":
        from pyarrow.csv import ParseOptions

        data = ray.data.read_csv(sources, parse_options=ParseOptions(newlines_in_values=True))
    else:
        data = ray.data.read_json(sources)
    data.map(RECORDS[kind]).write_parquet(out)
    ray.shutdown()
    report(lambda: comparable(parquet_rows(out)))
