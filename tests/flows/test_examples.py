"""Flows as people write them, with real parts: servers, files and mail; on every executor."""

import json
import os
import random
import smtplib
import sys
import threading
import urllib.request
from collections import Counter
from email.message import EmailMessage

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from aborted import aborted
from servers import HOST, LONGEST, MailServer, Sources, nobody

import batchflow as bf
from batchflow.events import StepEnded

WAITS = bf.Resources(cpus=0)
REGIONS = ("north", "south", "west")
ORDERS = {"north": [10, 20, 30], "south": [5], "west": [7, 8]}


def fetch(address):
    with urllib.request.urlopen(address, timeout=LONGEST) as answer:
        return json.load(answer)


def by_region(fetched):
    return {document["region"]: document["orders"] for document in fetched}


def summary(orders):
    return "\n".join(f"{region}: {len(of)} orders, {sum(of)} in all" for region, of in orders.items())


def states(run):
    return {step.name: step.state for step in run.steps}


@pytest.fixture
def sources():
    """An HTTP server of the orders of three regions."""
    documents = {region: {"region": region, "orders": orders} for region, orders in ORDERS.items()}
    with Sources(documents).running() as server:
        yield server


class TestThreeSources:
    """Fetched at once, put together by region, summed up."""

    LATENCY = 0.5

    def flow(self, sources):
        flow = bf.Flow("orders")
        fetched = [flow.step(fetch, sources.address(one), name=f"fetch {one}", per_task=WAITS) for one in REGIONS]
        flow.step(summary, flow.step(by_region, fetched), name="report")
        return flow

    def slow(self, _):
        """Take a while, like a service far away."""
        threading.Event().wait(self.LATENCY)

    def test_the_report(self, executor, sources):
        sources.before = self.slow
        run = self.flow(sources).run(executor=executor, keep=["by_region"])
        assert run["by_region"].value == ORDERS
        assert (
            run["report"].value
            == "north: 3 orders, 60 in all\nsouth: 1 orders, 5 in all\nwest: 2 orders, 15 in all"
        )
        assert sources.seen == Counter(REGIONS)
        assert all(run[f"fetch {one}"].seconds >= self.LATENCY for one in REGIONS)

    def test_all_are_fetched_at_once(self, remote, sources):
        """None is answered before all have asked; then all at once take hardly longer than the slowest one."""
        meeting = threading.Barrier(len(REGIONS), timeout=LONGEST)
        sources.before = lambda _: meeting.wait()
        assert self.flow(sources).run(executor=remote).raise_for_errors()["report"].state == "succeeded"
        assert sources.most == 3
        sources.before = self.slow  # now that there are workers to wait
        run = self.flow(sources).run(executor=remote)
        steps = [run[f"fetch {one}"] for one in REGIONS]
        took = max(step.end for step in steps) - min(step.start for step in steps)
        assert took < 1.3 * max(step.seconds for step in steps)
        assert took < sum(step.seconds for step in steps) / 2


