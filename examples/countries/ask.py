"""Asks the running service about countries that were held out of training: `python -m examples.countries.ask`.

Each question is asked in the modes memory and rag. Answers are printed with their sources.
"""

from __future__ import annotations

import argparse

from comem_ray.cli import render_answer
from comem_ray.client import URL, Client
from comem_ray.config import resolve
from examples.countries.world.questions import read_questions


def main() -> None:
    """Asks the first questions below $COMEM_HOME/demo and prints the answers."""
    parser = argparse.ArgumentParser(prog="python -m examples.countries.ask", description=__doc__)
    parser.add_argument("--url", default=URL, help="address of the HTTP endpoint")
    parser.add_argument("--count", type=int, default=6, help="number of questions")
    args = parser.parse_args()
    client, folder = Client(args.url), resolve("demo/questions")
    for question in read_questions(folder)[: args.count]:
        print(f"\nQ: {question.question}   [{question.image}]   expected: {question.answer}")
        for mode in ("memory", "rag"):
            print(render_answer(client.answer(question.question, folder / question.image, mode)))


if __name__ == "__main__":
    main()
