"""Download a data set of the Hugging Face hub into the data folder, whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fishr.data.images.image_tables import HUB_FOLDER, datasets_package, is_hub_name
from fishr.errors import InputError, RunFailed, one_line, reason
from fishr.files import present, sync_folder
from fishr.locks import beside, locked
from fishr.paths import check_writable

if TYPE_CHECKING:
    from tqdm import tqdm


def download_table(name: str, data_dir: Path, bars: "type[tqdm[Any]] | None" = None) -> tuple[Path, bool]:
    """Return ``data_dir/huggingface/OWNER/NAME`` of a hub data set, and whether it was downloaded now or kept."""
    # The hub's client draws the bars; None: its own.
    # The hub's own settings hold, such as the token of a gated data set and HF_ENDPOINT of a mirror.
    if not is_hub_name(name):
        raise InputError(f"hf:{name}: no name of a hub data set, expected hf:OWNER/NAME, such as hf:flwrlabs/pacs")
    folder = data_dir / HUB_FOLDER / name
    if present(folder):
        return folder, False
    datasets_package()
    # A dependency of datasets.
    import huggingface_hub

    check_writable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_name(f"{folder.name}.fishr-part")
        with locked(beside(folder), folder, "another process is downloading it; wait for it to end"):
            get: Any = huggingface_hub.snapshot_download
            get(name, repo_type="dataset", local_dir=part, tqdm_class=bars)
            part.rename(folder)
            sync_folder(folder.parent)
    except (InputError, RunFailed):
        raise
    # The hub's client raises errors of its own and of its HTTP library.
    except Exception as error:
        first = next(filter(None, map(one_line, str(error).splitlines())), reason(error))
        raise RunFailed(
            f"hf:{name}: not received ({first}); check the name and the network; the same command resumes"
        ) from error
    return folder, True
