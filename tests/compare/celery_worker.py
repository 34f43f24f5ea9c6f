"""A Celery application with one task that is no work. Its settings come from the environment."""

import os

from celery import Celery
from kombu import Exchange, Queue

QUEUE = os.environ["COMPARE_QUEUE"]

app = Celery("celery_worker", broker=os.environ["COMPARE_BROKER"])
app.conf.task_queues = [
    Queue(
        QUEUE,
        Exchange(QUEUE, type="direct"),
        routing_key=QUEUE,
        queue_arguments={"x-queue-type": os.environ["COMPARE_QUEUE_TYPE"]},
    )
]
if "COMPARE_TUNED" in os.environ:
    app.conf.worker_prefetch_multiplier = 128
    app.conf.task_ignore_result = True
    app.conf.worker_send_task_events = False
    app.conf.broker_pool_limit = None


@app.task(name="no_op")
def no_op(payload):
    return None
