"""The official OpenAI client, against engines with random models: what is told is the shape of each answer."""
import json, os, threading, time, urllib.request
import openai

BASE, KEY, PORT = os.environ["BASE"], os.environ["KEY"], os.environ["TINY_PORT"]
client = openai.OpenAI(base_url=BASE + "/v1", api_key=KEY, max_retries=0, timeout=30)
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"], "additionalProperties": False}}}
CITY = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"],
        "additionalProperties": False}


def is_city(text):
    return json.loads(text)["city"] in ("Oslo", "Rome")


print("models", *sorted(model.id for model in client.models.list()))
print("model", client.models.retrieve("tiny").id)

answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8)
print("chat", answer.choices[0].finish_reason, len(answer.choices[0].message.content), answer.usage.completion_tokens)

chunks = list(client.chat.completions.create(
    model="tiny", messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}))
text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
print("stream", len(text), chunks[-1].usage.completion_tokens)

text = client.completions.create(model="tiny", prompt="hello", max_tokens=5)
print("completion", text.choices[0].finish_reason, text.usage.completion_tokens)

answer = client.chat.completions.create(model="tools", messages=HELLO, max_tokens=200, tools=[TOOL], stop=["$"])
call = answer.choices[0].message.tool_calls[0]
print("tools", answer.choices[0].finish_reason, call.function.name, is_city(call.function.arguments))

name, arguments = None, ""
for chunk in client.chat.completions.create(
        model="tools", messages=HELLO, max_tokens=200, tools=[TOOL], stop=["$"], stream=True):
    for piece in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
        name = name or piece.function.name
        arguments += piece.function.arguments or ""
print("tools streamed", name, is_city(arguments))

answer = client.chat.completions.create(
    model="tiny", messages=HELLO, max_tokens=300, temperature=0,
    response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}})
print("schema", is_city(answer.choices[0].message.content))

events = list(client.responses.create(model="tiny", input="hello", max_output_tokens=6, stream=True))
print("responses", events[0].type, events[-1].type, events[-1].response.usage.output_tokens,
      len("".join(event.delta for event in events if event.type == "response.output_text.delta")))
print("response", client.responses.create(model="tiny", input="hello", max_output_tokens=6).status)

vectors = client.embeddings.create(model="embed", input=["one", "two"], encoding_format="float")
print("embeddings", len(vectors.data), len(vectors.data[0].embedding) == len(vectors.data[1].embedding),
      vectors.usage.prompt_tokens > 0)


def fails(call):
    try:
        call()
    except openai.APIStatusError as error:
        return type(error).__name__, error.status_code, error.code
    return "no error"


def chat(**changes):
    return client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "max_tokens": 4, **changes})


print("unknown model", *fails(lambda: chat(model="nobody")))
print("unknown model in responses", *fails(lambda: client.responses.create(model="nobody", input="x")))
print("bad header", *fails(lambda: chat(extra_headers={"X-Priority": "urgent"})))
print("bad body", fails(lambda: chat(messages="hello"))[:2])
stranger = client.with_options(api_key="stranger-0123456789-0123456789-0123")
print("wrong key", *fails(lambda: stranger.chat.completions.create(model="tiny", messages=HELLO)))
print("stopped", *fails(lambda: chat(model="stopped")))

# The library sleeps for as long as it was asked to, and only where it was asked.
naps = []
slept, time.sleep = time.sleep, naps.append
patient = client.with_options(max_retries=2)
fails(lambda: patient.chat.completions.create(model="stopped", messages=HELLO))
print("naps of the patient", naps)
naps.clear()
fails(lambda: patient.chat.completions.create(model="nobody", messages=HELLO))
print("naps for nobody", naps)

# A key of one request a minute, for one model.
limited = client.with_options(api_key=os.environ["LIMITED_KEY"], max_retries=1)


def ask(model):
    return limited.chat.completions.create(model=model, messages=HELLO, max_tokens=4)


print("not its model", *fails(lambda: ask("tools")))
print("its one request", ask("tiny").usage.completion_tokens)
naps.clear()
try:
    ask("tiny")
except openai.RateLimitError as error:
    wait = float(error.response.headers["retry-after"])
    print("limited", error.status_code, error.code, len(naps), abs(naps[0] - wait) <= 1)
time.sleep = slept


def busy():
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/slots")
    with urllib.request.urlopen(request, timeout=5) as reply:
        return any(slot["is_processing"] for slot in json.load(reply))


stream = chat(max_tokens=20000, stream=True, extra_body={"ignore_eos": True})
first = [next(stream) for _ in range(5)]
was_busy = busy()
left = time.monotonic()
stream.close()
while busy():
    time.sleep(0.01)
print("cancel", was_busy, time.monotonic() - left < 1.0)
