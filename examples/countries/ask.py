"""Asks the running service about countries that were kept out of training: `python -m examples.countries.ask`.

Each question is asked in the modes memory and rag; answers are printed with their sources.
"""

from __future__ import annotations

import argparse
import json

from comem_ray.cli import ENDPOINT, post_question, render_answer
from comem_ray.config import resolve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.countries.ask", description=__doc__)
    parser.add_argument("--url", default=ENDPOINT, help="address of the HTTP endpoint")
    parser.add_argument("--count", type=int, default=6, help="questions to ask")
    args = parser.parse_args()
    folder = resolve("demo/questions")
    for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()[: args.count]:
        question = json.loads(line)
        print(f"\nQ: {question['question']}   [{question['image']}]   expected: {question['answer']}")
        for mode in ("memory", "rag"):
            body = {"question": question["question"], "mode": mode}
            print(render_answer(post_question(args.url, body, folder / question["image"])))


if __name__ == "__main__":
    main()
