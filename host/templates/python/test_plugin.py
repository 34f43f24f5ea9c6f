import json
import unittest

from plugin import handle
from scutwork import Reject, Retry, Task


class TestHandle(unittest.TestCase):
    def test_a_text_is_counted(self):
        output = handle(Task(b"one two\nthree"))
        self.assertEqual(json.loads(output.body), {"lines": 2, "words": 3, "bytes": 13})

    def test_nothing_is_rejected(self):
        with self.assertRaises(Reject):
            handle(Task(b""))

    def test_a_busy_service_is_tried_again(self):
        with self.assertRaises(Retry):
            handle(Task(b"busy"))
        handle(Task(b"busy", attempt=3))
