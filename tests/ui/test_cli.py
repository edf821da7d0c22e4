from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from chatrlhf.errors import ModelError, UnknownModelError
from chatrlhf.settings import Settings
from storage import prompts, runs, versions
from storage.database import Database
from ui import cli

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, bool]]]:
    """What would be served: stands in for the server itself."""
    calls: list[tuple[Settings, dict[str, bool]]] = []

    def run(settings: Settings, **options: bool) -> int:
        calls.append((settings, options))
        return 0

    monkeypatch.setitem(sys.modules, "ui.server", types.SimpleNamespace(run=run))
    return calls


def every_command(
    group: Any = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    command = typer.main.get_command(cli.app) if group is None else group
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from every_command(child, (*path, name))


def test_every_command_and_every_option_has_a_help_text() -> None:
    silent = [
        (path, parameter.name)
        for path, command in every_command()
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert silent == []
    assert [path for path, command in every_command() if not command.help] == []


def test_the_commands_are_those_of_the_interface() -> None:
    found = {" ".join(path) for path, _ in every_command()}
    assert found >= {
        *("serve", "train", "simulate", "models", "models get", "versions list", "versions show"),
        *("versions promote", "versions rollback", "versions verify", "versions gc"),
        *("versions export", "prompts import", "export"),
        *("import", "backup", "restore", "check", "doctor"),
    }


def test_every_command_that_tells_something_can_tell_it_to_programs() -> None:
    # Those that work, and those whose output is a file or a page anyway.
    silent = {"serve", "train", "simulate", "api", "models get", "versions promote"}
    silent |= {"versions rollback", "people password", "people keys revoke"}
    for path, command in every_command():
        name = " ".join(path)
        if not name or name in silent or getattr(command, "commands", None):
            continue
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, name


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from ui.cli import main; code = main(['--help']); "
        "heavy = {'torch', 'transformers', 'peft', 'gradio', 'numpy', 'fastapi', 'uvicorn', "
        "'httpx', 'sqlite_utils', 'pydantic'}; "
        "print(sorted(heavy & set(sys.modules)), code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[] 0"
    assert "simulate" in ended.stdout


def test_no_command_serves(data: Path, served: list[Any]) -> None:
    assert cli.main([]) == 0
    settings, options = served[0]
    assert options == {"with_trainer": True, "open_browser": False, "window": False}
    assert settings.data_dir == data


def test_options_of_serve_reach_the_settings_with_or_without_its_name(
    data: Path, served: list[Any], tmp_path: Path
) -> None:
    given = ["--model", "tiny", "--host", "::1", "--port", "0", "--replies", "2"]
    given += [
        "--quantize",
        "fp32",
        "--no-trainer",
        "--open",
        "--window",
        "--data",
        str(tmp_path / "other"),
    ]
    for arguments in (given, ["serve", *given]):
        assert cli.main(arguments) == 0
        settings, options = served.pop()
        assert options == {"with_trainer": False, "open_browser": True, "window": True}
        assert (settings.serve.host, settings.serve.port) == ("::1", 0)
        assert (settings.model.name, settings.model.quantization) == ("tiny", "fp32")
        assert settings.chat.replies == 2
        assert settings.data_dir == tmp_path / "other"


def test_a_wrong_setting_is_explained_without_a_traceback(
    data: Path, served: list[Any], capsys: Capture
) -> None:
    assert cli.main(["serve", "--replies", "9"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("chatrlhf: chat.replies = 9: ")
    assert error.count("\n") == 1
    assert served == []


def test_an_unknown_command_is_a_usage_error(capsys: Capture) -> None:
    assert cli.main(["sevre"]) == 2
    assert "sevre" in capsys.readouterr().err


def test_errors_of_the_program_are_one_line_on_stderr(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def run(*_: Any, **__: Any) -> int:
        raise ModelError("No such model.\nTry another.")

    monkeypatch.setitem(sys.modules, "ui.server", types.SimpleNamespace(run=run))
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "chatrlhf: No such model. Try another.\n")


def test_control_c_exits_with_130(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "ui.server", types.SimpleNamespace(run=run))
    assert cli.main([]) == 130


def test_the_version_is_that_of_the_distribution(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"9.9 of {name}")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "chatrlhf 9.9 of chatrlhf\n"


def test_python_m_ui_is_the_program(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ui", "versions", "list", "--json", "--data", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout) == []


# --- versions -----------------------------------------------------------------------------


def add_version(db: Database, name: str, parent: str | None = None) -> None:
    versions.register_version(db, name, parent, None, "0" * 64, {"accuracy": 0.75}, "a [note]")


def test_versions_are_promoted_shown_and_rolled_back(db: Database, capsys: Capture) -> None:
    add_version(db, "v0")
    add_version(db, "v1", "v0")
    assert cli.main(["versions", "promote", "v0"]) == 0
    assert cli.main(["versions", "promote", "v1"]) == 0
    assert versions.get_alias(db, "live") == "v1"
    capsys.readouterr()
    assert cli.main(["versions", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["v1"]["aliases"] == ["live"]
    assert rows["v0"]["aliases"] == ["previous"]
    assert rows["v1"]["parent"] == "v0"
    assert cli.main(["versions", "show", "v1"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy" in shown
    assert "a [note]" in shown
    assert cli.main(["versions", "rollback"]) == 0
    assert versions.get_alias(db, "live") == "v0"
    assert "v0 is live again" in capsys.readouterr().out


def test_versions_alone_lists_them(db: Database, capsys: Capture) -> None:
    assert cli.main(["versions"]) == 0
    assert "no versions yet" in capsys.readouterr().out
    add_version(db, "v0")
    assert cli.main(["versions"]) == 0
    assert "v0" in capsys.readouterr().out


def test_a_version_that_is_not_there_is_an_error(db: Database, capsys: Capture) -> None:
    assert cli.main(["versions", "promote", "v7"]) == 2
    assert "v7" in capsys.readouterr().err


def test_verify_names_the_damaged_version(db: Database, capsys: Capture) -> None:
    add_version(db, "v0")
    assert cli.main(["versions", "verify", "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)
    assert set(problems) == {"v0"}
    assert problems["v0"]


def add_files(db: Database, name: str) -> Path:
    folder = db.path.parent / "versions" / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 1000)
    return folder


def test_gc_lists_first_and_removes_when_told(db: Database, capsys: Capture) -> None:
    folders = {}
    for number in range(4):
        add_version(db, f"v{number}", f"v{number - 1}" if number else None)
        folders[f"v{number}"] = add_files(db, f"v{number}")
    versions.promote(db, "v3", "local")
    assert cli.main(["versions", "gc", "--keep", "1"]) == 0
    shown = capsys.readouterr().out
    assert "v0" in shown
    assert "Nothing was removed: add --apply" in shown
    assert all(folder.is_dir() for folder in folders.values())
    assert cli.main(["versions", "gc", "--keep", "1", "--apply", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # v3 is live and v2 its parent.
    assert [row["name"] for row in found["versions"]] == ["v0", "v1"]
    assert (found["removed"], found["files_bytes"]) == (True, 2000)
    assert [name for name, folder in folders.items() if folder.is_dir()] == ["v2", "v3"]
    assert versions.get_version(db, "v0").state == "retired"
    assert cli.main(["versions", "gc", "--keep", "1"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert cli.main(["versions", "verify", "v0"]) == 0
    assert "v0: its files were removed" in capsys.readouterr().out


def test_gc_refuses_a_negative_number(db: Database, capsys: Capture) -> None:
    assert cli.main(["versions", "gc", "--keep", "-1"]) == 2


@pytest.fixture
def real_version(db: Database, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """v0 with real files, of a tiny model that the settings name; the model's folder."""
    from serving import RANK, write_random_version
    from tiny_model import write_tiny_model

    from chatrlhf.models.adapter_files import file_sha256
    from chatrlhf.models.base_model import load_base_model
    from chatrlhf.models.lora import LoraBank

    model = write_tiny_model(tmp_path / "model")
    base = load_base_model(model, quantization="fp32")
    folder = data / "versions"
    folder.mkdir(parents=True)
    bank = LoraBank(base.model, RANK, float(RANK))
    made = write_random_version(base, bank, folder, "v0", seed=4)
    sha256 = file_sha256(made / "manifest.json")
    versions.register_version(db, "v0", None, None, sha256, {}, "")
    monkeypatch.setenv("CHATRLHF_MODEL_NAME", str(model))
    return model


def test_a_version_is_exported_in_each_form(
    real_version: Path, tmp_path: Path, capsys: Capture
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = tmp_path / "out"
    assert cli.main(["versions", "export", "v0", str(out / "peft"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(Path(name).name for name in told["files"]) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    plain = AutoModelForCausalLM.from_pretrained(real_version)
    assert PeftModel.from_pretrained(plain, out / "peft").peft_config
    assert cli.main(["versions", "export", "v0", str(out / "whole"), "--merged"]) == 0
    capsys.readouterr()
    merged = AutoModelForCausalLM.from_pretrained(out / "whole")
    assert merged.config.model_type == plain.base_model.config.model_type
    assert cli.main(["versions", "export", "v0", str(out / "v0.gguf"), "--gguf"]) == 0
    assert (out / "v0.gguf").read_bytes()[:4] == b"GGUF"
    capsys.readouterr()
    assert cli.main(["versions", "export", "v0", str(out / "peft")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["versions", "export", "v0", str(out / "x"), "--gguf", "--merged"]) == 2
    assert cli.main(["versions", "export", "v9", str(out / "x")]) == 2
    assert sorted(path.name for path in out.iterdir()) == ["peft", "v0.gguf", "whole"]


# --- train --------------------------------------------------------------------------------


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch, data: Path) -> Callable[..., None]:
    """Let rounds be executed by the fake trainer of the supervisor's tests."""
    script = ROOT / "tests" / "support" / "fake_trainer.py"

    def command(settings: Settings, run_id: int) -> list[str]:
        return [sys.executable, str(script), str(settings.data_dir), str(run_id)]

    def behave(*behaviours: str) -> None:
        data.mkdir(parents=True, exist_ok=True)
        (data / "behaviours").write_text("\n".join(behaviours))

    from chatrlhf.loop.supervisor import Supervisor

    defaults = dict(Supervisor.__init__.__kwdefaults__ or {}) | {"build_command": command}
    monkeypatch.setattr(Supervisor.__init__, "__kwdefaults__", defaults)
    return behave


def test_train_runs_one_round_in_the_foreground(
    db: Database, fake_worker: Callable[..., None], capsys: Capture
) -> None:
    fake_worker("succeed")
    assert cli.main(["train", "--stage", "reward"]) == 0
    (run,) = runs.list_runs(db)
    assert (run.state, run.stages, run.requested_by) == (
        "succeeded",
        ("reward",),
        "the command line",
    )
    assert "Round 1 succeeded. It succeeded." in capsys.readouterr().out


def test_train_exits_with_1_when_the_round_fails(
    db: Database, fake_worker: Callable[..., None], capsys: Capture
) -> None:
    fake_worker("fail")
    assert cli.main(["train"]) == 1
    assert runs.list_runs(db)[0].stages == ("sft", "reward", "ppo")
    assert "Round 1 failed. It failed." in capsys.readouterr().out


def test_train_goes_on_with_a_waiting_round_even_if_paused(
    db: Database, fake_worker: Callable[..., None], capsys: Capture
) -> None:
    runs.enqueue_run(db, ["ppo"], "somebody", {}, 0)
    runs.set_state(db, "trainer", {"paused": True})
    fake_worker("succeed")
    assert cli.main(["train"]) == 0
    output = capsys.readouterr().out
    assert "Round 1 is queued already" in output
    assert "paused; it is resumed" in output


def test_the_trainer_process_executes_its_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int]] = []

    def run_one(settings: Settings, *, run_id: int) -> int:
        asked.append((settings.data_dir, run_id))
        return 3

    worker = types.SimpleNamespace(run_one=run_one)
    monkeypatch.setitem(sys.modules, "chatrlhf.loop.worker", worker)
    assert cli.main(["train", "--run", "7", "--parent", str(os.getpid())]) == 3
    assert asked == [(data, 7)]


def test_the_trainers_own_options_are_hidden(capsys: Capture) -> None:
    assert cli.main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--stage" in shown
    assert "--nice" not in shown
    assert "--parent" not in shown


def test_watching_is_ended_by_control_c(
    db: Database, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ui.commands_train.time.sleep", interrupt)
    assert cli.main(["train", "--watch"]) == 130


# --- models -------------------------------------------------------------------------------


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The catalog, but for what would download or convert."""

    def find_source(name: str) -> str:
        if name != "tiny":
            raise UnknownModelError(f"There is no model {name!r}. Near names: tiny.")
        return name

    def ensure_local(source: str, progress: Callable[[str, float], None]) -> Path:
        progress("converting", 0.5)
        progress("done", 1.0)
        return tmp_path / source

    monkeypatch.setattr("chatrlhf.models.catalog.find_source", find_source)
    monkeypatch.setattr("chatrlhf.models.catalog.ensure_local", ensure_local)


def test_models_lists_the_catalog_as_a_table_or_json(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.terminal.console.width", 200)
    assert cli.main(["models"]) == 0
    table = capsys.readouterr().out
    (line,) = [line for line in table.splitlines() if line.startswith("embedded")]
    # 268,098,176 parameters of 2 bytes each.
    assert "268M" in line
    assert "to 536MB" in line
    assert cli.main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["memory_bytes"]["bf16"] == 536196352


@pytest.mark.usefixtures("catalog")
def test_models_get_fetches_one_or_says_what_is_near(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["models", "get", "tiny"]) == 0
    assert "tiny is ready in" in capsys.readouterr().out
    assert cli.main(["models", "get", "tyni"]) == 2
    assert "Near names: tiny" in capsys.readouterr().err


# --- the rest -----------------------------------------------------------------------------


def test_simulate_names_the_raters_when_one_is_unknown(capsys: Capture) -> None:
    assert cli.main(["simulate", "--rater", "longer"]) == 2
    assert "shorter, positive, question" in capsys.readouterr().err


def test_simulate_writes_its_report_and_fails_when_a_request_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []

    def carry_out(plan: Any, client: Any, console: Any) -> dict[str, Any]:
        plans.append(plan)
        failures = [{"path": "/x"}] if plan.seed == 2 else []
        return {"failures": failures, "waited_to_the_end": plan.seed != 3, "seed": plan.seed}

    monkeypatch.setattr("chatrlhf.loop.simulate.simulate", carry_out)
    report = tmp_path / "report.json"
    options = ["--rater", "noisy:positive:0.2", "--rankings", "7", "--json", str(report)]
    codes = [cli.main(["simulate", *options, "--seed", str(seed)]) for seed in (1, 2, 3)]
    assert codes == [0, 1, 1]
    assert json.loads(report.read_text())["seed"] == 3
    assert plans[0].rater.flip_rate == 0.2
    assert (plans[0].rankings, plans[0].rounds, plans[0].replies) == (7, "final", None)


def test_prompts_are_imported_from_text_and_json_lines(
    db: Database, tmp_path: Path, capsys: Capture
) -> None:
    text = tmp_path / "prompts.txt"
    text.write_bytes("\ufeffWhat is tea?\r\n\r\nWhy is the sky blue?\r\n".encode())
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"text": "What is tea?"}\n{"text": "Hi", "tags": ["x"]}\n')
    assert cli.main(["prompts", "import", str(text)]) == 0
    assert cli.main(["prompts", "import", str(lines)]) == 0
    assert "1 of 2 prompts added" in capsys.readouterr().out
    found = {prompt.text: prompt.tags for prompt in prompts.list_prompts(db)}
    assert found == {"What is tea?": (), "Why is the sky blue?": (), "Hi": ("x",)}


@pytest.mark.parametrize("line", ['{"txt": "a"}', "[1]", "{", '{"text": "a", "tags": "b"}'])
def test_a_wrong_line_is_named_and_nothing_is_imported(
    db: Database, tmp_path: Path, capsys: Capture, line: str
) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text(f'{{"text": "fine"}}\n{line}\n')
    assert cli.main(["prompts", "import", str(lines)]) == 2
    assert "line 2" in capsys.readouterr().err
    assert prompts.list_prompts(db) == []


def test_wrong_lines_can_be_skipped(db: Database, tmp_path: Path, capsys: Capture) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text('text,tags\n"One, two?",a\n,b\nThree?,\n')
    options = ["prompts", "import", str(table), "--tag", "team"]
    assert cli.main(options) == 2
    assert "--skip-wrong" in capsys.readouterr().err
    assert cli.main([*options, "--skip-wrong", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], report["failed"], report["errors"][0]["line"]) == (2, 1, 3)
    assert [one.tags for one in prompts.list_prompts(db)] == [("a", "team"), ("team",)]


def test_prompts_are_written_listed_deleted_and_brought_back(db: Database, capsys: Capture) -> None:
    assert cli.main(["prompts", "list"]) == 0
    assert "chatrlhf prompts add TEXT" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["prompts", "add", "A [long] text", "--template", "summarise"]) == 0
    assert cli.main(["prompts", "add", "Hi", "--tag", "x", "--json"]) == 0
    capsys.readouterr()
    assert cli.main(["prompts", "list", "--json", "--tag", "summarise"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["text"].endswith("A [long] text")
    assert row["ratings"] == 0
    assert cli.main(["prompts", "delete", str(row["id"])]) == 0
    assert [one.text for one in prompts.list_prompts(db)] == ["Hi"]
    assert cli.main(["prompts", "delete", str(row["id"])]) == 2
    assert cli.main(["prompts", "delete", str(row["id"]), "--undo", "--json"]) == 0
    assert len(prompts.list_prompts(db)) == 2
    capsys.readouterr()
    assert cli.main(["prompts", "list"]) == 0
    assert "Summarise this text" in capsys.readouterr().out
    assert cli.main(["prompts", "templates"]) == 0
    assert "classify" in capsys.readouterr().out
    assert cli.main(["prompts", "add", "a", "--template", "poem"]) == 2
