"""The official Anthropic client."""
import os
import anthropic

BASE, KEY = os.environ["BASE"], os.environ["KEY"]
client = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=30)
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "get_weather", "input_schema": {
    "type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"], "additionalProperties": False}}

message = client.messages.create(model="tiny", max_tokens=8, messages=HELLO, system="be brief")
print("message", message.stop_reason, message.content[0].type, message.usage.output_tokens)

with client.messages.stream(model="tiny", max_tokens=8, messages=HELLO) as stream:
    kinds = [event.type for event in stream]
    whole = stream.get_final_message()
print("stream", kinds[0], kinds[-1], whole.stop_reason, whole.usage.output_tokens)

message = client.messages.create(
    model="tools", max_tokens=200, messages=HELLO, tools=[TOOL], stop_sequences=["$"])
call = message.content[-1]
print("tools", message.stop_reason, call.type, call.name, call.input["city"] in ("Oslo", "Rome"))

with client.messages.stream(
        model="tools", max_tokens=200, messages=HELLO, tools=[TOOL], stop_sequences=["$"]) as stream:
    call = stream.get_final_message().content[-1]
print("tools streamed", call.type, call.name, call.input["city"] in ("Oslo", "Rome"))

print("count", client.messages.count_tokens(model="tiny", messages=HELLO).input_tokens > 0)


def fails(call):
    try:
        call()
    except anthropic.APIStatusError as error:
        return type(error).__name__, error.status_code, error.body["type"], error.body["error"]["type"]
    return "no error"


def ask(who=client, **changes):
    return who.messages.create(**{"model": "tiny", "max_tokens": 4, "messages": HELLO, **changes})


print("unknown model", *fails(lambda: ask(model="nobody")))
print("unknown model counted", *fails(lambda: client.messages.count_tokens(model="nobody", messages=HELLO)))
print("bad header", *fails(lambda: ask(extra_headers={"X-Deadline-Ms": "soon"})))
stranger = client.with_options(api_key="stranger-0123456789-0123456789-0123")
print("wrong key", *fails(lambda: ask(stranger)))
print("stopped", *fails(lambda: ask(model="stopped")))
