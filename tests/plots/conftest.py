"""Figures as they were saved."""

import pytest


@pytest.fixture
def figures_of(monkeypatch):
    """The figures that a module of plots saves from now on."""

    def kept(module):
        figures, save = [], module.save

        def keep(figure, path):
            figures.append(figure)
            return save(figure, path)

        monkeypatch.setattr(module, "save", keep)
        return figures

    return kept