class TestOneSourceDown:
    """It answers 503, or nobody is there."""

    @pytest.fixture(params=["503", "refused"])
    def addresses(self, request, sources):
        del sources.documents["south"]
        with nobody() as refused:
            down = refused if request.param == "refused" else sources.address("south")
            yield {"south": down} | {one: sources.address(one) for one in ("north", "west")}

    @pytest.fixture
    def why(self, addresses, sources):
        if addresses["south"] == sources.address("south"):
            return "HTTPError: HTTP Error 503: Service Unavailable"
        return "URLError: <urlopen error [Errno 111] Connection refused>"

    def test_abort_stops_everything_behind_it(self, executor, sources, addresses, why):
        """The others are answered only when it is known to have failed: what they began they may finish."""
        known = threading.Event()
        sources.before = lambda path: path == "south" or known.wait(LONGEST)
        flow = bf.Flow("orders")
        fetched = {one: flow.step(fetch, at, name=f"fetch {one}", per_task=WAITS) for one, at in addresses.items()}
        orders = flow.step(by_region, list(fetched.values()))
        flow.step(summary, orders, name="report")
        flow.step(sum, flow.step(lambda document: document["orders"], fetched["north"], name="take"), name="total")

        def hear(event):
            if isinstance(event, StepEnded) and event.step == "fetch south":
                known.set()

        run = aborted(flow, executor=executor, on_error="abort", listeners=[hear])
        assert states(run) == {
            "fetch south": "failed",
            "fetch north": run["fetch north"].state,
            "fetch west": run["fetch west"].state,
            "by_region": "skipped",
            "report": "skipped",
            "take": run["take"].state,
            "total": run["total"].state,
        }
        assert {run["take"].state, run["total"].state} <= {"cancelled", "skipped"}
        assert [step.attempts for step in run.steps[3:]] == [0, 0, 0, 0]
        if executor.name != "serial":
            assert (run["fetch north"].state, run["fetch west"].state) == ("succeeded", "succeeded")
        assert (run["fetch south"].why, run["by_region"].why) == (why, "'fetch south' failed")
        assert run["report"].why == "'by_region' was skipped"
        assert run.errors.select(["step", "phase", "attempts"]).to_pylist() == [
            {"step": "fetch south", "phase": "call", "attempts": 1}
        ]
        assert f"fetch south: {why}" in run.explain()

    def test_continue_makes_a_report_of_the_other_two(self, executor, sources, addresses, why):
        def report(fetched):
            missing = [
                f"{row['step']}: {row['error_type']}: {row['message']}" for row in fetched.errors.to_pylist()
            ]
            return "\n".join([summary(by_region(fetched.value)), *(f"missing: {one}" for one in missing)])

        flow = bf.Flow("orders")
        fetched = [
            flow.step(fetch, addresses[one], name=f"fetch {one}", per_task=WAITS, retry=bf.Retry(2, backoff=0))
            for one in REGIONS
        ]
        made = flow.step(report, flow.allow_failed(fetched, min_success=0.6), name="report")
        strict = flow.step(report, flow.allow_failed(fetched, min_success=0.7), name="strict")
        run = flow.run(executor=executor, on_error="continue")
        assert run[made].value == (
            f"north: 3 orders, 60 in all\nwest: 2 orders, 15 in all\nmissing: fetch south: {why}"
        )
        assert run[strict].why == "only 2 of 3 succeeded, less than min_success=0.7"
        assert run["fetch south"].attempts == 2
        assert sources.seen == Counter({"north": 1, "west": 1} | ({"south": 2} if "503" in why else {}))


