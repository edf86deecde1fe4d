"""The logs of other programs, read back by their own readers from what they wrote offline."""

import json
import struct
import sys
import time

import pytest
from PIL import Image

from fishr.configuration import dumps, unstructure
from fishr.errors import InputError
from fishr.logs import MLflow, TensorBoard, WandB, with_logs
from fishr.training import Stepped, run

STEPS = 7
NAMES = {"loss", "terms/fishr", "raw/fishr", "weights/fishr", "lr/model", "batch_loss/flip 0.1"}


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (6, 4), "red").save(tmp_path / "figure.png")
    return lambda: {"figure": tmp_path / "figure.png"}


@pytest.fixture
def twice(experiment, tmp_path, picture, monkeypatch):
    """Train with a log, stop after the fifth step, resume from the fourth, and return the folder."""
    monkeypatch.chdir(tmp_path)
    folder, settings, text = tmp_path / "mine", unstructure(experiment), dumps(experiment)

    def begun(logger, pause=0):
        for resume in (False, True):
            time.sleep(pause * resume)
            events = with_logs(
                run(experiment, folder, experiment_text=text, resume=resume), [logger], folder, settings, picture
            )
            for event in events:
                if not resume and isinstance(event, Stepped) and event.state.step == 5:
                    events.close()
        return folder

    return begun


def test_files_of_tensorboard(twice):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = twice(TensorBoard())
    losses = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in losses if "loss" in line}
    read = EventAccumulator(str(folder / "tensorboard")).Reload()
    tags = read.Tags()
    assert {*tags["scalars"]} > NAMES
    assert {one.step: one.value for one in read.Scalars("loss")} == pytest.approx(losses, rel=1e-6)
    assert [one.step for one in read.Scalars("loss")] == list(range(STEPS))
    assert [one.step for one in read.Scalars("accuracy/evaluation/gray")] == [3, 6, 7]
    (image,) = read.Images("figure")
    assert (image.step, image.width, image.height) == (STEPS, 6, 4)
    content = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optimizer.lr" in content


def _records(path):
    """The records of a file of wandb, in LevelDB's format of a log: blocks of 7 bytes and a piece of a record."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if at + 7 + length > len(content):  # not written to its end yet
            return
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if at % 32768 > 32768 - 7:
            at += 32768 - at % 32768
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


@pytest.mark.slow
def test_files_of_wandb(twice, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    # It names the folder of an attempt by the second.
    folder = twice(WandB(), pause=1)
    files = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len({path.name for path in files}) == 1
    # Its service may still write after an attempt has ended.
    until = time.monotonic() + 60
    while not all(any(record.HasField("exit") for record in _records(path)) for path in files):
        assert time.monotonic() < until
        time.sleep(0.1)
    records = [record for path in files for record in _records(path)]
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [row["_step"] for row in rows] == list(range(STEPS + 1))
    assert rows[0].keys() > NAMES
    assert [row["_step"] for row in rows if "accuracy/evaluation/gray" in row] == [3, 6, 7]
    assert (rows[-1]["figure/width"], rows[-1]["figure/height"]) == (6, 4)
    (first, *_) = [record.run for record in records if record.HasField("run")]
    assert first.display_name == "mine"
    config = {item.key: json.loads(item.value_json) for item in first.config.update}
    assert config["optimizer"]["kind"] == "Adam"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_store_of_mlflow(twice, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    twice(MLflow())
    client = MlflowClient()
    (found,) = client.search_runs(["0"])
    assert (found.info.run_name, found.info.status) == ("mine", "FINISHED")
    assert found.data.params["optimizer.kind"] == "Adam"
    assert found.data.params["steps"] == str(STEPS)
    assert found.data.metrics.keys() > NAMES
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [one.step for one in history] == list(range(STEPS))
    assert [artifact.path for artifact in client.list_artifacts(found.info.run_id)] == ["figure.png"]


@pytest.mark.parametrize("logger", [TensorBoard, WandB, MLflow])
def test_a_program_that_is_not_installed(logger, monkeypatch):
    name = logger.__name__.lower()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"--log: {name} is not installed; run pip install -e '\.\[{name}\]' "):
        logger()
