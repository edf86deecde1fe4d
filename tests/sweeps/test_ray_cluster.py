"""Ray clusters on this machine; skipped where Ray is not installed."""

import socket
import sys
from importlib.util import find_spec

import attrs
import pytest

from fishr.errors import InputError
from fishr.sweeps import ray_cluster
from fishr.sweeps.execution import Conditions
from fishr.sweeps.folder import job_folder
from fishr.sweeps.job_events import JobDone, JobFailed
from fishr.sweeps.ray_cluster import run_on_ray

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed: pip install -e '.[ray]'")


@pytest.fixture
def two_nodes():
    """A cluster whose head runs no task, and its two nodes of one core."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made, [made.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
    made.shutdown()


@pytest.mark.slow
@needs_ray
@pytest.mark.filterwarnings("ignore")  # Ray's own processes and pipes
def test_a_node_that_is_lost_changes_nothing(two_nodes, tmp_path, plan, whole_together, results_of):
    """One of two nodes dies while a job of it is in its middle; and a job that cannot run fails alone."""
    made, nodes = two_nodes
    folder, jobs = tmp_path / "sweep", plan.jobs()[:8]
    bad = attrs.evolve(plan.jobs()[0], settings=attrs.evolve(plan.settings, features={"PACS": "nowhere.h5"}))
    events, killed = [], False
    for event in run_on_ray([bad, *jobs], Conditions(folder), made.address):
        events.append(event)
        if not killed and len(events) > 2:
            made.remove_node(nodes[1], allow_graceful=False)
            killed = True
    assert killed
    done = [event.job.name for event in events if isinstance(event, JobDone)]
    assert sorted(done) == sorted(job.name for job in jobs)
    failed = [event for event in events if isinstance(event, JobFailed)]
    assert [event.job.name for event in failed] == [bad.name]
    assert failed[0].failure.message.startswith("data/nowhere.h5: no such file")
    assert (job_folder(folder, bad) / "failed.json").exists()
    assert results_of(folder, jobs) == {job.name: whole_together[job.name] for job in jobs}


def test_without_ray_its_extra_is_named(tmp_path, plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"run pip install -e '\.\[ray\]' in your checkout"):
        list(run_on_ray(plan.jobs(), Conditions(tmp_path), "local"))


@needs_ray
@pytest.mark.parametrize("address", ["nowhere", "host:port", ":1", "127.0.0.1:99999"])
def test_what_is_no_address_is_refused(tmp_path, plan, address):
    with pytest.raises(InputError, match=r"--ray: got .*expected HOST:PORT, auto or local"):
        list(run_on_ray(plan.jobs(), Conditions(tmp_path), address))


@needs_ray
def test_where_nothing_answers_is_told_at_once(tmp_path, plan):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InputError, match=r"where nothing answers .*ray start --head") as caught:
        list(run_on_ray(plan.jobs(), Conditions(tmp_path), f"127.0.0.1:{port}"))
    assert "\n" not in str(caught.value)


@attrs.frozen
class Nodes:
    """As much of Ray as says what its nodes have."""

    resources: list

    def nodes(self):
        return [{"Alive": alive, "Resources": resources} for alive, resources in self.resources]


NODES = Nodes([(True, {"CPU": 2.0}), (True, {"CPU": 4.0, "GPU": 1.0}), (False, {"CPU": 64.0, "GPU": 8.0})])
PLAIN = Nodes([(True, {"CPU": 2.0})])


@pytest.mark.parametrize(
    ("nodes", "threads", "device", "message"),
    [
        (NODES, 5, "cpu", "threads: got 5, expected at most 4"),
        (PLAIN, 1, "cuda", "--device: got cuda, expected auto or cpu"),
        (Nodes([]), 1, "cpu", "threads: got 1, expected at most 0"),
    ],
)
def test_a_job_that_no_node_could_take_is_refused(tmp_path, nodes, threads, device, message):
    """It would wait forever."""
    with pytest.raises(InputError, match=message):
        ray_cluster._resources(nodes, Conditions(tmp_path, threads, device=device), 1)


@pytest.mark.parametrize(
    ("nodes", "device", "resources", "resolved"),
    [
        (NODES, "auto", {"num_cpus": 2.0, "num_gpus": 0.25}, "cuda"),
        (NODES, "cuda", {"num_cpus": 2.0, "num_gpus": 0.25}, "cuda"),
        (NODES, "cpu", {"num_cpus": 2.0}, "cpu"),
        (PLAIN, "auto", {"num_cpus": 2.0}, "cpu"),
    ],
)
def test_jobs_ask_for_what_they_use(tmp_path, monkeypatch, nodes, device, resources, resolved):
    monkeypatch.chdir(tmp_path)
    given = Conditions(tmp_path.relative_to(tmp_path) / "sweep", 2, device=device)
    found, where = ray_cluster._resources(nodes, given, jobs_per_gpu=4)
    assert (found, where.device, where.folder) == (resources, resolved, tmp_path / "sweep")
