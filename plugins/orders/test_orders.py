import unittest
from decimal import Decimal

from orders import Line, Order, clean, price, split
from pcluster import Permanent, testing


class Orders(unittest.TestCase):
    def test_articles_are_evened_out_and_empty_orders_dropped(self):
        self.assertEqual(clean(Order("1", [Line(" Tea ", 2), Line("milk", 0)])), Order("1", [Line("tea", 2)]))
        self.assertIsNone(clean(Order("2", [Line("tea", 0)])))

    def test_each_line_is_an_item(self):
        order = {"id": "1", "lines": [{"article": "tea"}, {"article": "milk", "count": 2}]}
        self.assertEqual([line["count"] for line in testing.run(split, order)], [1, 2])

    def test_a_line_gets_its_price(self):
        line = {"order": "1", "article": "tea", "count": 3}
        self.assertEqual(price(line, {"tea": Decimal("1.10")})["price"], "3.30")
        self.assertEqual(testing.run(price, line, config={"prices": {"tea": "1.10"}})[0]["price"], "3.30")
        with self.assertRaises(Permanent):
            price(line, {})


if __name__ == "__main__":
    unittest.main()
