"""The pages that are made from classes, commands and docstrings when the site is built."""

from docs.generate import commands, interfaces, settings


def pages() -> dict[str, str]:
    """Return the Markdown of each page by its name below docs/reference."""
    interface = {f"api/{name}": text for name, text in interfaces.pages().items()}
    return {"commands": commands.page()} | settings.pages() | interface
