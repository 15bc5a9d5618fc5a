"""LiteLLM, which puts each provider's protocol behind OpenAI's functions. It sends Ollama's servers no key."""
import os
import litellm

litellm.suppress_debug_info = True

BASE, KEY = os.environ["BASE"], "none"
HELLO = [{"role": "user", "content": "hello"}]
ROUTES = [("openai/tiny", BASE + "/v1"), ("ollama_chat/tiny", BASE), ("anthropic/tiny", BASE)]


def ask(model, base, **more):
    return litellm.completion(
        model=model, api_base=base, api_key=KEY, messages=HELLO, max_tokens=8, num_retries=0, timeout=30, **more)


for model, base in ROUTES:
    answer = ask(model, base)
    print(model, answer.choices[0].finish_reason, len(answer.choices[0].message.content) > 0,
          answer.usage.completion_tokens)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in ask(model, base, stream=True))
    print(model, "streamed", len(text) > 0)

# Left to itself LiteLLM sends OpenAI's servers an `encoding_format` of null, which engines refuse.
for model, base, more in [("openai/embed", BASE + "/v1", {"encoding_format": "float"}), ("ollama/embed", BASE, {})]:
    vectors = litellm.embedding(model=model, api_base=base, api_key=KEY, input=["one", "two"], **more)
    print(model, len(vectors.data))

for model, base in ROUTES:
    try:
        ask(model.replace("tiny", "nobody"), base)
    except Exception as error:
        print(model, "unknown", type(error).__name__, getattr(error, "status_code", None))
