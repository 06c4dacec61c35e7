"""Chat templates and conversations as transformers renders them:  python tests/golden/make_chat.py

Writes tests/data/instruct/chat.json: [{name, models, template, bos, eos, cases: [{messages, text, trained} or
{messages, error}]}]. template is the Jinja text as the models' tokenizer_config.json has it, text is what
apply_chat_template makes of the messages, trained the bytes [from, to) of the assistant's turns: what the text
grows by when the answer is added to a text that ends with the prompt for it, without the newline or space
behind the end token.

Also tests/data/instruct/bpe/tokenizer.json, a byte-level BPE of 500 pieces learnt from the conversations, with the
templates' special tokens; the cases' ids are those of the text by it, and absent where a message spells one of
the special tokens (which transformers would make the special token, and pare does not).
"""
import json
import os

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

IM = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
ALTERNATE = ("{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation "
             "roles must alternate user/assistant/user/assistant/...') }}{% endif %}")
GENERATE_IM = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
ONLY = "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
GEMMA_TURN = (ALTERNATE + "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role "
              "= message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
              "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}")
GEMMA_START = ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
               "{% endif %}{% for message in messages %}")
LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
          "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
          "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
          "{% endfor %}")
LLAMA3_ASK = "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
LLAMA2 = ("{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
          "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}"
          "{% endif %}{% for message in loop_messages %}" + ALTERNATE + "{% if loop.index0 == 0 and "
          "system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + "
          "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] "
          "== 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == "
          "'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
ZEPHYR = ("{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] "
          "+ eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + "
          "eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + "
          "eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n"
          "{% endif %}\n{% endfor %}")
MISTRAL = ("{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
           "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
           "{{ message['content'] + eos_token")
MISTRAL_V1 = """{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported, with the exception of an initial optional system message!') }}
    {%- endif %}
{%- endfor %}
"""
GEMMA3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""
LLAMA32 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "You have access to the following functions. To call a function, please respond with JSON for a function call." }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {{- "Do not use variables.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}

{#- Custom tools are passed in a user message with some extra guidance #}
{%- if tools_in_user_message and not tools is none %}
    {#- Extract the first user message so we can plug it in here #}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Given the following functions, please respond with a JSON for a function call " }}
    {{- "with its proper arguments that best answers the given prompt.\\n\\n" }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {{- "Do not use variables.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""


def chatml_with(system):
    return ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>"
            "system\n" + system + "<|im_end|>\n' }}{% endif %}" + IM + "{% endfor %}" + GENERATE_IM)


# name, models, template, BOS, EOS, what stands in front of an answer beside add_generation_prompt
TEMPLATES = [
    ("chatml", "teknium/OpenHermes-2.5-Mistral-7B", "{% for message in messages %}" + IM + "{% endfor %}" + GENERATE_IM,
     "<s>", "<|im_end|>", ""),
    ("chatml-qwen2", "Qwen/Qwen2-7B-Instruct", chatml_with("You are a helpful assistant."), "", "<|im_end|>", ""),
    ("chatml-smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct",
     chatml_with("You are a helpful AI assistant named SmolLM, trained by Hugging Face"), "<|im_start|>",
     "<|im_end|>", ""),
    ("llama2", "meta-llama/Llama-2-7b-chat-hf", LLAMA2, "<s>", "</s>", ""),
    ("llama3", "meta-llama/Meta-Llama-3-8B-Instruct",
     LLAMA3 + "{% if add_generation_prompt %}" + LLAMA3_ASK + "{% endif %}", "<|begin_of_text|>", "<|eot_id|>", ""),
    ("llama3.2", "meta-llama/Llama-3.2-1B-Instruct", LLAMA32, "<|begin_of_text|>", "<|eot_id|>", ""),
    ("mistral-v0.1", "mistralai/Mistral-7B-Instruct-v0.1", MISTRAL + " + ' ' }}" + ONLY, "<s>", "</s>", ""),
    ("mistral-v0.2", "mistralai/Mistral-7B-Instruct-v0.2", MISTRAL + "}}" + ONLY, "<s>", "</s>", ""),
    ("mistral-v1", "mistralai/Mistral-7B-Instruct-v0.2 (with system texts)", MISTRAL_V1, "<s>", "</s>", ""),
    ("zephyr", "HuggingFaceH4/zephyr-7b-beta, TinyLlama/TinyLlama-1.1B-Chat-v1.0", ZEPHYR, "<s>", "</s>", "\n"),
    ("gemma", "google/gemma-2b-it, google/gemma-2-2b-it", "{{ bos_token }}" + GEMMA_START + GEMMA_TURN, "<bos>", "<eos>", ""),
    ("gemma3", "google/gemma-3-1b-it", GEMMA3, "<bos>", "<eos>", ""),
]
S, U, A = "system", "user", "assistant"
CONVERSATIONS = [
    [(U, "Hello"), (A, "Hi there")],
    [(S, "You are a helpful assistant"), (U, "Hello"), (A, "Hi there"), (U, "Who are you"),
     (A, "   I am an assistant   ")],
    [(U, "  spaces \n"), (A, "two\nlines\n"), (U, "grüße, 你好"), (A, "antwort é")],
    [(S, "  Be brief.\n"), (U, " \n 1+1? "), (A, "2")],
    [(U, "is </s> or <|im_end|> or [/INST] or <end_of_turn> or <|eot_id|> text?"), (A, "Yes, <|im_start|> too.")],
    [(U, "a"), (U, "b"), (A, "c")],
]


SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<|begin_of_text|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"]


def learn(path):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [c for conversation in CONVERSATIONS for _, c in conversation] + ["[INST] [/INST] <|user|>\n<|assistant|>\n"] * 3
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                       show_progress=False))
    bpe.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL])
    bpe.save(path)
    return bpe


def main():
    out = []
    here = os.path.join(os.path.dirname(__file__), "..", "data", "instruct")
    os.makedirs(os.path.join(here, "bpe"), exist_ok=True)
    bpe = learn(os.path.join(here, "bpe", "tokenizer.json"))
    json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"},
              open(os.path.join(here, "bpe", "tokenizer_config.json"), "w"))
    for name, models_, template, bos, eos, more in TEMPLATES:
        tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=bos or None, eos_token=eos)

        def render(m, ask=False):
            return tok.apply_chat_template(m, chat_template=template, tokenize=False, add_generation_prompt=ask,
                                           date_string="26 Jul 2024")

        cases = []
        for conversation in CONVERSATIONS:
            m = [{"role": r, "content": c} for r, c in conversation]
            try:
                text = render(m)
            except Exception as error:
                cases.append({"messages": m, "error": str(error).splitlines()[0]})
                continue
            trained = []
            for i, x in enumerate(m):
                if x["role"] != A:
                    continue
                before, after = render(m[:i], True), render(m[:i + 1])
                before += more if after.startswith(before + more) else ""
                assert after.startswith(before), (name, before, after)
                trained.append([len(before.encode()), len(after.rstrip("\n ").encode())])
            case = {"messages": m, "text": text, "trained": trained}
            if not any(t in x["content"] for t in SPECIAL for x in m):
                case["ids"] = bpe.encode(text, add_special_tokens=False).ids
            cases.append(case)
        out.append({"name": name, "models": models_, "template": template, "bos": bos, "eos": eos, "cases": cases})
    path = os.path.join(here, "chat.json")
    with open(path, "w") as f:
        f.write("[" + ",\n".join(json.dumps(t, ensure_ascii=False) for t in out) + "]")
        f.write("\n")
    print(path, os.path.getsize(path), [len([c for c in t["cases"] if "text" in c]) for t in out])


main()
