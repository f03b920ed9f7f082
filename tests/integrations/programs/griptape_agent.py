import os

from griptape.drivers.prompt.openai import OpenAiChatPromptDriver
from griptape.rules import Rule, Ruleset
from griptape.structures import Agent, Pipeline, Workflow
from griptape.tasks import PromptTask
from griptape.tokenizers import SimpleTokenizer
from griptape.tools import CalculatorTool
from griptape.utils import Stream

at = {"base_url": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"], "model": "nightshift"}
tokenizer = SimpleTokenizer(characters_per_token=4, max_input_tokens=16_000, max_output_tokens=256)
driver = OpenAiChatPromptDriver(tokenizer=tokenizer, **at)

agent = Agent(prompt_driver=driver, rulesets=[Ruleset(name="Keeper", rules=[Rule("Speak like a keeper of a mill")])])
agent.run("When is the pump oiled?")
agent.run("And the valve?")

pipeline = Pipeline()
pipeline.add_tasks(
    PromptTask("Say this in one word: {{ args[0] }}", prompt_driver=driver),
    PromptTask("Say it aloud: {{ parent_output }}", prompt_driver=driver),
)
pipeline.run("The pump is oiled every Monday.")

workflow = Workflow(tasks=[PromptTask(text, prompt_driver=driver) for text in ("Pump?", "Valve?")])
workflow.run()

for chunk in Stream(Agent(prompt_driver=OpenAiChatPromptDriver(tokenizer=tokenizer, stream=True, **at))).run("Pump?"):
    print(chunk.value, end="")

words = OpenAiChatPromptDriver(tokenizer=tokenizer, use_native_tools=False, **at)
Agent(prompt_driver=words, tools=[CalculatorTool()]).run("What is 7 times 6?")
