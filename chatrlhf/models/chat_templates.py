"""Jinja chat templates for tokenizers that bring none, chosen by the markers they know.

``GEMMA`` puts the system prompt before the first user message, as Google's own template does.
"""

from __future__ import annotations

from collections.abc import Callable

GEMMA = """\
{{ bos_token }}
{%- if messages[0].role == 'system' -%}
    {%- set lead = messages[0].content + '\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set lead = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' -}}
    {{- (lead if loop.first else '') + message.content + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<start_of_turn>model\\n' -}}
{%- endif -%}"""

CHATML = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""

LLAMA3 = """\
{{ bos_token }}
{%- for message in messages -%}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}
    {{- message.content + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}"""

PLAIN = """\
{{ bos_token or '' }}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {{- message.content + '\\n\\n' -}}
    {%- elif message.role == 'user' -%}
        {{- 'User:\\n' + message.content + '\\n\\n' -}}
    {%- else -%}
        {{- 'Assistant:\\n' + message.content + (eos_token or '') + '\\n\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- 'Assistant:\\n' -}}
{%- endif -%}"""


def template_for(is_token: Callable[[str], bool]) -> str:
    """The template whose turn markers are tokens; ``PLAIN`` when none are."""
    for markers, template in (
        (("<start_of_turn>", "<end_of_turn>"), GEMMA),
        (("<|im_start|>", "<|im_end|>"), CHATML),
        (("<|start_header_id|>", "<|eot_id|>"), LLAMA3),
    ):
        if all(is_token(marker) for marker in markers):
            return template
    return PLAIN
