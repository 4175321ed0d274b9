"""Adapters on disk for an engine: names that say the content, folders that are whole and stay long enough."""

import pytest
import tiny
import torch
from safetensors.torch import load_file

from marl_coop.engines import EngineError
from marl_coop.engines.published import PublishedAdapters
from marl_coop.players import BASE

A, B = tiny.SEATS


@pytest.fixture
def policy():
    return tiny.team(tiny.base_model(24))


def change(policy, adapter):
    with torch.no_grad():
        for parameter in policy.adapter_parameters(adapter):
            parameter.add_(0.1)


def test_an_adapter_that_has_changed_has_a_new_name_and_one_that_has_not_keeps_its_own(policy):
    published = PublishedAdapters(policy)
    first = published.publish()
    change(policy, A)
    second = published.publish()
    assert first[A] != second[A] and first[B] == second[B] and first[BASE] == second[BASE]
    assert published.publish() == second


def test_equal_weights_have_one_name_in_every_process_of_a_run(policy):
    ranks = [PublishedAdapters(policy, prefix="run-").publish() for _ in range(2)]
    names = [{folder.name for folder in published.values()} for published in ranks]
    assert names[0] == names[1] and all(name.startswith("run-") for name in names[0])


def test_two_adapters_of_equal_weights_have_two_names(policy):
    for source, target in zip(policy.adapter_parameters(A), policy.adapter_parameters(B), strict=True):
        target.data.copy_(source.data)
    now = PublishedAdapters(policy).publish()
    assert now[A] != now[B]


def test_a_folder_stays_for_one_publication_longer_than_its_content(policy):
    published = PublishedAdapters(policy)
    versions = []
    for _ in range(4):
        versions.append(published.publish())
        change(policy, A)
    there = [version[A].is_dir() for version in versions]
    assert there == [False, False, True, True]
    assert versions[0][B].is_dir() and versions[0][BASE].is_dir()
    assert {folder for folder in published.folder.iterdir()} == {
        versions[2][A], versions[3][A], versions[3][B], versions[3][BASE]
    }  # fmt: skip


def test_a_folder_appears_whole(policy, monkeypatch):
    published = PublishedAdapters(policy)
    published.publish()
    before = {*published.folder.iterdir()}

    def fails(adapter, folder):
        write(adapter, folder)
        raise OSError("no space")

    write = policy.save_adapter
    monkeypatch.setattr(policy, "save_adapter", fails)
    change(policy, A)
    with pytest.raises(EngineError, match="no space"):
        published.publish()
    appeared = {*published.folder.iterdir()} - before
    assert [folder.name[0] for folder in appeared] == ["."]
    monkeypatch.undo()
    assert load_file(published.publish()[A] / "adapter_model.safetensors")


def test_what_is_published_is_what_the_team_has(policy):
    policy.snapshot_reference()
    change(policy, A)
    published = PublishedAdapters(policy)
    now = published.publish()
    assert now.keys() == {BASE, A, B, "agent_0_start", "agent_1_start"}
    other = tiny.team(tiny.base_model(24), seed=9)
    other.load_adapter(A, now[A])
    assert all(map(torch.equal, other.adapter_parameters(A), policy.adapter_parameters(A)))


def test_the_base_is_an_adapter_of_zeros(policy):
    published = PublishedAdapters(policy)
    weights = load_file(published.publish()[BASE] / "adapter_model.safetensors")
    assert weights and not any(weight.any() for weight in weights.values())


def test_the_folder_goes_when_nobody_needs_it_any_more(policy, tmp_path):
    published = PublishedAdapters(policy, parent=tmp_path / "shared")
    (folder,) = (tmp_path / "shared").iterdir()
    assert published.publish()[A].parent == folder
    del published
    assert not [*(tmp_path / "shared").iterdir()]
