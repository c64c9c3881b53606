"""A prompt without settings of its own."""

from comem_ray.model.prompt import Prompt


def test_a_prompt_is_a_question_alone_unless_it_has_more():
    prompt = Prompt("Q")
    assert (prompt.mode, prompt.image, prompt.memory, list(prompt.items)) == ("none", None, None, [])
    assert (prompt.system, list(prompt.history), prompt.sampling, prompt.max_new_tokens) == (None, [], None, None)
