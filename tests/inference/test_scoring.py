"""Scores of a run's model on its own domains and on files: the same images give the same figures."""

import csv
import shutil

import attrs
import numpy as np
import pytest
import torch

from fishr.configuration import dumps, load
from fishr.data.images import Preprocessing, cache_images
from fishr.data.images.list_files import Columns
from fishr.errors import InputError
from fishr.inference import image_files, load_model, predict
from fishr.inference.labelled_domains import labelled_domains
from fishr.inference.scoring import Bootstrap, result_object, score_run, titles
from fishr.metrics import classification
from fishr.protocols import colored_digits
from fishr.training import Experiment, score_checkpoint

FEW = Bootstrap(resamples=30, seed=2)


def scored(run, on=(), **options):
    return score_run(load(run / "config.toml", Experiment), run, on, bootstrap=FEW, **options)[1]


def listed(photos, path, header, *, domain=True):
    rows = [header]
    for image in sorted((photos / "animals").glob("*/*/*.png")):
        environment, name = image.parts[-3:-1]
        if domain or environment == "photo":
            rows.append([str(image), name, environment] if domain else [str(image), name])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_own_domains_have_the_scores_of_the_run_and_the_metrics_of_its_logits(photo_run, photos):
    seen = []
    results = scored(photo_run, data_dir=photos, progress=lambda *counts: seen.append(counts))
    experiment = load(photo_run / "config.toml", Experiment)
    _, scores = score_checkpoint(experiment, photo_run, photos)
    assert tuple(one.score for one in results) == scores
    total = sum(score.samples for score in scores)
    assert seen[-1] == (total, total)
    assert [count for count, _ in seen] == sorted({count for count, _ in seen})
    domains, model = experiment.data(experiment.seed, photos), load_model(photo_run)
    for one, domain in zip(results, (*domains.training, *domains.evaluation), strict=True):
        with torch.no_grad():
            probabilities = model.probabilities(domain.inputs.read(range(len(domain.labels))))
        expected = classification(probabilities, domain.labels, ("cat", "dog", "elk"), resamples=30, seed=2)
        assert one.metrics.confusion == expected.confusion
        for name, metric in one.metrics.metrics.items():
            found, wanted = attrs.astuple(metric), attrs.astuple(expected.metrics[name])
            assert found == pytest.approx(wanted, abs=1e-5), name


def test_the_same_images_have_the_same_figures_from_every_source(photo_run, photos, tmp_path):
    cache_images(photos / "animals", tmp_path / "animals.h5", Preprocessing(32), 1)
    sources = [
        photos / "animals",
        listed(photos, tmp_path / "a.csv", ["path", "label", "domain"]),
        listed(photos, tmp_path / "b.csv", ["path", "class", "environment"]),
        tmp_path / "animals.h5",
    ]
    art, photo = scored(photo_run, sources[:1])
    assert (art.score.samples, photo.score.samples, art.score.split) == (12, 12, "evaluation")
    for source in sources[1:]:
        assert [attrs.evolve(one, source=sources[0]) for one in scored(photo_run, [source])] == [art, photo]
    (alone,) = scored(photo_run, [photos / "animals" / "photo"])
    assert (alone.score, alone.metrics) == (photo.score, photo.metrics)
    without = listed(photos, tmp_path / "photos.csv", ["path", "label"], domain=False)
    (file,) = scored(photo_run, [without])
    assert (file.score.name, file.metrics) == ("photos", photo.metrics)
    own = listed(photos, tmp_path / "own.csv", ["file", "species", "site"])
    columns = Columns("file", "species", "site")
    assert [one.metrics for one in scored(photo_run, [own], columns=columns)] == [art.metrics, photo.metrics]


def test_predictions_of_a_folder_agree(photo_run, photos):
    (found,) = predict(load_model(photo_run), image_files([photos / "animals" / "art"]))
    truth = np.array([("cat", "dog", "elk").index(path.parent.name) for path in found.paths])
    (one,) = scored(photo_run, [photos / "animals" / "art"])
    assert one.metrics.accuracy.value == pytest.approx(np.mean(found.classes.numpy() == truth))


