"""A job on a Ray that is warm, by ours or by Ray Data, or on warm processes of ours; only the call is timed."""

import os
import sys
import time

from benchmarks.functions import CORES, clean
from benchmarks.reporting import comparable, parquet_rows, report


def connected():
    import ray

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return ray


def with_ray_data(source, out):
    import ray

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.read_json(source).map(clean).write_parquet(out)


if __name__ == "__main__":
    way, out, *sources = sys.argv[1:]
    if way == "ray_data":
        ray = connected()
        work = with_ray_data
    else:
        import batchflow as bf

        if way == "ray":
            connected()
        warm = {"ray": bf.Ray, "processes": lambda: bf.Processes(CORES)}[way]().__enter__()

        def work(source, out):
            bf.map_records(clean, bf.read_json(source), into=f"{out}/", executor=warm, progress=False)

    seconds = 0.0
    for number, source in enumerate(sources):
        began = time.perf_counter()
        work(source, f"{out}-{number}")
        seconds = time.perf_counter() - began
    if way == "processes":
        warm.__exit__(None, None, None)
    report(lambda: comparable(parquet_rows(f"{out}-{len(sources) - 1}")), seconds)
