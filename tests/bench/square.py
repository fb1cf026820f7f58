"""A worker that squares integers, with no library."""

import json
import os

items = open(int(os.environ["PCLUSTER_WORKER_IN"]), encoding="utf-8")
answers = open(int(os.environ["PCLUSTER_WORKER_OUT"]), "w", encoding="utf-8")


def square(x):
    return x * x


def say(*messages):
    answers.write("".join(json.dumps(message) + "\n" for message in messages))
    answers.flush()


say({"hello": {"version": 1, "name": "square"}})
for line in items:
    item = json.loads(line)["item"]
    request = {"request": item["request"]}
    say({"output": {**request, "value": square(item["value"])}}, {"done": request})
