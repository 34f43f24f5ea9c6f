"""Runs each contender against a filled queue, several times in turn, and prints the table.

The rate is that of the middle: from when a tenth of the queue is gone until a tenth is left, as the broker
counts it. So neither the start of an interpreter nor the last few messages count, for nobody.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

import pika

HERE = pathlib.Path(__file__).parent
PAYLOAD = "01234567890123456789"
PROCESSORS = len(os.sched_getaffinity(0))
# How often the broker is asked how many messages are left.
LOOK_EVERY = 0.02
# A contender that takes nothing for so long has failed.
PATIENCE = 120.0


class Contender:
    """Something that takes tasks from a queue."""

    def __init__(self, name, acks, tasks, command, copies=1, tuned=False):
        self.name, self.acks, self.tasks = name, acks, tasks
        self.command, self.copies, self.tuned = command, copies, tuned

    def arguments(self, queue):
        """Of the queue, as the contender itself declares it."""
        return {}

    def messages(self, count):
        """What is put on the queue: properties and a body each."""
        properties = pika.BasicProperties(delivery_mode=2)
        for _ in range(count):
            yield properties, PAYLOAD


class Celery(Contender):
    def messages(self, count):
        for _ in range(count):
            task = str(uuid.uuid4())
            headers = {
                "lang": "py",
                "task": "no_op",
                "id": task,
                "root_id": task,
                "parent_id": None,
                "group": None,
                "retries": 0,
                "timelimit": [None, None],
                "argsrepr": repr((PAYLOAD,)),
                "kwargsrepr": "{}",
                "origin": "compare",
            }
            properties = pika.BasicProperties(
                content_type="application/json",
                content_encoding="utf-8",
                correlation_id=task,
                delivery_mode=2,
                headers=headers,
            )
            options = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
            yield properties, json.dumps([[PAYLOAD], {}, options])


class Dramatiq(Contender):
    def arguments(self, queue):
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue}.XQ"}

    def messages(self, count):
        properties = pika.BasicProperties(delivery_mode=2)
        for _ in range(count):
            message = {
                "queue_name": os.environ["COMPARE_QUEUE"],
                "actor_name": "no_op",
                "args": [PAYLOAD],
                "kwargs": {},
                "options": {},
                "message_id": str(uuid.uuid4()),
                "message_timestamp": int(time.time() * 1000),
            }
            yield properties, json.dumps(message)


def contenders(program):
    bin = pathlib.Path(sys.executable).parent
    celery = [bin / "celery", "-A", "celery_worker", "--quiet", "worker", "-Q", "{queue}", "--loglevel", "error"]
    tuned = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    tutorial = [sys.executable, HERE / "pika_worker.py"]
    true = shutil.which("true")
    python = shutil.which("python3")
    each = PROCESSORS
    ours = [program, "worker", "--broker", "{broker}", "--queue", "{queue}"]
    return [
        Contender("scutwork, default settings", "after the run", 100_000, ours),
        Contender("scutwork, prefetch 512", "after the run", 100_000, ours + ["--prefetch", "512"]),
        Celery("Celery, prefork, default settings", "before the run", 20_000, celery),
        Celery("Celery, prefork, tuned", "before the run", 20_000, celery + tuned, tuned=True),
        Dramatiq("Dramatiq, default settings", "after the run", 30_000, [bin / "dramatiq", "dramatiq_worker"]),
        Contender("the tutorial's pika worker, prefetch 1", "after the run", 20_000, tutorial + ["1"], each),
        Contender("the tutorial's pika worker, prefetch 100", "after the run", 30_000, tutorial + ["100"], each),
        Contender("a native process for each job (`true`)", "after the run", 6_000, tutorial + ["100", true], each),
        Contender("a Python for each job (`python3 -c pass`)", "after the run", 300, tutorial + ["100", python, "-c", "pass"], each),
    ]


def connect(url):
    """To a broker that may be starting still."""
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            return pika.BlockingConnection(pika.URLParameters(url))
        except (pika.exceptions.AMQPError, OSError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


def left(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def fill(channel, queue, contender, queue_type):
    arguments = {"x-queue-type": queue_type, **contender.arguments(queue)}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    for properties, body in contender.messages(contender.tasks):
        channel.basic_publish("", queue, body, properties)
    while left(channel, queue) < contender.tasks:
        time.sleep(LOOK_EVERY)


def processor_time(group):
    """Of every process of a group, and of their children that have ended."""
    ticks = 0
    for directory in pathlib.Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(url, contender, queue_type):
    """Tasks in a second, and microseconds of the worker's processor time for each."""
    queue = f"compare-{uuid.uuid4()}"
    environment = dict(os.environ, COMPARE_BROKER=url, COMPARE_QUEUE=queue, COMPARE_QUEUE_TYPE=queue_type)
    os.environ["COMPARE_QUEUE"] = queue
    if contender.tuned:
        environment["COMPARE_TUNED"] = "1"
    environment["PYTHONPATH"] = str(HERE)
    connection = connect(url)
    channel = connection.channel()
    fill(channel, queue, contender, queue_type)
    command = [str(part).format(broker=url, queue=queue) for part in contender.command]
    with tempfile.TemporaryDirectory() as place, open(f"{place}/log", "w+b") as log:
        workers = [
            subprocess.Popen(command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
            for _ in range(contender.copies)
        ]
        try:
            return middle(channel, queue, contender, [worker.pid for worker in workers])
        except Exception:
            log.seek(0)
            sys.stderr.buffer.write(log.read()[-4000:])
            raise
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            for worker in workers:
                try:
                    worker.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(worker.pid, signal.SIGKILL)
                    worker.wait()
            names = [queue, f"{queue}.dead", f"{queue}.suspects", f"{queue}.paused", f"{queue}.DQ", f"{queue}.XQ"]
            for name in names:
                channel.queue_delete(name)
            channel.exchange_delete(queue)
            connection.close()


def middle(channel, queue, contender, groups):
    most, least = contender.tasks * 0.9, contender.tasks * 0.1
    spent = lambda: sum(processor_time(group) for group in groups)
    began = None
    before = (time.monotonic(), contender.tasks)
    changed = before[0]
    while True:
        time.sleep(LOOK_EVERY)
        now = (time.monotonic(), left(channel, queue))
        if now[1] != before[1]:
            changed = now[0]
        elif now[0] - changed > PATIENCE:
            raise RuntimeError(f"{contender.name} takes nothing; {now[1]} of {contender.tasks} are left")
        if began is None and now[1] <= most:
            began = (*now, spent())
        elif began is not None and now[1] <= least:
            tasks = began[1] - now[1]
            return tasks / (now[0] - began[0]), (spent() - began[2]) / tasks * 1e6
        before = now


def shown(figures):
    number = lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{number(statistics.median(figures))} ({number(min(figures))}..{number(max(figures))})"


def first_line(path, name):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"


def main():
    parser = argparse.ArgumentParser(prog="tests/compare/run")
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--port", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--queue-type", choices=["quorum", "classic"], default="quorum")
    parser.add_argument("--only", default="", help="measure only those with this word in their name")
    arguments = parser.parse_args()
    url = f"amqp://guest:guest@127.0.0.1:{arguments.port}/%2F"
    connection = connect(url)
    server = connection._impl.server_properties
    broker = " ".join(server[key].decode() if isinstance(server[key], bytes) else server[key] for key in ("product", "version"))
    connection.close()
    load_before = os.getloadavg()[0]
    # So that no worker is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    chosen = [each for each in contenders(arguments.program) if arguments.only in each.name]
    measured = {each.name: [] for each in chosen}
    for run in range(arguments.runs):
        # Forwards and backwards in turn, so that what drifts favours nobody.
        for each in chosen if run % 2 == 0 else reversed(chosen):
            rate, cpu = measure(url, each, arguments.queue_type)
            print(f"run {run + 1}: {each.name}: {rate:,.0f} tasks/s, {cpu:.1f} us", file=sys.stderr)
            measured[each.name].append((rate, cpu))

    rates = {name: [rate for rate, _ in figures] for name, figures in measured.items()}
    ours = statistics.median(rates[chosen[0].name])
    requirements = (HERE / "requirements.txt").read_text().split()
    version = subprocess.run([arguments.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"- {PROCESSORS} x {first_line('/proc/cpuinfo', 'model name')}, {first_line('/proc/meminfo', 'MemTotal')}, Linux {platform.release()}; broker and workers share the processors")
    print(f"- {broker}, a durable {arguments.queue_type} queue, persistent messages of 20 bytes of payload")
    print(f"- {version}; {', '.join(requirements)}; Python {platform.python_version()}")
    print(f"- {arguments.runs} runs in turn, median and range; load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")
    print()
    print("| | tasks/s | scutwork against it | processor time of the worker for each, us | acks |")
    print("|---|---|---|---|---|")
    for each in chosen:
        rate = rates[each.name]
        cpu = [cpu for _, cpu in measured[each.name]]
        ratio = ours / statistics.median(rate)
        print(f"| {each.name} | {shown(rate)} | {ratio:.1f}x | {shown(cpu)} | {each.acks} |")


main()
