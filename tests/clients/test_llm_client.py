"""Simon Willison's ``llm``, a command-line client, set up as its documentation says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml


@pytest.fixture(scope="module")
def llm(server, tmp_path_factory):
    """Run ``llm`` with our server's models; the finished process."""
    folder = tmp_path_factory.mktemp("llm")
    models = [
        {
            "model_id": f"local-{name}",
            "model_name": name,
            "api_base": f"{server.url}/v1",
            "api_key_name": "local",
        }
        for name in ("chatrlhf", "v1", "v77")
    ]
    (folder / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    (folder / "keys.json").write_text(json.dumps({"local": "none"}))

    def run(*arguments, text=None):
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env={**os.environ, "LLM_USER_PATH": str(folder)},
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_a_prompt_is_answered_with_and_without_streaming(llm):
    options = ["-o", "seed", "7", "-o", "temperature", "1", "-o", "max_tokens", "20"]
    streamed = llm("-m", "local-chatrlhf", *options, "Where is the cat?")
    assert streamed.returncode == 0, streamed.stderr
    assert streamed.stdout.strip()
    whole = llm("-m", "local-chatrlhf", "--no-stream", *options, "Where is the cat?")
    assert whole.stdout.strip() == streamed.stdout.strip()
    other = llm("-m", "local-v1", *options, "Where is the cat?")
    assert other.returncode == 0, other.stderr
    assert other.stdout != streamed.stdout


def test_a_conversation_goes_on_with_a_system_prompt(llm):
    options = ["-o", "max_tokens", "5", "-o", "seed", "3"]
    first = llm("-m", "local-chatrlhf", "-s", "Be brief.", *options, "One")
    assert first.returncode == 0, first.stderr
    second = llm("-c", *options, "Two")
    assert second.returncode == 0, second.stderr
    logged = json.loads(llm("logs", "--json", "-n", "2").stdout)
    assert [row["prompt"] for row in logged] == ["One", "Two"]
    assert logged[1]["input_tokens"] > logged[0]["input_tokens"] > 0


def test_errors_reach_the_person_as_words(llm):
    missing = llm("-m", "local-v77", "Hello")
    assert missing.returncode != 0
    assert "v77" in missing.stderr
    assert "Traceback" not in missing.stderr
    refused = llm("-m", "local-chatrlhf", "-o", "frequency_penalty", "1", "Hello")
    assert refused.returncode != 0
    assert "frequency_penalty is not supported" in refused.stderr
