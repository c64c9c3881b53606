"""Asks the running service about countries that were kept out of training: `python -m examples.countries.ask`.

Each question is asked in the modes memory and rag; answers are printed with their sources.
"""

from __future__ import annotations

import argparse
import json

from comem_ray.cli import render_answer
from comem_ray.client import URL, Client
from comem_ray.config import resolve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.countries.ask", description=__doc__)
    parser.add_argument("--url", default=URL, help="address of the HTTP endpoint")
    parser.add_argument("--count", type=int, default=6, help="questions to ask")
    args = parser.parse_args()
    client, folder = Client(args.url), resolve("demo/questions")
    for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()[: args.count]:
        question = json.loads(line)
        print(f"\nQ: {question['question']}   [{question['image']}]   expected: {question['answer']}")
        for mode in ("memory", "rag"):
            print(render_answer(client.answer(question["question"], folder / question["image"], mode)))


if __name__ == "__main__":
    main()
