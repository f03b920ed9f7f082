import numpy as np
from openai import OpenAI

client = OpenAI()


def embedding(text: str) -> np.ndarray:
    return np.array(client.embeddings.create(input=text, model="nightshift").data[0].embedding)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


asked = embedding("When is the pump oiled?")
assert likeness(asked, embedding("The pump gets oil on Mondays.")) > likeness(asked, embedding("The well is deep."))
many = client.embeddings.create(input=["one", "two"], model="nightshift", encoding_format="float")
assert [one.index for one in many.data] == [0, 1]
