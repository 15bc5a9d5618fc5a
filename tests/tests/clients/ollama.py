"""The official Ollama client: every answer is a translation."""
import json, os
import ollama

BASE, KEY = os.environ["BASE"], os.environ["KEY"]
client = ollama.Client(host=BASE, headers={"Authorization": "Bearer " + KEY}, timeout=30)
HELLO = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"],
        "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}

print("list", *sorted(model.model for model in client.list().models))
print("ps", *sorted(model.model for model in client.ps().models))
shown = client.show("tiny")
print("show", shown.parameters, shown.details.format)

answer = client.chat("tiny", HELLO, options={"num_predict": 8, "num_ctx": 2048})
print("chat", answer.model, answer.done, answer.done_reason, len(answer.message.content), answer.eval_count,
      answer.eval_duration > 0, answer.total_duration > answer.eval_duration)

pieces = list(client.chat("tiny", HELLO, stream=True, options={"num_predict": 8}))
print("stream", len("".join(piece.message.content for piece in pieces)),
      [piece.done for piece in pieces].count(True), pieces[-1].done_reason, pieces[-1].eval_count)

answer = client.generate("tiny", "hello", options={"num_predict": 6, "seed": 1})
print("generate", len(answer.response), answer.eval_count)
pieces = list(client.generate("tiny", "hello", raw=True, stream=True, options={"num_predict": 6}))
print("raw stream", len("".join(piece.response for piece in pieces)), pieces[-1].done)
print("load", client.generate("tiny", "").done_reason)

answer = client.chat("tiny", HELLO, format=CITY, options={"num_predict": 300, "temperature": 0})
print("schema", json.loads(answer.message.content)["city"] in ("Oslo", "Rome"))

options = {"num_predict": 200, "stop": ["$"]}
answer = client.chat("tools", HELLO, tools=[TOOL], options=options)
call = answer.message.tool_calls[0].function
print("tools", call.name, call.arguments["city"] in ("Oslo", "Rome"))
pieces = list(client.chat("tools", HELLO, tools=[TOOL], options=options, stream=True))
calls = [call.function for piece in pieces for call in piece.message.tool_calls or []]
print("tools streamed", len(calls), calls[0].name, calls[0].arguments["city"] in ("Oslo", "Rome"))
turn = HELLO + [answer.message, {"role": "tool", "tool_name": "get_weather", "content": "rain"}]
print("tool answered", client.chat("tiny", turn, options={"num_predict": 4}).eval_count)

vectors = client.embed("embed", ["one", "two"])
print("embed", len(vectors.embeddings), len(vectors.embeddings[0]) == len(vectors.embeddings[1]),
      vectors.prompt_eval_count > 0)


def fails(call):
    try:
        call()
    except ollama.ResponseError as error:
        return error.status_code, len(error.error) > 0
    return "no error"


print("unknown model", *fails(lambda: client.chat("nobody", HELLO)))
print("unknown model shown", *fails(lambda: client.show("nobody")))
print("unknown model streamed", *fails(lambda: list(client.chat("nobody", HELLO, stream=True))))
print("no embeddings here", fails(lambda: client.embed("tiny", "x"))[0] >= 400)
stranger = ollama.Client(host=BASE, headers={"Authorization": "Bearer stranger-0123456789-0123456789-0123"})
print("wrong key", *fails(lambda: stranger.chat("tiny", HELLO)))
print("stopped", *fails(lambda: client.chat("stopped", HELLO)))
