"""The worker of RabbitMQ's "Work Queues" tutorial, and the same with a process for each job.

usage: pika_worker.py PREFETCH [PROGRAM ARGUMENT...]
"""

import os
import sys
import time

import pika

prefetch, job = int(sys.argv[1]), sys.argv[2:]


def callback(channel, method, properties, body):
    if job:
        child = os.posix_spawn(job[0], job, os.environ)
        _, status = os.waitpid(child, 0)
        assert status == 0, f"{job} ended with {status}"
    else:
        time.sleep(body.count(b"."))
    channel.basic_ack(delivery_tag=method.delivery_tag)


connection = pika.BlockingConnection(pika.URLParameters(os.environ["COMPARE_BROKER"]))
channel = connection.channel()
channel.basic_qos(prefetch_count=prefetch)
channel.basic_consume(queue=os.environ["COMPARE_QUEUE"], on_message_callback=callback)
channel.start_consuming()