def test_domains_of_one_name_are_told_apart_by_their_source(photo_run, photos, tmp_path):
    other = shutil.copytree(photos / "animals" / "photo", tmp_path / "photo")
    shutil.rmtree(other / "dog")
    results = scored(photo_run, [photos / "animals", other])
    assert titles(results) == ("art", f"{photos / 'animals'}: photo", f"{other}: photo")
    assert results[2].metrics.auroc.reason == "no sample of 'dog'"
    found = result_object(photo_run, 2, results, FEW)
    assert found["domains"][2]["auroc"] == {"value": None, "low": None, "high": None, "reason": "no sample of 'dog'"}
    assert found["worst"]["auroc"]["domain"] in titles(results)[:2]
    assert found["domains"][0]["accuracy"] == attrs.asdict(results[0].metrics.accuracy)


def test_classes_are_matched_by_name(photo_run, photos, tmp_path, experiment_of):
    folder = shutil.copytree(photos / "animals", tmp_path / "animals")
    for environment in ("art", "photo"):
        shutil.rmtree(folder / environment / "cat")
    model = load_model(photo_run)
    assert {int(n) for domain in labelled_domains(folder, model) for n in domain.labels} == {1, 2}
    (tmp_path / "other.toml").write_text(dumps(experiment_of()))
    for domain in labelled_domains(tmp_path / "other.toml", model, data_dir=tmp_path):
        assert domain.labels.tolist() == [1] * 4 + [2] * 4
    (folder / "art" / "elk").rename(folder / "art" / "eel")
    with pytest.raises(
        InputError, match="got the class 'eel', which the run does not know, expected some of: cat, dog, elk"
    ):
        labelled_domains(folder, model)


def test_a_run_that_kept_no_names_needs_all_classes_or_their_numbers(
    photos, tmp_path, train_in, experiment_of, without_signature
):
    model = load_model(without_signature(train_in(experiment_of(), tmp_path / "run", photos)))
    assert model.class_names is None
    (domain,) = labelled_domains(photos / "animals" / "art", model)
    assert domain.labels.tolist() == [number for number in range(3) for _ in range(4)]
    folder = shutil.copytree(photos / "animals" / "art", tmp_path / "art")
    shutil.rmtree(folder / "cat")
    with pytest.raises(InputError, match="got 2 classes, but the run has 3 and kept no names of them"):
        labelled_domains(folder, model)
    (folder / "dog").rename(folder / "2")
    (folder / "elk").rename(folder / "0")
    (domain,) = labelled_domains(folder, model)
    assert domain.labels.tolist() == [0] * 4 + [2] * 4


def test_arrays_are_a_domain(tmp_path, train_in):
    experiment = attrs.evolve(colored_digits(), steps=2)
    run = train_in(experiment, tmp_path / "digits")
    gray = experiment.data(experiment.seed, None).evaluation[1]
    np.savez(tmp_path / "gray.npz", inputs=gray.inputs.numpy(), labels=gray.labels.numpy())
    (own,), (file,) = scored(run, ["gray"]), scored(run, [tmp_path / "gray.npz"])
    assert (own.source, file.source) == (None, tmp_path / "gray.npz")
    assert (file.score, file.metrics) == (own.score, own.metrics)
    with pytest.raises(
        InputError, match=r"got images, but the run's data were none in files.* with inputs of 2 × 8 × 8"
    ):
        scored(run, [tmp_path])
    np.savez(tmp_path / "flat.npz", inputs=gray.inputs.flatten(1).numpy(), labels=gray.labels.numpy())
    with pytest.raises(InputError, match=r"domain 'flat' has inputs of shape \[128\], expected \[2, 8, 8\]"):
        scored(run, [tmp_path / "flat.npz"])


def test_an_environment_is_all_domains_of_it(photo_run, photos):
    assert [one.score.name for one in scored(photo_run, ["art"], data_dir=photos)] == ["env0_in", "env0_out"]
    assert [one.score.name for one in scored(photo_run, ["env1_in"], data_dir=photos)] == ["env1_in"]
    with pytest.raises(InputError, match=r"paint: neither a file or folder, nor a domain of .*; give a path, or"):
        scored(photo_run, ["paint"], data_dir=photos)
