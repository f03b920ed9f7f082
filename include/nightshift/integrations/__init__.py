"""A release inside other frameworks: `corpus` and `endpoint` know none of them, and every adapter stands on these two.

`corpus` is a release's sections and prompt as one asker may see them, `endpoint` is where it answers. `langchain`,
`llamaindex` and `griptape` say the same in the words of each, so that one question finds the same sections with the
same scores through all three. An adapter imports its framework; install it with the extra of that name.
"""