class TestFiles:
    """Listed by one step, read by one task for each, put together by another step."""

    @staticmethod
    def listed(folder):
        return sorted(entry.path for entry in os.scandir(folder))

    @staticmethod
    def sums(file):
        document = json.loads(file.read_bytes())
        return {"name": os.path.basename(file.path), "orders": len(document), "sum": sum(document)}

    @staticmethod
    def write(folder, count, broken=()):
        """Write files of very unequal size, and return what is to be found in them."""
        os.makedirs(folder)
        rng = random.Random(3)
        table = []
        for at in range(count):
            numbers = [rng.randrange(1000) for _ in range(rng.choice([1, 10, 100, 5000]))]
            text = json.dumps(numbers)
            with open(f"{folder}/{at:02}.json", "w") as file:
                file.write(text[:-1] if at in broken else text)
            if at not in broken:
                table.append({"name": f"{at:02}.json", "orders": len(numbers), "sum": sum(numbers)})
        return table

    @pytest.mark.parametrize("through", ["read=", "a step"])
    def test_one_task_for_each(self, executor, tmp_path, through):
        expected = self.write(tmp_path / "in", 5)
        flow = bf.Flow("files")
        paths = flow.step(self.listed, tmp_path / "in")
        if through == "read=":
            rows = flow.map_records(self.sums, paths, read=bf.files, chunk=1)
        else:
            rows = flow.map_records(self.sums, flow.step(bf.files, paths), chunk=1)
        table = flow.step(
            lambda table: table.append_column(
                "share",
                pa.compute.divide(table["sum"].cast("double"), pa.compute.sum(table["sum"]).cast("double")),
            ),
            rows,
            name="table",
        )
        run = flow.run(executor=executor)
        total = sum(row["sum"] for row in expected)
        assert run[table].value.to_pylist() == [row | {"share": row["sum"] / total} for row in expected]
        assert run[rows].report.rows_in == 5

    def test_fan_out_in_a_fan_out(self, executor, tmp_path):
        """Folders, in each of them files, in each of those numbers."""
        expected = [
            {"folder": folder, **row}
            for folder, count in [("a", 3), ("b", 1), ("c", 4)]
            for row in self.write(tmp_path / "in" / folder, count)
        ]

        def files_of(folder):
            for path in self.listed(folder):
                yield {"folder": os.path.basename(folder), "path": path}

        def sums(row):
            with open(row["path"], "rb") as file:
                numbers = json.load(file)
            name = os.path.basename(row["path"])
            return {"folder": row["folder"], "name": name, "orders": len(numbers), "sum": sum(numbers)}

        def total(table):
            return dict(
                zip(*table.group_by("folder").aggregate([("sum", "sum")]).to_pydict().values(), strict=True)
            )

        flow = bf.Flow("nested")
        folders = flow.step(self.listed, tmp_path / "in")
        files = flow.map_records(files_of, folders, chunk=1)
        rows = flow.map_records(sums, files, chunk=1)
        totals = flow.step(total, rows)
        run = flow.run(executor=executor, keep=[rows])
        assert run[rows].value.to_pylist() == expected
        assert run[totals].value == {
            folder: sum(row["sum"] for row in expected if row["folder"] == folder) for folder in "abc"
        }

    def test_forty_of_which_two_are_broken(self, executor, tmp_path):
        expected = self.write(tmp_path / "in", 40, broken=(7, 31))

        def table(read):
            broken = [(os.path.basename(row["source"]), row["error_type"]) for row in read.errors.to_pylist()]
            return read.value.to_pylist(), read.succeeded, read.failed, broken

        flow = bf.Flow("files")
        rows = flow.map_records(self.sums, flow.step(self.listed, tmp_path / "in"), read=bf.files, name="sums")
        told = flow.step(table, flow.allow_failed(rows, min_success=0.9))
        run = flow.run(executor=executor)
        broken = [("07.json", "JSONDecodeError"), ("31.json", "JSONDecodeError")]
        assert run[told].value == (expected, 38, 2, broken)
        assert states(run) == {"listed": "succeeded", "sums": "succeeded", "table": "succeeded"}
        assert run.errors["step"].to_pylist() == ["sums", "sums"]


class TestWordCount:
    """Split, process, combine: however the text is cut, the counts are those of the whole."""

    @staticmethod
    def text():
        rng = random.Random(11)
        words = ["".join(rng.choices("abcdef", k=rng.randrange(1, 4))) for _ in range(1500)]
        return "".join(word + rng.choice([" ", " ", " ", "\n"]) for word in words)

    @pytest.mark.parametrize(("lines", "chunk"), [(1, 7), (13, 1), (13, None), (100, 1), (10_000, 100)])
    def test_any_cut_gives_the_same(self, executor, lines, chunk):
        def split(text):
            whole = text.splitlines()
            return ["\n".join(whole[at : at + lines]) for at in range(0, len(whole), lines)]

        def count(part):
            return [{"word": word, "n": n} for word, n in Counter(part.split()).items()]

        def add_up(table: pa.Table) -> pa.Table:
            return table.group_by("word").aggregate([("n", "sum")]).rename_columns(["word", "n"])

        flow = bf.Flow("words")
        counts = flow.map_records(
            lambda part: iter(count(part)), flow.step(split, flow.step(self.text)), chunk=chunk
        )
        total = flow.step(add_up, counts)
        as_a_tree = flow.map_batches(add_up, counts, combine=add_up, chunk=chunk)
        run = flow.run(executor=executor, keep=True)
        for step in (total, as_a_tree):
            value = run[step].value.to_pydict()
            assert dict(zip(value["word"], value["n"], strict=True)) == Counter(self.text().split())


