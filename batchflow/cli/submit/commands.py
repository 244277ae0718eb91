"""The commands that have to do with a Ray cluster: ``submit``, ``jobs``, ``logs`` and ``stop``."""

from __future__ import annotations

import argparse
import sys
import time

from batchflow.cli.output import (
    FAILED,
    INTERRUPTED,
    OK,
    json_lines,
    of_job,
    print_error,
    print_lines,
    set_json_result,
    show_messages,
)
from batchflow.cli.submit.job_server import PATIENCE, JobInfo, JobServer
from batchflow.cli.submit.log_follower import LogPrinter
from batchflow.cli.submit.request import STOP_SECONDS, build_request, submit
from batchflow.core.text import printable


def run_submit(arguments: argparse.Namespace) -> int:
    """Begin a job unless it runs already, and follow it."""
    wanted = build_request(arguments, arguments.parser)
    cluster = JobServer(
        arguments.address, patience=PATIENCE, announce=lambda line: show_messages([f"batchflow: {line}"])
    )
    job_id, new = submit(wanted, cluster)
    show_messages([f"{'submitted' if new else 'runs already:'} {job_id}"])
    if arguments.wait:
        return _follow(cluster, job_id, arguments, new=new)
    if arguments.json:
        return set_json_result(arguments, OK, {"id": job_id, "new": new, "job": None})
    where = cluster.where
    show_messages([f"next: batchflow logs {job_id} --follow{where}; batchflow stop {job_id}{where}"])
    return OK


def _follow(cluster: JobServer, job_id: str, arguments: argparse.Namespace, *, new: bool = False) -> int:
    """Show the log of a job until it ends, and return its exit status."""
    log = _log(arguments)
    try:
        job = cluster.follow(job_id, log.hear)
    except KeyboardInterrupt:
        log.close()
        stop = f"batchflow stop {job_id}{cluster.where}"
        set_json_result(arguments, INTERRUPTED, {"id": job_id, "new": new, "job": None})
        return print_error(f"followed no longer; the job goes on: {stop} stops it", INTERRUPTED)
    log.close()
    if why := log.why(job):
        print_error(why, FAILED)
    show_messages([f"{job_id} {job.status.lower()} after {job.seconds or 0:,.0f} s"])
    return set_json_result(arguments, job.exit_status, {"id": job_id, "new": new, "job": of_job(job)})


def _log(arguments: argparse.Namespace) -> LogPrinter:
    """Return where the log of a job is shown: beside the one object that a program asked for, if any."""
    stream = show_messages if getattr(arguments, "json", False) else print_lines
    return LogPrinter(lambda line: stream([line]), sys.stderr)


def run_jobs(arguments: argparse.Namespace) -> int:
    """List jobs."""
    jobs = [job for job in JobServer(arguments.address).jobs() if job.ours or arguments.all]
    if arguments.lines:
        print_lines(json_lines(map(of_job, jobs)))
    else:
        print_lines(map(_job_line, jobs))
    return OK


def _job_line(job: JobInfo) -> str:
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.begun)) if job.begun else "-"
    return f"{job.id:<28} {job.status:<9} {begun:<19} {job.seconds or 0:>8,.0f} s  {printable(job.what)}"


def run_logs(arguments: argparse.Namespace) -> int:
    """Show what a job has printed."""
    cluster = JobServer(arguments.address)
    if arguments.follow:
        return _follow(cluster, arguments.id, arguments)
    log = _log(arguments)
    log.hear(cluster.logs(arguments.id))
    log.close()
    return OK


def run_stop(arguments: argparse.Namespace) -> int:
    """Stop a job."""
    cluster = JobServer(arguments.address)
    job = cluster.stop(arguments.id, 2 * STOP_SECONDS)
    if arguments.json:
        return set_json_result(arguments, OK if job.over else FAILED, {"job": of_job(job)})
    if not job.over:
        look = f"batchflow logs {job.id}{cluster.where}"
        return print_error(f"{job.id} has not ended yet, and is {job.status.lower()}: {look}", FAILED)
    show_messages([f"{job.id} {job.status.lower()} after {job.seconds or 0:,.0f} s"])
    return OK
