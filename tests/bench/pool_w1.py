"""The second of the three usual stages in a pool of processes: lines of JSON from standard input, results in order."""

import json
import multiprocessing
import sys


def count_words(line: str) -> str:
    record = json.loads(line)
    text = record["text"]
    return json.dumps({"id": record["id"], "text": text.upper(), "words": len(text.split())})


if __name__ == "__main__":
    with multiprocessing.Pool() as pool:
        for result in pool.imap(count_words, sys.stdin, chunksize=1000):
            print(result)