UNKNOWN = {f"person{at}@example.org" for at in (3, 47, 98)}
RECIPIENTS = [{"to": f"person{at}@example.org", "name": f"Person {at}"} for at in range(100)]
MANY = {"chunk": 10}
"""How the mails are sent: ten by ten."""


def send(recipient, port):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.org", recipient["to"], "Your order"
    mail.set_content(f"Dear {recipient['name']},\n\nit is on its way.")
    with smtplib.SMTP(HOST, port, timeout=LONGEST) as server:
        server.send_message(mail)
    return {"to": recipient["to"], "bytes": len(bytes(mail))}


def delivered(sent):
    """Make a report of what was sent, from the rows on disk and the error table."""
    known = [row["to"] for row in ds.dataset(sent.value, exclude_invalid_files=True).to_table().to_pylist()]
    unknown = {RECIPIENTS[row["record"] - 1]["to"]: row["message"] for row in sent.errors.to_pylist()}
    return {"delivered": known, "refused": unknown, "counts": (sent.succeeded, sent.failed)}


REPORT = {
    "delivered": [one["to"] for one in RECIPIENTS if one["to"] not in UNKNOWN],
    "refused": {
        one["to"]: f"{{'{one['to']}': (550, b'5.1.1 no such mailbox')}}"
        for one in RECIPIENTS
        if one["to"] in UNKNOWN
    },
    "counts": (97, 3),
}


class TestMail:
    """A hundred mails in batches of ten, to three of which nobody answers."""

    @pytest.fixture
    def mail_server(self):
        with MailServer(UNKNOWN).running() as server:
            yield server

    def test_the_report_names_who_got_it_and_who_did_not(self, executor, tmp_path, mail_server):
        flow = bf.Flow("mail")
        sent = flow.map_records(
            send,
            RECIPIENTS,
            into=tmp_path / "sent/",
            args={"port": mail_server.port},
            retry=bf.Retry(attempts=2, backoff=0),
            **MANY,
        )
        report = flow.step(delivered, flow.allow_failed(sent, min_success=0.9))
        run = flow.run(executor=executor, on_error="continue")
        assert run[report].value == REPORT
        assert run[sent].report.chunks == 10
        assert mail_server.received == Counter(REPORT["delivered"])
        assert mail_server.refused == Counter(dict.fromkeys(UNKNOWN, 2))
        texts = dict(mail_server.mails)
        assert all(f"Dear {one['name']}," in texts[one["to"]] for one in RECIPIENTS if one["to"] not in UNKNOWN)

    def test_no_more_at_once_and_a_second_than_the_server_likes(self, executor, mail_server):
        """Three at once from one worker, and 50 a second."""
        flow = bf.Flow("mail")
        sent = flow.map_records(
            send, RECIPIENTS, args={"port": mail_server.port}, concurrency=3, rate="50/s", **MANY
        )
        run = flow.run(executor=executor, limits=bf.Resources(cpus=1))
        assert mail_server.received == Counter(REPORT["delivered"])
        assert run[sent].report.failed == len(UNKNOWN)
        assert 2 <= mail_server.most <= 3
        times = sorted(mail_server.times)
        assert all(late - early >= 0.9 for early, late in zip(times, times[50:], strict=False))

    SCRIPT = f"""
        import os, sys
        sys.path.extend({sys.path!r})
        import batchflow as bf
        from test_examples import MANY, RECIPIENTS, delivered, send

        port, executor = int(sys.argv[1]), sys.argv[2]
        with open("pid", "w") as file:
            file.write(str(os.getpid()))
        flow = bf.Flow("mail")
        sent = flow.map_records(send, RECIPIENTS, into="sent/", args={{"port": port}}, **MANY)
        report = flow.step(delivered, flow.allow_failed(sent, min_success=0.9))
        run = flow.run(executor=executor)
        print((run[sent].state, run[sent].report.before, run[report].value))
    """

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["serial", "processes", pytest.param("ray", marks=pytest.mark.cluster)])
    def test_interrupted_and_begun_again_nobody_gets_it_twice(self, name, script, tmp_path, mail_server):
        """Ctrl-C after the 35th mail: the batches under way are finished, and no other one is begun."""
        mail_server.interrupt_after(35, tmp_path / "pid")
        first = script(self.SCRIPT, mail_server.port, name, check=False)
        assert first.returncode == 130, first.stderr
        assert "finishing what is running, 10 s at most (Ctrl-C again stops at once)" in first.stderr
        assert first.stderr.splitlines()[-1].endswith(
            "interrupted after 0 of 2 steps: what they keep on disk is not done again; run the same again to go on"
        )
        batches = [RECIPIENTS[at : at + 10] for at in range(0, 100, 10)]
        heard = [sum(mail_server.received[one["to"]] for one in batch) for batch in batches]
        wanted = [sum(one["to"] not in UNKNOWN for one in batch) for batch in batches]
        assert all(got in (0, all_of) for got, all_of in zip(heard, wanted, strict=True)), heard
        assert 35 <= sum(heard) < 97
        seen = len(mail_server.mails) + len(mail_server.refused)

        again = script(self.SCRIPT, mail_server.port, name)
        assert again.stdout == f"{('succeeded', seen, REPORT)}\n"
        assert mail_server.received == Counter(REPORT["delivered"])
        assert mail_server.refused == Counter(UNKNOWN)


