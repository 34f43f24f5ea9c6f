import unittest

from plugin import handle
from scutwork import Reject, Task


def lines(text, **headers):
    return handle(Task(text.encode(), headers)).body.decode()


class TestHandle(unittest.TestCase):
    def code(self, text, **headers):
        with self.assertRaises(Reject) as caught:
            lines(text, **headers)
        return caught.exception.code

    def test_a_row_is_an_object(self):
        self.assertEqual(lines("a,b\n1,x\n2,y\n"), '{"a": "1", "b": "x"}\n{"a": "2", "b": "y"}\n')

    def test_quoted_cells_hold_what_they_want(self):
        self.assertEqual(lines('a,b\r\n"1,\n""2""",ü\r\n'), '{"a": "1,\\n\\"2\\"", "b": "ü"}\n')

    def test_a_byte_order_mark_is_no_part_of_a_name(self):
        self.assertEqual(lines("\ufeffa\n1\n"), '{"a": "1"}\n')

    def test_the_delimiter_may_be_another(self):
        self.assertEqual(lines("a\tb\n1,5\t2\n", delimiter="tab"), '{"a": "1,5", "b": "2"}\n')
        self.assertEqual(self.code("a", delimiter="::"), "bad-delimiter")

    def test_what_is_no_table_is_rejected_with_the_line(self):
        self.assertEqual(self.code(""), "empty")
        self.assertEqual(self.code("a,a\n1,2\n"), "same-name")
        self.assertEqual(self.code("a,b\n1\n"), "ragged")
        self.assertEqual(self.code('a\n"1\n'), "bad-csv")
        with self.assertRaisesRegex(Reject, "line 3 has 1 cells"):
            lines("a,b\n1,2\n3\n")
