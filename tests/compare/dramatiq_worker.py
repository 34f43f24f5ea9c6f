"""A Dramatiq actor that is no work, on a queue of the type that the environment says."""

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

QUEUE = os.environ["COMPARE_QUEUE"]


class Broker(RabbitmqBroker):
    """Dramatiq has no setting for the type of its queues."""

    def _build_queue_arguments(self, queue_name):
        arguments = super()._build_queue_arguments(queue_name)
        return {**arguments, "x-queue-type": os.environ["COMPARE_QUEUE_TYPE"]}


broker = Broker(url=os.environ["COMPARE_BROKER"])
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def no_op(payload):
    return None