class TestPlans:
    """Flows of which part depends on what comes."""

    def test_as_many_steps_as_there_are_regions(self, executor, sources):
        """Which ones there are is known only once the index is there."""
        sources.documents["index"] = list(REGIONS)

        def plan(regions, address):
            more = bf.Flow("regions")
            return {
                region: more.step(
                    sum,
                    more.step(
                        lambda document: document["orders"],
                        more.step(fetch, f"{address}{region}", name=f"fetch {region}"),
                        name=f"take {region}",
                    ),
                    name=f"sum {region}",
                )
                for region in regions
            }

        flow = bf.Flow("orders")
        planned = flow.step(plan, flow.step(fetch, sources.address("index"), name="index"), sources.address(""))
        best = flow.step(lambda sums: max(sums, key=sums.get), planned, name="best")
        run = flow.run(executor=executor, keep=[planned])
        assert run[planned].value == {"north": 60, "south": 5, "west": 15}
        assert run[best].value == "north"
        assert [step.name for step in run.steps] == ["index", "plan", "best"] + [
            f"plan/{what} {region}" for region in REGIONS for what in ("fetch", "take", "sum")
        ]
        assert sources.seen == Counter(["index", *REGIONS])

    @pytest.mark.parametrize(
        ("limit", "value", "state"),
        [(10, "60 ordered, alarm sent", "succeeded"), (100, "60 ordered, no alarm", "skipped")],
    )
    def test_a_branch_that_is_taken_only_when_it_is_needed(self, executor, sources, limit, value, state):
        flow = bf.Flow("alarm")
        total = flow.step(
            lambda document: sum(document["orders"]), flow.step(fetch, sources.address("north")), name="total"
        )
        alarm = flow.step(
            lambda total, limit: "alarm sent",
            total,
            limit,
            when=lambda total, limit: total > limit,
            default="no alarm",
            name="alarm",
        )
        told = flow.step("{} ordered, {}".format, total, alarm, name="told")
        run = flow.run(executor=executor)
        assert (run[told].value, run[alarm].state, run.ok) == (value, state, True)
